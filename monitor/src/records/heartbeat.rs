//! When the next ping of a connection is due.

use super::connections::{ConnectionRecord, DirectionRecord, State};
use super::numbers::thousandths;

/// Seconds from the record's moment to the next expected ping; negative if it is late. The direction whose
/// pings have the shorter interval decides. `None` if no interval is known, or the connection is closed.
pub fn next_expected(record: &ConnectionRecord) -> Option<f64> {
    if record.state == State::Closed {
        return None;
    }
    let due = |side: &DirectionRecord| Some((side.ping_interval_seconds?, side.last_ping_seconds?));
    let sides = [&record.rx, &record.tx].into_iter().filter_map(due);
    let (interval, last) = sides.min_by(|(a, _), (b, _)| a.total_cmp(b))?;
    Some(thousandths(interval - last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::connections::tests::{detail, record};
    use monitor_core::CloseHow;

    fn with_pings(rx: [Option<f64>; 2], tx: [Option<f64>; 2]) -> ConnectionRecord {
        let mut record = record(&detail(1), None);
        for (side, [interval, last]) in [(&mut record.rx, rx), (&mut record.tx, tx)] {
            side.ping_interval_seconds = interval;
            side.last_ping_seconds = last;
        }
        record
    }

    #[test]
    fn the_next_ping_is_one_interval_after_the_last() {
        let none = [None, None];
        let half_a_minute = |last| [Some(30.0), Some(last)];
        assert_eq!(next_expected(&with_pings(none, none)), None);
        assert_eq!(
            next_expected(&with_pings(half_a_minute(12.5), none)),
            Some(17.5)
        );
        let late = next_expected(&with_pings(none, half_a_minute(42.5)));
        assert_eq!(late, Some(-12.5), "late");
        let once = with_pings(none, [None, Some(3.0)]);
        assert_eq!(next_expected(&once), None, "one ping has no interval");
    }

    #[test]
    fn the_direction_with_the_shorter_interval_decides() {
        let both = with_pings([Some(30.0), Some(1.0)], [Some(20.0), Some(25.0)]);
        assert_eq!(next_expected(&both), Some(-5.0));
    }

    #[test]
    fn a_closed_connection_expects_nothing() {
        let closed = record(&detail(1), Some(CloseHow::Fin));
        let pinged = ConnectionRecord {
            state: closed.state,
            ..with_pings([Some(30.0), Some(1.0)], [None, None])
        };
        assert_eq!(next_expected(&pinged), None);
    }
}
