//! The times of attempts and failures, fine enough to show how clients space their attempts.

use std::time::Duration;

use crate::time::Ktime;

/// The last two minutes in bins of [`BIN`].
#[derive(Debug)]
pub(super) struct Trace {
    arrivals: Box<[u32]>,
    failures: Box<[u32]>,
    /// The number of the latest bin since boot.
    latest: u64,
    /// Arrivals in the last second of bins.
    second: u64,
    /// The largest value of `second` since the last [`Trace::take_peak`].
    peak: u64,
}

impl Trace {
    pub(super) fn new() -> Self {
        Self {
            arrivals: vec![0; LENGTH].into(),
            failures: vec![0; LENGTH].into(),
            latest: 0,
            second: 0,
            peak: 0,
        }
    }

    pub(super) fn arrive(&mut self, at: Ktime) {
        if let Some(slot) = self.slot(at) {
            self.arrivals[slot] = self.arrivals[slot].saturating_add(1);
            if self.latest - number(at).min(self.latest) < SECOND {
                self.second += 1;
                self.peak = self.peak.max(self.second);
            }
        }
    }

    /// A client was refused, got no response, or lost its connection.
    pub(super) fn fail(&mut self, at: Ktime) {
        if let Some(slot) = self.slot(at) {
            self.failures[slot] = self.failures[slot].saturating_add(1);
        }
    }

    pub(super) fn advance(&mut self, at: Ktime) {
        let index = number(at);
        if index.saturating_sub(self.latest) >= LENGTH as u64 {
            self.arrivals.fill(0);
            self.failures.fill(0);
            self.second = 0;
            self.latest = index;
        }
        while self.latest < index {
            self.latest += 1;
            let leaves = self.latest.checked_sub(SECOND).map(slot_of);
            let leaving = leaves.map_or(0, |slot| self.arrivals[slot]);
            self.second -= u64::from(leaving).min(self.second);
            let slot = slot_of(self.latest);
            self.arrivals[slot] = 0;
            self.failures[slot] = 0;
        }
    }

    /// Arrivals in the second before the last event or [`Trace::advance`].
    pub(super) fn rate(&self) -> u64 {
        self.second
    }

    /// The highest rate since the last call.
    pub(super) fn take_peak(&mut self) -> u64 {
        std::mem::replace(&mut self.peak, self.second)
    }

    /// The counts from `from` to the latest bin, limited to the stored bins: the start of the first
    /// bin, arrivals and failures.
    pub(super) fn since(&self, from: Ktime) -> (Ktime, Vec<u32>, Vec<u32>) {
        let oldest = self.latest.saturating_sub(LENGTH as u64 - 1);
        let bins = number(from).max(oldest)..=self.latest;
        let of = |counts: &[u32]| bins.clone().map(|index| counts[slot_of(index)]).collect();
        let first = Ktime(bins.start().saturating_mul(BIN.as_nanos() as u64));
        (first, of(&self.arrivals), of(&self.failures))
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.arrivals) + size_of_val(&*self.failures)
    }

    /// `None` if `at` is too long ago.
    fn slot(&mut self, at: Ktime) -> Option<usize> {
        self.advance(at);
        let index = number(at);
        (self.latest - index < LENGTH as u64).then(|| slot_of(index))
    }
}

fn number(at: Ktime) -> u64 {
    at.0 / BIN.as_nanos() as u64
}

fn slot_of(index: u64) -> usize {
    (index % LENGTH as u64) as usize
}

pub(super) const BIN: Duration = Duration::from_millis(25);
/// Bins in a second.
const SECOND: u64 = 40;
/// Two minutes: four attempts at the usual cap of 30 s.
const LENGTH: usize = 4_800;
