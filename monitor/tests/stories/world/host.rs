//! The watched end: the steps of its application, and its TCP with retransmissions.

use wire::{ACK, End, FIN, MILLI, RST};

use super::{Event, LONGEST_RTO, RETRIES, SEGMENT, Sent, World};
use crate::{
    frames::{bytes_of, pongs},
    story::Act,
};

impl World {
    pub(super) fn host_acts(&mut self, act: Act) {
        let masked = self.host == End::Client;
        match (act, bytes_of(act, masked, &mut self.pings)) {
            (_, Some(bytes)) => self.host_writes(bytes),
            (Act::Fin, _) => self.host_sends(Vec::new(), FIN | ACK),
            (Act::KeepAlive, _) => {
                let seq = self.talk.next[self.host as usize].wrapping_sub(1);
                self.record_at(self.host, seq, ACK, &[]);
                self.transit(seq, seq);
            }
            _ => {
                self.record(self.host, RST | ACK, &[]);
                self.life.is_over = true;
            }
        }
    }

    fn host_writes(&mut self, bytes: Vec<u8>) {
        let bytes = self.on_wire(bytes);
        for piece in bytes.chunks(SEGMENT) {
            self.host_sends(piece.to_vec(), ACK);
        }
    }

    pub(super) fn host_sends(&mut self, bytes: Vec<u8>, flags: u8) {
        if self.peer_window_closed {
            if self.waiting.is_empty() {
                let after = self.timeout();
                self.plan(self.now + after, Event::Probe { after });
            }
            self.waiting.push_back(bytes);
            return;
        }
        let seq = self.talk.next[self.host as usize];
        self.record(self.host, flags, &bytes);
        let end = self.talk.next[self.host as usize];
        let is_lost = self.transit(seq, end);
        self.unacked.push_back(Sent {
            at: Some(self.now),
            seq,
            end,
            flags,
            bytes,
            is_lost,
        });
        if self.unacked.len() == 1 {
            self.tries = 0;
            self.arm();
        }
        self.note_fin(self.host, flags);
    }

    /// The retransmission timeout of a segment.
    fn timeout(&self) -> u64 {
        self.measured + 200 * MILLI
    }

    fn arm(&mut self) {
        self.generation += 1;
        let generation = self.generation;
        let after = (self.timeout() << self.tries.min(16)).min(LONGEST_RTO);
        self.plan(self.now + after, Event::Timer { generation });
    }

    pub(super) fn time_out(&mut self) {
        self.tries += 1;
        if self.tries <= RETRIES && !self.unacked.is_empty() {
            self.retransmit();
            self.arm();
        }
    }

    fn retransmit(&mut self) {
        let Some(mut first) = self.unacked.pop_front() else {
            return;
        };
        self.record_at(self.host, first.seq, first.flags, &first.bytes);
        first.is_lost = self.transit(first.seq, first.end);
        first.at = None;
        self.unacked.push_front(first);
    }

    pub(super) fn probe(&mut self, after: u64) {
        if self.peer_window_closed && !self.waiting.is_empty() {
            self.host_acts(Act::KeepAlive);
            let after = (after * 2).min(LONGEST_RTO);
            self.plan(self.now + after, Event::Probe { after });
        }
    }

    /// The host's TCP acknowledges, and its application answers pings.
    pub(super) fn host_takes(&mut self) {
        if !self.reads {
            self.window_closed = true;
        }
        self.acknowledge(self.host);
        if self.reads {
            let owed = std::mem::take(&mut self.pongs_to_give);
            let masked = self.host == End::Client;
            if !owed.is_empty() {
                self.host_writes(pongs(&owed, masked));
            }
        }
    }

    pub(super) fn make_progress(&mut self) {
        let acked = self.talk.acked[self.host.other() as usize];
        let before = self.unacked.len();
        while let Some(first) = self.unacked.front()
            && (acked.wrapping_sub(first.end) as i32) >= 0
        {
            if let Some(at) = first.at {
                self.measured = self.now - at;
            }
            self.unacked.pop_front();
        }
        if self.unacked.len() == before {
            return;
        }
        self.tries = 0;
        self.generation += 1;
        match self.unacked.front() {
            Some(first) if first.is_lost => {
                self.retransmit();
                self.arm();
            }
            Some(_) => self.arm(),
            None => {}
        }
    }
}
