//! The course of a figure over the last hour, as an inline SVG.

use std::fmt::{self, Display};

use super::{
    text::{Count, Escaped},
    trend::TimedPoint,
};

/// Units of the view box: pixels on a phone.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 118.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 352.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 94.0;

/// Seconds.
pub(super) const HOUR: f64 = 3600.0;

/// An area chart in which each minute has its value. It begins at the left edge an hour ago.
pub(super) struct Chart<'a> {
    /// Unique in the document.
    pub(super) id: String,
    /// The class of the area: its colour.
    pub(super) class: &'static str,
    /// What is counted, such as `Open connections`.
    pub(super) figure: &'static str,
    pub(super) listener: &'a str,
    pub(super) points: &'a [TimedPoint],
    pub(super) value: fn(&TimedPoint) -> u64,
    /// Whether to mark the minutes of reconnect storms.
    pub(super) marks_storms: bool,
}

impl Display for Chart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, class, .. } = self;
        let top = axis_top(self.values().max().unwrap_or(0));
        write!(
            f,
            "<svg role=\"img\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" aria-labelledby=\"{id}t {id}d\">\n\
             <title id=\"{id}t\">{} of {}</title>\n<desc id=\"{id}d\">{}</desc>\n",
            self.figure,
            Escaped(self.listener),
            self.description()
        )?;
        if self.marks_storms {
            self.write_storms(f)?;
        }
        writeln!(
            f,
            "<path class=\"axis\" d=\"M{LEFT} {TOP}H{RIGHT}M{LEFT} {BOTTOM}H{RIGHT}\"/>"
        )?;
        write!(f, "<path class=\"{class}\" d=\"")?;
        self.write_area(f, top)?;
        f.write_str("\"/>\n")?;
        let (label_top, label_bottom, below) = (TOP + 4.0, BOTTOM + 4.0, BOTTOM + 18.0);
        let (beside, middle) = (LEFT - 6.0, f64::midpoint(LEFT, RIGHT));
        writeln!(
            f,
            "<g aria-hidden=\"true\"><text class=\"end\" x=\"{beside}\" y=\"{label_top}\">{}</text>\
             <text class=\"end\" x=\"{beside}\" y=\"{label_bottom}\">0</text>\
             <text x=\"{LEFT}\" y=\"{below}\">60 min ago</text>\
             <text class=\"middle\" x=\"{middle}\" y=\"{below}\">30 min ago</text>\
             <text class=\"end\" x=\"{RIGHT}\" y=\"{below}\">now</text></g>\n</svg>",
            Count(top)
        )
    }
}

impl Chart<'_> {
    fn values(&self) -> impl Iterator<Item = u64> {
        self.points.iter().map(self.value)
    }

    /// The same in words.
    fn description(&self) -> String {
        let Some(now) = self.values().last() else {
            return "No data yet.".to_owned();
        };
        let least = self.values().min().unwrap_or(now);
        let most = self.values().max().unwrap_or(now);
        match least == most {
            true => format!("Always {}.", Count(now)),
            false => format!(
                "Now {}, between {} and {}.",
                Count(now),
                Count(least),
                Count(most)
            ),
        }
    }

    /// Up at the beginning of the first minute, along the values, and down at the end of the last one.
    fn write_area(&self, f: &mut fmt::Formatter<'_>, top: u64) -> fmt::Result {
        let Some(first) = self.points.first() else {
            return Ok(());
        };
        write!(f, "M{:.1} {BOTTOM}", x(first.began_ago))?;
        for point in self.points {
            let share = (self.value)(point) as f64 / top as f64;
            let y = BOTTOM - share * (BOTTOM - TOP);
            write!(f, "V{y:.1}H{:.1}", x(point.ended_ago))?;
        }
        write!(f, "V{BOTTOM}Z")
    }

    fn write_storms(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let storms = self.points.chunk_by(|a, b| a.point.storm == b.point.storm);
        for storm in storms.filter(|minutes| minutes[0].point.storm) {
            let (first, last) = (&storm[0], &storm[storm.len() - 1]);
            let (from, to) = (x(first.began_ago), x(last.ended_ago));
            writeln!(
                f,
                "<rect class=\"storm\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{}\"/>",
                to - from,
                BOTTOM - TOP
            )?;
        }
        Ok(())
    }
}

fn x(seconds_ago: f64) -> f64 {
    RIGHT - (seconds_ago / HOUR).min(1.0) * (RIGHT - LEFT)
}

/// The upper end of an axis to `most`: 1, 2 or 5 with zeros.
fn axis_top(most: u64) -> u64 {
    let mut step = 1_u64;
    loop {
        for factor in [1, 2, 5] {
            let top = step.saturating_mul(factor);
            if top >= most {
                return top;
            }
        }
        step = step.saturating_mul(10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::page::trend::TrendPoint;

    fn minute(index: u32, open: u64, storm: bool) -> TimedPoint {
        let began_ago = 3600.0 - 60.0 * f64::from(index);
        TimedPoint {
            began_ago,
            ended_ago: began_ago - 60.0,
            point: TrendPoint {
                open,
                storm,
                ..TrendPoint::default()
            },
        }
    }

    fn chart(points: &[TimedPoint]) -> String {
        Chart {
            id: "c1".to_owned(),
            class: "open",
            figure: "Open connections",
            listener: "<edge>",
            points,
            value: |timed| timed.point.open,
            marks_storms: true,
        }
        .to_string()
    }

    #[test]
    fn an_hour_is_an_area_from_edge_to_edge() {
        let values = (0..60).map(|index| minute(index, if index < 30 { 10 } else { 5 }, false));
        let svg = chart(&values.collect::<Vec<_>>());
        assert!(svg.contains("d=\"M48.0 94V10.0H53.1V10.0"), "{svg}");
        assert!(svg.contains("V52.0H352.0V94Z\""), "{svg}");
        assert!(svg.contains("Now 5, between 5 and 10."), "{svg}");
        assert!(svg.contains(">Open connections of &lt;edge&gt;<"), "{svg}");
        assert!(!svg.contains("storm"), "{svg}");
    }

    #[test]
    fn adjacent_minutes_of_a_storm_are_one_mark() {
        let storm = [5, 6, 7, 20];
        let values = (0..60).map(|index| minute(index, 0, storm.contains(&index)));
        let svg = chart(&values.collect::<Vec<_>>());
        assert_eq!(svg.matches("class=\"storm\"").count(), 2, "{svg}");
        assert!(svg.contains("x=\"73.3\" y=\"10\" width=\"15.2\""), "{svg}");
        assert!(svg.contains("Always 0."), "{svg}");
    }

    #[test]
    fn without_data_there_are_axes_and_words() {
        let svg = chart(&[]);
        assert!(svg.contains("d=\"\""), "{svg}");
        assert!(svg.contains("No data yet."), "{svg}");
    }

    #[test]
    fn an_axis_ends_at_a_round_number() {
        let cases = [(0, 1), (1, 1), (2, 2), (3, 5), (6, 10), (1204, 2000)];
        for (most, top) in cases {
            assert_eq!(axis_top(most), top);
        }
        assert_eq!(axis_top(u64::MAX), u64::MAX);
    }
}
