//! The order in which connections are listed.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
};

use monitor_core::{ConnId, Ktime};

/// Connections that are still to be reported. Only the part that is read gets sorted: sorting a million
/// would block the daemon.
pub(super) struct OldestFirst {
    /// Connections of equal age are ordered by cookie.
    urgent: BinaryHeap<Reverse<(Ktime, ConnId)>>,
    others: BinaryHeap<Reverse<(Ktime, ConnId)>>,
    reported: HashSet<ConnId>,
}

impl OldestFirst {
    /// The oldest of `urgent` first, then the oldest of `all` that are not among them.
    pub(super) fn new(urgent: Vec<(Ktime, ConnId)>, all: Vec<(Ktime, ConnId)>) -> Self {
        Self {
            reported: urgent.iter().map(|(_, conn)| *conn).collect(),
            urgent: urgent.into_iter().map(Reverse).collect(),
            others: all.into_iter().map(Reverse).collect(),
        }
    }
}

impl Iterator for OldestFirst {
    type Item = ConnId;

    fn next(&mut self) -> Option<ConnId> {
        if let Some(Reverse((_, conn))) = self.urgent.pop() {
            return Some(conn);
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

    #[test]
    fn urgent_connections_come_first_and_each_connection_once() {
        // Groups of three have the same age; each CPU has a batch of cookies.
        let known = |n: u64| (Ktime(n / 3), ConnId(n ^ 0x100));
        let all: Vec<_> = (0..600).rev().map(known).collect();
        let mut queue = OldestFirst::new([400, 7].map(known).to_vec(), all);
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
