//! The heartbeat of one side of a connection: its interval and its jitter.

use crate::snapshot::{DirectionFacts, PING_UNIT};

impl DirectionFacts {
    /// Adds the time between two consecutive pings, in nanoseconds.
    ///
    /// Smoothed like jitter in RFC 3550 §6.4.1, but with a gain of 1/4 instead of 1/16, because a heartbeat
    /// gives only one or two samples a minute. The first interval is taken unchanged.
    #[inline(always)]
    pub(crate) fn beat(&mut self, nanos: u64) {
        let interval = saturated(nanos / PING_UNIT, u16::MAX as i64).max(1);
        if self.ping_interval == 0 {
            self.ping_interval = interval as u16;
            return;
        }
        let strays = interval - self.ping_interval as i64;
        let jitter = self.ping_jitter as i64;
        self.ping_jitter = saturated(
            (jitter + quarter(strays.abs() - jitter)) as u64,
            u8::MAX as i64,
        ) as u8;
        self.ping_interval = (self.ping_interval as i64 + quarter(strays)) as u16;
    }
}

/// Rounds to the nearest, so that the smoothed value of a constant stays within two units of it.
#[inline(always)]
const fn quarter(n: i64) -> i64 {
    (n + 2) >> 2
}

/// `n`, at most `max`.
#[inline(always)]
const fn saturated(n: u64, max: i64) -> i64 {
    if n < max as u64 { n as i64 } else { max }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn after(intervals: impl IntoIterator<Item = u64>) -> (u64, u64) {
        let mut facts = DirectionFacts::default();
        for interval in intervals {
            facts.beat(interval);
        }
        let nanos = |units: u64| units * PING_UNIT;
        (
            nanos(facts.ping_interval.into()),
            nanos(facts.ping_jitter.into()),
        )
    }

    #[test]
    fn the_first_interval_is_taken_unchanged() {
        let (interval, jitter) = after([30 * SECOND]);
        assert!(interval.abs_diff(30 * SECOND) < PING_UNIT, "{interval}");
        assert_eq!(jitter, 0);
    }

    #[test]
    fn an_even_heartbeat_has_no_jitter_and_adapts_within_a_dozen_pings() {
        let (interval, jitter) = after([30 * SECOND; 20]);
        assert!(interval.abs_diff(30 * SECOND) < PING_UNIT, "{interval}");
        assert_eq!(jitter, 0);
        let (interval, jitter) = after([30 * SECOND; 20].into_iter().chain([10 * SECOND; 24]));
        assert!(
            interval.abs_diff(10 * SECOND) <= 3 * PING_UNIT,
            "{interval}"
        );
        assert!(jitter <= SECOND, "{jitter}");
    }

    #[test]
    fn jitter_is_the_average_deviation_of_pings() {
        let uneven = (0..100).map(|i| 30 * SECOND + (i % 2) * 2 * SECOND);
        let (interval, jitter) = after(uneven);
        assert!(interval.abs_diff(31 * SECOND) < SECOND / 2, "{interval}");
        assert!(jitter.abs_diff(SECOND) < SECOND / 5, "{jitter}");
    }

    #[test]
    fn an_interval_outside_the_scale_saturates() {
        assert_eq!(after([0; 5]), (PING_UNIT, 0));
        assert_eq!(after([u64::MAX; 5]), (65_535 * PING_UNIT, 0));
        let (interval, jitter) = after([0, u64::MAX, 0, u64::MAX]);
        assert!(interval > 0, "{interval}");
        assert_eq!(jitter, 255 * PING_UNIT);
    }
}
