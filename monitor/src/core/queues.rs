//! What applications leave unread, from one look at the sockets to the next.

use std::collections::HashMap;

use super::{event::ReceiveQueue, facts::ConnId, look::Unread, time::Ktime};

/// The connections whose receive queue was not empty at the last look.
#[derive(Debug, Default)]
pub(super) struct Queues {
    unread: HashMap<ConnId, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    unread: Unread,
    /// All that the application had read.
    read: u64,
}

impl Queues {
    /// Takes in one look, and says on which connections it may change the verdict. An incomplete look
    /// proves of no connection that its queue is empty.
    pub(super) fn look(
        &mut self,
        at: Ktime,
        unread: &[ReceiveQueue],
        complete: bool,
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
            self.unread.insert(queue.conn, Entry { unread, read });
        }
        let mut changed = Vec::with_capacity(before.len());
        for (conn, entry) in before {
            if !complete {
                self.unread.entry(conn).or_insert(entry);
            }
            changed.push(conn);
        }
        // In an order that does not depend on the hash, so that a trace can be replayed.
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
    fn a_queue_is_unread_since_the_first_look_that_found_the_application_where_it_is() {
        let mut queues = Queues::default();
        assert_eq!(queues.look(Ktime(1), &queue(7), true), []);
        assert_eq!(queues.look(Ktime(2), &queue(7), true), [CONN]);
        assert_eq!(
            queues.unread(CONN).map(|unread| unread.since),
            Some(Ktime(1))
        );
        let moved = |queues: &Queues| queues.unread(CONN).is_some_and(|unread| unread.moved);
        assert!(!moved(&queues));
        queues.look(Ktime(3), &queue(8), true);
        assert_eq!(
            queues.unread(CONN).map(|unread| unread.since),
            Some(Ktime(3))
        );
        assert!(moved(&queues));
        queues.look(Ktime(4), &queue(8), true);
        assert!(!moved(&queues));
    }

    #[test]
    fn only_a_complete_look_proves_a_queue_empty() {
        let mut queues = Queues::default();
        queues.look(Ktime(1), &queue(7), true);
        assert_eq!(queues.look(Ktime(2), &[], false), [CONN]);
        assert!(queues.unread(CONN).is_some());
        assert_eq!(queues.look(Ktime(3), &[], true), [CONN]);
        assert!(queues.unread(CONN).is_none());
    }
}
