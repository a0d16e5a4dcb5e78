//! Tracks how full a ring was found. This shows that a ring is too small before it loses a record.

use std::time::Duration;

use monitor_core::Ktime;

/// The most bytes that a single drain took from a ring recently.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RingPeak {
    begun: Ktime,
    current: u64,
    previous: u64,
}

impl RingPeak {
    /// Records the bytes of a drain, including those that arrived during it.
    pub(super) fn observe(&mut self, bytes: u64, now: Ktime) {
        self.rotate(now);
        self.current = self.current.max(bytes);
    }

    /// The most in the last one to two minutes, independent of earlier reads.
    pub(super) fn recent(mut self, now: Ktime) -> u64 {
        self.rotate(now);
        self.current.max(self.previous)
    }

    fn rotate(&mut self, now: Ktime) {
        let elapsed = now.since(self.begun);
        if elapsed < WINDOW {
            return;
        }
        self.previous = if elapsed < 2 * WINDOW {
            self.current
        } else {
            0
        };
        self.current = 0;
        self.begun = now;
    }
}

const WINDOW: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_remembered_for_one_to_two_minutes() {
        let start = Ktime(1_000_000_000_000);
        let second = Duration::from_secs(1);
        let mut peak = RingPeak::default();
        peak.observe(300, start);
        peak.observe(500, start + second);
        peak.observe(200, start + second * 59);
        assert_eq!(peak.recent(start + second * 59), 500);
        peak.observe(100, start + second * 61);
        assert_eq!(peak.recent(start + second * 120), 500);
        peak.observe(50, start + second * 122);
        assert_eq!(peak.recent(start + second * 122), 100);
        assert_eq!(peak.recent(start + second * 243), 0);
    }
}
