//! The order in which connections are listed.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
};

use super::Urgency;
use monitor_core::{ConnId, Ktime};

/// Connections that are still to be reported. Only the part that is read gets sorted: sorting a million
/// would block the daemon.
pub(super) struct UrgentThenOldest {
    urgent: BinaryHeap<Reverse<Urgency>>,
    /// Connections of equal age are ordered by cookie.
    others: BinaryHeap<Reverse<(Ktime, ConnId)>>,
    reported: HashSet<ConnId>,
}

impl UrgentThenOldest {
    /// The most urgent first, then the oldest of `all` that are not among them.
    pub(super) fn new(urgent: Vec<Urgency>, all: Vec<(Ktime, ConnId)>) -> Self {
        Self {
            reported: urgent.iter().map(Urgency::conn).collect(),
            urgent: urgent.into_iter().map(Reverse).collect(),
            others: all.into_iter().map(Reverse).collect(),
        }
    }
}

impl Iterator for UrgentThenOldest {
    type Item = ConnId;

    fn next(&mut self) -> Option<ConnId> {
        if let Some(Reverse(urgency)) = self.urgent.pop() {
            return Some(urgency.conn());
        }
        loop {
            let Reverse((_, conn)) = self.others.pop()?;
            if !self.reported.contains(&conn) {
                return Some(conn);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::next_page, *};
    use monitor_core::{Certainty, VerdictKind};

    #[test]
    fn urgent_connections_come_first_and_each_connection_once() {
        // Groups of three have the same age; each CPU has a batch of cookies.
        let known = |n: u64| (Ktime(n / 3), ConnId(n ^ 0x100));
        let all: Vec<_> = (0..600).rev().map(known).collect();
        let urgent = [400, 7]
            .map(known)
            .map(|(at, conn)| Urgency::new(VerdictKind::Expired, Certainty::Suspected, at, conn));
        let mut queue = UrgentThenOldest::new(urgent.to_vec(), all);
        let pages: Vec<_> = std::iter::from_fn(|| {
            let page = next_page(&mut queue);
            (!page.is_empty()).then_some(page)
        })
        .collect();
        assert_eq!(pages.len(), 3);
        let reported: Vec<_> = pages.concat().iter().map(|c| known(c.0 ^ 0x100)).collect();
        assert_eq!(reported[..4], [7, 400, 0, 1].map(known));
        assert!(
            reported[2..].is_sorted(),
            "the oldest first, then by cookie"
        );
        assert_eq!(reported.len(), 600);
        assert_eq!(reported.iter().collect::<HashSet<_>>().len(), 600);
    }
}
