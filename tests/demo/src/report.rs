//! The demo's results: a table for people, JSON for programs.

use lab::{DroppedPackets, Metrics};
use serde_json::{Value, json};

use super::story::Outcome;

const HEADINGS: [&str; 5] = [
    "connection",
    "what happened",
    "verdict",
    "found after",
    "the application saw",
];

/// The end of the demo.
#[derive(Debug)]
pub(super) struct Summary {
    outcomes: Vec<Outcome>,
    dropped: DroppedPackets,
    changes: Vec<Change>,
    /// Each failed expectation, as text.
    pub(super) failures: Vec<String>,
}

/// A metric that changed since before the first client.
#[derive(Debug)]
struct Change {
    series: String,
    before: f64,
    now: f64,
}

impl Summary {
    pub(super) fn new(
        outcomes: Vec<Outcome>,
        dropped: DroppedPackets,
        before: &Metrics,
        now: &Metrics,
    ) -> Self {
        let failures = outcomes.iter().filter_map(Outcome::failure).collect();
        let changes = now
            .changed_since(before)
            .filter(|(series, ..)| !series.name.ends_with("_bucket"))
            .map(|(series, before, now)| Change {
                series: series.to_string(),
                before,
                now,
            })
            .collect();
        Self {
            outcomes,
            dropped,
            changes,
            failures,
        }
    }

    pub(super) fn table(&self) -> String {
        let mut rows = vec![HEADINGS.map(str::to_owned)];
        rows.extend(self.outcomes.iter().map(row));
        align(&rows)
    }

    pub(super) fn metrics_listing(&self) -> String {
        let width = self.changes.iter().map(|change| change.series.len()).max();
        let width = width.unwrap_or(0);
        self.changes
            .iter()
            .map(
                |Change {
                     series,
                     before,
                     now,
                 }| format!("  {series:width$}  {before} -> {now}\n"),
            )
            .collect()
    }

    pub(super) fn json(&self) -> Value {
        let Self {
            outcomes,
            dropped,
            changes,
            failures,
        } = self;
        let changes = changes
            .iter()
            .map(
                |Change {
                     series,
                     before,
                     now,
                 }| { json!({ "series": series, "before": before, "now": now }) },
            )
            .collect::<Vec<_>>();
        json!({
            "ok": failures.is_empty(),
            "failures": failures,
            "connections": outcomes.iter().map(connection_json).collect::<Vec<_>>(),
            "dropped_packets": {
                "forgotten": dropped.forgotten,
                "black_holed": dropped.black_holed,
            },
            "metrics_changed": changes,
        })
    }
}

fn row(outcome: &Outcome) -> [String; 5] {
    let story = outcome.story;
    let (verdict, application) = match outcome.verdicts.first() {
        Some(first) => {
            let certainty = outcome.certainty().unwrap_or_default();
            (format!("{}, {certainty}", first.kind), &first.application)
        }
        None => ("none".to_owned(), &outcome.application_at_end),
    };
    let delay = outcome.delay().map(|delay| format!("{delay:.2} s"));
    [
        story.name().to_owned(),
        outcome.what_happened.clone(),
        verdict,
        delay.unwrap_or_else(|| "-".to_owned()),
        application.clone(),
    ]
}

fn connection_json(outcome: &Outcome) -> Value {
    let verdict = outcome.verdicts.first().map(|first| {
        json!({
            "kind": first.kind,
            "certainty": outcome.certainty(),
            "seconds_after_fact": outcome.delay().map(to_millis),
            "confirmed_seconds_after_fact": outcome.confirmation_delay().map(to_millis),
            "application": first.application,
        })
    });
    json!({
        "connection": outcome.story.name(),
        "peer": outcome.peer,
        "what_happened": outcome.what_happened,
        "expected_kind": outcome.story.expected_kind(),
        "verdict": verdict,
        "application_at_end": outcome.application_at_end,
    })
}

/// Seconds, rounded to a thousandth.
fn to_millis(seconds: f64) -> f64 {
    (seconds * 1e3).round() / 1e3
}

/// Columns as wide as their widest cell, with a rule below the first row.
fn align(rows: &[[String; 5]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let line = |cells: &[String; 5]| {
        let padded = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut table = String::new();
    for (index, row) in rows.iter().enumerate() {
        table += &line(row);
        if index == 0 {
            table += &line(&widths.map(|width| "-".repeat(width)));
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::{super::story::Story, *};

    fn summary() -> Summary {
        let outcome = |story| Outcome {
            story,
            peer: "10.77.1.11:1".to_owned(),
            what_happened: "something".to_owned(),
            fact: None,
            verdicts: Vec::new(),
            application_at_end: "open, no error".to_owned(),
        };
        let before = "a 1\nb_bucket{le=\"1\"} 0\n".parse().unwrap();
        let now = "a 3\nb_bucket{le=\"1\"} 9\n".parse().unwrap();
        let outcomes = vec![outcome(Story::Healthy), outcome(Story::Idle)];
        Summary::new(outcomes, DroppedPackets::default(), &before, &now)
    }

    #[test]
    fn the_table_is_aligned_and_has_a_row_for_each_connection() {
        let table = summary().table();
        let column = table.lines().next().unwrap().find("verdict").unwrap();
        for line in table.lines().skip(2) {
            assert_eq!(&line[column..column + 4], "none", "{table}");
        }
        assert_eq!(table.lines().count(), 4);
    }

    #[test]
    fn json_has_the_failures_and_no_buckets() {
        let json = summary().json();
        assert_eq!(json["ok"], false);
        assert_eq!(
            json["failures"][0],
            "idle: no alert, expected zombie/expired"
        );
        assert_eq!(json["metrics_changed"].as_array().unwrap().len(), 1);
        assert_eq!(json["metrics_changed"][0]["now"], 3.0);
    }
}
