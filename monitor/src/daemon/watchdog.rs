//! The watchdog of the service manager, which restarts a daemon that is stuck.

use std::time::{Duration, Instant};

use super::service_manager::ServiceManager;

/// When to report that the daemon lives. Only a complete drain of the rings counts as life: a daemon that wakes but
/// does not read what the kernel reports is stuck.
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
        let schedule = limit.map(|limit| (limit / 2, now + limit / 2));
        Self { schedule }
    }

    /// When the daemon must have drained the rings again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.schedule.map(|(_, due)| due)
    }

    /// Handles a complete drain. Returns whether to report that the daemon lives.
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

    /// The times, in seconds since the start, at which a loop reports that it lives. It wakes when the watchdog is
    /// due, and every 2 s for other reasons.
    fn reports(limit: Option<Duration>, drains: impl Fn(u64) -> bool) -> Vec<u64> {
        let start = Instant::now();
        let mut watchdog = Watchdog::with_limit(limit, start);
        let wakes = |second: &u64| {
            let now = start + Duration::from_secs(*second);
            let drained = drains(*second);
            let is_awake = second.is_multiple_of(2) || watchdog.due().is_some_and(|due| due <= now);
            is_awake && drained && watchdog.handle_drained(now)
        };
        (0..30).filter(wakes).collect()
    }

    #[test]
    fn a_loop_that_drains_reports_twice_in_the_limit() {
        assert_eq!(reports(Some(LIMIT), |_| true), [5, 10, 15, 20, 25]);
    }

    #[test]
    fn a_loop_that_wakes_but_does_not_drain_reports_nothing() {
        assert_eq!(reports(Some(LIMIT), |_| false), [0; 0]);
        assert_eq!(reports(Some(LIMIT), |second| second < 12), [5, 10]);
        // It reports as soon as it drains again.
        let stuck = |second| !(7..13).contains(&second);
        assert_eq!(reports(Some(LIMIT), stuck), [5, 13, 18, 23, 28]);
    }

    #[test]
    fn without_a_watchdog_nothing_is_reported_and_nobody_is_woken() {
        assert_eq!(reports(None, |_| true), [0; 0]);
        assert_eq!(Watchdog::with_limit(None, Instant::now()).due(), None);
    }
}
