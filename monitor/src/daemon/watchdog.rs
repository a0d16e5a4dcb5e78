//! The watchdog of the service manager, which restarts a daemon that is stuck.

use std::time::{Duration, Instant};

use super::service_manager::ServiceManager;

/// When to report that the daemon lives. Only a drain of the rings counts as life: a daemon that wakes but does not
/// read what the kernel reports is stuck. A drain is bounded, so a flood of records does not look like a stuck daemon.
pub(super) struct Watchdog {
    /// Half of the service manager's limit, and when it ends next; `None` without a watchdog, which then wakes
    /// nobody.
    schedule: Option<(Duration, Instant)>,
}

impl Watchdog {
    pub(super) fn new(service_manager: &ServiceManager, now: Instant) -> Self {
        Self::with_limit(service_manager.watchdog_limit(), now)
    }

    fn with_limit(limit: Option<Duration>, now: Instant) -> Self {
        // A limit of zero would be due all the time. systemd sets none.
        let limit = limit.filter(|limit| !limit.is_zero());
        let schedule = limit.map(|limit| (limit / 2, now + limit / 2));
        Self { schedule }
    }

    /// When the daemon must have drained the rings again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.schedule.map(|(_, due)| due)
    }

    /// Handles a drain. Returns whether to report that the daemon lives.
    pub(super) fn handle_drained(&mut self, now: Instant) -> bool {
        match &mut self.schedule {
            Some((interval, due)) if *due <= now => {
                *due = now + *interval;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_drain_is_reported_twice_in_the_limit_and_not_more_often() {
        let start = Instant::now();
        let mut watchdog = Watchdog::with_limit(Some(LIMIT), start);
        let mut reported = Vec::new();
        // The loop wakes when the watchdog is due, and every 2 s for other reasons.
        for second in 0..30 {
            let now = after(start, second);
            let is_due = watchdog.due().is_some_and(|due| due <= now);
            if (is_due || second.is_multiple_of(2)) && watchdog.handle_drained(now) {
                reported.push(second);
            }
        }
        assert_eq!(reported, [5, 10, 15, 20, 25]);
    }

    #[test]
    fn without_a_drain_the_watchdog_stays_due() {
        let start = Instant::now();
        let mut watchdog = Watchdog::with_limit(Some(LIMIT), start);
        assert_eq!(watchdog.due(), Some(after(start, 5)));
        // The drain comes late. The next one is due half a limit after it.
        assert!(watchdog.handle_drained(after(start, 13)));
        assert_eq!(watchdog.due(), Some(after(start, 18)));
        assert!(!watchdog.handle_drained(after(start, 17)));
        assert!(watchdog.handle_drained(after(start, 18)));
    }

    #[test]
    fn without_a_limit_nothing_is_reported_and_nobody_is_woken() {
        let start = Instant::now();
        for limit in [None, Some(Duration::ZERO)] {
            let mut watchdog = Watchdog::with_limit(limit, start);
            assert_eq!(watchdog.due(), None, "{limit:?}");
            assert!(!watchdog.handle_drained(after(start, 30)), "{limit:?}");
        }
    }
}
