//! TLS connections: what the headers of their records show without a key.
//!
//! ```text
//! segment ──► RecordWalk ──┬─ HelloFact ────► TlsHandshake: version, padding, refusals
//!             (each side)  └─ RecordHeader ─► PingInference ──► the pings in the flow
//!                                             (each side)
//! ```
//!
//! The pings of a learned heartbeat are kept in the fields of the [`Flow`] that hold those of a WebSocket.
//! With [`protocol::OPAQUE`] they are inferred. Besides these, only [`TlsFacts`] are published.

mod handshake;
mod hello;
mod ping_inference;
mod record_walk;

pub use handshake::TlsFacts;
use handshake::TlsHandshake;
pub use hello::HelloFact;
use ping_inference::{Arrived, PingInference};
pub use record_walk::{RECORD_STEPS, RecordHeader, RecordStep, RecordWalk, content_type};

use crate::{
    Direction,
    flow::{Flow, notable},
    moment::{Moment, TICK},
    snapshot::protocol,
    stats::ListenerStats,
};

/// What is kept of a TLS connection besides its [`Flow`]: a storage of its own, which exists from the first
/// record on.
///
/// Packets of both directions may be processed at once. The sends of a side write its candidates, and the
/// receives its rhythms. Each also resets one field of the other; if both do so at once, a pair is lost or
/// a ping counted twice, as if a record had been lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TlsFlow {
    rx_walk: RecordWalk,
    tx_walk: RecordWalk,
    /// By the [`Direction`] of the pings.
    pings: [PingInference; 2],
    handshake: TlsHandshake,
    /// By [`Direction`]: how many bytes of the current segment are done. A kernel walk keeps this here
    /// between steps, as in [`Flow::done`].
    pub done: [u32; 2],
}

// With the kernel's 72 bytes, an element fits in 512 bytes.
const _: () = assert!(size_of::<TlsFlow>() == 352);

impl TlsFlow {
    /// Nothing seen; all zero, which is also how the kernel hands out new storage.
    pub const EMPTY: Self = Self {
        rx_walk: RecordWalk::EMPTY,
        tx_walk: RecordWalk::EMPTY,
        pings: [PingInference::EMPTY; 2],
        handshake: TlsHandshake::EMPTY,
        done: [0; 2],
    };

    #[inline(always)]
    pub fn walk_mut(&mut self, direction: Direction) -> &mut RecordWalk {
        match direction {
            Direction::Rx => &mut self.rx_walk,
            Direction::Tx => &mut self.tx_walk,
        }
    }
}

impl Flow {
    /// Whether TLS records pass, or may pass on a connection older than the monitor. For the latter, a
    /// [`TlsFlow`] is needed once a segment begins like a record: [`RecordHeader::may_begin`].
    #[inline(always)]
    pub const fn may_have_records(&self) -> bool {
        matches!(self.snapshot.protocol, protocol::OPAQUE | protocol::ASSUMED)
    }

    /// Accounts for what a hello says.
    #[inline(always)]
    pub fn tls_hello(&mut self, tls: &mut TlsFlow, fact: HelloFact) {
        tls.handshake.hello(fact);
        self.snapshot.set_tls(tls.handshake.facts());
    }

    /// Accounts for a TLS record that begins.
    #[inline(always)]
    pub fn tls_record(
        &mut self,
        tls: &mut TlsFlow,
        direction: Direction,
        header: &RecordHeader,
        now: u64,
        stats: &mut ListenerStats,
    ) {
        if self.snapshot.protocol == protocol::ASSUMED {
            self.open(direction, protocol::OPAQUE, now, stats);
            self.rx_walk.rest();
            self.tx_walk.rest();
        }
        self.snapshot.set_tls(tls.handshake.facts());
        let from_client = self.snapshot.from_client(direction) != 0;
        if !tls.handshake.record(from_client, header) {
            return;
        }
        let pinger = direction.opposite();
        let ping_len = tls.handshake.ping_len(from_client, header.len);
        let (end, arrived) = self.arrived(direction);
        let round_trip = tls.pings[pinger.index()].receive(ping_len, arrived, now);
        self.answer_inferred_pings(pinger, round_trip);
        if let Some(period) = tls.pings[direction.index()].send(header.len, end, now) {
            self.inferred_ping(direction, period, now);
        }
    }

    /// Where what passes in this direction ends, and what of the other one had arrived before. What this host
    /// receives has always arrived.
    #[inline(always)]
    fn arrived(&self, direction: Direction) -> (u32, Arrived) {
        let s = &self.snapshot;
        match direction {
            Direction::Rx => (
                0,
                Arrived {
                    until: s.snd_una,
                    at: s.ack_progress_at,
                },
            ),
            Direction::Tx => (s.snd_nxt, Arrived { until: 0, at: 0 }),
        }
    }

    /// Any record shows that a side is alive, so no ping to it counts as unanswered. Only a pong measures
    /// the round trip.
    #[inline(always)]
    fn answer_inferred_pings(&mut self, pinger: Direction, round_trip: Option<u64>) {
        let own = self.snapshot.facts_mut(pinger);
        let is_answer = own.pings_unanswered() != 0;
        own.pings_answered = own.pings;
        if let Some(nanos) = round_trip {
            let micros = nanos / 1000 + (nanos < 1000) as u64;
            self.snapshot.ping_rtt_us[pinger.index()] = micros as u32;
        }
        if is_answer {
            self.walk_mut(pinger.opposite()).note(notable::PUBLISH);
        }
    }

    #[inline(always)]
    fn inferred_ping(&mut self, direction: Direction, period: u64, now: u64) {
        let own = self.snapshot.facts_mut(direction);
        let is_first = own.last_ping == 0;
        let interval = now.saturating_sub(own.last_ping);
        // Where some were not recognised, the interval says nothing.
        if is_first {
            own.beat(period);
        } else if interval < period / 2 * 3 {
            own.beat(interval);
        }
        if own.pings_unanswered() == 0 {
            own.first_unanswered_ping = now;
        }
        own.last_ping = now;
        own.pings = own.pings.wrapping_add(1);
        let mut notes = notable::PUBLISH;
        if matches!(direction, Direction::Tx) && (self.try_inferred(period, now) || is_first) {
            notes |= notable::PING_UNANSWERED;
        }
        self.walk_mut(direction).note(notes);
    }

    /// Records a sent ping; true if it is the second try. The peer must have been silent for as long as two
    /// pings without a pong take: a client that pings may be mistaken for one that answers, but it is not
    /// silent for longer than its period.
    #[inline(always)]
    fn try_inferred(&mut self, period: u64, now: u64) -> bool {
        let s = &mut self.snapshot;
        let silence = now.saturating_sub(s.rx.last_payload);
        let has_tries = s.has_tries();
        // A second try that leaves later after the first could not be recorded.
        let earliest = now.saturating_sub(u16::MAX as u64 * TICK);
        if has_tries && s.second_try_after == 0 && s.first_try.nanos(now) < earliest {
            s.first_try = Moment::of(earliest);
        }
        (!has_tries || silence >= period / 2 * 3) && s.try_again(now)
    }
}
