//! One connection of a recording, seen from the watched socket: what the kernel programs keep in a
//! socket's storage, and what TCP would report of establishment, resets and close.

use std::net::SocketAddr;

use monitor_common::{
    Direction,
    mptcp::OPTIONS_ROOM,
    replay,
    segment::{Segment, after, tcp_flags},
    snapshot::{Snapshot, closing_by, origin, role},
};

use super::{dedup::RecentPackets, headers::TcpSegment};
use crate::decode::{self, octets};
use monitor_core::{Detail, ListenerId, facts::Role};

/// After this many waits in vain, a connection's segments no longer wait.
const TIMEOUT: u8 = 3;

/// A connection that has not ended.
#[derive(Debug)]
pub(super) struct ReplayedConnection {
    /// The kernel programs' state of a connection.
    pub(super) stream: replay::Connection,
    /// By the [`Direction`] they send in.
    sides: [StreamSide; 2],
    /// The recent packets of each side.
    recent: [RecentPackets; 2],
    established: bool,
    /// Data that came with its SYN (RFC 7413), kept until it is established.
    early: Option<(Direction, Segment, Box<[u8]>)>,
    /// How often segments waited in vain for what they acknowledge.
    pub(super) in_vain: u8,
    /// A SYN for the same addresses and ports, which begins a new connection if it is answered.
    successor: Option<Syn>,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    /// The time of its first packet.
    pub(super) begun: u64,
}

/// Which listener watches a connection, and from which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watched {
    pub(super) listener: ListenerId,
    pub(super) role: Role,
    /// The direction of the current packet.
    pub(super) direction: Direction,
}

/// The state of one side, from its segments.
#[derive(Clone, Copy, Debug, Default)]
struct StreamSide {
    /// The sequence number of its SYN.
    syn: Option<u32>,
    /// The sequence number after everything sent.
    end: Option<u32>,
    /// The last acknowledgement it sent.
    acked: Option<u32>,
    /// The sequence number after its FIN.
    fin: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Syn {
    from: Direction,
    seq: u32,
}

/// The effect of a segment on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PacketMeaning {
    /// A handshake packet without effect.
    Handshake,
    /// The last packet of the handshake, for a client's socket.
    Established,
    /// Traffic.
    Segment,
    /// The connection was refused before it was established.
    Refused,
    /// Another connection begins with the same addresses and ports.
    Succeeded,
    /// A reset that TCP would not accept (RFC 5961 §3.2).
    NotBelieved,
}

impl ReplayedConnection {
    /// `number` replaces the socket's cookie.
    pub(super) fn new(number: u64, now: u64, watched: &Watched, tcp: &TcpSegment<'_>) -> Self {
        let (local, peer) = match watched.direction {
            Direction::Rx => (tcp.destination, tcp.source),
            Direction::Tx => (tcp.source, tcp.destination),
        };
        let (ip_version, local_addr) = octets(local.ip());
        let (_, remote_addr) = octets(peer.ip());
        let mut stream = replay::Connection::in_order();
        stream.flow.snapshot = Snapshot {
            cookie: number,
            local_addr,
            remote_addr,
            local_port: local.port(),
            remote_port: peer.port(),
            listener: watched.listener.0 as u8,
            ip_version,
            role: match watched.role {
                Role::Server => role::SERVER,
                Role::Client => role::CLIENT,
            },
            ..Snapshot::EMPTY
        };
        Self {
            stream,
            sides: [StreamSide::default(); 2],
            recent: [RecentPackets::default(); 2],
            established: false,
            early: None,
            in_vain: 0,
            successor: None,
            local,
            peer,
            begun: now,
        }
    }

    /// The direction of a packet between the two ends.
    pub(super) fn direction(&self, tcp: &TcpSegment<'_>) -> Direction {
        if tcp.destination == self.local && tcp.source == self.peer {
            Direction::Rx
        } else {
            Direction::Tx
        }
    }

    /// Whether the packet is a copy of one that was already processed.
    pub(super) fn is_copy(&mut self, direction: Direction, tcp: &TcpSegment<'_>, now: u64) -> bool {
        self.recent[direction.index()].holds(tcp, now)
    }

    /// Keeps data that comes with a SYN.
    pub(super) fn keep_early(&mut self, direction: Direction, tcp: &TcpSegment<'_>) {
        if !self.established && tcp.segment.payload_len > 0 {
            self.early = Some((direction, tcp.segment, tcp.payload.into()));
        }
    }

    /// Takes the data of the SYN of a connection that is now established.
    pub(super) fn take_early(&mut self) -> Option<(Direction, Segment, Box<[u8]>)> {
        self.early.take_if(|_| self.established)
    }

    /// TCP reached ESTABLISHED.
    pub(super) fn establish(&mut self, now: u64) {
        self.established = true;
        self.stream.flow.snapshot.established_at = now;
        self.stream.flow.snapshot.origin = origin::ESTABLISHMENT;
    }

    /// Found in mid-stream: older than the recording.
    pub(super) fn join_mid_stream(&mut self, direction: Direction) {
        self.established = true;
        self.stream.flow.snapshot.origin = origin::ADOPTED;
        self.stream.flow.join_mid_stream(direction);
    }

    pub(super) fn is_established(&self) -> bool {
        self.established
    }

    /// Everything about it at this moment; `None` without evidence that it is, or may hide, a WebSocket.
    pub(super) fn detail(&self) -> Option<Detail> {
        let s = &self.stream.flow.snapshot;
        if !s.is_watched() {
            return None;
        }
        decode::detail(s).ok()
    }

    /// Whether a close frame or a FIN was seen.
    pub(super) fn is_closing(&self) -> bool {
        self.stream.flow.snapshot.closing_by != closing_by::NOTHING
    }

    /// Returns the effect of a segment and records its sequence numbers and options.
    pub(super) fn interpret(
        &mut self,
        direction: Direction,
        tcp: &TcpSegment<'_>,
    ) -> PacketMeaning {
        let segment = &tcp.segment;
        self.note_options(direction, tcp);
        if segment.has(tcp_flags::SYN) {
            return self.interpret_syn(direction, segment);
        }
        if self.continues_successor(direction, segment) {
            return PacketMeaning::Succeeded;
        }
        if segment.has(tcp_flags::RST) {
            return match (self.established, self.believes_reset(direction, segment)) {
                (false, _) => PacketMeaning::Refused,
                (true, true) => PacketMeaning::Segment,
                (true, false) => PacketMeaning::NotBelieved,
            };
        }
        self.note(direction, segment);
        PacketMeaning::Segment
    }

    /// Whether a segment acknowledges bytes that the other side is not known to have sent. Always false
    /// once the other side is known to be missing from the recording.
    pub(super) fn acknowledges_unseen(&self, direction: Direction, segment: &Segment) -> bool {
        let other = self.sides[direction.opposite().index()];
        let of_itself = self.sides[direction.index()];
        let is_new = of_itself
            .acked
            .is_none_or(|acked| after(segment.ack, acked));
        self.in_vain < TIMEOUT
            && segment.has(tcp_flags::ACK)
            && !segment.has(tcp_flags::SYN)
            && !segment.has(tcp_flags::RST)
            && is_new
            && other.end.is_some_and(|end| after(segment.ack, end))
    }

    /// Whether it is a retransmission, without anything new.
    pub(super) fn is_repeated(&self, direction: Direction, segment: &Segment) -> bool {
        let s = &self.stream.flow.snapshot;
        let takes_space = segment.payload_len > 0 || segment.has(tcp_flags::FIN);
        let probe = segment.payload_len <= 1
            && s.outstanding() == 0
            && segment.seq == s.snd_nxt.wrapping_sub(1)
            && !segment.has(tcp_flags::FIN);
        direction == Direction::Tx
            && takes_space
            && s.nxt_known != 0
            && !probe
            && !after(segment.end(), s.snd_nxt)
    }

    /// Whether both sides have sent their FIN and had it acknowledged.
    pub(super) fn is_finished(&self) -> bool {
        let [rx, tx] = &self.sides;
        let acknowledged = |sender: &StreamSide, other: &StreamSide| match (sender.fin, other.acked)
        {
            (Some(fin), Some(acked)) => !after(fin, acked),
            _ => false,
        };
        acknowledged(rx, tx) && acknowledged(tx, rx)
    }

    fn interpret_syn(&mut self, direction: Direction, segment: &Segment) -> PacketMeaning {
        let syn = Syn {
            from: direction,
            seq: segment.seq,
        };
        let is_answer = segment.has(tcp_flags::ACK);
        if !self.established {
            if !is_answer
                && self.sides[direction.index()]
                    .syn
                    .is_some_and(|seq| seq != segment.seq)
            {
                // Another attempt with the same ports.
                self.sides = [StreamSide::default(); 2];
            }
            self.note(direction, segment);
            // The server's socket waits for the acknowledgement of its SYN.
            let clients = self.stream.flow.snapshot.role == role::CLIENT;
            return match is_answer && clients && direction == Direction::Rx {
                true => PacketMeaning::Established,
                false => PacketMeaning::Handshake,
            };
        }
        if is_answer {
            let answered =
                |syn: Syn| syn.from != direction && segment.ack == syn.seq.wrapping_add(1);
            return match self.successor.is_some_and(answered) {
                true => PacketMeaning::Succeeded,
                false => PacketMeaning::Handshake,
            };
        }
        if self.sides[direction.index()].syn != Some(segment.seq) {
            // TCP answers it with an acknowledgement, unless its connection is gone (RFC 5961 §4.2).
            self.successor = Some(syn);
        }
        PacketMeaning::Handshake
    }

    fn note_options(&mut self, direction: Direction, tcp: &TcpSegment<'_>) {
        let Some(options) = tcp.options() else {
            return;
        };
        let mut room = [0; OPTIONS_ROOM];
        room[..options.len()].copy_from_slice(options);
        let s = &mut self.stream.flow.snapshot;
        s.note_options(direction, &tcp.segment, &room, options.len() as u32);
    }

    fn continues_successor(&self, direction: Direction, segment: &Segment) -> bool {
        self.successor.is_some_and(|syn| {
            syn.from == direction
                && segment.seq == syn.seq.wrapping_add(1)
                && !segment.has(tcp_flags::RST)
        })
    }

    /// Accepts a reset if its sequence number is between what the other side has acknowledged and what
    /// is known to have been sent.
    fn believes_reset(&self, direction: Direction, segment: &Segment) -> bool {
        let sender = &self.sides[direction.index()];
        let receiver = &self.sides[direction.opposite().index()];
        let newest = match (sender.end, receiver.acked) {
            (Some(end), Some(acked)) if after(acked, end) => acked,
            (Some(end), _) => end,
            (None, Some(acked)) => acked,
            (None, None) => return true,
        };
        let oldest = receiver.acked.unwrap_or(newest);
        !after(oldest, segment.seq) && !after(segment.seq, newest)
    }

    fn note(&mut self, direction: Direction, segment: &Segment) {
        let side = &mut self.sides[direction.index()];
        let end = segment.end();
        if side.end.is_none_or(|known| after(end, known)) {
            side.end = Some(end);
        }
        if segment.has(tcp_flags::ACK) && side.acked.is_none_or(|known| after(segment.ack, known)) {
            side.acked = Some(segment.ack);
        }
        if segment.has(tcp_flags::SYN) {
            side.syn = Some(segment.seq);
        }
        if segment.has(tcp_flags::FIN) {
            side.fin = Some(end);
        }
    }
}
