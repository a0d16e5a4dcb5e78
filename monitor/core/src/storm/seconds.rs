//! Counts for each of the last seconds.

use crate::time::Ktime;

/// One second of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Second {
    pub(super) arrivals: u64,
    pub(super) accepted: u64,
    /// Refused, or ended without a response.
    pub(super) failed: u64,
    pub(super) closes: u64,
    /// Closes of connections that had not been short.
    pub(super) lasting_closes: u64,
    /// The largest number of open connections.
    pub(super) established: u64,
}

impl Second {
    fn add(&mut self, other: &Self) {
        self.arrivals += other.arrivals;
        self.accepted += other.accepted;
        self.failed += other.failed;
        self.closes += other.closes;
        self.lasting_closes += other.lasting_closes;
        self.established = self.established.max(other.established);
    }
}

/// A ring of the last [`LENGTH`] seconds. If time jumps, the skipped seconds are empty.
#[derive(Debug)]
pub(super) struct PerSecond {
    ring: Box<[Second; LENGTH]>,
    /// The number of the latest second since boot; `None` before the first event.
    latest: Option<u64>,
}

impl PerSecond {
    pub(super) fn new() -> Self {
        Self {
            ring: Box::new([Second::default(); LENGTH]),
            latest: None,
        }
    }

    /// Starts the second of `at` if it has not started yet.
    pub(super) fn advance(&mut self, at: Ktime) {
        let index = number(at);
        let Some(latest) = self.latest else {
            self.latest = Some(index);
            return;
        };
        let fresh = index.saturating_sub(latest).min(LENGTH as u64);
        for i in 0..fresh {
            self.ring[slot(index - i)] = Second::default();
        }
        self.latest = Some(latest.max(index));
    }

    /// The second of `at`, which may be slightly late; one from before the ring counts for its
    /// oldest.
    pub(super) fn at(&mut self, at: Ktime) -> &mut Second {
        self.advance(at);
        let latest = self.latest.unwrap_or_default();
        let oldest = latest.saturating_sub(LENGTH as u64 - 1);
        &mut self.ring[slot(number(at).clamp(oldest, latest))]
    }

    /// The sum of seconds `from..=to`, by number, limited to those in the ring.
    pub(super) fn sum(&self, from: u64, to: u64) -> Second {
        let mut sum = Second::default();
        let Some(latest) = self.latest else {
            return sum;
        };
        let oldest = latest.saturating_sub(LENGTH as u64 - 1);
        for index in from.max(oldest)..=to.min(latest) {
            sum.add(&self.ring[slot(index)]);
        }
        sum
    }
}

/// The number of the second of `at` since boot.
pub(super) fn number(at: Ktime) -> u64 {
    at.0 / 1_000_000_000
}

fn slot(index: u64) -> usize {
    (index % LENGTH as u64) as usize
}

pub(super) const LENGTH: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: f64) -> Ktime {
        Ktime((seconds * 1e9) as u64)
    }

    #[test]
    fn any_number_of_seconds_without_events_is_empty() {
        let mut seconds = PerSecond::new();
        seconds.at(at(5.0)).arrivals += 3;
        seconds.at(at(8.5)).arrivals += 4;
        assert_eq!(seconds.sum(5, 8).arrivals, 7);
        assert_eq!(seconds.sum(6, 7), Second::default());
        seconds.advance(at(1e6));
        assert_eq!(seconds.sum(0, u64::MAX), Second::default());
    }

    #[test]
    fn a_late_event_counts_for_its_own_second() {
        let mut seconds = PerSecond::new();
        seconds.at(at(10.01)).closes += 1;
        seconds.at(at(9.99)).closes += 1;
        assert_eq!(
            (seconds.sum(9, 9).closes, seconds.sum(10, 10).closes),
            (1, 1)
        );
    }

    proptest! {
        /// Also with events out of order.
        #[test]
        fn the_sum_of_the_seconds_is_the_number_of_events(
            times in prop::collection::vec(0..60_000_000_000_u64, 0..200)
        ) {
            let mut seconds = PerSecond::new();
            for time in &times {
                seconds.at(Ktime(*time)).arrivals += 1;
            }
            prop_assert_eq!(seconds.sum(0, 60).arrivals, times.len() as u64);
        }
    }
}
