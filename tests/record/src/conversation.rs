//! A TCP connection that carries WebSocket, written packet by packet as if captured.

use std::net::SocketAddr;

use wire::{
    ACK,
    End::{self, Client, Server},
    FIN, Headers, PSH, REQUEST, RESPONSE, RST, SYN, Segment,
};

use super::frame::Frame;

/// What is unusual about a packet's headers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Options {
    None,
    /// TCP timestamps, an IPv4 router alert, an IPv6 hop-by-hop header.
    Both,
    /// None, and an IPv4 length of 0: a packet of 64 KB or more, captured on its way out before the
    /// network card cuts it.
    NoLength,
}

/// The connection as captured, and the frames really in it.
pub(crate) struct Conversation {
    pub(crate) tcp: wire::Conversation,
    now: u64,
    pub(crate) packets: Vec<(u64, Segment)>,
    pub(crate) frames: Vec<(End, Frame)>,
}

const BETWEEN_PACKETS_NANOSECONDS: u64 = 1_000_000;

impl Conversation {
    /// Nothing captured yet.
    pub(crate) fn new() -> Self {
        Self {
            tcp: wire::Conversation::new("10.0.0.1:40000", "10.0.0.2:8080"),
            now: wire::START,
            packets: Vec::new(),
            frames: Vec::new(),
        }
        .with(Options::None)
        .starting_at(1_000, 700_000)
    }

    /// Uses another client port, and starts a little later than the connection on the previous
    /// port.
    pub(crate) fn number(mut self, n: u16) -> Self {
        self.tcp.client.set_port(40_000 + n);
        self.now += u64::from(n) * 100_000;
        self
    }

    pub(crate) fn later(mut self, seconds: u64) -> Self {
        self.now += seconds * 1_000_000_000;
        self
    }

    pub(crate) fn between(mut self, client: SocketAddr, server: SocketAddr) -> Self {
        (self.tcp.client, self.tcp.server) = (client, server);
        self
    }

    pub(crate) fn v6(self) -> Self {
        self.between(
            SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 1], 40_000)),
            SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 2], 8080)),
        )
    }

    pub(crate) fn with(mut self, options: Options) -> Self {
        let (tcp_options, extension): (&[u8], &[u8]) = match options {
            Options::None | Options::NoLength => (&[], &[]),
            Options::Both => (
                &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1],
                match self.tcp.client.is_ipv4() {
                    true => &[0x94, 4, 0, 0],
                    // TCP follows; six bytes of padding (RFC 8200 §4.2).
                    false => &[6, 0, 1, 4, 0, 0, 0, 0],
                },
            ),
        };
        self.tcp.headers = Headers {
            window: 0xffff,
            tcp_options: tcp_options.to_vec(),
            extension: extension.to_vec(),
            without_length: options == Options::NoLength,
            ..Headers::default()
        };
        self
    }

    /// The initial sequence numbers of client and server.
    pub(crate) fn starting_at(mut self, client: u32, server: u32) -> Self {
        self.tcp.next = [client, server];
        self.tcp.acked = [server, client];
        self
    }

    /// The three-way handshake.
    pub(crate) fn connect(mut self) -> Self {
        self.emit(Client, SYN);
        self.tcp.acked[Server as usize] = self.tcp.next[Client as usize];
        self.emit(Server, SYN | ACK);
        self.acknowledge(Client);
        self
    }

    /// The three-way handshake and the upgrade (RFC 6455 §4).
    pub(crate) fn open(self) -> Self {
        let mut conversation = self.connect();
        conversation.say(Client, REQUEST);
        conversation.say(Server, RESPONSE);
        conversation
    }

    /// The same up to the request.
    pub(crate) fn request(self) -> Self {
        let mut conversation = self.connect();
        conversation.say(Client, REQUEST);
        conversation
    }

    /// Sends bytes without frames in one segment, which is acknowledged.
    pub(crate) fn say(&mut self, side: End, bytes: impl AsRef<[u8]>) {
        let segment = self.tcp.next_segment(side, PSH | ACK, bytes.as_ref());
        self.put(&segment);
        self.acknowledge(side.other());
    }

    /// Sends each frame in its own segment; each is acknowledged.
    pub(crate) fn send(&mut self, side: End, frames: &[Frame]) {
        for frame in frames {
            for segment in self.cut(side, std::slice::from_ref(frame), &[]) {
                self.put(&segment);
            }
            self.acknowledge(side.other());
        }
    }

    /// Sends all frames in one segment.
    pub(crate) fn send_together(&mut self, side: End, frames: &[Frame]) {
        for segment in self.cut(side, frames, &[]) {
            self.put(&segment);
        }
        self.acknowledge(side.other());
    }

    /// Writes frames into the stream, cut into segments at these offsets, without sending them yet.
    pub(crate) fn cut(&mut self, side: End, frames: &[Frame], cuts: &[usize]) -> Vec<Segment> {
        self.cut_behind(side, "", frames, cuts)
    }

    /// The same with other bytes before the frames.
    pub(crate) fn cut_behind(
        &mut self,
        side: End,
        front: impl AsRef<[u8]>,
        frames: &[Frame],
        cuts: &[usize],
    ) -> Vec<Segment> {
        let mut bytes = front.as_ref().to_vec();
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
            self.tcp.next_segment(side, PSH | ACK, part)
        })
        .collect()
    }

    /// Captures a segment.
    pub(crate) fn put(&mut self, segment: &Segment) {
        let mut segment = segment.clone();
        let side = if segment.from == self.tcp.client {
            Client
        } else {
            Server
        };
        segment.ack = self.tcp.acked[side as usize];
        self.packets.push((self.now, segment));
        self.now += BETWEEN_PACKETS_NANOSECONDS;
    }

    /// Captures an acknowledgement of everything the other side has sent.
    pub(crate) fn acknowledge(&mut self, side: End) {
        self.acknowledge_up_to(side, self.tcp.next[side.other() as usize]);
    }

    /// Captures an acknowledgement of what the other side sent before sequence number `seq`.
    pub(crate) fn acknowledge_up_to(&mut self, side: End, seq: u32) {
        self.tcp.acked[side as usize] = seq;
        self.emit(side, ACK);
    }

    /// Captures a keepalive probe: the byte before the next one (RFC 9293 §3.8.4).
    pub(crate) fn probe(&mut self, side: End) {
        let seq = self.tcp.next[side as usize].wrapping_sub(1);
        let segment = self.tcp.segment_at(side, seq, ACK, &[0x89]);
        self.put(&segment);
        self.acknowledge(side.other());
    }

    /// Closes both directions in order.
    pub(crate) fn finish(&mut self, first: End) {
        for side in [first, first.other()] {
            self.emit(side, FIN | ACK);
            self.acknowledge(side.other());
        }
    }

    /// Captures a RST.
    pub(crate) fn reset(&mut self, side: End) {
        self.emit(side, RST | ACK);
    }

    /// Sends frames in the same segment as the FIN.
    pub(crate) fn finish_with(&mut self, side: End, frames: &[Frame]) {
        for mut segment in self.cut(side, frames, &[]) {
            segment.flags |= FIN;
            self.put(&segment);
        }
        let seq = &mut self.tcp.next[side as usize];
        *seq = seq.wrapping_add(1);
        self.acknowledge(side.other());
    }

    /// Captures a segment without payload.
    fn emit(&mut self, side: End, flags: u8) {
        let segment = self.tcp.next_segment(side, flags, &[]);
        self.put(&segment);
    }
}
