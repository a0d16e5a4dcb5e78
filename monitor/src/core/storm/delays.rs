//! How long clients wait from one attempt to the next, by how many attempts they made.

use super::sample::Return;

/// Delays of the sampled clients, in slots of 2 %.
#[derive(Debug)]
pub(super) struct Delays {
    /// By the number of the attempt, from the second on; the last holds all later ones.
    steps: Vec<Step>,
    /// From the loss of the connection to the first attempt that was seen.
    pub(super) first: Slots,
    /// Attempts of sampled clients, and those from addresses that several share.
    pub(super) attempts: u64,
    pub(super) shared: u64,
}

/// The delays before the nth attempt.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Since the attempt before.
    pub(super) since_attempt: Slots,
    /// Since that attempt failed.
    pub(super) since_failure: Slots,
}

impl Delays {
    pub(super) fn new() -> Self {
        Self {
            steps: Vec::new(),
            first: Slots::new(),
            attempts: 0,
            shared: 0,
        }
    }

    pub(super) fn add(&mut self, back: &Return) {
        self.attempts += 1;
        if back.shared {
            self.shared += 1;
            return;
        }
        if back.attempt <= 1 {
            self.first.add(back.since_attempt);
            return;
        }
        let step = usize::from(back.attempt - 2).min(STEPS - 1);
        while self.steps.len() <= step {
            self.steps.push(Step {
                since_attempt: Slots::new(),
                since_failure: Slots::new(),
            });
        }
        self.steps[step].since_attempt.add(back.since_attempt);
        self.steps[step].since_failure.add(back.since_failure);
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// Counts of durations in slots of 2 %, from 10 ms to over two minutes.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    counts: Box<[u32]>,
    total: u64,
}

impl Slots {
    pub(super) fn new() -> Self {
        Self {
            counts: vec![0; SLOTS].into(),
            total: 0,
        }
    }

    fn add(&mut self, nanos: Option<u64>) {
        let Some(nanos) = nanos else {
            return;
        };
        let ratio = nanos as f64 / SHORTEST;
        let slot = (ratio.max(1.0).ln() / WIDTH) as usize;
        self.counts[slot.min(SLOTS - 1)] += 1;
        self.total += 1;
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    /// The narrowest range of slots that holds `share` of the durations.
    pub(super) fn core(&self, share: f64) -> Option<Core> {
        let wanted = (self.total as f64 * share).ceil().max(1.0);
        let mut best: Option<(f64, usize, usize)> = None;
        let (mut from, mut inside) = (0, 0.0);
        for to in 0..SLOTS {
            inside += f64::from(self.counts[to]);
            while inside - f64::from(self.counts[from]) >= wanted {
                inside -= f64::from(self.counts[from]);
                from += 1;
            }
            if inside < wanted {
                continue;
            }
            // The part of the outer slots that is needed.
            let surplus = inside - wanted;
            let edge = f64::from(self.counts[from].max(self.counts[to])).max(1.0);
            let width = (to + 1 - from) as f64 - (surplus / edge).min(1.0);
            if best.is_none_or(|(least, ..)| width < least) {
                best = Some((width, from, to));
            }
        }
        let (width, from, to) = best?;
        Some(Core {
            width: width * WIDTH,
            seconds: self.median(from, to),
        })
    }

    /// The share of the durations that are within `tolerance` of `seconds`.
    pub(super) fn near(&self, seconds: f64, tolerance: f64) -> f64 {
        let inside = (0..SLOTS)
            .filter(|slot| (middle(*slot as f64) / seconds).ln().abs() <= tolerance)
            .map(|slot| u64::from(self.counts[slot]))
            .sum::<u64>();
        inside as f64 / self.total.max(1) as f64
    }

    fn median(&self, from: usize, to: usize) -> f64 {
        let half = self.counts[from..=to]
            .iter()
            .map(|n| f64::from(*n))
            .sum::<f64>()
            / 2.0;
        let mut before = 0.0;
        for slot in from..=to {
            let count = f64::from(self.counts[slot]);
            if before + count >= half && count > 0.0 {
                return middle(slot as f64 - 0.5 + (half - before) / count);
            }
            before += count;
        }
        middle(to as f64)
    }
}

/// Where durations gather.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Core {
    /// Of the range, as the logarithm of the ratio of its ends.
    pub(super) width: f64,
    /// The median within it.
    pub(super) seconds: f64,
}

/// Seconds.
fn middle(slot: f64) -> f64 {
    SHORTEST / 1e9 * ((slot + 0.5) * WIDTH).exp()
}

/// Nanoseconds.
const SHORTEST: f64 = 10e6;
/// The logarithm of the ratio of the ends of a slot.
const WIDTH: f64 = 0.02;
/// ln(120 s / 10 ms) / 0.02, and some.
const SLOTS: usize = 480;
/// Attempts beyond are all alike: the delay has reached its cap.
const STEPS: usize = 10;
