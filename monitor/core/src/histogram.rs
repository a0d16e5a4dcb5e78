//! Histograms of idle times, ages and lifetimes of connections.

use std::time::Duration;

/// Upper bucket bounds in seconds. They include the idle limits of well-known load balancers,
/// proxies and NATs (50, 55, 60, 240, 350, 600, 3600 …), so that a spike identifies the hop.
/// All histograms share them, so that deaths can be compared with all ends of the same age.
pub const BOUNDS: [u64; 30] = [
    1, 2, 5, 10, 15, 20, 30, 45, 50, 55, 60, 65, 75, 90, 100, 120, 180, 240, 300, 350, 400, 600,
    900, 1800, 3600, 7200, 14_400, 86_400, 259_200, 604_800,
];

/// Durations counted in the buckets of [`BOUNDS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DurationHistogram {
    /// Per bucket, not cumulative.
    counts: [u64; BOUNDS.len()],
    /// Observations above the last bound.
    beyond: u64,
    sum: Duration,
}

impl DurationHistogram {
    /// Counts `value` in the first bucket whose bound is not below it.
    pub fn observe(&mut self, value: Duration) {
        self.observe_many(value, 1);
    }

    /// Counts `value` as if it had been observed `times` times.
    pub fn observe_many(&mut self, value: Duration, times: u32) {
        let bucket = BOUNDS.partition_point(|bound| Duration::from_secs(*bound) < value);
        *self.counts.get_mut(bucket).unwrap_or(&mut self.beyond) += u64::from(times);
        self.sum = self.sum.saturating_add(value.saturating_mul(times));
    }

    /// Adds the observations of another histogram.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.beyond += other.beyond;
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// Each bound in seconds with the number of observations at or below it, in Prometheus form.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        BOUNDS
            .into_iter()
            .zip(self.counts)
            .scan(0, |total, (bound, count)| {
                *total += count;
                Some((bound, *total))
            })
    }

    /// All observations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.beyond
    }

    /// The sum of all observations.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_to_that_bucket() {
        let mut histogram = DurationHistogram::default();
        for seconds in [60, 60, 61, 0, 700_000] {
            histogram.observe(Duration::from_secs(seconds));
        }
        let at = |wanted| {
            histogram
                .cumulative()
                .find(|(bound, _)| *bound == wanted)
                .unwrap()
                .1
        };
        assert_eq!((at(1), at(55), at(60), at(65), at(86_400)), (1, 1, 3, 4, 4));
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.sum(), Duration::from_secs(700_181));
    }

    #[test]
    fn the_longest_duration_does_not_overflow() {
        let mut histogram = DurationHistogram::default();
        histogram.observe(Duration::MAX);
        histogram.observe(Duration::MAX);
        assert_eq!((histogram.count(), histogram.sum()), (2, Duration::MAX));
    }
}
