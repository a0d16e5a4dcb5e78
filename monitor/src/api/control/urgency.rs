//! The order of the standing verdicts.

use std::{cmp::Reverse, collections::BinaryHeap, iter};

use monitor_core::{Certainty, ConnId, Ktime, VerdictKind};

/// The place of a connection among those with a standing verdict: confirmed zombies first, then suspected
/// ones, then connections with a warning; each the oldest verdict first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Urgency {
    is_zombie: Reverse<bool>,
    certainty: Reverse<Certainty>,
    since: Ktime,
    conn: ConnId,
}

impl Urgency {
    /// `since` is when the verdict was reached.
    pub fn new(kind: VerdictKind, certainty: Certainty, since: Ktime, conn: ConnId) -> Self {
        Self {
            is_zombie: Reverse(kind.is_zombie()),
            certainty: Reverse(certainty),
            since,
            conn,
        }
    }

    pub(super) fn conn(&self) -> ConnId {
        self.conn
    }
}

/// The connections, the most urgent first. Only the part that is read gets sorted.
pub(super) fn most_urgent(judged: Vec<Urgency>) -> impl Iterator<Item = ConnId> {
    let mut waiting: BinaryHeap<_> = judged.into_iter().map(Reverse).collect();
    iter::from_fn(move || waiting.pop().map(|Reverse(urgency)| urgency.conn))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirmed_zombies_come_first_then_the_oldest() {
        use Certainty::{Confirmed, Suspected};
        use VerdictKind::{BlackHoled, Expired, Quiet};
        let judged = [
            (Quiet, Suspected, 1),
            (Expired, Suspected, 3),
            (BlackHoled, Suspected, 2),
            (Expired, Confirmed, 5),
            (Expired, Confirmed, 4),
        ];
        let judged = judged
            .map(|(kind, certainty, at)| Urgency::new(kind, certainty, Ktime(at), ConnId(at)));
        let order: Vec<_> = most_urgent(judged.to_vec()).collect();
        assert_eq!(order, [4, 5, 2, 3, 1].map(ConnId));
    }
}
