//! Seeds: flows that are in the snapshots because wsmon wrote them.

use std::sync::Arc;

use super::socket_scan::sorted;
use monitor_core::ConnId;

/// No seed is ever added, so a scan can read the list while the loop goes on.
#[derive(Debug, Default)]
pub(super) struct Seeds {
    /// Sorted.
    conns: Arc<[ConnId]>,
    /// Whether each connection in `conns` has ended, by index.
    ended: Vec<bool>,
    /// The number that has ended.
    ended_count: usize,
}

impl Seeds {
    pub(super) fn new(conns: impl IntoIterator<Item = ConnId>) -> Self {
        let conns = sorted(conns);
        Self {
            ended: vec![false; conns.len()],
            ended_count: 0,
            conns,
        }
    }

    /// The seeds that have not ended, for a scan.
    pub(super) fn share(&mut self) -> Arc<[ConnId]> {
        if self.ended_count > 0 {
            let left = self.conns.iter().zip(&self.ended);
            *self = Self::new(left.filter(|(_, ended)| !**ended).map(|(conn, _)| *conn));
        }
        Arc::clone(&self.conns)
    }

    /// Removes a seed; returns whether it was one.
    pub(super) fn remove(&mut self, conn: ConnId) -> bool {
        let Ok(index) = self.conns.binary_search(&conn) else {
            return false;
        };
        let ended = std::mem::replace(&mut self.ended[index], true);
        self.ended_count += usize::from(!ended);
        !ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_ends_once_and_a_running_scan_keeps_its_list() {
        let mut seeds = Seeds::new([3, 1, 2].map(ConnId));
        let under_way = seeds.share();
        assert!(seeds.remove(ConnId(2)));
        assert!(!seeds.remove(ConnId(2)), "a second time");
        assert!(!seeds.remove(ConnId(9)), "never one");
        assert_eq!(*under_way, [1, 2, 3].map(ConnId));
        assert_eq!(*seeds.share(), [1, 3].map(ConnId));
        assert!(seeds.remove(ConnId(3)), "at its new index");
    }
}
