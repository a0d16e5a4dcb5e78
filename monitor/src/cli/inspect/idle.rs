//! The silence of a connection, and what is left of the limit on its path.

use std::fmt;

use crate::{
    cli::screen::Age,
    records::connections::{ConnectionRecord, State},
};

/// What is left of the limit by the clock of the hop and, if it differs, the silence on a line of its own.
///
/// What this host sends restarts that clock, answered or not, because it may be lost behind the hop. It does
/// not end the silence before it is answered.
pub(super) fn idle_lines(record: &ConnectionRecord) -> Vec<String> {
    let Some(silence) = record.idle_seconds else {
        return vec!["unknown, because no packet was seen".to_owned()];
    };
    let (Some(limit), Some(hop)) = (record.idle_limit_seconds, &record.hop) else {
        let text = format!("{}; no hop on its path has a limit", Age(Some(silence)));
        return vec![text];
    };
    let counted = record.hop_idle_seconds.unwrap_or(silence);
    let sum = format!("{} of {} ({hop})", Seconds(counted), limit_text(limit));
    let left = limit - counted;
    let sum = match record.state {
        State::Closed => sum,
        _ if left < 0.0 => format!("{sum}, {} over it", Seconds(-left)),
        _ => format!("{sum}, {} left", Seconds(left)),
    };
    let seconds = Seconds(silence);
    let other = if silence - counted >= SAME {
        format!("nothing is known to have passed for {seconds}: what was sent since has no answer")
    } else if counted - silence >= SAME {
        // A hop may count only data, or each direction alone.
        format!("a packet passed {seconds} ago, but did not restart this limit's clock")
    } else {
        return vec![sum];
    };
    vec![sum, other]
}

/// Silences that differ by less are the same, in seconds. The last packet and the last data of one
/// segment have clocks of their own.
const SAME: f64 = 0.05;

/// Seconds as they are added up, also above a minute.
struct Seconds(f64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 < 1000.0 {
            true => write!(f, "{:.1} s", self.0),
            false => Age(Some(self.0)).fmt(f),
        }
    }
}

/// A limit as it is configured: `60 s`, `0.5 s`, `1 h 6 m`.
fn limit_text(limit: f64) -> String {
    match limit < 1000.0 {
        true => format!("{limit} s"),
        false => Age(Some(limit)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::connections::tests::{detail, record};

    #[test]
    fn silence_is_compared_with_the_limit_of_the_hop() {
        let mut record = record(&detail(7), None);
        let mut text = |silence, counted, limit| {
            record.idle_seconds = silence;
            record.hop_idle_seconds = counted;
            record.idle_limit_seconds = limit;
            record.hop = limit.map(|_| "aws-nlb".to_owned());
            idle_lines(&record).join("\n")
        };
        for (silence, counted, limit, shown) in [
            (
                Some(48.2),
                Some(48.21),
                Some(60.0),
                "48.2 s of 60 s (aws-nlb), 11.8 s left",
            ),
            (
                Some(312.0),
                Some(312.0),
                Some(350.0),
                "312.0 s of 350 s (aws-nlb), 38.0 s left",
            ),
            (
                Some(1.0),
                Some(7200.0),
                Some(3600.0),
                "2 h 0 m of 1 h 0 m (aws-nlb), 1 h 0 m over it\na packet passed 1.0 s ago, but did \
                 not restart this limit's clock",
            ),
            (
                Some(74.3),
                Some(12.4),
                Some(60.0),
                "12.4 s of 60 s (aws-nlb), 47.6 s left\nnothing is known to have passed for 74.3 s: what was \
                 sent since has no answer",
            ),
            (
                Some(5.0),
                None,
                None,
                "5.0 s; no hop on its path has a limit",
            ),
            (None, None, None, "unknown, because no packet was seen"),
        ] {
            assert_eq!(text(silence, counted, limit), shown);
        }
    }
}
