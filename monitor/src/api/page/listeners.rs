//! The listeners: a table with their state, and the course of the last hour of each.

use std::{
    cmp::Reverse,
    fmt::{self, Display},
};

use super::{
    chart::{Chart, HOUR},
    text::{Count, Counted, Escaped, Seconds},
    trend::TimedPoint,
};
use crate::records::status::{ListenerStatus, StatusRecord};

pub(super) struct ListenerTable<'a>(pub(super) &'a [ListenerStatus]);

impl Display for ListenerTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "<section aria-labelledby=\"listeners\">\n<h2 id=\"listeners\">Listeners</h2>\n\
             <div class=\"scroll\" role=\"group\" aria-labelledby=\"listeners\" tabindex=\"0\">\n<table>\n\
             <thead><tr><th scope=\"col\">Listener</th><th scope=\"col\">Open</th><th scope=\"col\">Zombies</th>\
             <th scope=\"col\">At risk</th><th scope=\"col\">Idle limit</th><th scope=\"col\">Margin</th>\
             <th scope=\"col\">Learned limit</th><th scope=\"col\">Storm</th></tr></thead>\n<tbody>\n",
        )?;
        for listener in self.0 {
            write_row(f, listener)?;
        }
        f.write_str(
            "</tbody>\n</table>\n</div>\n<p class=\"quiet\">The margin is the idle limit minus the silence that \
             99 % of recent silences do not exceed. The learned limit is the range in which the path really \
             drops silent connections.</p>\n</section>\n",
        )
    }
}

fn write_row(f: &mut fmt::Formatter<'_>, listener: &ListenerStatus) -> fmt::Result {
    let whose = if listener.remote { "remote" } else { "local" };
    write!(
        f,
        "<tr><th scope=\"row\">{} <small>{whose} {}{}</small></th><td>{}</td><td{}>{}",
        Escaped(&listener.listener),
        Escaped(&listener.ports),
        match listener.listening_sockets {
            Some(0) => ", nobody listens",
            _ => "",
        },
        Count(listener.open),
        emphasis(listener.zombies.total() > 0),
        Count(listener.zombies.total())
    )?;
    if listener.zombies.confirmed > 0 {
        let confirmed = Count(listener.zombies.confirmed);
        write!(f, " <small>{confirmed} confirmed</small>")?;
    }
    write!(f, "</td><td>{}</td><td>", Count(listener.at_risk))?;
    match listener.idle_limit_seconds {
        Some(limit) => write!(f, "{}", Seconds(limit))?,
        None => f.write_str("none")?,
    }
    if let Some(hop) = &listener.hop {
        write!(f, " <small>{}</small>", Escaped(hop))?;
    }
    let margin = listener.heartbeat_margin_seconds;
    write!(
        f,
        "</td><td{}>",
        emphasis(margin.is_some_and(|margin| margin < 0.0))
    )?;
    match margin {
        Some(margin) => write!(f, "{}", Seconds(margin))?,
        None => f.write_str("unknown")?,
    }
    let bounds = (
        listener.learned_lower_seconds.map(Seconds),
        listener.learned_upper_seconds.map(Seconds),
    );
    f.write_str("</td><td>")?;
    match bounds {
        (Some(survived), Some(killed)) => write!(f, "{survived} to {killed}")?,
        (Some(survived), None) => write!(f, "over {survived}")?,
        (None, Some(killed)) => write!(f, "up to {killed}")?,
        (None, None) => f.write_str("unknown")?,
    }
    write!(f, "</td><td{}>", emphasis(listener.storm.is_some()))?;
    match listener.storm.as_deref() {
        Some("mass_close") => f.write_str("mass close")?,
        Some(phase) => write!(f, "{}", Escaped(phase))?,
        None => f.write_str("no")?,
    }
    f.write_str("</td></tr>\n")
}

fn emphasis(is_bad: bool) -> &'static str {
    if is_bad { " class=\"bad\"" } else { "" }
}

/// The listeners that have charts. The rest is a number.
const CHARTED: usize = 40;

/// Charts of the last hour.
pub(super) struct Courses<'a> {
    pub(super) status: &'a StatusRecord,
    /// In the order of the record.
    pub(super) hours: &'a [Vec<TimedPoint>],
}

impl Display for Courses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut courses: Vec<_> = self.status.listeners.iter().zip(self.hours).collect();
        f.write_str("<section aria-labelledby=\"hour\">\n<h2 id=\"hour\">The last hour</h2>\n")?;
        let first = self.hours.first().and_then(|hour| hour.first());
        if let Some(first) = first.filter(|first| first.began_ago < HOUR) {
            writeln!(
                f,
                "<p>wsmon began {} ago. The charts are empty before that.</p>",
                Seconds(first.began_ago)
            )?;
        }
        if courses.len() > CHARTED {
            courses.sort_by_key(|(listener, hour)| Reverse((had_trouble(hour), listener.open)));
            writeln!(
                f,
                "<p>Charts of {CHARTED} of {} listeners: first those that had zombies, storms or alerts, then \
                 those with the most connections.</p>",
                courses.len()
            )?;
        }
        f.write_str("<div class=\"courses\">\n")?;
        for (index, (listener, hour)) in courses.into_iter().take(CHARTED).enumerate() {
            write_course(f, index, listener, hour)?;
        }
        f.write_str("</div>\n</section>\n")
    }
}

fn had_trouble(hour: &[TimedPoint]) -> bool {
    hour.iter().any(|timed| {
        let point = &timed.point;
        point.zombies > 0 || point.storm || !point.alerts.is_empty()
    })
}

fn write_course(
    f: &mut fmt::Formatter<'_>,
    index: usize,
    listener: &ListenerStatus,
    hour: &[TimedPoint],
) -> fmt::Result {
    let name = listener.listener.as_str();
    let chart = |figure, class, value, marks_storms| Chart {
        id: format!("{class}{index}"),
        class,
        figure,
        listener: name,
        points: hour,
        value,
        marks_storms,
    };
    let open = chart("Open connections", "open", |timed| timed.point.open, true);
    let zombies = chart("Zombies", "zombies", |timed| timed.point.zombies, false);
    write!(
        f,
        "<article aria-labelledby=\"course{index}\">\n<h3 id=\"course{index}\">{}</h3>\n\
         <h4>Open connections</h4>\n{open}\n<h4>Zombies</h4>\n{zombies}\n<p>{}</p>\n</article>\n",
        Escaped(name),
        InWords(hour)
    )
}

/// What the charts show, and what they leave out.
struct InWords<'a>(&'a [TimedPoint]);

impl Display for InWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let points = || self.0.iter().map(|timed| &timed.point);
        let open = || points().map(|point| point.open);
        let most =
            |of: fn(&super::trend::TrendPoint) -> u64| Count(points().map(of).max().unwrap_or(0));
        let (least, greatest) = (open().min().unwrap_or(0), open().max().unwrap_or(0));
        write!(
            f,
            "Open: {} to {}. Most zombies: {}. Most at risk: {}.",
            Count(least),
            Count(greatest),
            most(|point| point.zombies),
            most(|point| point.at_risk)
        )?;
        let margins = points().filter_map(|point| point.margin_seconds);
        if let Some(lowest) = margins.reduce(f64::min) {
            write!(f, " Lowest margin: {}.", Seconds(lowest))?;
        }
        match points().filter(|point| point.storm).count() {
            0 => Ok(()),
            minutes => write!(
                f,
                " Reconnect storm in {}, marked in the chart.",
                Counted(minutes as u64, "minute")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::page::{
            tests::{listener, record},
            trend::TrendPoint,
        },
        records::status::ZombieCounts,
    };

    fn minute(point: TrendPoint) -> TimedPoint {
        TimedPoint {
            began_ago: 60.0,
            ended_ago: 0.0,
            point,
        }
    }

    #[test]
    fn a_row_has_the_state_in_words_and_numbers() {
        let edge = ListenerStatus {
            open: 1204,
            zombies: ZombieCounts {
                confirmed: 2,
                suspected: 1,
            },
            at_risk: 4,
            idle_limit_seconds: Some(60.0),
            hop: Some("lb".to_owned()),
            heartbeat_margin_seconds: Some(-1.5),
            learned_lower_seconds: Some(61.0),
            learned_upper_seconds: Some(75.0),
            storm: Some("mass_close".to_owned()),
            ..listener("edge")
        };
        let feeds = ListenerStatus {
            remote: true,
            listening_sockets: None,
            ..listener("feeds")
        };
        let idle = ListenerStatus {
            listening_sockets: Some(0),
            ..listener("idle")
        };
        let table = ListenerTable(&[edge, feeds, idle]).to_string();
        for row in [
            "<tr><th scope=\"row\">edge <small>local 8080</small></th><td>1,204</td><td class=\"bad\">3 \
             <small>2 confirmed</small></td><td>4</td><td>1 min <small>lb</small></td>\
             <td class=\"bad\">−1.5 s</td><td>1 min 1 s to 1 min 15 s</td><td class=\"bad\">mass close</td></tr>",
            "<tr><th scope=\"row\">feeds <small>remote 8080</small></th><td>0</td><td>0</td><td>0</td>\
             <td>none</td><td>unknown</td><td>unknown</td><td>no</td></tr>",
            "<small>local 8080, nobody listens</small>",
        ] {
            assert!(table.contains(row), "{row} is not in\n{table}");
        }
    }

    #[test]
    fn an_hour_is_also_in_words() {
        let hour = [
            minute(TrendPoint {
                open: 1204,
                zombies: 2,
                at_risk: 3,
                margin_seconds: Some(4.25),
                storm: true,
                ..TrendPoint::default()
            }),
            minute(TrendPoint {
                open: 7,
                margin_seconds: Some(22.0),
                ..TrendPoint::default()
            }),
        ];
        assert_eq!(
            InWords(&hour).to_string(),
            "Open: 7 to 1,204. Most zombies: 2. Most at risk: 3. Lowest margin: 4.3 s. Reconnect storm in 1 \
             minute, marked in the chart."
        );
        assert_eq!(
            InWords(&[]).to_string(),
            "Open: 0 to 0. Most zombies: 0. Most at risk: 0."
        );
    }

    #[test]
    fn of_many_listeners_those_with_trouble_and_many_connections_have_charts() {
        let listeners: Vec<_> = (0..100)
            .map(|index| ListenerStatus {
                open: index,
                ..listener(&format!("l{index}"))
            })
            .collect();
        let status = record(listeners);
        let mut hours = vec![vec![minute(TrendPoint::default())]; 100];
        hours[3][0].point.zombies = 1;
        let courses = Courses {
            status: &status,
            hours: &hours,
        }
        .to_string();
        assert_eq!(courses.matches("<article").count(), CHARTED);
        assert!(
            courses.contains("Charts of 40 of 100 listeners"),
            "{courses}"
        );
        let headings: Vec<_> = courses.split("<h3 id=\"course").skip(1).collect();
        assert!(headings[0].starts_with("0\">l3<"), "{}", headings[0]);
        assert!(headings[1].starts_with("1\">l99<"), "{}", headings[1]);
        assert!(courses.contains("<p>wsmon began 1 min ago."), "{courses}");
        assert!(headings[39].starts_with("39\">l61<"), "{}", headings[39]);
    }
}
