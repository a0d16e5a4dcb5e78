//! The records of a TLS connection through the packet logic: sizes, times, losses and garbage.
//!
//! For every input: the same input gives the same flow, no ping counts as unanswered once the peer has
//! sent data, only answered pings make a heartbeat, and nothing is inferred where it must not be.

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
const PAIRS: usize = 5;

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
    /// Bytes that are no record.
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
    for act in acts.chunks_exact(3).take(MOST_ACTS) {
        let [flags, len, wait] = [act[0], act[1], act[2]];
        socket.now += nanos(wait);
        let direction = match flags & act::IS_SENT {
            0 => Direction::Rx,
            _ => Direction::Tx,
        };
        if flags & act::IS_REPEATED != 0 {
            let (seq, bytes) = socket.last[direction.index()].clone();
            socket.deliver(direction, seq, &bytes);
            continue;
        }
        let bytes = match flags & act::IS_GARBAGE {
            0 => tls_record(APPLICATION_DATA, &vec![0xee; len.into()]),
            _ => vec![len; usize::from(len) + 1],
        };
        let end = match flags & act::IS_CUT {
            0 => bytes.len(),
            _ => 1 + usize::from(wait) % bytes.len(),
        };
        let is_lost = flags & act::IS_LOST != 0;
        for part in [&bytes[..end], &bytes[end..]] {
            socket.send(direction, part, is_lost);
        }
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

/// A socket whose packets the monitor sees.
struct Socket {
    connection: Connection,
    stats: ListenerStats,
    now: u64,
    /// By direction, the next sequence number.
    next: [u32; 2],
    /// By direction, the last segment.
    last: [(u32, Vec<u8>); 2],
    may_infer: bool,
    /// Segments with payload from the peer.
    received: usize,
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
            last: [(0, vec![0]), (0, vec![0])],
            may_infer: has(setup::IS_OLDER)
                || !(has(setup::OFFERS_H2) || has(setup::IS_CBC) && has(setup::IS_1_2)),
            received: 0,
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
        self.send(client, &client_hello(protocols, 30), false);
        let hello = server_hello(!has(setup::IS_1_2), suite, None);
        self.send(server, &hello, false);
        let finished = tls_record(APPLICATION_DATA, &[0xee; 53]);
        self.send(server, &finished, false);
        let end = [tls_record(CHANGE_CIPHER_SPEC, &[1]), finished].concat();
        self.send(client, &end, false);
        let protocol = self.connection.flow.snapshot.protocol;
        assert_eq!(protocol, protocol::OPAQUE);
    }

    /// The next bytes of a direction, which the monitor sees unless they are lost.
    fn send(&mut self, direction: Direction, bytes: &[u8], is_lost: bool) {
        if bytes.is_empty() {
            return;
        }
        let i = direction.index();
        let seq = self.next[i];
        self.next[i] = seq.wrapping_add(bytes.len() as u32);
        self.last[i] = (seq, bytes.to_vec());
        if !is_lost {
            self.deliver(direction, seq, bytes);
        }
    }

    fn deliver(&mut self, direction: Direction, seq: u32, bytes: &[u8]) {
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
            bytes,
            self.now,
            &ListenerLimits::default(),
            &mut self.stats,
            |_| {},
        );
        self.received += usize::from(direction == Direction::Rx);
        self.check_step(&before);
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
        assert!(
            !is_first || self.received >= PAIRS,
            "learned from {} segments",
            self.received
        );
        let has_second = s.second_try(s.first_try.nanos(self.now)) != 0;
        assert!(
            !has_second || s.tx.pings_unanswered() >= 2,
            "a try without a ping"
        );
    }
}
