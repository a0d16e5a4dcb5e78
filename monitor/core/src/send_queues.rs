//! Bytes in send queues, compared from one scan of the sockets to the next.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{
    event::SendQueue,
    facts::{ConnId, ListenerId},
    rules::{BACKLOGGED_AFTER, CERTAIN_AFTER},
    time::Ktime,
};

/// The connections whose send queue was not empty at the last scan.
///
/// In traffic many queues are not empty, so a scan makes the next table in the background. Clones share
/// one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SendQueues(Arc<Table>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Table {
    scanned_at: Option<Ktime>,
    /// The connections whose socket this scan did not read, each with the last scan that did or that came
    /// before the connection. Sorted.
    missed: Vec<(ConnId, Option<Ktime>)>,
    /// Sorted by connection.
    queues: Vec<Entry>,
    /// By listener; those after the last are empty.
    totals: Vec<QueueTotals>,
    /// The connections whose verdict this scan may change, sorted.
    changed: Vec<ConnId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    queue: SendQueue,
    /// The first of the scans since which the queue is held at the same position.
    since: Ktime,
    seen_at: Ktime,
}

/// The send queues of a listener's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueTotals {
    pub sum: u64,
    pub max: u32,
}

/// Bytes that wait in a send queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsent {
    pub bytes: u32,
    /// The first scan since which the peer's closed window holds them back: none is in flight, and none was
    /// acknowledged. `None` if TCP sends.
    pub held_since: Option<Ktime>,
    /// The last scan.
    pub seen_at: Ktime,
}

impl Entry {
    fn new(queue: SendQueue, at: Ktime, before: Option<&Self>) -> Self {
        let is_same =
            |last: &&Self| last.queue.is_held && queue.is_held && last.queue.acked == queue.acked;
        Self {
            queue,
            since: before.filter(is_same).map_or(at, |last| last.since),
            seen_at: at,
        }
    }

    fn is_held_for(&self, duration: Duration) -> bool {
        self.queue.is_held && self.seen_at.since(self.since) >= duration
    }
}

impl SendQueues {
    /// The table of a scan at `at` that found `queues`, in any order, with this table as the one before.
    /// `known` are the connections at its beginning, and `missed` those of them whose socket it did not read:
    /// what was known of these stays. Both are sorted.
    pub fn next(
        &self,
        at: Ktime,
        mut queues: Vec<SendQueue>,
        known: &[ConnId],
        missed: &[ConnId],
    ) -> Self {
        queues.sort_unstable_by_key(|queue| queue.conn);
        // A scan may find a socket twice.
        queues.dedup_by_key(|queue| queue.conn);
        queues.retain(|queue| known.binary_search(&queue.conn).is_ok());
        let mut entries: Vec<Entry> = queues
            .iter()
            .map(|queue| Entry::new(*queue, at, self.entry(queue.conn)))
            .collect();
        let is_found = |conn: &ConnId| queues.binary_search_by_key(conn, |q| q.conn).is_ok();
        let kept = missed.iter().filter(|conn| !is_found(conn));
        entries.extend(kept.filter_map(|conn| self.entry(*conn)));
        entries.sort_unstable_by_key(|entry| entry.queue.conn);
        entries.shrink_to_fit();
        let changed = changed(&self.0.queues, &entries);
        Self(Arc::new(Table {
            scanned_at: Some(at),
            missed: missed
                .iter()
                .map(|conn| (*conn, self.read_at(*conn)))
                .collect(),
            totals: totals(&entries),
            queues: entries,
            changed,
        }))
    }

    /// The queue of a connection as of the last scan; `None` if it was empty.
    pub fn unsent(&self, conn: ConnId) -> Option<Unsent> {
        self.entry(conn).map(|entry| Unsent {
            bytes: entry.queue.bytes,
            held_since: entry.queue.is_held.then_some(entry.since),
            seen_at: entry.seen_at,
        })
    }

    /// The same in bytes; `None` for a connection that no scan has read since it was `first_seen`.
    pub(super) fn bytes(&self, conn: ConnId, first_seen: Ktime) -> Option<u32> {
        let is_covered = self.read_at(conn).is_some_and(|at| at >= first_seen);
        let found = self.entry(conn).map(|entry| entry.queue.bytes);
        found.or(is_covered.then_some(0))
    }

    pub(super) fn changed(&self) -> &[ConnId] {
        &self.0.changed
    }

    pub(super) fn totals(&self, listener: ListenerId) -> QueueTotals {
        let totals = self.0.totals.get(listener.index());
        totals.copied().unwrap_or_default()
    }

    /// The last scan that read the connection's socket, if it existed then.
    fn read_at(&self, conn: ConnId) -> Option<Ktime> {
        let missed = &self.0.missed;
        match missed.binary_search_by_key(&conn, |(conn, _)| *conn) {
            Ok(index) => missed[index].1,
            Err(_) => self.0.scanned_at,
        }
    }

    fn entry(&self, conn: ConnId) -> Option<&Entry> {
        let queues = &self.0.queues;
        let index = queues.binary_search_by_key(&conn, |entry| entry.queue.conn);
        index.ok().and_then(|index| queues.get(index))
    }
}

/// The connections that became, or no longer are, candidates for the verdict, and those long enough held to
/// be certain.
fn changed(before: &[Entry], now: &[Entry]) -> Vec<ConnId> {
    let held = |entries: &[Entry]| -> BTreeSet<ConnId> {
        let held = entries
            .iter()
            .filter(|entry| entry.is_held_for(BACKLOGGED_AFTER));
        held.map(|entry| entry.queue.conn).collect()
    };
    let certain = now.iter().filter(|entry| entry.is_held_for(CERTAIN_AFTER));
    let mut changed = &held(before) ^ &held(now);
    changed.extend(certain.map(|entry| entry.queue.conn));
    changed.into_iter().collect()
}

fn totals(entries: &[Entry]) -> Vec<QueueTotals> {
    let mut totals = Vec::new();
    for Entry { queue, .. } in entries {
        let index = queue.listener.index();
        if totals.len() <= index {
            totals.resize(index + 1, QueueTotals::default());
        }
        let of_listener = &mut totals[index];
        of_listener.sum += u64::from(queue.bytes);
        of_listener.max = of_listener.max.max(queue.bytes);
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [ConnId; 2] = [ConnId(1), ConnId(2)];

    fn s(at: u64) -> Ktime {
        Ktime(at * 1_000_000_000)
    }

    fn queue(conn: u64, bytes: u32, acked: u64) -> SendQueue {
        SendQueue {
            conn: ConnId(conn),
            listener: ListenerId(conn as u16),
            bytes,
            is_held: true,
            acked,
        }
    }

    fn held_since(queues: &SendQueues) -> Option<Ktime> {
        queues
            .unsent(ConnId(1))
            .and_then(|unsent| unsent.held_since)
    }

    #[test]
    fn a_queue_is_held_since_the_first_scan_without_an_acknowledgement() {
        let scan = |before: &SendQueues, at, queue| before.next(s(at), vec![queue], &KNOWN, &[]);
        let first = scan(&SendQueues::default(), 1, queue(1, 10, 7));
        let grown = scan(&first, 31, queue(1, 20, 7));
        assert_eq!(held_since(&grown), Some(s(1)));
        assert_eq!(grown.changed(), [ConnId(1)]);
        let held = scan(&grown, 41, queue(1, 20, 7));
        assert_eq!(held.changed(), [], "it was a candidate before");
        let certain = scan(&held, 1_801, queue(1, 20, 7));
        assert_eq!(certain.changed(), [ConnId(1)]);
        let moved = scan(&grown, 32, queue(1, 20, 8));
        assert_eq!(held_since(&moved), Some(s(32)));
        assert_eq!(moved.changed(), [ConnId(1)], "it was held before");
        let sends = SendQueue {
            is_held: false,
            ..queue(1, 20, 8)
        };
        let sends = scan(&moved, 33, sends);
        assert_eq!(held_since(&sends), None);
        assert_eq!(sends.changed(), []);
        let held = scan(&sends, 34, queue(1, 20, 8));
        assert_eq!(held_since(&held), Some(s(34)));
    }

    #[test]
    fn only_a_scan_that_read_the_socket_proves_its_queue_empty() {
        let both = vec![queue(2, 5, 0), queue(1, 10, 7), queue(1, 10, 7)];
        let first = SendQueues::default().next(s(1), both, &KNOWN, &[]);
        let missed = first.next(s(2), Vec::new(), &KNOWN, &KNOWN[..1]);
        assert_eq!(missed.unsent(ConnId(1)), first.unsent(ConnId(1)));
        assert_eq!(missed.unsent(ConnId(2)), None, "it was read");
        let read = missed.next(s(3), Vec::new(), &KNOWN, &[]);
        assert_eq!(read.unsent(ConnId(1)), None);
        let bytes = |queues: &SendQueues, first_seen| queues.bytes(ConnId(1), s(first_seen));
        assert_eq!(bytes(&first, 0), Some(10));
        assert_eq!(bytes(&read, 3), Some(0));
        assert_eq!(bytes(&read, 4), None, "it came after the scan began");
        assert_eq!(bytes(&SendQueues::default(), 0), None);
        let again = |last: &SendQueues, at| last.next(s(at), Vec::new(), &KNOWN, &KNOWN[..1]);
        let missed = again(&again(&read, 5), 6);
        assert_eq!(bytes(&missed, 3), Some(0), "as it was when it was read");
        assert_eq!(bytes(&missed, 4), None, "no scan has read it");
        assert_eq!(bytes(&again(&SendQueues::default(), 5), 0), None);
    }

    #[test]
    fn totals_are_those_of_each_listeners_known_connections() {
        let known = [1, 2, 3].map(ConnId);
        let on_first = |conn, bytes| SendQueue {
            listener: ListenerId(1),
            ..queue(conn, bytes, 0)
        };
        let queues = vec![on_first(3, 30), on_first(1, 10), on_first(9, 1_000)];
        let queues = SendQueues::default().next(s(1), queues, &known, &[]);
        let totals = [0, 1, 2].map(|id| queues.totals(ListenerId(id)));
        assert_eq!(totals[1], QueueTotals { sum: 40, max: 30 });
        assert_eq!([totals[0], totals[2]], [QueueTotals::default(); 2]);
    }
}
