//! The records of a TLS connection through the packet logic: sizes, times, losses and garbage.
//!
//! For every input: the same input gives the same flow, no ping is a try once the peer has sent new data,
//! only answers as long as a pong make a heartbeat, and nothing is inferred where it must not be.

use monitor_common::{
    Direction,
    listener::ListenerLimits,
    replay::Connection,
    segment::{Segment, tcp_flags},
    snapshot::{Snapshot, protocol, role},
    stats::ListenerStats,
};
use wire::{APPLICATION_DATA, CHANGE_CIPHER_SPEC, client_hello, server_hello, tls_record};

/// Later acts are ignored: they would only make runs slow.
const MOST_ACTS: usize = 1024;

/// Answered pings before the first that is recognised.
const PAIRS: u32 = 5;

/// How much longer than a ping's record that of its pong is, or shorter if this host is the client.
const MASK: u8 = 4;

/// Bits of the first byte of an input.
pub mod setup {
    /// This host is the client.
    pub const IS_CLIENT: u8 = 1;
    /// The connection is older than the monitor.
    pub const IS_OLDER: u8 = 2;
    /// The client offers HTTP/2.
    pub const OFFERS_H2: u8 = 4;
    /// TLS 1.2, else 1.3.
    pub const IS_1_2: u8 = 8;
    /// A suite in CBC mode, in TLS 1.2.
    pub const IS_CBC: u8 = 16;
}

/// Bits of the first of the three bytes of an act. The second is a length and the third a time before it.
pub mod act {
    /// This host sends, else the peer.
    pub const IS_SENT: u8 = 1;
    /// The segment is lost.
    pub const IS_LOST: u8 = 2;
    /// Bytes that aren't a record.
    pub const IS_GARBAGE: u8 = 4;
    /// The last segment of this direction again, instead of a new one.
    pub const IS_REPEATED: u8 = 8;
    /// The record comes in two segments.
    pub const IS_CUT: u8 = 16;
}

/// Plays the acts encoded in `data`.
///
/// # Panics
/// If the packet logic breaks one of these guarantees.
pub fn check(data: &[u8]) {
    let socket = play(data);
    assert_eq!(
        socket.connection,
        play(data).connection,
        "not deterministic"
    );
}

fn play(data: &[u8]) -> Socket {
    let (setup, acts) = data.split_first().unwrap_or((&0, &[]));
    let mut socket = Socket::new(*setup);
    for [flags, len, wait] in acts.as_chunks().0.iter().take(MOST_ACTS) {
        socket.now += nanos(*wait);
        let direction = match flags & act::IS_SENT {
            0 => Direction::Rx,
            _ => Direction::Tx,
        };
        if flags & act::IS_REPEATED != 0 {
            let last = socket.last[direction.index()].clone();
            socket.deliver(direction, last);
            continue;
        }
        let bytes = match flags & act::IS_GARBAGE {
            0 => tls_record(APPLICATION_DATA, &vec![0xee; usize::from(*len)]),
            _ => vec![*len; usize::from(*len) + 1],
        };
        let end = match flags & act::IS_CUT {
            0 => bytes.len(),
            _ => 1 + usize::from(*wait) % bytes.len(),
        };
        let is_lost = flags & act::IS_LOST != 0;
        let record = (flags & act::IS_GARBAGE == 0).then_some(*len);
        socket.send(direction, &bytes[..end], record, is_lost);
        socket.send(direction, &bytes[end..], None, is_lost);
    }
    socket
}

/// The time before an act, in nanoseconds: up to 4 s in steps of 20 ms, then up to 56 s.
fn nanos(code: u8) -> u64 {
    match u64::from(code) {
        code @ 0..200 => code * 20_000_000,
        code => (code - 199) * 1_000_000_000,
    }
}

/// A segment with payload.
#[derive(Clone, Default)]
struct Sent {
    seq: u32,
    bytes: Vec<u8>,
    /// The length of the record that begins in it, unless it was delivered before.
    record: Option<u8>,
}

/// A socket whose packets the monitor sees.
struct Socket {
    connection: Connection,
    stats: ListenerStats,
    now: u64,
    /// By direction, the next sequence number.
    next: [u32; 2],
    /// By direction, the last segment.
    last: [Sent; 2],
    /// By direction, where the delivered bytes end.
    delivered: [u32; 2],
    may_infer: bool,
    is_client: bool,
    /// The length of the last record of this host.
    ping: u8,
    /// By length, records of the peer.
    received: [u32; 256],
}

impl Socket {
    fn new(setup: u8) -> Self {
        let has = |bit| setup & bit != 0;
        let mut connection = Connection::EMPTY;
        connection.flow.snapshot.role = match has(setup::IS_CLIENT) {
            true => role::CLIENT,
            false => role::SERVER,
        };
        let mut socket = Self {
            connection,
            stats: ListenerStats::EMPTY,
            now: 1_000_000_000,
            next: [u32::MAX - 100, 7],
            last: Default::default(),
            delivered: [u32::MAX - 100, 7],
            may_infer: has(setup::IS_OLDER)
                || !(has(setup::OFFERS_H2) || has(setup::IS_CBC) && has(setup::IS_1_2)),
            is_client: has(setup::IS_CLIENT),
            ping: 0,
            received: [0; 256],
        };
        if has(setup::IS_OLDER) {
            socket.connection.flow.join_mid_stream(Direction::Rx);
        } else {
            socket.handshake(setup);
        }
        socket
    }

    fn handshake(&mut self, setup: u8) {
        let has = |bit| setup & bit != 0;
        let (client, server) = match has(setup::IS_CLIENT) {
            true => (Direction::Tx, Direction::Rx),
            false => (Direction::Rx, Direction::Tx),
        };
        let protocols: &[_] = match has(setup::OFFERS_H2) {
            true => &["h2", "http/1.1"],
            false => &["http/1.1"],
        };
        let suite = match (has(setup::IS_1_2), has(setup::IS_CBC)) {
            (false, _) => 0x1301,
            (true, false) => 0xc02f,
            (true, true) => 0xc027,
        };
        self.send(client, &client_hello(protocols, 30), None, false);
        let hello = server_hello(!has(setup::IS_1_2), suite, None);
        self.send(server, &hello, None, false);
        let finished = tls_record(APPLICATION_DATA, &[0xee; 53]);
        self.send(server, &finished, None, false);
        let end = [tls_record(CHANGE_CIPHER_SPEC, &[1]), finished].concat();
        self.send(client, &end, None, false);
        let protocol = self.connection.flow.snapshot.protocol;
        assert_eq!(protocol, protocol::OPAQUE);
    }

    /// The next bytes of a direction, which the monitor sees unless they are lost. `record` is the length of
    /// the one that begins in them.
    fn send(&mut self, direction: Direction, bytes: &[u8], record: Option<u8>, is_lost: bool) {
        if bytes.is_empty() {
            return;
        }
        let i = direction.index();
        let sent = Sent {
            seq: self.next[i],
            bytes: bytes.to_vec(),
            record,
        };
        self.next[i] = sent.seq.wrapping_add(bytes.len() as u32);
        self.last[i] = sent.clone();
        if !is_lost {
            self.deliver(direction, sent);
        }
    }

    fn deliver(&mut self, direction: Direction, sent: Sent) {
        let Sent { seq, bytes, record } = sent;
        let i = direction.index();
        self.last[i].record = None;
        if let Some(record) = record {
            match direction {
                Direction::Rx => self.received[usize::from(record)] += 1,
                Direction::Tx => self.ping = record,
            }
        }
        let end = seq.wrapping_add(bytes.len() as u32);
        let is_new = end.wrapping_sub(self.delivered[i]) as i32 > 0;
        if is_new {
            self.delivered[i] = end;
        }
        let segment = Segment {
            seq,
            ack: self.next[direction.opposite().index()],
            window: 100,
            flags: tcp_flags::ACK,
            payload_len: bytes.len() as u32,
            ..Segment::EMPTY
        };
        let before = self.connection.flow.snapshot;
        self.connection.take(
            direction,
            &segment,
            &bytes,
            self.now,
            &ListenerLimits::default(),
            &mut self.stats,
            |_| {},
        );
        self.check_step(&before);
        let s = &self.connection.flow.snapshot;
        let has_tries = s.protocol == protocol::OPAQUE && s.has_tries();
        assert!(
            !(is_new && has_tries && direction == Direction::Rx),
            "a try in spite of new data"
        );
    }

    fn check_step(&self, before: &Snapshot) {
        let s = &self.connection.flow.snapshot;
        let pings = [s.rx.pings, s.tx.pings];
        if s.protocol != protocol::OPAQUE {
            // Garbage may be frames.
            let has_frames = s.protocol == protocol::WEBSOCKET;
            assert!(has_frames || pings == [0; 2], "inferred without TLS");
            return;
        }
        assert!(
            self.may_infer || pings == [0; 2],
            "inferred although refused"
        );
        assert!(s.rx.pings_unanswered() <= s.rx.pings);
        assert!(s.tx.pings_unanswered() <= s.tx.pings);
        let is_first = before.tx.pings == 0 && s.tx.pings > 0;
        let pong = match self.is_client {
            true => self.ping.wrapping_sub(MASK),
            false => self.ping.wrapping_add(MASK),
        };
        let answers = self.received[usize::from(pong)];
        assert!(
            !is_first || answers >= PAIRS,
            "learned from {answers} answers"
        );
        let has_second = s.second_try(s.first_try.nanos(self.now)) != 0;
        assert!(
            !has_second || s.tx.pings_unanswered() >= 2,
            "a try without a ping"
        );
    }
}
