//! The delays between a client's attempts, by the number of the attempt.

use super::sample::Return;

/// Delays of the sampled clients, in slots of 2 %.
#[derive(Debug)]
pub(super) struct Delays {
    /// By the number of the attempt, from the second on; the last entry holds all later ones.
    steps: Vec<DelayStep>,
    /// From the loss of the connection to the first observed attempt.
    pub(super) first: Slots,
    /// Attempts of sampled clients, and how many of them came from a shared address.
    attempts: u64,
    shared: u64,
}

/// The delays before the nth attempt.
#[derive(Clone, Debug)]
pub(super) struct DelayStep {
    /// Since the previous attempt.
    pub(super) since_attempt: Slots,
    /// Since the previous attempt failed.
    pub(super) since_failure: Slots,
    /// The number of expected attempts: previous attempts that failed.
    pub(super) expected: u64,
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
        let step = self.step(back.attempt - 2);
        step.since_attempt.add(back.since_attempt);
        step.since_failure.add(back.since_failure);
    }

    /// The nth attempt of a client failed, so another is expected.
    pub(super) fn expect(&mut self, attempt: u8) {
        if attempt > 0 {
            self.step(attempt - 1).expected += 1;
        }
    }

    /// True if the delays represent most clients, because few attempts come from a shared address.
    pub(super) fn distinguishes_clients(&self) -> bool {
        self.shared * 2 <= self.attempts
    }

    fn step(&mut self, number: u8) -> &mut DelayStep {
        let step = usize::from(number).min(STEPS - 1);
        while self.steps.len() <= step {
            self.steps.push(DelayStep {
                since_attempt: Slots::new(),
                since_failure: Slots::new(),
                expected: 0,
            });
        }
        &mut self.steps[step]
    }

    pub(super) fn steps(&self) -> &[DelayStep] {
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

    /// The narrowest range of slots that holds `wanted` of the durations.
    pub(super) fn core(&self, wanted: f64) -> Option<Core> {
        let wanted = wanted.ceil().max(1.0);
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
            // Only the needed part of the outer slots counts.
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

    /// The share of the durations within `tolerance` of `seconds`.
    pub(super) fn near(&self, seconds: f64, tolerance: f64) -> f64 {
        let inside = (0..SLOTS)
            .filter(|slot| (middle(*slot as f64) / seconds).ln().abs() <= tolerance)
            .map(|slot| u64::from(self.counts[slot]))
            .sum::<u64>();
        inside as f64 / self.total.max(1) as f64
    }

    /// In seconds; `None` if there are no durations.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = share * self.total as f64;
        let mut before = 0.0;
        for (slot, count) in self.counts.iter().enumerate() {
            before += f64::from(*count);
            if *count > 0 && before >= wanted {
                return Some(middle(slot as f64));
            }
        }
        None
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

/// Where durations cluster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Core {
    /// Width of the range, as the logarithm of the ratio of its ends.
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
/// ln(120 s / 10 ms) / 0.02, with a margin.
const SLOTS: usize = 480;
/// Later attempts are alike, because the delay has reached its cap.
const STEPS: usize = 10;
