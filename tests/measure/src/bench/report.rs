//! A comparison as a table, as JSON and as a picture.

use serde_json::{Value, json};

use super::{
    observer::Observer,
    packets::{Kind, Packets},
    windows::{Comparison, Extent, Row},
};
use crate::{
    machine,
    picture::{Anchor, GRID, LINE_HEIGHT, OTHERS, OURS, Picture},
    statistics::{Estimate, quantile},
};

/// Everything that one run measured.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) extent: Extent,
    pub(super) comparisons: Vec<Comparison>,
    pub(super) packets: Option<Packets>,
    /// Workloads and observers that could not run, and why.
    pub(super) left_out: Vec<(&'static str, &'static str)>,
}

impl Report {
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        for comparison in &self.comparisons {
            text += &comparison_table(comparison);
            text.push('\n');
        }
        if let Some(packets) = &self.packets {
            text +=
                "nanoseconds per packet, medians; above the cost of a program that does nothing\n";
            for (title, measured) in places(packets) {
                text += &format!("  {title}\n");
                for Kind {
                    name,
                    nanos,
                    above_floor,
                } in Packets::kinds(measured)
                {
                    text += &format!(
                        "    {name:<24} in {:>4.0} ({:>+4.0})   out {:>4.0} ({:>+4.0})\n",
                        nanos[0], above_floor[0], nanos[1], above_floor[1]
                    );
                }
            }
        }
        for (name, why) in &self.left_out {
            text += &format!("left out: {name}: {why}\n");
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        let packets = self
            .packets
            .as_ref()
            .map(|packets| json!({ "one_cpu": packets.one_cpu, "any_cpu": packets.any_cpu }));
        let left_out = self
            .left_out
            .iter()
            .map(|(name, why)| json!({ "name": name, "why": why }));
        json!({
            "machine": machine::description(),
            "pairs": self.extent.pairs,
            "window_seconds": self.extent.window.as_secs_f64(),
            "workloads": self.comparisons.iter().map(comparison_json).collect::<Vec<_>>(),
            "packets": packets,
            "left_out": left_out.collect::<Vec<_>>(),
        })
    }

    /// The throughput that each observer costs, with its interval.
    pub(super) fn picture(&self) -> String {
        const LEFT: f64 = 170.0;
        const SCALE: f64 = 420.0;
        const RIGHT: f64 = 190.0;
        let rows: usize = self.comparisons.iter().map(|of| of.rows.len()).sum();
        let lines = rows as f64 + self.comparisons.len() as f64 * 2.6 + 1.5;
        let width = LEFT + SCALE + RIGHT;
        let title = "Throughput lost to each observer, by workload";
        let mut picture = Picture::new(width, lines * LINE_HEIGHT, title);
        let x = |lost: f64| LEFT + lost.clamp(0.0, 1.0) * SCALE;
        let mut y = LINE_HEIGHT;
        picture.heading(0.0, y, "Throughput lost (median and 95 % interval)");
        for comparison in &self.comparisons {
            y += LINE_HEIGHT * 1.8;
            let alone = quantile(&comparison.alone, 0.5).unwrap_or_default();
            let heading = format!(
                "{}: {} {} a second alone",
                comparison.workload.title(),
                thousands(alone),
                comparison.workload.unit()
            );
            picture.heading(0.0, y, &heading);
            let bottom = y + LINE_HEIGHT * (comparison.rows.len() as f64 + 0.3);
            for tenth in 0..=5 {
                let at = x(f64::from(tenth) * 0.2);
                picture.line((at, y + 6.0), (at, bottom), GRID, 1.0);
                let label = format!("{} %", tenth * 20);
                picture.text(at, bottom + 11.0, Anchor::Middle, &label);
            }
            for row in &comparison.rows {
                y += LINE_HEIGHT;
                picture.text(LEFT - 8.0, y, Anchor::End, row.observer.name());
                let Some(ratio) = Estimate::of(&row.ratios) else {
                    continue;
                };
                let colour = match row.observer {
                    Observer::Wsmon | Observer::WsmonFrames => OURS,
                    _ => OTHERS,
                };
                let end = x(1.0 - ratio.median);
                picture.bar(LEFT, y - 9.0, (end - LEFT).max(1.0), 10.0, colour);
                let (low, high) = (x(1.0 - ratio.high), x(1.0 - ratio.low));
                picture.line((low, y - 4.0), (high, y - 4.0), crate::picture::INK, 2.0);
                let label = format!("{}{}", lost(ratio), seen_words(row));
                picture.text(high.max(end) + 6.0, y, Anchor::Start, &label);
            }
            y = bottom - LINE_HEIGHT * 0.5 + 11.0;
        }
        picture.svg()
    }
}

fn comparison_table(comparison: &Comparison) -> String {
    let median = |values: &[f64]| quantile(values, 0.5).unwrap_or_default();
    let workload = comparison.workload;
    let mut text = format!(
        "{}: {} {} a second alone, CPUs {:.0} % busy\n  {:<22} {:>7}  {:<17} {:>8}  {:>6}\n",
        workload.title(),
        thousands(median(&comparison.alone)),
        workload.unit(),
        median(&comparison.busy) * 100.0,
        "with",
        "ratio",
        "95 % interval",
        "lost",
        "seen"
    );
    for row in &comparison.rows {
        let Some(Estimate { median, low, high }) = Estimate::of(&row.ratios) else {
            continue;
        };
        let seen = row
            .seen()
            .map_or_else(|| "-".to_owned(), |seen| format!("{:.0} %", seen * 100.0));
        text += &format!(
            "  {:<22} {median:>7.3}  {:<17} {:>6.1} %  {seen:>6}\n",
            row.observer.name(),
            format!("{low:.3} to {high:.3}"),
            (1.0 - median) * 100.0,
        );
    }
    text
}

fn comparison_json(comparison: &Comparison) -> Value {
    let rows = comparison.rows.iter().map(|row| {
        let ratio = Estimate::of(&row.ratios);
        json!({
            "observer": row.observer.name(),
            "pairs": row.ratios.len(),
            "ratio_median": ratio.map(|ratio| rounded(ratio.median)),
            "ratio_95_percent": ratio.map(|ratio| [rounded(ratio.low), rounded(ratio.high)]),
            "seen": row.seen().map(rounded),
            "dropped": row.lost(),
            "ratios": row.ratios.iter().copied().map(rounded).collect::<Vec<_>>(),
        })
    });
    json!({
        "workload": comparison.workload.name(),
        "title": comparison.workload.title(),
        "unit": comparison.workload.unit(),
        "alone_per_second": quantile(&comparison.alone, 0.5).map(f64::round),
        "cpus_busy": quantile(&comparison.busy, 0.5).map(rounded),
        "rows": rows.collect::<Vec<_>>(),
    })
}

fn places(packets: &Packets) -> [(&'static str, &Value); 2] {
    [
        ("both ends on one CPU", &packets.one_cpu),
        ("both ends where the scheduler puts them", &packets.any_cpu),
    ]
}

fn lost(ratio: Estimate) -> String {
    let percent = |ratio: f64| (1.0 - ratio) * 100.0;
    format!(
        "{:.1} % ({:.1} to {:.1})",
        percent(ratio.median),
        percent(ratio.high),
        percent(ratio.low)
    )
}

/// Empty unless something was missed.
fn seen_words(row: &Row) -> String {
    match row.seen() {
        Some(seen) if seen < 0.985 => format!(", saw {:.0} %", seen * 100.0),
        _ => String::new(),
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// A whole number with commas.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
