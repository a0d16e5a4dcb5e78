//! Counts over the last minute.

use crate::time::Ktime;

/// Counts in steps of 10 s; the oldest step counts in part.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Minute {
    counts: [u32; STEPS],
    /// The number of the latest step since boot, modulo 2^32.
    latest: u32,
}

impl Minute {
    /// Counts an event. A late event counts for the latest step.
    pub(super) fn add(&mut self, at: Ktime) {
        self.advance(at);
        let count = &mut self.counts[slot(self.latest)];
        *count = count.saturating_add(1);
    }

    /// The count in the minute before `at`.
    pub(super) fn sum(mut self, at: Ktime) -> f64 {
        self.advance(at);
        let oldest = self.counts[slot(self.latest.wrapping_add(1))];
        let others: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        let passed = (at.0 % STEP) as f64 / STEP as f64;
        (others - u64::from(oldest)) as f64 + f64::from(oldest) * (1.0 - passed)
    }

    fn advance(&mut self, at: Ktime) {
        let step = (at.0 / STEP) as u32;
        let ahead = step.wrapping_sub(self.latest);
        if ahead > u32::MAX / 2 {
            return;
        }
        for n in 0..ahead.min(STEPS as u32) {
            self.counts[slot(step.wrapping_sub(n))] = 0;
        }
        self.latest = step;
    }
}

fn slot(step: u32) -> usize {
    step as usize % STEPS
}

/// The six steps of a minute, and the one that is leaving it.
const STEPS: usize = 7;
/// Nanoseconds.
const STEP: u64 = 10_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Ktime {
        Ktime((seconds * 1e9) as u64)
    }

    #[test]
    fn a_steady_rate_is_counted_correctly() {
        for gap in [0.1, 0.5, 1.0, 7.0, 20.0] {
            let mut minute = Minute::default();
            let mut now = 1_003.0;
            for _ in 0..2_000 {
                now += gap;
                minute.add(at(now));
            }
            let sum = minute.sum(at(now));
            assert!((sum - 60.0 / gap).abs() <= 1.0, "{gap}: {sum}");
        }
    }

    #[test]
    fn events_of_one_moment_count_and_expire_after_a_minute() {
        let mut minute = Minute::default();
        (0..120).for_each(|_| minute.add(at(5.0)));
        assert_eq!(minute.sum(at(5.0)), 120.0);
        minute.add(at(4.0));
        assert_eq!(minute.sum(at(59.0)), 121.0, "one came late");
        assert_eq!(minute.sum(at(70.0)), 0.0);
        assert_eq!(minute.sum(at(1e6)), 0.0);
    }
}
