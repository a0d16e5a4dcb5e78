//! When the next refresh starts.

use std::time::{Duration, Instant};

/// One part in this many of the time is spent on refreshes, at most: a daemon with very many connections
/// gets fewer requests.
const SHARE: u32 = 5;

/// Keys and new sizes cause at most one refresh in this time.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Rates come from two readings that are so far apart.
const BETWEEN_READINGS: Duration = Duration::from_secs(1);

/// How many refreshes may be late before the data is old.
const LATE: u32 = 2;

/// At most one refresh runs at a time. What is wanted while it runs starts after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RefreshTimer {
    interval: Duration,
    requested_at: Instant,
    refreshed_at: Instant,
    /// How long the daemon worked on the last response.
    worked: Duration,
    is_running: bool,
    /// Whether something is to be shown that the last refresh did not request.
    is_dirty: bool,
}

impl RefreshTimer {
    /// The first response came `now`.
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval: interval.max(MIN_INTERVAL),
            requested_at: now,
            refreshed_at: now,
            worked: Duration::ZERO,
            is_running: false,
            is_dirty: false,
        }
    }

    /// Something else is to be shown soon, paused or not.
    pub(super) fn mark_dirty(&mut self) {
        self.is_dirty = true;
    }

    /// When the next refresh starts; `None` if not before an event.
    pub(super) fn next_refresh(&self, is_paused: bool) -> Option<Instant> {
        let interval = match (self.is_running, self.is_dirty, is_paused) {
            (true, ..) | (false, false, true) => return None,
            (false, true, _) => MIN_INTERVAL,
            (false, false, false) => self.interval,
        };
        Some(self.requested_at + interval.max(self.least()))
    }

    /// A refresh starts `now`.
    pub(super) fn start(&mut self, now: Instant) {
        self.requested_at = now;
        self.is_running = true;
        self.is_dirty = false;
    }

    /// The response to the last request came `now`. `has_rates` if the daemon had to read twice for it.
    pub(super) fn finish(&mut self, has_rates: bool, now: Instant) {
        let took = now.duration_since(self.requested_at);
        let waited = match has_rates {
            true => BETWEEN_READINGS,
            false => Duration::ZERO,
        };
        self.worked = took.saturating_sub(waited);
        self.refreshed_at = now;
        self.is_running = false;
    }

    /// There was no response to the last request.
    pub(super) fn fail(&mut self) {
        self.is_running = false;
    }

    /// The age of the data.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.duration_since(self.refreshed_at)
    }

    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        let period = self.interval.max(self.least());
        self.age(now) > period.saturating_mul(LATE + 1)
    }

    /// Least time from one request to the next.
    fn least(&self) -> Duration {
        self.worked.saturating_mul(SHARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A timer whose last response took this long, and the moments of its request and of the response.
    fn refreshed(took: Duration, has_rates: bool) -> (RefreshTimer, Instant, Instant) {
        let start = Instant::now();
        let mut timer = RefreshTimer::new(SECOND, start);
        timer.start(start);
        assert_eq!(timer.next_refresh(false), None, "one at a time");
        let now = start + took;
        timer.finish(has_rates, now);
        (timer, start, now)
    }

    #[test]
    fn a_fast_daemon_gets_a_request_every_interval() {
        let (timer, start, now) = refreshed(SECOND / 10, false);
        assert_eq!(timer.next_refresh(false), Some(start + SECOND));
        assert_eq!(timer.next_refresh(true), None, "paused");
        assert!(!timer.is_overdue(now + SECOND * 3));
        assert!(timer.is_overdue(now + SECOND * 4));
        assert_eq!(timer.age(now + SECOND), SECOND);
    }

    #[test]
    fn a_slow_daemon_works_a_fifth_of_the_time_even_for_keys() {
        let (mut timer, start, now) = refreshed(SECOND * 2, false);
        assert_eq!(timer.next_refresh(false), Some(start + SECOND * 10));
        timer.mark_dirty();
        assert_eq!(timer.next_refresh(false), Some(start + SECOND * 10));
        assert!(!timer.is_overdue(now + SECOND * 30));
        assert!(timer.is_overdue(now + SECOND * 31));
    }

    #[test]
    fn waiting_between_two_readings_is_not_work() {
        let (timer, start, _) = refreshed(SECOND + SECOND / 10, true);
        assert_eq!(timer.next_refresh(false), Some(start + SECOND));
    }

    #[test]
    fn many_keys_cause_few_refreshes_and_the_last_key_is_followed_by_one() {
        let start = Instant::now();
        let mut timer = RefreshTimer::new(SECOND, start);
        let (mut starts, mut ends_at) = (0, None);
        // A key every 5 ms for a second, and responses after 20 ms.
        for step in 1..=400_u32 {
            let now = start + SECOND / 200 * step;
            if step <= 200 {
                timer.mark_dirty();
            }
            if ends_at.is_some_and(|end| end <= now) {
                timer.finish(false, now);
                ends_at = None;
            }
            if step > 200 && timer.is_dirty {
                assert!(now - start < SECOND + MIN_INTERVAL * 2);
            }
            if timer.next_refresh(true).is_some_and(|next| next <= now) {
                timer.start(now);
                starts += 1;
                ends_at = Some(now + SECOND / 50);
            }
        }
        assert!((9..=11).contains(&starts), "{starts}");
        assert!(!timer.is_dirty);
    }

    #[test]
    fn a_failed_refresh_is_tried_again_after_the_interval() {
        let start = Instant::now();
        let mut timer = RefreshTimer::new(SECOND, start);
        timer.start(start + SECOND);
        timer.fail();
        assert_eq!(timer.next_refresh(false), Some(start + SECOND * 2));
        assert_eq!(timer.age(start + SECOND), SECOND, "of the data");
    }

    #[test]
    fn no_interval_is_too_long_or_too_short() {
        let start = Instant::now();
        assert!(!RefreshTimer::new(Duration::MAX, start).is_overdue(start));
        let hasty = RefreshTimer::new(Duration::from_nanos(1), start);
        assert_eq!(hasty.next_refresh(false), Some(start + MIN_INTERVAL));
    }
}
