//! Outcomes of the attempts.

use super::finding::ReconnectStorm;

/// Attempts and their outcomes since the start; a storm is the difference of two.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) attempts: u64,
    pub(super) accepted: u64,
    pub(super) refused: RefusedCount,
    /// Of sampled clients, by the weight of the sample.
    pub(super) sampled: u64,
    pub(super) returning: u64,
}

impl Totals {
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            attempts: self.attempts - before.attempts,
            accepted: self.accepted - before.accepted,
            refused: self.refused.since(&before.refused),
            sampled: self.sampled - before.sampled,
            returning: self.returning - before.returning,
        }
    }
}

/// Failed attempts by status. Further statuses are under `None` when all slots are taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RefusedCount {
    statuses: [(u16, u64); SLOTS],
    taken: usize,
    without: u64,
}

impl RefusedCount {
    pub(super) fn add(&mut self, status: Option<u16>) {
        let Some(status) = status else {
            self.without += 1;
            return;
        };
        let known = self.statuses[..self.taken]
            .iter()
            .position(|(other, _)| *other == status);
        match known {
            Some(index) => self.statuses[index].1 += 1,
            None if self.taken < SLOTS => {
                self.statuses[self.taken] = (status, 1);
                self.taken += 1;
            }
            None => self.without += 1,
        }
    }

    /// A status keeps its index, so the indices of both are the same.
    fn since(&self, before: &Self) -> Self {
        let mut since = *self;
        since.without -= before.without;
        for (index, (_, count)) in since.statuses.iter_mut().enumerate() {
            *count -= before.statuses[index].1;
        }
        since
    }

    /// Most frequent first.
    pub(super) fn by_status(&self) -> Vec<(Option<u16>, u64)> {
        let known = self.statuses.iter().map(|(status, n)| (Some(*status), *n));
        let mut all: Vec<_> = known.chain([(None, self.without)]).collect();
        all.retain(|(_, count)| *count > 0);
        all.sort_by_key(|(status, count)| (std::cmp::Reverse(*count), *status));
        all
    }
}

const SLOTS: usize = ReconnectStorm::STATUSES - 1;
