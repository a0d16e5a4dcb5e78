//! The queues of the sockets, as scans find them.

use super::Correlator;
use crate::{
    event::ReceiveQueue,
    facts::{ConnId, ListenerId},
    send_queues::SendQueues,
    time::Ktime,
};

impl Correlator {
    /// The send queues as of the last scan. The next scan builds on them.
    pub fn send_queues(&self) -> &SendQueues {
        &self.send_queues
    }

    /// The send queue of a connection at the last scan, bytes; `None` if no scan has read it.
    pub fn send_queue(&self, conn: ConnId) -> Option<u32> {
        let flow = self.flows.get(conn)?;
        self.send_queues.bytes(conn, flow.first_seen)
    }

    pub(super) fn take_recv_queues(
        &mut self,
        at: Ktime,
        unread: &[ReceiveQueue],
        missed: &[ConnId],
    ) {
        for conn in self.recv_queues.observe(at, unread, missed) {
            self.queue_for_inspection(conn);
        }
    }

    pub(super) fn take_send_queues(&mut self, queues: SendQueues) {
        for (id, listener) in (0..).map(ListenerId).zip(&mut self.listeners) {
            listener.history.tally.send_queues = queues.totals(id);
        }
        for conn in queues.changed() {
            self.queue_for_inspection(*conn);
        }
        self.send_queues = queues;
    }
}
