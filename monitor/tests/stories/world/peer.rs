//! The other end: it acknowledges, and answers pings while it can.

use wire::{ACK, End, FIN, MILLI, RST};

use super::{Event, Path, SEGMENT, World};
use crate::{
    frames::{bytes_of, pings_in, pongs},
    story::Act,
};

/// From this rate on, kbit/s, segments are joined.
const FAST: u32 = 10_000;
const JOINED: usize = 60_000;

impl World {
    pub(super) fn peer_acts(&mut self, act: Act) {
        let peer = self.host.other();
        let bytes = bytes_of(act, peer == End::Client, &mut self.peer_pings);
        self.has_left |= matches!(act, Act::Close(_) | Act::Fin);
        match (act, bytes) {
            (_, Some(bytes)) => {
                self.pongs_to_give.extend(pings_in(&bytes, false));
                self.peer_sends(bytes);
            }
            (Act::Fin, _) => {
                self.record(peer, FIN | ACK, &[]);
                self.talk.acked[self.host as usize] = self.talk.next[peer as usize];
                self.plan(self.now + MILLI, Event::HostTakes);
                self.note_fin(peer, FIN);
            }
            (Act::KeepAlive, _) if self.path == Path::Up => {
                let seq = self.talk.next[peer as usize].wrapping_sub(1);
                self.record_at(peer, seq, ACK, &[]);
                self.plan(self.now + MILLI, Event::HostTakes);
            }
            (Act::KeepAlive, _) => {}
            _ => self.peer_resets(),
        }
    }

    pub(super) fn peer_resets(&mut self) {
        self.record(self.host.other(), RST | ACK, &[]);
        self.life.is_over = true;
    }

    pub(super) fn peer_sends(&mut self, bytes: Vec<u8>) {
        let bytes = self.on_wire(bytes);
        self.held.extend(bytes.chunks(SEGMENT).map(<[u8]>::to_vec));
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        while self.path == Path::Up && !self.window_closed {
            let Some(bytes) = self.held.pop_front() else {
                return;
            };
            let peer = self.host.other();
            self.record(peer, ACK, &bytes);
            self.talk.acked[self.host as usize] = self.talk.next[peer as usize];
            self.plan(self.now + MILLI, Event::HostTakes);
            if !self.reads {
                // The rest waits for the response, which closes the window.
                self.window_closed = true;
            }
        }
    }

    pub(super) fn upload(&mut self, left: usize, kbits: u32) {
        // On a fast link offloads join segments in the capture.
        let longest = if kbits < FAST { SEGMENT } else { JOINED };
        let piece = left.min(longest);
        self.held.push_back(vec![0x77; piece]);
        self.flush();
        let at = self.now + piece as u64 * 8 * MILLI / u64::from(kbits);
        if left > piece {
            let left = left - piece;
            self.plan(at, Event::Upload { left, kbits });
        } else {
            self.uploads = false;
            self.response();
        }
    }

    pub(super) fn reach(&mut self, seq: u32, end: u32) {
        if self.path != Path::Up {
            // The response is lost.
            return;
        }
        let peer = self.host.other();
        let expected = &mut self.talk.acked[peer as usize];
        if seq == *expected && end != seq {
            *expected = end;
            let sent = self.unacked.iter().find(|sent| sent.seq == seq);
            let bytes = sent.map_or(&[][..], |sent| &sent.bytes);
            self.owed.extend(pings_in(bytes, self.is_tls));
            if !self.peer_reads {
                self.peer_window_closed = true;
            }
        }
        // A pong acknowledges too.
        if self.owed.is_empty() || !self.can_answer() || self.window_closed {
            self.acknowledge(peer);
        }
        self.response();
        self.make_progress();
    }

    fn can_answer(&self) -> bool {
        let is_awake = self.is_awake || self.proxy_answers;
        let is_able = is_awake && self.peer_reads && !self.uploads;
        is_able && !self.has_left && !self.ignores_pings
    }

    /// All pongs that the peer's application owes, in one segment.
    pub(super) fn response(&mut self) {
        if !self.can_answer() || self.owed.is_empty() {
            return;
        }
        let masked = self.host == End::Server;
        let owed = std::mem::take(&mut self.owed);
        self.peer_sends(pongs(&owed, masked));
    }
}
