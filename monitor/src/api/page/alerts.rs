//! How many alerts of each kind began in the last hour.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fmt::{self, Display},
};

use super::{
    text::{Count, Counted, Escaped},
    trend::TimedPoint,
};
use crate::records::status::StatusRecord;

/// The listeners that a row names. The rest is a number.
const NAMED: usize = 3;

/// Units of the view box of a bar.
const BAR: f64 = 100.0;

pub(super) struct AlertCounts<'a> {
    pub(super) status: &'a StatusRecord,
    /// In the order of the record.
    pub(super) hours: &'a [Vec<TimedPoint>],
}

/// The alerts of one kind.
#[derive(Default)]
struct Kind<'a> {
    count: u64,
    by_listener: Vec<(&'a str, u64)>,
}

impl Display for AlertCounts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "<section aria-labelledby=\"alerts\">\n<h2 id=\"alerts\">Alerts of the last hour</h2>\n",
        )?;
        let kinds = self.kinds();
        let Some(most) = kinds.first().map(|(_, kind)| kind.count) else {
            return f.write_str("<p>No alerts began in the last hour.</p>\n</section>\n");
        };
        f.write_str(
            "<div class=\"scroll\" role=\"group\" aria-labelledby=\"alerts\" tabindex=\"0\">\n<table>\n\
             <thead><tr><th scope=\"col\">Kind</th><th scope=\"col\">Began</th><th scope=\"col\">Share of the \
             most frequent</th><th scope=\"col\">Listeners</th></tr></thead>\n<tbody>\n",
        )?;
        for (name, kind) in kinds {
            let width = kind.count as f64 / most as f64 * BAR;
            writeln!(
                f,
                "<tr><th scope=\"row\">{name}</th><td>{}</td><td><svg role=\"img\" class=\"bar\" \
                 viewBox=\"0 0 {BAR} 10\" aria-label=\"{width:.0} %\"><rect width=\"{width:.1}\" height=\"10\"/>\
                 </svg></td><td>{}</td></tr>",
                Count(kind.count),
                Listeners(&kind.by_listener)
            )?;
        }
        f.write_str("</tbody>\n</table>\n</div>\n</section>\n")
    }
}

impl AlertCounts<'_> {
    /// The kinds that occurred, the most frequent first.
    fn kinds(&self) -> Vec<(&'static str, Kind<'_>)> {
        let mut kinds: BTreeMap<&'static str, Kind<'_>> = BTreeMap::new();
        for (listener, hour) in self.status.listeners.iter().zip(self.hours) {
            let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
            for (kind, count) in hour.iter().flat_map(|timed| &timed.point.alerts) {
                *counts.entry(kind).or_default() += count;
            }
            for (kind, count) in counts {
                let kind = kinds.entry(kind).or_default();
                kind.count += count;
                kind.by_listener.push((&listener.listener, count));
            }
        }
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by_key(|(_, kind)| Reverse(kind.count));
        for (_, kind) in &mut kinds {
            kind.by_listener.sort_by_key(|(_, count)| Reverse(*count));
        }
        kinds
    }
}

/// `edge 12, chat 3 and 2 others`.
struct Listeners<'a>(&'a [(&'a str, u64)]);

impl Display for Listeners<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, count)) in self.0.iter().take(NAMED).enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{} {}", Escaped(name), Count(*count))?;
        }
        match self.0.len().saturating_sub(NAMED) {
            0 => Ok(()),
            others => write!(f, " and {}", Counted(others as u64, "other")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::page::{
        tests::{listener, record},
        trend::TrendPoint,
    };

    fn hour(alerts: &[(&'static str, u64)]) -> Vec<TimedPoint> {
        let minute = |(kind, count): &(&'static str, u64)| TimedPoint {
            began_ago: 60.0,
            ended_ago: 0.0,
            point: TrendPoint {
                alerts: BTreeMap::from([(*kind, *count)]),
                ..TrendPoint::default()
            },
        };
        alerts.iter().map(minute).collect()
    }

    #[test]
    fn kinds_come_by_frequency_with_their_listeners() {
        let status = record(["a", "b", "c", "d", "e"].map(listener).to_vec());
        let hours = [
            hour(&[("quiet", 1), ("expired", 2), ("expired", 1)]),
            hour(&[("expired", 40)]),
            hour(&[("expired", 4)]),
            hour(&[("expired", 1)]),
            hour(&[]),
        ];
        let section = AlertCounts {
            status: &status,
            hours: &hours,
        }
        .to_string();
        let rows: Vec<_> = section.split("<th scope=\"row\">").skip(1).collect();
        assert_eq!(rows.len(), 2, "{section}");
        assert!(rows[0].starts_with("expired</th><td>48</td>"), "{section}");
        assert!(
            rows[0].contains("<td>b 40, c 4, a 3 and 1 other</td>"),
            "{section}"
        );
        assert!(rows[1].starts_with("quiet</th><td>1</td>"), "{section}");
        assert!(
            rows[1].contains("aria-label=\"2 %\"><rect width=\"2.1\""),
            "{section}"
        );
    }
}
