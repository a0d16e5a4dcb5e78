//! OpenMetrics 1.0.0, the text format that scrapers prefer to Prometheus' older one.
//!
//! It has the same series with the same names, and in addition, of each counter and histogram, when it
//! began (`_created`). The bounds of buckets are written as `1.0`, where the older format has `1`.

use std::{borrow::Cow, fmt::Write as _};

use jiff::Timestamp;
use prometheus::proto::{LabelPair, Metric, MetricType};

use super::families::Family;
use monitor_core::Ktime;

/// Units that the name of a family may end with.
const UNITS: [&str; 3] = ["seconds", "bytes", "ratio"];

/// The text of families. `created` converts the beginning of a series to the wall clock.
pub(super) fn encode(families: &[Family], created: impl Fn(Option<Ktime>) -> Timestamp) -> String {
    let mut text = Text::default();
    for family in families {
        text.family(family, &created);
    }
    text.0.push_str("# EOF\n");
    text.0
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, family: &Family, created: &impl Fn(Option<Ktime>) -> Timestamp) {
        let full_name = family.proto.name();
        let kind = family.proto.get_field_type();
        let (name, kind_name) = match kind {
            MetricType::COUNTER => (stem(full_name, "_total"), "counter"),
            MetricType::GAUGE if full_name.ends_with("_info") => (stem(full_name, "_info"), "info"),
            MetricType::GAUGE => (full_name, "gauge"),
            MetricType::HISTOGRAM => (full_name, "histogram"),
            // No builder makes them.
            MetricType::SUMMARY | MetricType::UNTYPED => return,
        };
        self.metadata("HELP", name, &escaped(family.proto.help()));
        self.metadata("TYPE", name, kind_name);
        if let Some(unit) = UNITS.into_iter().find(|unit| has_unit(name, unit)) {
            self.metadata("UNIT", name, unit);
        }
        for (metric, since) in family.proto.get_metric().iter().zip(&family.since) {
            let labels = metric.get_label();
            match kind {
                MetricType::COUNTER => {
                    let value = metric.get_counter().get_value();
                    self.sample(name, "_total", labels, None, &number(value));
                }
                MetricType::HISTOGRAM => self.histogram(name, metric),
                _ => self.sample(
                    full_name,
                    "",
                    labels,
                    None,
                    &number(metric.get_gauge().get_value()),
                ),
            }
            if family.is_cumulative {
                let created = seconds(created(*since));
                self.sample(name, "_created", labels, None, &created);
            }
        }
    }

    fn metadata(&mut self, what: &str, name: &str, value: &str) {
        self.0.extend(["# ", what, " ", name, " ", value, "\n"]);
    }

    fn histogram(&mut self, name: &str, metric: &Metric) {
        let labels = metric.get_label();
        let histogram = metric.get_histogram();
        let count = histogram.get_sample_count().to_string();
        for bucket in histogram.get_bucket() {
            let bound = bound(bucket.upper_bound());
            let count = bucket.cumulative_count().to_string();
            self.sample(name, "_bucket", labels, Some(&bound), &count);
        }
        self.sample(name, "_bucket", labels, Some("+Inf"), &count);
        self.sample(
            name,
            "_sum",
            labels,
            None,
            &number(histogram.get_sample_sum()),
        );
        self.sample(name, "_count", labels, None, &count);
    }

    fn sample(
        &mut self,
        name: &str,
        suffix: &str,
        labels: &[LabelPair],
        le: Option<&str>,
        value: &str,
    ) {
        self.0.extend([name, suffix]);
        let labels = labels
            .iter()
            .map(|pair| (pair.name(), escaped(pair.value())));
        let le = le.map(|le| ("le", Cow::Borrowed(le)));
        let mut separator = '{';
        for (label, value) in labels.chain(le) {
            // Writing to a string never fails.
            let _ = write!(self.0, "{separator}{label}=\"{value}\"");
            separator = ',';
        }
        if separator == ',' {
            self.0.push('}');
        }
        self.0.extend([" ", value, "\n"]);
    }
}

fn stem<'a>(name: &'a str, suffix: &str) -> &'a str {
    name.strip_suffix(suffix).unwrap_or(name)
}

fn has_unit(name: &str, unit: &str) -> bool {
    name.strip_suffix(unit)
        .is_some_and(|rest| rest.ends_with('_'))
}

fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['\\', '"', '\n']) {
        return Cow::Borrowed(text);
    }
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    Cow::Owned(text.replace('\n', "\\n"))
}

fn number(value: f64) -> String {
    match value.is_infinite() {
        true if value > 0.0 => "+Inf".to_owned(),
        true => "-Inf".to_owned(),
        false => value.to_string(),
    }
}

/// The canonical form, which makes a bound the same label with every exporter: as Go writes a float, and
/// with a fraction.
fn bound(value: f64) -> String {
    let scientific = format!("{value:e}");
    let parts = scientific.split_once('e');
    let parts = parts.and_then(|(mantissa, exponent)| Some((mantissa, exponent.parse().ok()?)));
    match parts {
        None => number(value),
        Some((_, -4..=5)) => format!("{value:?}"),
        Some((mantissa, exponent)) => format!("{mantissa}e{exponent:+03}"),
    }
}

/// Since 1970, with milliseconds.
fn seconds(at: Timestamp) -> String {
    let milliseconds = at.as_millisecond();
    format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000)
}

#[cfg(test)]
mod tests;
