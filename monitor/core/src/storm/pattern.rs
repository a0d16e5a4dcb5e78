//! The pattern in which clients space their attempts.

use std::time::Duration;

use super::{
    beat::{Beat, TIGHT},
    delays::{DelayStep, Delays, Slots},
    echo,
    finding::Pattern,
    phase::{self, Running},
    trace, waves,
};

/// The pattern of the attempts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SeenPattern {
    pub(super) pattern: Pattern,
    /// Lockstep: the interval. Backoff: the first delay.
    pub(super) period: Option<Duration>,
}

impl SeenPattern {
    pub(super) const NOTHING: Self = Self {
        pattern: Pattern::Unknown,
        period: None,
    };
    pub(super) const SPREAD: Self = Self {
        pattern: Pattern::Jittered,
        period: None,
    };

    /// True if both have the same pattern, and periods that differ by at most `part`.
    pub(super) fn agrees(&self, other: &Self, part: f64) -> bool {
        self.pattern == other.pattern
            && match (self.period, other.period) {
                (Some(one), Some(other)) => {
                    one.abs_diff(other).as_secs_f64() <= part * one.as_secs_f64()
                }
                (one, other) => one == other,
            }
    }

    pub(super) fn lockstep(seconds: f64) -> Self {
        Self {
            pattern: Pattern::Lockstep,
            period: Duration::try_from_secs_f64(seconds).ok(),
        }
    }

    pub(super) fn backoff(seconds: f64) -> Self {
        Self {
            pattern: Pattern::Backoff,
            period: Duration::try_from_secs_f64(seconds).ok(),
        }
    }
}

/// All that is known about the attempts of a storm.
#[derive(Debug)]
pub(super) struct PatternEvidence<'a> {
    pub(super) delays: &'a Delays,
    /// Counts by bins of [`trace::BIN`](super::trace::BIN), from the start of the storm on.
    pub(super) arrivals: &'a [u32],
    pub(super) failures: &'a [u32],
    /// When the connections were lost, in seconds from the first bin.
    pub(super) lost: Option<f64>,
}

/// Single clients are the best evidence. Behind a proxy all may share one address; then the times
/// of all attempts must suffice.
pub(super) fn judge(evidence: &PatternEvidence<'_>) -> SeenPattern {
    match evidence.delays.distinguishes_clients() {
        true => of_clients(evidence.delays, evidence.lost.is_some()),
        false => of_moments(evidence),
    }
}

/// Judges the delays of single clients.
fn of_clients(delays: &Delays, lost: bool) -> SeenPattern {
    // Some clients wait from one attempt to the next, others from the failure: the better fit shows
    // which.
    let of_attempt = Rhythm::new(delays, |step| &step.since_attempt);
    let of_failure = Rhythm::new(delays, |step| &step.since_failure);
    let kinds = match of_failure.width() <= of_attempt.width() {
        true => [of_failure, of_attempt],
        false => [of_attempt, of_failure],
    };
    let steadiest = &kinds[0];
    if let Some(pooled) = steadiest.pooled
        && pooled.is_tight()
        && steadiest.steps_at_pooled >= 2
    {
        return SeenPattern::lockstep(steadiest.interval.unwrap_or(pooled.seconds));
    }
    let first = lost.then(|| delays.first.quantile(0.1)).flatten();
    if let Some(seen) = twice(first, &steadiest.beats).or_else(|| growing(first, &steadiest.beats))
    {
        return seen;
    }
    let is_loose = |kind: &Rhythm| {
        kind.pooled.is_some_and(|pooled| pooled.width >= LOOSE)
            && kind.beats.iter().all(|beat| beat.width >= LOOSE)
    };
    match kinds.iter().all(is_loose) {
        true => SeenPattern::SPREAD,
        false => SeenPattern::NOTHING,
    }
}

/// The delays of clients, attempt by attempt.
struct Rhythm {
    beats: Vec<Beat>,
    /// All delays together, if there are enough.
    pooled: Option<Beat>,
    /// The number of steps in which a good part of the delays is the pooled one.
    steps_at_pooled: usize,
    /// The peak of these steps, in the lower third: moments in which all clients are late shift
    /// some of the steps, nearly always up.
    interval: Option<f64>,
}

impl Rhythm {
    /// The width of the first delay.
    fn width(&self) -> f64 {
        let first = self.beats.first().or(self.pooled.as_ref());
        first.map_or(f64::MAX, |beat| beat.width)
    }

    fn new(delays: &Delays, of: impl Fn(&DelayStep) -> &Slots) -> Self {
        let mut all = Slots::new();
        let mut expected = 0;
        for step in delays.steps() {
            all.merge(of(step));
            expected += step.expected;
        }
        // Late clients are still to come. Without their share, the delays would look more alike
        // than they are.
        let beat = |slots: &Slots, expected: u64, least: u64| {
            let wanted = SHARE * expected.max(slots.total()) as f64;
            let core = slots.core(wanted).filter(|_| slots.total() >= least)?;
            // A busy machine is late, never early: the delay is at the peak, not in the middle.
            let most = slots.core(MOST * slots.total() as f64)?;
            Some(Beat {
                seconds: most.seconds,
                width: core.width,
                count: slots.total() as f64,
            })
        };
        let pooled = beat(&all, expected, ENOUGH);
        let is_at_pooled = |step: &&DelayStep| {
            pooled.is_some_and(|pooled| {
                of(step).total() >= ENOUGH_OF_ONE / 2
                    && of(step).near(pooled.seconds, TIGHT) >= SHARE * 0.75
            })
        };
        let steps = delays.steps();
        let at_pooled: Vec<&DelayStep> = steps.iter().filter(is_at_pooled).collect();
        let mut intervals: Vec<f64> = at_pooled
            .iter()
            .filter_map(|step| of(step).core(MOST * of(step).total() as f64))
            .map(|core| core.seconds)
            .collect();
        intervals.sort_unstable_by(f64::total_cmp);
        Self {
            beats: steps
                .iter()
                .map_while(|step| beat(of(step), step.expected, ENOUGH_OF_ONE))
                .collect(),
            pooled,
            steps_at_pooled: at_pooled.len(),
            interval: intervals.get(intervals.len() / 3).copied(),
        }
    }
}

/// Judges the times of all attempts.
fn of_moments(evidence: &PatternEvidence<'_>) -> SeenPattern {
    let bin = trace::BIN.as_secs_f64();
    let ended = evidence.arrivals.iter().rposition(|count| *count > 0);
    // Accepted clients stop coming, which is not part of their rhythm.
    let arrivals = &evidence.arrivals[..ended.map_or(0, |last| last + 1)];
    let circles = phase::circles(&Running::new(arrivals, bin));
    if let Some(interval) = circles.interval {
        return SeenPattern::lockstep(interval);
    }
    let echo = echo::echo(arrivals, bin);
    if let Some(echo) = echo.filter(|echo| echo.strength >= LOUD && !echo.fades) {
        return SeenPattern::lockstep(echo.interval);
    }
    let waves = waves::waves(evidence.arrivals, bin);
    let beats = waves::beats(&waves, evidence.failures, bin);
    let first = evidence
        .lost
        .and_then(|lost| Some(waves.first()?.tenth - lost));
    // The spread of a small wave is uncertain, so one delay is not enough.
    let enough = beats.len() > 1 || beats.iter().all(|beat| beat.count >= ENOUGH_IN_WAVE);
    if enough && let Some(seen) = twice(first, &beats).or_else(|| growing(first, &beats)) {
        return seen;
    }
    let known = |seconds: f64| arrivals.len() as f64 * bin >= seconds;
    let nowhere = circles.most.is_some_and(|most| most < NOT_GATHERED);
    // A server that handles clients one by one makes a steady flow of clients in lockstep; chance
    // does not.
    let silent = echo.is_some_and(|echo| echo.strength < FAINT && echo.dispersion >= BY_CHANCE);
    match known(SPREAD_FOR) && nowhere && silent && occupied(arrivals) >= OCCUPIED {
        true => SeenPattern::SPREAD,
        false => SeenPattern::NOTHING,
    }
}

/// The share of quarter seconds, from the first attempt on, that have at least a fifth of the
/// average number of attempts.
fn occupied(arrivals: &[u32]) -> f64 {
    let first = arrivals.iter().position(|count| *count > 0);
    let quarters: Vec<u32> = arrivals[first.unwrap_or(0)..]
        .chunks(10)
        .map(|quarter| quarter.iter().sum())
        .collect();
    let mean = quarters.iter().sum::<u32>() as f64 / quarters.len().max(1) as f64;
    let like_it = quarters
        .iter()
        .filter(|count| f64::from(**count) >= mean / 5.0);
    like_it.count() as f64 / quarters.len().max(1) as f64
}

/// Lockstep, if the time from the loss to the first attempt equals the delay to the next.
fn twice(first: Option<f64>, beats: &[Beat]) -> Option<SeenPattern> {
    let next = beats.first().filter(|beat| beat.is_tight())?;
    let is_same = (first? / next.seconds).ln().abs() <= TWICE;
    is_same.then(|| SeenPattern::lockstep(next.seconds))
}

/// Backoff, if delays grow by a constant factor; `first` is the time from the loss of the
/// connections to the first observed attempt.
///
/// Attempts at a server that is down are not seen. With the first delay b and the factor f, attempt
/// n comes b (f^n - 1) / (f - 1) after the loss, and b f^n before the next.
pub(super) fn growing(first: Option<f64>, beats: &[Beat]) -> Option<SeenPattern> {
    let tight = beats.iter().take_while(|beat| beat.is_tight()).count();
    let beats = &beats[..tight];
    match beats {
        [] => None,
        [only] => {
            // A constant delay cannot be longer than the time to the first attempt.
            let first = first.filter(|first| *first < only.seconds * 0.82)?;
            FACTORS
                .into_iter()
                .filter_map(|factor| FirstDelay::fit(first, only.seconds, factor, SAME_FIRST))
                .min_by(|a, b| a.misfit.total_cmp(&b.misfit))
                .map(|fit| SeenPattern::backoff(fit.seconds))
        }
        [one, two, ..] => {
            let factor = two.seconds / one.seconds;
            let constant = beats.windows(3).take(2).all(|three| {
                let next = three[2].seconds / three[1].seconds;
                // The delay may have reached its cap.
                (next / factor).ln().abs() <= SAME || next < factor
            });
            if !(LEAST_FACTOR..=MOST_FACTOR).contains(&factor) || !constant {
                return None;
            }
            let usual = FACTORS
                .into_iter()
                .find(|usual| (factor / usual).ln().abs() <= SAME / 2.0);
            let factor = usual.unwrap_or(factor);
            let Some(first) = first else {
                // What happened before is unknown.
                return Some(SeenPattern::backoff(one.seconds));
            };
            let Some(fit) = FirstDelay::fit(first, one.seconds, factor, SAME) else {
                return Some(SeenPattern {
                    pattern: Pattern::Backoff,
                    period: None,
                });
            };
            let expected =
                |beat: &Beat, n: i32| fit.seconds * factor.powi(fit.unseen + n) / beat.seconds;
            let grown = beats
                .iter()
                .zip(0..)
                .filter(|(beat, n)| expected(beat, *n).ln().abs() <= SAME);
            // Attempts are late, never early.
            let of_each = grown.map(|(beat, n)| beat.seconds / factor.powi(fit.unseen + n));
            Some(SeenPattern::backoff(of_each.fold(fit.seconds, f64::min)))
        }
    }
}

/// The first delay, derived from an attempt and the delay after it.
struct FirstDelay {
    seconds: f64,
    /// The number of unseen attempts.
    unseen: i32,
    /// How badly the two agree.
    misfit: f64,
}

impl FirstDelay {
    /// `None` if the attempts before `delay` do not fit into the time `first` with this factor.
    fn fit(first: f64, delay: f64, factor: f64, tolerance: f64) -> Option<Self> {
        (1..=MOST_UNSEEN)
            .map(|unseen| {
                let by_delay = delay / factor.powi(unseen);
                let by_first = first * (factor - 1.0) / (factor.powi(unseen) - 1.0);
                Self {
                    seconds: by_delay.min(by_first),
                    unseen,
                    // Attempts are late, never early, so an early first attempt is less plausible.
                    misfit: match (by_delay / by_first).ln() {
                        late if late <= 0.0 => -late,
                        early => 2.0 * early,
                    },
                }
            })
            .filter(|fit| fit.misfit <= tolerance)
            .min_by(|a, b| a.misfit.total_cmp(&b.misfit))
    }
}

/// The share of the delays that must agree. It is less than half, so that clients of another kind
/// do not hide them, but more than chance could produce.
const SHARE: f64 = 0.4;
const MOST: f64 = 0.15;
/// No agreement.
const LOOSE: f64 = 0.135;
/// The least number of delays for a result.
const ENOUGH: u64 = 50;
const ENOUGH_OF_ONE: u64 = 20;
const ENOUGH_IN_WAVE: f64 = 200.0;
/// Tolerance for two delays, or two ratios, to be equal.
const SAME: f64 = 0.15;
/// Tolerance of `twice`. With a factor of 2, delays below 30 s differ by more.
const TWICE: f64 = 0.04;
const SAME_FIRST: f64 = 0.06;
/// Maximum number of attempts at a server that is down. After more, the first delay is a guess.
const MOST_UNSEEN: i32 = 6;
/// Attempts are spread if they do not cluster (see [`phase`]) and come nearly all the time, for
/// this many seconds.
const NOT_GATHERED: f64 = 0.2;
const OCCUPIED: f64 = 0.7;
const SPREAD_FOR: f64 = 5.0;
/// A stronger echo than `LOUD` shows an interval; a weaker one than `FAINT` shows that there is
/// none.
const LOUD: f64 = 0.7;
const FAINT: f64 = 0.4;
/// Counts of independent events have a Fano factor of 1.
const BY_CHANCE: f64 = 0.5;
/// Factors that are common in programs.
const FACTORS: [f64; 3] = [2.0, 1.5, 3.0];
const LEAST_FACTOR: f64 = 1.3;
const MOST_FACTOR: f64 = 3.5;
