//! Unread bytes in receive queues, compared from one scan of the sockets to the next.

use std::collections::HashMap;

use super::{event::ReceiveQueue, facts::ConnId, observation::Unread, time::Ktime};

/// The connections whose receive queue was not empty at the last scan.
#[derive(Debug, Default)]
pub(super) struct RecvQueues {
    unread: HashMap<ConnId, UnreadEntry>,
}

#[derive(Clone, Copy, Debug)]
struct UnreadEntry {
    unread: Unread,
    /// Total bytes that the application had read.
    read: u64,
}

impl RecvQueues {
    /// Stores one scan, and returns the connections whose verdict it may change. It proves no queue empty of
    /// a connection in `missed`, whose socket it did not read. They are sorted.
    pub(super) fn observe(
        &mut self,
        at: Ktime,
        unread: &[ReceiveQueue],
        missed: &[ConnId],
    ) -> Vec<ConnId> {
        let before = std::mem::take(&mut self.unread);
        for queue in unread {
            let last = before.get(&queue.conn);
            let moved = last.is_some_and(|entry| entry.read != queue.read);
            let since = last
                .filter(|_| !moved)
                .map_or(at, |entry| entry.unread.since);
            let unread = Unread {
                since,
                seen_at: at,
                bytes: queue.bytes,
                moved,
            };
            let read = queue.read;
            self.unread.insert(queue.conn, UnreadEntry { unread, read });
        }
        let mut changed = Vec::with_capacity(before.len());
        for (conn, entry) in before {
            if missed.binary_search(&conn).is_ok() {
                self.unread.entry(conn).or_insert(entry);
            }
            changed.push(conn);
        }
        // Sorted, because a trace can be replayed only if the order does not depend on the hash.
        changed.sort_unstable();
        changed
    }

    pub(super) fn unread(&self, conn: ConnId) -> Option<Unread> {
        self.unread.get(&conn).map(|entry| entry.unread)
    }

    pub(super) fn forget(&mut self, conn: ConnId) {
        self.unread.remove(&conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONN: ConnId = ConnId(1);

    fn queue(read: u64) -> [ReceiveQueue; 1] {
        [ReceiveQueue {
            conn: CONN,
            bytes: 100,
            read,
        }]
    }

    #[test]
    fn a_queue_is_unread_since_the_first_scan_at_the_present_position() {
        let mut recv_queues = RecvQueues::default();
        assert_eq!(recv_queues.observe(Ktime(1), &queue(7), &[]), []);
        assert_eq!(recv_queues.observe(Ktime(2), &queue(7), &[]), [CONN]);
        assert_eq!(
            recv_queues.unread(CONN).map(|unread| unread.since),
            Some(Ktime(1))
        );
        let moved =
            |recv_queues: &RecvQueues| recv_queues.unread(CONN).is_some_and(|unread| unread.moved);
        assert!(!moved(&recv_queues));
        recv_queues.observe(Ktime(3), &queue(8), &[]);
        assert_eq!(
            recv_queues.unread(CONN).map(|unread| unread.since),
            Some(Ktime(3))
        );
        assert!(moved(&recv_queues));
        recv_queues.observe(Ktime(4), &queue(8), &[]);
        assert!(!moved(&recv_queues));
    }

    #[test]
    fn only_a_scan_that_read_the_socket_proves_a_queue_empty() {
        let mut recv_queues = RecvQueues::default();
        recv_queues.observe(Ktime(1), &queue(7), &[]);
        assert_eq!(recv_queues.observe(Ktime(2), &[], &[CONN]), [CONN]);
        assert!(recv_queues.unread(CONN).is_some());
        assert_eq!(recv_queues.observe(Ktime(3), &[], &[ConnId(2)]), [CONN]);
        assert!(recv_queues.unread(CONN).is_none());
    }
}
