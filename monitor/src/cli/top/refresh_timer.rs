//! When the daemon is asked again.

use std::time::{Duration, Instant};

use crate::records::list_order::ListOrder;

/// One part in this many of the time is spent on refreshes, at most: a daemon with very many connections is
/// asked less often.
const SHARE: u32 = 5;

/// An order by rates compares two readings that are so far apart.
const BETWEEN_READINGS: Duration = Duration::from_secs(1);

/// How many refreshes may be late before the data is old.
const LATE: u32 = 2;

#[derive(Clone, Copy, Debug)]
pub(super) struct RefreshTimer {
    interval: Duration,
    asked_at: Instant,
    answered_at: Instant,
    /// How long the daemon worked on the last answer.
    worked: Duration,
}

impl RefreshTimer {
    /// The first answer came `now`.
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            asked_at: now,
            answered_at: now,
            worked: Duration::ZERO,
        }
    }

    pub(super) fn ask(&mut self, now: Instant) {
        self.asked_at = now;
    }

    /// The answer to the last question came `now`. `order` is that of the connections.
    pub(super) fn answer(&mut self, order: ListOrder, now: Instant) {
        let took = now.duration_since(self.asked_at);
        let waited = match order.needs_rates() {
            true => BETWEEN_READINGS,
            false => Duration::ZERO,
        };
        self.worked = took.saturating_sub(waited);
        self.answered_at = now;
    }

    /// Whether the tick at `now` may ask.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now.duration_since(self.asked_at) >= self.worked * SHARE
    }

    /// The age of the data.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.duration_since(self.answered_at)
    }

    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        let period = self.interval.max(self.worked * SHARE);
        self.age(now) > period * (LATE + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A timer whose last answer took this long, and the moment of that answer.
    fn answered(took: Duration, order: ListOrder) -> (RefreshTimer, Instant) {
        let start = Instant::now();
        let mut timer = RefreshTimer::new(SECOND, start);
        timer.ask(start);
        let now = start + took;
        timer.answer(order, now);
        (timer, now)
    }

    #[test]
    fn a_fast_daemon_is_asked_at_every_tick() {
        let (timer, now) = answered(SECOND / 10, ListOrder::Urgency);
        assert!(timer.is_due(now + SECOND));
        assert!(!timer.is_overdue(now + SECOND * 3));
        assert!(timer.is_overdue(now + SECOND * 4));
        assert_eq!(timer.age(now + SECOND), SECOND);
    }

    #[test]
    fn a_slow_daemon_is_asked_a_fifth_of_the_time() {
        let (timer, now) = answered(SECOND * 2, ListOrder::Urgency);
        assert!(!timer.is_due(now + SECOND * 7));
        assert!(timer.is_due(now + SECOND * 8), "10 s after the question");
        assert!(!timer.is_overdue(now + SECOND * 30));
        assert!(timer.is_overdue(now + SECOND * 31));
    }

    #[test]
    fn waiting_between_two_readings_is_no_work() {
        let (timer, now) = answered(SECOND + SECOND / 10, ListOrder::RxRate);
        assert!(timer.is_due(now + SECOND));
    }
}
