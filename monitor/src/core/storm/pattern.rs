//! How the clients space their attempts.

use std::time::Duration;

use super::{
    delays::{Delays, Slots},
    finding::Pattern,
};

/// What the attempts look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) pattern: Pattern,
    /// Lockstep: the interval. Backoff: the first delay.
    pub(super) period: Option<Duration>,
}

impl Seen {
    pub(super) const NOTHING: Self = Self {
        pattern: Pattern::Unknown,
        period: None,
    };
    pub(super) const SPREAD: Self = Self {
        pattern: Pattern::Jittered,
        period: None,
    };

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

/// The delay between one attempt and the next, as nearly all clients have it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Beat {
    pub(super) seconds: f64,
    /// How far the delays differ, as the logarithm of a ratio.
    pub(super) width: f64,
}

/// What the delays of single clients say.
pub(super) fn of_clients(delays: &Delays, first: Option<f64>) -> Seen {
    // Behind a proxy, or where few come back, they say nothing of most clients.
    if delays.shared * 2 > delays.attempts {
        return Seen::NOTHING;
    }
    let kinds = [
        beats(delays, |step| &step.since_attempt),
        beats(delays, |step| &step.since_failure),
    ];
    // Some wait from one attempt to the next, others from the failure: what fits better is how they do it.
    let width = |kind: &&Kind| kind.pooled.map_or(f64::MAX, |pooled| pooled.width);
    let steadiest = kinds
        .iter()
        .filter(|kind| kind.pooled.is_some())
        .min_by(|a, b| width(a).total_cmp(&width(b)));
    if let Some(kind) = steadiest
        && let Some(pooled) = kind.pooled
        && pooled.width <= TIGHT
        && kind.steps_at_pooled >= 2
    {
        return Seen::lockstep(pooled.seconds);
    }
    let mut spread = 0;
    for kind in &kinds {
        let tight: Vec<Beat> = kind
            .beats
            .iter()
            .copied()
            .take_while(|beat| beat.width <= TIGHT)
            .collect();
        if let Some(seen) = growing(first, &tight) {
            return seen;
        }
        let loose = kind.beats.iter().filter(|beat| beat.width >= LOOSE);
        spread += usize::from(kind.pooled.is_some() && loose.count() == kind.beats.len());
    }
    match spread == kinds.iter().filter(|kind| kind.pooled.is_some()).count() && spread > 0 {
        true => Seen::SPREAD,
        false => Seen::NOTHING,
    }
}

struct Kind {
    beats: Vec<Beat>,
    /// All delays together, if there are enough.
    pooled: Option<Beat>,
    /// In how many steps a good part of the delays is the pooled one.
    steps_at_pooled: usize,
}

fn beats(delays: &Delays, of: impl Fn(&super::delays::Step) -> &Slots) -> Kind {
    let mut all = Slots::new();
    for step in delays.steps() {
        all.merge(of(step));
    }
    let beat = |slots: &Slots, least: u64| {
        let core = slots.core(SHARE).filter(|_| slots.total() >= least)?;
        Some(Beat {
            seconds: core.seconds,
            width: core.width,
        })
    };
    let pooled = beat(&all, ENOUGH);
    let is_at = |slots: &Slots| {
        pooled.is_some_and(|pooled| slots.near(pooled.seconds, TIGHT) >= SHARE * 0.75)
    };
    Kind {
        beats: delays
            .steps()
            .iter()
            .map_while(|step| beat(of(step), ENOUGH_OF_ONE))
            .collect(),
        pooled,
        steps_at_pooled: delays
            .steps()
            .iter()
            .filter(|step| of(step).total() >= ENOUGH_OF_ONE / 2 && is_at(of(step)))
            .count(),
    }
}

/// Whether delays grow by a constant factor; `first` is the time from the loss of the connections to the
/// first attempt that was seen.
///
/// A server that is not there answers no attempt, so the first ones are not seen. With the first delay b
/// and the factor f, attempt n comes b (f^n - 1) / (f - 1) after the loss, and b f^n before the next.
pub(super) fn growing(first: Option<f64>, beats: &[Beat]) -> Option<Seen> {
    match beats {
        [] => None,
        [only] => {
            let first = first?;
            FACTORS
                .into_iter()
                .find_map(|factor| first_delay(first, only.seconds, factor))
                .map(Seen::backoff)
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
            let known = first.and_then(|first| first_delay(first, one.seconds, factor));
            Some(Seen::backoff(known.unwrap_or(one.seconds)))
        }
    }
}

/// The first delay, if the attempts before `delay` fit into `first` with this factor.
fn first_delay(first: f64, delay: f64, factor: f64) -> Option<f64> {
    (1..=12)
        .map(|unseen| delay / factor.powi(unseen))
        .zip(1..=12)
        .find(|(base, unseen)| {
            let expected = base * (factor.powi(*unseen) - 1.0) / (factor - 1.0);
            (expected / first).ln().abs() <= SAME_FIRST
        })
        .map(|(base, _)| base)
}

/// The part of the delays that must agree. Less than half, so that clients of another kind do not hide
/// them; more than chance could bring together.
const SHARE: f64 = 0.4;
/// Agreement: 40 % of the delays within this (logarithm of a ratio). With up to half of the delay at
/// random it is 0.14, with full jitter 0.5.
const TIGHT: f64 = 0.12;
/// No agreement.
const LOOSE: f64 = 0.135;
/// Delays before anything is said.
const ENOUGH: u64 = 50;
const ENOUGH_OF_ONE: u64 = 20;
/// Two delays, or two ratios, are the same.
const SAME: f64 = 0.15;
const SAME_FIRST: f64 = 0.06;
/// Factors that programs have.
const FACTORS: [f64; 3] = [2.0, 1.5, 3.0];
const LEAST_FACTOR: f64 = 1.3;
const MOST_FACTOR: f64 = 3.5;
