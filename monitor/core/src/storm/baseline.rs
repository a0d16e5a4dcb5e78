//! The usual rates of a listener: arrivals and closes per second.

use serde::{Deserialize, Serialize};

/// What was learned about a listener, stored across restarts of the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Attempts per second.
    pub arrivals: Usual,
    /// Connections closed per second.
    pub closes: Usual,
    /// How many seconds were learned.
    pub seconds: u64,
}

impl Baseline {
    /// True if it may have been learned from a listener. A user may have edited the file that it
    /// comes from.
    pub fn is_plausible(&self) -> bool {
        self.arrivals.is_plausible() && self.closes.is_plausible()
    }

    /// True if enough was learned to distinguish unusual rates from usual ones.
    pub fn is_learned(&self) -> bool {
        self.seconds >= WARM_UP as u64
    }
}

/// A rate per second and its variation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usual {
    /// The exponentially weighted mean of the last minute.
    pub fast: f64,
    /// The same mean over the last half day, which a quiet night does not erase.
    pub slow: f64,
    /// The mean square of the deviation from `fast`, over the last ten minutes.
    pub variance: f64,
}

impl Usual {
    fn is_plausible(&self) -> bool {
        let rates = [self.fast, self.slow];
        rates.iter().all(|rate| (0.0..=MOST).contains(rate))
            && (0.0..=MOST * MOST).contains(&self.variance)
    }

    /// The expected count in a second.
    pub(super) fn rate(&self) -> f64 {
        self.fast.max(self.slow)
    }

    /// How much more it varies than independent arrivals: the Fano factor, at least 1.
    pub(super) fn dispersion(&self) -> f64 {
        (self.variance / self.rate().max(SCARCELY)).max(1.0)
    }

    /// True if `count` where `expected` are usual cannot be chance: Chernoff's bound on the tail of
    /// a Poisson distribution is below 1e-6. Arrivals in bundles of `dispersion` are counted in
    /// bundles.
    pub(super) fn is_no_chance(&self, count: f64, expected: f64) -> bool {
        let expected = expected.max(SCARCELY);
        count > expected
            && count * (count / expected).ln() - count + expected >= TAIL * self.dispersion()
    }

    /// The smallest count in a second that is `times` the usual, cannot be chance, and is at least
    /// `least`.
    pub(super) fn alarm(&self, least: u64, times: f64) -> u64 {
        let rate = self.rate();
        let mut low = (rate * times).ceil().max(least as f64);
        if self.is_no_chance(low, rate) {
            return low as u64;
        }
        let mut high = low * 2.0;
        while !self.is_no_chance(high, rate) && high < MOST {
            (low, high) = (high, high * 2.0);
        }
        while high - low > 1.0 {
            let middle = (low + high) / 2.0;
            match self.is_no_chance(middle, rate) {
                true => high = middle,
                false => low = middle,
            }
        }
        high.ceil() as u64
    }

    fn learn(&mut self, count: f64, pace: f64) {
        // One burst must not become the usual rate.
        let usual = count.min(5.0 * self.fast + 20.0);
        let limit = 10.0 * self.variance.sqrt() + 20.0;
        let deviation = (count - self.fast).clamp(-limit, limit);
        self.variance += weight(VARIANCE, pace) * (deviation * deviation - self.variance);
        self.fast += weight(FAST, pace) * (usual - self.fast);
        self.slow += weight(SLOW, pace) * (usual - self.slow);
    }

    /// Equivalent to learning that many seconds without events.
    fn learn_silence(&mut self, seconds: f64) {
        // While the rate falls, the deviations have its magnitude, so they fade as well.
        self.variance *= (-seconds / VARIANCE).exp();
        self.fast *= (-seconds / FAST).exp();
        self.slow *= (-seconds / SLOW).exp();
    }

    fn begin(counts: &mut [u64]) -> Self {
        counts.sort_unstable();
        let median = median(counts);
        // The largest counts may come from clients that found a new server.
        let most = counts[(counts.len() * 9 / 10).min(counts.len() - 1)];
        let deviations = counts
            .iter()
            .map(|count| (*count).min(most) as f64 - median);
        let variance = deviations.map(|d| d * d).sum::<f64>() / counts.len() as f64;
        Self {
            fast: median,
            slow: median,
            variance,
        }
    }
}

/// Learns a [`Baseline`], second by second.
#[derive(Debug)]
pub(super) struct Learner {
    baseline: Baseline,
    /// The arrivals and closes of the first seconds, until there are enough.
    first: Vec<(u64, u64)>,
}

impl Learner {
    /// Continues from an earlier baseline, unless it is implausible or too short.
    pub(super) fn new(before: Option<Baseline>) -> Self {
        let baseline = before
            .filter(|before| before.is_plausible() && before.is_learned())
            .unwrap_or_default();
        Self {
            baseline,
            first: Vec::new(),
        }
    }

    pub(super) fn baseline(&self) -> Baseline {
        self.baseline
    }

    /// The usual arrivals; zero until enough was learned, because the arrivals at the daemon's
    /// start may be all that there are.
    pub(super) fn usual_arrivals(&self) -> Usual {
        match self.baseline.is_learned() {
            true => self.baseline.arrivals,
            false => Usual::default(),
        }
    }

    /// Learns from a second, at `pace` times the usual speed.
    pub(super) fn learn(&mut self, arrivals: u64, closes: u64, pace: f64) {
        if self.baseline.is_learned() {
            self.baseline.arrivals.learn(arrivals as f64, pace);
            self.baseline.closes.learn(closes as f64, pace);
            self.baseline.seconds += 1;
            return;
        }
        self.first.push((arrivals, closes));
        self.baseline.seconds = self.first.len() as u64;
        let mut counts: Vec<u64> = self.first.iter().map(|first| first.0).collect();
        self.baseline.arrivals = Usual::begin(&mut counts);
        let mut counts: Vec<u64> = self.first.iter().map(|first| first.1).collect();
        self.baseline.closes = Usual::begin(&mut counts);
        if self.baseline.is_learned() {
            self.first = Vec::new();
        }
    }

    /// Learns from seconds without events.
    pub(super) fn learn_silence(&mut self, seconds: u64) {
        let mut rest = seconds;
        while rest > 0 && !self.baseline.is_learned() {
            self.learn(0, 0, 1.0);
            rest -= 1;
        }
        self.baseline.arrivals.learn_silence(rest as f64);
        self.baseline.closes.learn_silence(rest as f64);
        self.baseline.seconds = self.baseline.seconds.saturating_add(rest);
    }
}

fn median(sorted: &[u64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[middle] as f64,
        _ => (sorted[middle - 1] + sorted[middle]) as f64 / 2.0,
    }
}

/// The weight of one second in a mean over `window` seconds.
fn weight(window: f64, pace: f64) -> f64 {
    1.0 - (-pace / window).exp()
}

/// Seconds that must be observed before arrivals alone can be unusual.
const WARM_UP: usize = 60;
/// Windows of the means, seconds.
const FAST: f64 = 60.0;
const SLOW: f64 = 43_200.0;
const VARIANCE: f64 = 600.0;
/// The natural logarithm of 1e6.
const TAIL: f64 = 13.815_510_557_964_274;
/// If nothing is usual, one event in ten seconds is not surprising.
const SCARCELY: f64 = 0.1;
/// No host accepts more connections in a second.
const MOST: f64 = 1e9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_on_the_tail_of_a_poisson_distribution_is_one_in_a_million() {
        let usual = Usual::default();
        // P(X >= 20) is 1e-7 for a mean of 4.5, and 2e-6 for 5.5.
        assert!(usual.is_no_chance(22.0, 4.5));
        assert!(!usual.is_no_chance(20.0, 5.5));
        assert!(!usual.is_no_chance(4.0, 4.5));
    }

    #[test]
    fn the_alarm_is_the_multiple_or_the_least_rate_or_what_bundles_require() {
        let of = |rate: f64, variance: f64| {
            let usual = Usual {
                fast: rate,
                slow: 0.0,
                variance,
            };
            usual.alarm(20, 5.0)
        };
        assert_eq!(of(0.0, 0.0), 20);
        assert_eq!(of(100.0, 100.0), 500);
        // Bundles of fifty.
        assert!(of(15.0, 750.0) > 200, "{}", of(15.0, 750.0));
    }

    #[test]
    fn a_quiet_night_keeps_the_slow_mean_and_one_burst_does_not_raise_the_fast_one() {
        let mut learner = Learner::new(None);
        for _ in 0..600 {
            learner.learn(50, 50, 1.0);
        }
        learner.learn_silence(8 * 3_600);
        let arrivals = learner.baseline().arrivals;
        assert!(arrivals.fast < 1e-6, "{arrivals:?}");
        assert!((25.0..27.0).contains(&arrivals.slow), "{arrivals:?}");
        learner.learn(100_000, 0, 1.0);
        assert!(learner.baseline().arrivals.fast < 1.0);
    }

    #[test]
    fn a_lasting_rate_becomes_the_usual_one() {
        let mut learner = Learner::new(None);
        for second in 0..900 {
            let rate = if second < 100 { 10 } else { 400 };
            learner.learn(rate, rate, 1.0);
        }
        let learned = learner.baseline().arrivals.fast;
        assert!((380.0..=400.0).contains(&learned), "{learned}");
    }

    #[test]
    fn the_first_minute_is_learned_as_its_median() {
        let mut learner = Learner::new(None);
        learner.learn(2_000, 0, 1.0);
        for _ in 0..58 {
            learner.learn(3, 3, 1.0);
        }
        assert!(!learner.baseline().is_learned());
        learner.learn(3, 3, 1.0);
        let baseline = learner.baseline();
        assert!(baseline.is_learned());
        assert_eq!(baseline.arrivals.fast, 3.0);
        assert!(baseline.arrivals.variance < 1.0, "{baseline:?}");
    }
}
