//! Detects a fixed interval between attempts from their times alone.
//!
//! Each attempt is a point on a circle whose length is the tested interval. If attempts keep that
//! interval, the points cluster, and the length R of their mean vector is near 1. Otherwise R is
//! near 0, and n R^2 exceeds 12 by chance once in e^12 times (Rayleigh's test). Other causes than
//! chance must be excluded:
//!
//! * a half or a third of the interval clusters them as well, but then every second turn is empty;
//! * one hump of any shape clusters on a long circle, so several turns are needed, all alike;
//! * clients that start together and wait randomly cluster at first, but less with each turn.

use std::f64::consts::TAU;

/// Counts of bins as running sums: the count between any two moments takes two reads.
#[derive(Debug)]
pub(super) struct Running {
    sums: Vec<f64>,
    /// Seconds.
    bin: f64,
}

impl Running {
    pub(super) fn new(counts: &[u32], bin: f64) -> Self {
        let mut sums = vec![0.0];
        let mut sum = 0.0;
        sums.extend(counts.iter().map(|count| {
            sum += f64::from(*count);
            sum
        }));
        Self { sums, bin }
    }

    /// Seconds.
    pub(super) fn end(&self) -> f64 {
        (self.sums.len() - 1) as f64 * self.bin
    }

    /// The count before `seconds`.
    fn until(&self, seconds: f64) -> f64 {
        let position = (seconds / self.bin).clamp(0.0, (self.sums.len() - 1) as f64);
        let low = self.sums[position.floor() as usize];
        low + (self.sums[position.ceil() as usize] - low) * position.fract()
    }

    /// When the first attempt came.
    fn start(&self) -> f64 {
        self.sums
            .partition_point(|sum| *sum <= 0.0)
            .saturating_sub(1) as f64
            * self.bin
    }
}

/// The result of all circles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Circles {
    /// The interval that is kept, in seconds.
    pub(super) interval: Option<f64>,
    /// The largest R of all tested circles; `None` if none could be tested.
    pub(super) most: Option<f64>,
}

/// Tests all intervals.
pub(super) fn circles(arrivals: &Running) -> Circles {
    let known = arrivals.end() - arrivals.start();
    let mut found = Circles {
        interval: None,
        most: None,
    };
    let mut best = 0.0;
    let mut interval = SHORTEST;
    while interval * FEWEST_CYCLES as f64 <= known && interval <= LONGEST {
        if let Some(cycles) = Cycles::new(arrivals, interval, known) {
            if cycles.of.len() >= MORE_CYCLES {
                found.most = Some(found.most.unwrap_or_default().max(cycles.r));
            }
            if cycles.r > best
                && let Some(kept) = cycles.kept()
            {
                best = cycles.r;
                found.interval = Some(kept);
            }
        }
        interval *= STEP;
    }
    found
}

/// The attempts of the latest turns on a circle.
struct Cycles {
    interval: f64,
    /// The count and the vector sum of each turn, the latest first.
    of: Vec<(f64, f64, f64)>,
    count: f64,
    r: f64,
}

impl Cycles {
    /// Turns are cut where attempts are fewest: opposite to the mean.
    fn new(arrivals: &Running, interval: f64, known: f64) -> Option<Self> {
        let most = ((known / interval) as usize).min(MOST_CYCLES);
        let end = arrivals.end();
        let all = cycle(arrivals, end - most as f64 * interval, interval, most);
        let (x, y) = (all.1, all.2);
        let ahead = (y.atan2(x) / TAU + 0.5).rem_euclid(1.0) * interval;
        let end = end - most as f64 * interval + ahead + (most - 1) as f64 * interval;
        let most = (((end - arrivals.start()) / interval + 0.25) as usize).min(MOST_CYCLES);
        if most < FEWEST_CYCLES {
            return None;
        }
        let of: Vec<_> = (1..=most)
            .map(|back| cycle(arrivals, end - back as f64 * interval, interval, 1))
            .collect();
        let (count, x, y) = of.iter().fold((0.0, 0.0, 0.0), |sum, t| {
            (sum.0 + t.0, sum.1 + t.1, sum.2 + t.2)
        });
        Some(Self {
            interval,
            of,
            count,
            r: length(x, y) / count.max(1.0),
        })
    }

    /// The interval that is kept, if there is one near this circle's.
    fn kept(&self) -> Option<f64> {
        let cycles = self.of.len();
        if self.count < ENOUGH
            || self.r < GATHERED_BY_MANY
            || self.count * self.r * self.r
                <= if self.r < GATHERED {
                    CHANCE_OF_MANY
                } else {
                    CHANCE
                }
            || (cycles < MORE_CYCLES && self.r < SHARP)
        {
            return None;
        }
        let mean = self.count / cycles as f64;
        let gathered = |cycle: &(f64, f64, f64)| length(cycle.1, cycle.2) / cycle.0.max(1.0);
        if !self
            .of
            .iter()
            .all(|cycle| cycle.0 >= mean / 2.0 && gathered(cycle) >= self.r * 0.7)
        {
            return None;
        }
        let half = cycles / 2;
        let of = |cycles: &[(f64, f64, f64)]| {
            cycles.iter().map(gathered).sum::<f64>() / cycles.len() as f64
        };
        let (late, early) = (of(&self.of[..half]), of(&self.of[cycles - half..]));
        if late < early * FADING.powi((cycles - half) as i32) {
            return None;
        }
        // Turns are cut opposite to the mean, so attempts cluster near half a turn. The step from
        // one turn to the next is the difference between the real interval and the circle's.
        // Clients that wait after each failure do not catch up after a moment in which all were
        // late. Therefore not all steps agree, and most of the others are long.
        let positions: Vec<f64> = self
            .of
            .iter()
            .rev()
            .map(|cycle| (cycle.2.atan2(cycle.1) / TAU).rem_euclid(1.0))
            .collect();
        let mut steps: Vec<f64> = positions.windows(2).map(|pair| pair[1] - pair[0]).collect();
        steps.sort_unstable_by(f64::total_cmp);
        let median = steps[(steps.len() - 1) / 2];
        let usual = steps[(steps.len() - 1) / 3];
        let agree = steps
            .iter()
            .filter(|step| (**step - median).abs() <= STEADY);
        let steady = agree.count() * 4 >= steps.len() * 3 && median.abs() <= STEADY;
        steady.then_some(self.interval * (1.0 + usual))
    }
}

/// The count and the vector sum of `cycles` turns from this moment.
fn cycle(arrivals: &Running, from: f64, interval: f64, cycles: usize) -> (f64, f64, f64) {
    let mut sum = (0.0, 0.0, 0.0);
    let mut before = arrivals.until(from);
    for part in 0..cycles * PARTS {
        let now = arrivals.until(from + (part + 1) as f64 / PARTS as f64 * interval);
        let angle = ((part % PARTS) as f64 + 0.5) / PARTS as f64 * TAU;
        let count = now - before;
        if count > 0.0 {
            sum.0 += count;
            sum.1 += count * angle.cos();
            sum.2 += count * angle.sin();
        }
        before = now;
    }
    sum
}

/// Tested intervals: the shortest and the longest in seconds, and the factor to the next.
const SHORTEST: f64 = 0.25;
const LONGEST: f64 = 32.0;
const STEP: f64 = 1.02;
const PARTS: usize = 32;
const FEWEST_CYCLES: usize = 3;
const MORE_CYCLES: usize = 4;
const MOST_CYCLES: usize = 6;
/// Minimum number of attempts.
const ENOUGH: f64 = 50.0;
const GATHERED: f64 = 0.3;
/// If a server takes nearly the whole interval to answer all clients, waves nearly touch. Many
/// attempts still distinguish them from chance.
const GATHERED_BY_MANY: f64 = 0.2;
const CHANCE_OF_MANY: f64 = 100.0;
/// The R for which three turns are enough.
const SHARP: f64 = 0.6;
/// In turns: how far a step may be from the median, and the median from zero.
const STEADY: f64 = 0.1;
const CHANCE: f64 = 12.0;
/// Minimum ratio of R from one turn to the next: half of the delay at random leaves 0.76.
const FADING: f64 = 0.88;

/// Of a vector. Not `f64::hypot`, whose symbol in glibc 2.35 would be the only one of wsmon that needs more than
/// 2.34. The sums here are too small to overflow.
fn length(x: f64, y: f64) -> f64 {
    (x * x + y * y).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waves of 100 attempts that are `width` seconds wide, one every `interval` seconds.
    fn waves(interval: f64, width: f64, waves: usize) -> Running {
        let mut counts = vec![0; (interval * waves as f64 / 0.025) as usize + 8];
        for wave in 0..waves {
            for n in 0..100 {
                let seconds = 0.1 + wave as f64 * interval + width * f64::from(n) / 100.0;
                counts[(seconds / 0.025) as usize] += 1;
            }
        }
        Running::new(&counts, 0.025)
    }

    #[test]
    fn the_interval_is_the_true_one_and_not_half_or_double() {
        for interval in [0.5, 1.0, 3.0, 5.0, 10.0, 29.0] {
            for part in [0.05, 0.3, 0.6] {
                let found = circles(&waves(interval, interval * part, 6)).interval;
                let found = found.expect("an interval");
                assert!((found / interval - 1.0).abs() < 0.02, "{interval}: {found}");
            }
        }
    }

    #[test]
    fn one_hump_or_two_are_not_an_interval() {
        assert_eq!(circles(&waves(1.0, 0.6, 1)).interval, None);
        assert_eq!(circles(&waves(1.0, 0.6, 2)).interval, None);
    }

    #[test]
    fn delays_that_double_are_not_an_interval() {
        let mut counts = vec![0; 1_400];
        for seconds in [1.0, 3.0, 7.0, 15.0, 31.0] {
            for bin in 0..8 {
                counts[(seconds / 0.025) as usize + bin] += 50;
            }
        }
        for end in [400, 700, 1_400] {
            assert_eq!(circles(&Running::new(&counts[..end], 0.025)).interval, None);
        }
    }

    #[test]
    fn a_steady_flow_does_not_cluster() {
        let found = circles(&Running::new(&[25; 1_000], 0.025));
        assert_eq!(found.interval, None);
        assert!(found.most.is_some_and(|most| most < 0.1), "{found:?}");
    }
}
