//! A TCP connection that carries WebSocket, written packet by packet as if captured.

use std::net::SocketAddr;

use super::{
    frame::Frame,
    packet::{Options, Segment, flags},
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

use Side::{Client, Server};

/// The connection as captured, and the frames really in it.
pub(crate) struct Conversation {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
    options: Options,
    now: u64,
    /// By side: sequence number of the next byte it sends.
    next_seq: [u32; 2],
    /// By side: acknowledged sequence number of the other side.
    acked: [u32; 2],
    pub(crate) packets: Vec<(u64, Segment)>,
    pub(crate) frames: Vec<(Side, Frame)>,
}

/// 2026-01-01T00:00:00Z.
const EPOCH_NANOSECONDS: u64 = 1_767_225_600_000_000_000;
const BETWEEN_PACKETS_NANOSECONDS: u64 = 1_000_000;

pub(crate) const REQUEST: &str = "GET /chat HTTP/1.1\r\n\
    Host: 10.0.0.2:8080\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

pub(crate) const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

impl Conversation {
    /// Nothing captured yet.
    pub(crate) fn new() -> Self {
        Self {
            client: SocketAddr::from(([10, 0, 0, 1], 40_000)),
            server: SocketAddr::from(([10, 0, 0, 2], 8080)),
            options: Options::None,
            now: EPOCH_NANOSECONDS,
            next_seq: [1_000, 700_000],
            acked: [700_000, 1_000],
            packets: Vec::new(),
            frames: Vec::new(),
        }
    }

    /// Uses another client port, and starts a little later than the connection on the previous
    /// port.
    pub(crate) fn number(mut self, n: u16) -> Self {
        self.client.set_port(40_000 + n);
        self.now += u64::from(n) * 100_000;
        self
    }

    pub(crate) fn later(mut self, seconds: u64) -> Self {
        self.now += seconds * 1_000_000_000;
        self
    }

    pub(crate) fn between(mut self, client: SocketAddr, server: SocketAddr) -> Self {
        (self.client, self.server) = (client, server);
        self
    }

    pub(crate) fn v6(self) -> Self {
        self.between(
            SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 1], 40_000)),
            SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 2], 8080)),
        )
    }

    pub(crate) fn with(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// The initial sequence numbers of client and server.
    pub(crate) fn starting_at(mut self, client: u32, server: u32) -> Self {
        self.next_seq = [client, server];
        self.acked = [server, client];
        self
    }

    /// The three-way handshake.
    pub(crate) fn connect(mut self) -> Self {
        self.emit(Client, self.next_seq[0], flags::SYN, Vec::new());
        self.next_seq[0] = self.next_seq[0].wrapping_add(1);
        self.acked[1] = self.next_seq[0];
        self.emit(
            Server,
            self.next_seq[1],
            flags::SYN | flags::ACK,
            Vec::new(),
        );
        self.next_seq[1] = self.next_seq[1].wrapping_add(1);
        self.acknowledge(Client);
        self
    }

    /// The three-way handshake and the upgrade (RFC 6455 §4).
    pub(crate) fn open(self) -> Self {
        let mut conversation = self.connect();
        conversation.say(Client, REQUEST);
        conversation.say(Server, SWITCHING);
        conversation
    }

    /// The same up to the request.
    pub(crate) fn ask(self) -> Self {
        let mut conversation = self.connect();
        conversation.say(Client, REQUEST);
        conversation
    }

    /// Sends bytes without frames in one segment, which is acknowledged.
    pub(crate) fn say(&mut self, side: Side, bytes: impl AsRef<[u8]>) {
        let segment = self.allot(side, bytes.as_ref());
        self.put(&segment);
        self.acknowledge(side.other());
    }

    /// Sends each frame in its own segment; each is acknowledged.
    pub(crate) fn send(&mut self, side: Side, frames: &[Frame]) {
        for frame in frames {
            for segment in self.cut(side, std::slice::from_ref(frame), &[]) {
                self.put(&segment);
            }
            self.acknowledge(side.other());
        }
    }

    /// Sends all frames in one segment.
    pub(crate) fn send_together(&mut self, side: Side, frames: &[Frame]) {
        for segment in self.cut(side, frames, &[]) {
            self.put(&segment);
        }
        self.acknowledge(side.other());
    }

    /// Writes frames into the stream, cut into segments at these offsets, without sending them yet.
    pub(crate) fn cut(&mut self, side: Side, frames: &[Frame], cuts: &[usize]) -> Vec<Segment> {
        self.cut_behind(side, "", frames, cuts)
    }

    /// The same with other bytes before the frames.
    pub(crate) fn cut_behind(
        &mut self,
        side: Side,
        front: &str,
        frames: &[Frame],
        cuts: &[usize],
    ) -> Vec<Segment> {
        let mut bytes = front.as_bytes().to_vec();
        for frame in frames {
            bytes.extend(frame.bytes(side == Client));
        }
        let known = frames.iter().filter(|frame| frame.knowable);
        self.frames.extend(known.map(|frame| (side, frame.clone())));
        let mut from = 0;
        let ends = cuts.iter().copied().chain([bytes.len()]);
        ends.map(|end| {
            let part = &bytes[from..end];
            from = end;
            self.allot(side, part)
        })
        .collect()
    }

    /// A segment with the next bytes of the stream.
    fn allot(&mut self, side: Side, bytes: &[u8]) -> Segment {
        let seq = self.next_seq[side.index()];
        self.next_seq[side.index()] = seq.wrapping_add(bytes.len() as u32);
        self.segment(side, seq, flags::PSH | flags::ACK, bytes.to_vec())
    }

    /// Captures a segment.
    pub(crate) fn put(&mut self, segment: &Segment) {
        let mut segment = segment.clone();
        segment.ack = self.acked[self.side_of(&segment).index()];
        self.packets.push((self.now, segment));
        self.now += BETWEEN_PACKETS_NANOSECONDS;
    }

    /// Captures an acknowledgement of everything the other side has sent.
    pub(crate) fn acknowledge(&mut self, side: Side) {
        self.acknowledge_up_to(side, self.next_seq[side.other().index()]);
    }

    /// Captures an acknowledgement of what the other side sent before sequence number `seq`.
    pub(crate) fn acknowledge_up_to(&mut self, side: Side, seq: u32) {
        self.acked[side.index()] = seq;
        self.emit(side, self.next_seq[side.index()], flags::ACK, Vec::new());
    }

    /// Captures a keepalive probe: the byte before the next one (RFC 9293 §3.8.4).
    pub(crate) fn probe(&mut self, side: Side) {
        let seq = self.next_seq[side.index()].wrapping_sub(1);
        self.emit(side, seq, flags::ACK, vec![0x89]);
        self.acknowledge(side.other());
    }

    /// Closes both directions in order.
    pub(crate) fn finish(&mut self, first: Side) {
        for side in [first, first.other()] {
            self.emit(
                side,
                self.next_seq[side.index()],
                flags::FIN | flags::ACK,
                Vec::new(),
            );
            let seq = &mut self.next_seq[side.index()];
            *seq = seq.wrapping_add(1);
            self.acknowledge(side.other());
        }
    }

    /// Captures a RST.
    pub(crate) fn reset(&mut self, side: Side) {
        self.emit(
            side,
            self.next_seq[side.index()],
            flags::RST | flags::ACK,
            Vec::new(),
        );
    }

    /// Sends frames in the same segment as the FIN.
    pub(crate) fn finish_with(&mut self, side: Side, frames: &[Frame]) {
        for mut segment in self.cut(side, frames, &[]) {
            segment.flags |= flags::FIN;
            self.put(&segment);
        }
        let seq = &mut self.next_seq[side.index()];
        *seq = seq.wrapping_add(1);
        self.acknowledge(side.other());
    }

    fn emit(&mut self, side: Side, seq: u32, flags: u8, payload: Vec<u8>) {
        let segment = self.segment(side, seq, flags, payload);
        self.put(&segment);
    }

    fn segment(&self, side: Side, seq: u32, flags: u8, payload: Vec<u8>) -> Segment {
        let (from, to) = match side {
            Client => (self.client, self.server),
            Server => (self.server, self.client),
        };
        Segment {
            from,
            to,
            seq,
            ack: 0,
            flags,
            window: 0xffff,
            payload,
            options: self.options,
        }
    }

    fn side_of(&self, segment: &Segment) -> Side {
        if segment.from == self.client {
            Client
        } else {
            Server
        }
    }
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Client => Server,
            Server => Client,
        }
    }

    const fn index(self) -> usize {
        match self {
            Client => 0,
            Server => 1,
        }
    }
}
