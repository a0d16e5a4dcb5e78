//! A TCP connection, written packet by packet.

use std::net::SocketAddr;

use crate::{
    capture::{MICROSECONDS, Order, Pcap},
    packet::{ACK, FIN, Headers, RST, SYN, Segment, ethernet},
};

/// 2026-01-01T00:00:00Z, in nanoseconds.
pub const START: u64 = 1_767_225_600 * SECOND;
pub const SECOND: u64 = 1_000_000_000;
pub const MILLI: u64 = 1_000_000;

/// IP packets with their times in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    pub packets: Vec<(u64, Vec<u8>)>,
}

impl Recording {
    /// A pcap file of whole packets on Ethernet: little-endian, microseconds.
    pub fn pcap(&self) -> Vec<u8> {
        let form = Pcap {
            order: Order::Little,
            magic: MICROSECONDS,
            link_type: 1,
            snap: 1 << 18,
        };
        form.file(
            self.packets
                .iter()
                .map(|(at, packet)| (*at, ethernet(packet))),
        )
    }
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Client,
    Server,
}

impl End {
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// One TCP connection; each end acknowledges everything the other has sent so far.
#[derive(Clone, Debug)]
pub struct Conversation {
    pub client: SocketAddr,
    pub server: SocketAddr,
    /// The next sequence numbers of client and server.
    pub next: [u32; 2],
    /// Acknowledged sequence number of each end.
    pub acked: [u32; 2],
    pub headers: Headers,
}

impl Conversation {
    /// With options in both headers, like the timestamps of most packets.
    ///
    /// # Panics
    /// If these are not addresses.
    pub fn new(client: &str, server: &str) -> Self {
        let client: SocketAddr = client.parse().expect("an address");
        Self {
            client,
            server: server.parse().expect("an address"),
            next: [1000, u32::MAX - 50],
            acked: [0; 2],
            headers: Headers {
                window: 512,
                tcp_options: vec![1; 12],
                extension: vec![1; if client.is_ipv4() { 4 } else { 0 }],
                ..Headers::default()
            },
        }
    }

    pub fn v4() -> Self {
        Self::new("10.0.0.2:40000", "10.0.0.1:8080")
    }

    pub fn v6() -> Self {
        Self::new("[fd00::2]:40000", "[fd00::1]:8080")
    }

    /// SYN, SYN and ACK, ACK, a millisecond apart.
    pub fn open(&mut self, to: &mut Recording, at: u64) {
        self.syn(to, at);
        self.syn_ack(to, at + MILLI);
        self.ack(to, at + 2 * MILLI, End::Client);
    }

    pub fn syn(&mut self, to: &mut Recording, at: u64) {
        self.segment(to, at, End::Client, SYN, &[]);
        self.acked[1] = self.next[0];
    }

    pub fn syn_ack(&mut self, to: &mut Recording, at: u64) {
        self.segment(to, at, End::Server, SYN | ACK, &[]);
        self.acked[0] = self.next[1];
    }

    /// Payload that the other end receives.
    pub fn says(&mut self, to: &mut Recording, at: u64, from: End, payload: &[u8]) {
        self.shouts(to, at, from, payload);
        self.acked[from.other() as usize] = self.next[from as usize];
    }

    /// Payload that the other end does not acknowledge.
    pub fn shouts(&mut self, to: &mut Recording, at: u64, from: End, payload: &[u8]) {
        self.segment(to, at, from, ACK, payload);
    }

    /// Retransmits the last bytes.
    pub fn repeats(&mut self, to: &mut Recording, at: u64, from: End, payload: &[u8]) {
        self.next[from as usize] = self.next[from as usize].wrapping_sub(payload.len() as u32);
        self.segment(to, at, from, ACK, payload);
    }

    pub fn ack(&mut self, to: &mut Recording, at: u64, from: End) {
        self.segment(to, at, from, ACK, &[]);
    }

    pub fn fin(&mut self, to: &mut Recording, at: u64, from: End) {
        self.segment(to, at, from, FIN | ACK, &[]);
        self.acked[from.other() as usize] = self.next[from as usize];
    }

    pub fn rst(&mut self, to: &mut Recording, at: u64, from: End) {
        self.segment(to, at, from, RST | ACK, &[]);
    }

    /// Both FINs and their acknowledgements.
    pub fn close(&mut self, to: &mut Recording, at: u64, first: End) {
        self.fin(to, at, first);
        self.fin(to, at.saturating_add(MILLI), first.other());
        self.ack(to, at.saturating_add(2 * MILLI), first);
    }

    /// Captures the next segment of one end. Each packet has its own IPv4 identification.
    pub fn segment(&mut self, to: &mut Recording, at: u64, from: End, flags: u8, payload: &[u8]) {
        let mut segment = self.next_segment(from, flags, payload);
        segment.headers.identification = to.packets.len() as u16;
        to.packets.push((at, segment.packet()));
    }

    /// Takes the next sequence numbers of one end. The acknowledgement is 0 without ACK.
    pub fn next_segment(&mut self, from: End, flags: u8, payload: &[u8]) -> Segment {
        let i = from as usize;
        let seq = self.next[i];
        let phantom = u32::from(flags & (SYN | FIN) != 0);
        self.next[i] = seq.wrapping_add(payload.len() as u32 + phantom);
        self.segment_at(from, seq, flags, payload)
    }

    /// A segment at any place of the stream.
    pub fn segment_at(&self, from: End, seq: u32, flags: u8, payload: &[u8]) -> Segment {
        let (source, destination) = match from {
            End::Client => (self.client, self.server),
            End::Server => (self.server, self.client),
        };
        Segment {
            from: source,
            to: destination,
            seq,
            ack: if flags & ACK != 0 {
                self.acked[from as usize]
            } else {
                0
            },
            flags,
            headers: self.headers.clone(),
            payload: payload.to_vec(),
        }
    }
}
