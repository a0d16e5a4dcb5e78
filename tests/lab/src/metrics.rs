use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::LabError;

/// One time series: a metric's name and its labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    pub name: String,
    pub labels: BTreeMap<String, String>,
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (index, (label, value)) in self.labels.iter().enumerate() {
            let opening = if index == 0 { '{' } else { ',' };
            write!(f, "{opening}{label}={value:?}")?;
        }
        f.write_str(if self.labels.is_empty() { "" } else { "}" })
    }
}

/// One scrape in Prometheus's text format.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics(BTreeMap<Series, f64>);

impl Metrics {
    /// The sum over all series called `name` whose labels include `labels`; zero if there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.0
            .iter()
            .filter(|(series, _)| series.name == name)
            .filter(|(series, _)| {
                labels
                    .iter()
                    .all(|(label, value)| series.labels.get(*label).is_some_and(|v| v == value))
            })
            .map(|(_, value)| value)
            .sum()
    }

    /// Every series with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&Series, f64)> {
        self.0.iter().map(|(series, value)| (series, *value))
    }

    /// The series whose value differs from `before`, as (series, before, now). A missing series
    /// counts as zero.
    pub fn changed_since<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (&'a Series, f64, f64)> {
        self.iter()
            .map(|(series, now)| (series, before.0.get(series).copied().unwrap_or(0.0), now))
            .filter(|(_, before, now)| before != now)
    }
}

impl FromStr for Metrics {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Self, LabError> {
        text.lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                sample(line).ok_or_else(|| LabError::MetricsLine {
                    line: line.to_owned(),
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn sample(line: &str) -> Option<(Series, f64)> {
    let end_of_name = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end_of_name);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(label.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    // A timestamp may follow the value.
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    let name = name.to_owned();
    Some((Series { name, labels }, value))
}

/// The unescaped text up to the closing quote, and the rest.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[index + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAPE: &str = "\
# HELP wsmon_connections Open connections.
# TYPE wsmon_connections gauge
wsmon_connections{listener=\"8080\",state=\"open\"} 3
wsmon_connections{listener=\"8080\",state=\"zombie\"} 2
wsmon_degraded 0
odd{reason=\"a \\\"quoted\\\", b}\"} +Inf 1700000000000
";

    #[test]
    fn labels_and_values_are_read() {
        let metrics: Metrics = SCRAPE.parse().unwrap();
        assert_eq!(metrics.sum("wsmon_connections", &[("state", "open")]), 3.0);
        assert_eq!(
            metrics.sum("wsmon_connections", &[("listener", "8080")]),
            5.0
        );
        assert_eq!(metrics.sum("wsmon_unheard_of", &[]), 0.0);
        assert!(
            metrics
                .sum("odd", &[("reason", "a \"quoted\", b}")])
                .is_infinite()
        );
    }

    #[test]
    fn a_series_is_shown_in_prometheus_notation() {
        let metrics: Metrics = SCRAPE.parse().unwrap();
        let shown: Vec<_> = metrics
            .iter()
            .map(|(series, _)| series.to_string())
            .collect();
        assert!(shown.contains(&"wsmon_connections{listener=\"8080\",state=\"open\"}".to_owned()));
        assert!(shown.contains(&"wsmon_degraded".to_owned()));
    }

    #[test]
    fn only_changed_series_are_listed() {
        let before: Metrics = SCRAPE.parse().unwrap();
        let after: Metrics = SCRAPE.replace("} 3", "} 4").parse().unwrap();
        let changed: Vec<_> = after.changed_since(&before).collect();
        assert_eq!(changed.len(), 1);
        assert_eq!((changed[0].1, changed[0].2), (3.0, 4.0));
    }

    #[test]
    fn a_broken_line_is_an_error_that_shows_it() {
        let error = "wsmon_connections{listener=\"80 1"
            .parse::<Metrics>()
            .unwrap_err();
        assert!(error.to_string().contains("listener"), "{error}");
    }
}
