//! The states of a connection with their times.

use std::fmt;

use jiff::{Timestamp, tz::TimeZone};

use crate::{
    cli::screen::Age,
    records::connections::{ConnectionRecord, State, StateChange},
};

/// A moment in UTC: its time of day, with the date if that is not the one of `day`.
pub(super) struct Moment {
    pub(super) ts: Timestamp,
    pub(super) day: Timestamp,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = |ts: Timestamp| ts.to_zoned(TimeZone::UTC).date();
        let format = match date(self.ts) == date(self.day) {
            true => "%H:%M:%S.%3f",
            false => "%Y-%m-%d %H:%M:%S.%3f",
        };
        write!(f, "{}", self.ts.strftime(format))
    }
}

/// When a state began, how long after the one before, and why.
pub(super) struct StateLine<'a> {
    pub(super) previous: Option<Timestamp>,
    pub(super) change: &'a StateChange,
    pub(super) day: Timestamp,
}

impl fmt::Display for StateLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            previous,
            change,
            day,
        } = *self;
        let after = match previous {
            Some(previous) => format!("+{}", between(previous, change.ts)),
            None => String::new(),
        };
        let moment = Moment { ts: change.ts, day };
        let (state, reason) = (change.state.as_str(), &change.reason);
        write!(f, "{moment}  {after:>10}  {state:<10}  {reason}")
    }
}

/// The state and how long it has lasted, and a line for each state that is known.
pub(super) fn lines(record: &ConnectionRecord) -> Vec<String> {
    let last = record.states.last();
    let since = last.filter(|last| last.state == record.state && last.state != State::Closed);
    let state = record.state.as_str();
    let mut lines = vec![match since {
        Some(last) => format!("{state} for {}", between(last.ts, record.ts)),
        None => state.to_owned(),
    }];
    let mut previous = None;
    for change in &record.states {
        let day = record.ts;
        let line = StateLine {
            previous,
            change,
            day,
        };
        lines.push(line.to_string());
        previous = Some(change.ts);
    }
    lines
}

fn between(from: Timestamp, to: Timestamp) -> Age {
    Age(Some(to.duration_since(from).as_secs_f64().max(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::connections::tests::{detail, record};
    use monitor_core::CloseHow;

    #[test]
    fn each_state_has_its_time_and_the_time_since_the_one_before() {
        assert_eq!(
            lines(&record(&detail(7), None)),
            [
                "open for 19.0 s",
                "18:37:33.000              connecting  upgrade requested",
                "18:37:33.500    +0.500 s  open        101 after 1000 ms",
            ]
        );
        assert_eq!(
            lines(&record(&detail(7), Some(CloseHow::Fin))),
            [
                "closed",
                "18:37:33.000              connecting  upgrade requested",
                "18:37:33.500    +0.500 s  open        101 after 1000 ms",
                "18:37:52.500     +19.0 s  closed      fin",
            ]
        );
    }

    #[test]
    fn a_moment_of_another_day_has_its_date() {
        let ts = |text: &str| text.parse().expect("a time stamp");
        let day = ts("2026-11-22T00:00:00.5Z");
        let moment = |text| Moment { ts: ts(text), day }.to_string();
        assert_eq!(moment("2026-11-22T18:37:33.5Z"), "18:37:33.500");
        assert_eq!(moment("2026-11-21T23:59:59Z"), "2026-11-21 23:59:59.000");
    }
}
