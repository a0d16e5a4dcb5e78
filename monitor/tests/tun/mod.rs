//! A peer made of hand-written packets at the far end of a network device: real sockets of this
//! kernel receive any segments a test needs.
#![allow(dead_code, reason = "each test target uses its part")]

mod device;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use monitor_common::segment::{IP_PREFIX, IpHeader, Segment, TCP_HEADER, tcp_flags};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use wire::{ACK, Headers, SYN};

pub(crate) use device::Tun;

/// The largest payload of one IPv4 packet.
pub(crate) const MAX_PAYLOAD: usize = 65_535 - 40;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Interval between SYNs: a new device takes time to come up.
const SYN_TIMEOUT: Duration = Duration::from_millis(100);
const WINDOW: u16 = 65_000;

/// Runs `act` in a new network namespace, which ends with it.
pub(crate) fn in_new_namespace<T: Send>(act: impl FnOnce(&mut Tun) -> T + Send) -> T {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            // SAFETY: file descriptors stay shared; only this new thread changes its namespace.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("needs root");
            act(&mut Tun::new())
        });
        inside
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const fn kernel(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1)),
        }
    }

    pub(crate) const fn peer(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(10, 99, 0, 2)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 2)),
        }
    }
}

/// The far end of one connection.
pub(crate) struct Peer {
    pub(crate) family: Family,
    kernel_port: u16,
    own_port: u16,
    /// The sequence number of the first byte to send.
    pub(crate) isn: u32,
    /// The next byte expected from the kernel's socket.
    pub(crate) expected: u32,
    /// The sequence number last acknowledged by the kernel's socket. TCP ignores what lies before it,
    /// so a bare acknowledgement begins here.
    acknowledged: u32,
}

/// A packet of the connection, in either direction.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) segment: Segment,
    pub(crate) payload: Vec<u8>,
}

impl Packet {
    /// `None` if it is not TCP.
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        let mut ip = IpHeader::parse(packet.get(..IP_PREFIX)?.try_into().ok()?)?;
        while !ip.is_tcp() {
            let at = ip.tcp_offset as usize;
            ip = ip.pass_extension(packet.get(at..at + 2)?.try_into().ok()?)?;
        }
        let at = ip.tcp_offset as usize;
        let tcp: &[u8; TCP_HEADER] = packet.get(at..at + TCP_HEADER)?.try_into().ok()?;
        let segment = Segment::parse(tcp, ip.tcp_offset, packet.len() as u32)?;
        let payload = packet[segment.payload_offset as usize..].to_vec();
        Some(Self { segment, payload })
    }
}

impl Peer {
    /// Connects to a listener of the kernel, with every packet of the handshake written by hand
    /// (RFC 9293 §3.5). The next sequence number is `isn`.
    pub(crate) fn connect(
        tun: &mut Tun,
        family: Family,
        listener: &TcpListener,
        own_port: u16,
        isn: u32,
    ) -> (Self, TcpStream) {
        let (peer, ..) = Self::knock(tun, family, listener, own_port, isn, b"");
        tun.write(&peer.data(isn, &[]));
        let socket = peer.accepted(listener);
        (peer, socket)
    }

    /// The first half of the handshake, with `data` in the SYN (RFC 7413). Also returns the SYN and
    /// its answer.
    pub(crate) fn knock(
        tun: &mut Tun,
        family: Family,
        listener: &TcpListener,
        own_port: u16,
        isn: u32,
        data: &[u8],
    ) -> (Self, Packet, Packet) {
        let mut peer = Self {
            family,
            kernel_port: listener.local_addr().unwrap().port(),
            own_port,
            isn,
            expected: 0,
            acknowledged: isn,
        };
        // With the largest segment size and a scaled window, so that data written at once is sent
        // at once.
        let mss = (MAX_PAYLOAD as u16 - 20).to_be_bytes();
        let mut syn = peer.segment(isn.wrapping_sub(1), SYN, data);
        syn.headers.tcp_options = vec![2, 4, mss[0], mss[1], 1, 3, 3, 6];
        let syn = syn.packet();
        let deadline = Instant::now() + TIMEOUT;
        let response = loop {
            tun.write(&syn);
            if let Some(response) = peer.next_packet(tun, Instant::now() + SYN_TIMEOUT) {
                break response;
            }
            assert!(Instant::now() < deadline, "no answer to a SYN");
        };
        assert!(response.segment.has(tcp_flags::SYN), "{response:?}");
        peer.expected = response.segment.seq.wrapping_add(1);
        let syn = Packet::parse(&syn).expect("our own packet");
        (peer, syn, response)
    }

    /// The socket at the other end, which waits in the queue of `listener`.
    pub(crate) fn accepted(&self, listener: &TcpListener) -> TcpStream {
        let (socket, from) = listener.accept().unwrap();
        assert_eq!(from, SocketAddr::new(self.family.peer(), self.own_port));
        socket.set_nodelay(true).unwrap();
        socket
    }

    /// A segment that begins at `seq` and acknowledges everything received.
    pub(crate) fn data(&self, seq: u32, payload: &[u8]) -> Vec<u8> {
        self.segment(seq, ACK, payload).packet()
    }

    /// A bare acknowledgement of everything received.
    pub(crate) fn acknowledgement(&self) -> Vec<u8> {
        self.data(self.acknowledged, b"")
    }

    /// Outgoing packets up to `expected + bytes`.
    pub(crate) fn receive(&mut self, tun: &mut Tun, bytes: usize) -> Vec<Packet> {
        let end = self.expected.wrapping_add(bytes as u32);
        let mut packets = Vec::new();
        while self.expected != end {
            let packet = self
                .next_packet(tun, Instant::now() + TIMEOUT)
                .expect("what the socket sent");
            if packet.segment.seq == self.expected {
                self.expected = self.expected.wrapping_add(packet.segment.payload_len);
            }
            packets.push(packet);
        }
        packets
    }

    /// Packets that have come out so far.
    pub(crate) fn received(&mut self, tun: &mut Tun) -> Vec<Packet> {
        std::iter::from_fn(|| self.next_packet(tun, Instant::now())).collect()
    }

    fn next_packet(&mut self, tun: &mut Tun, until: Instant) -> Option<Packet> {
        loop {
            let packet = tun.read(until)?;
            if destination(&packet) == Some(self.own_port)
                && let Some(packet) = Packet::parse(&packet)
            {
                self.acknowledged = packet.segment.ack;
                return Some(packet);
            }
        }
    }

    /// A data packet with IPv4 options or an IPv6 extension header in front of TCP.
    pub(crate) fn data_behind(&self, extension: &[u8], seq: u32, payload: &[u8]) -> Vec<u8> {
        let mut segment = self.segment(seq, ACK, payload);
        segment.headers.extension = extension.to_vec();
        segment.packet()
    }

    fn segment(&self, seq: u32, flags: u8, payload: &[u8]) -> wire::Segment {
        wire::Segment {
            from: SocketAddr::new(self.family.peer(), self.own_port),
            to: SocketAddr::new(self.family.kernel(), self.kernel_port),
            seq,
            ack: self.expected,
            flags,
            headers: Headers {
                window: WINDOW,
                // Destination options (RFC 8200 §4.6).
                extension_kind: 60,
                ..Headers::default()
            },
            payload: payload.to_vec(),
        }
    }
}

/// The TCP destination port of an outgoing packet.
fn destination(packet: &[u8]) -> Option<u16> {
    let ip = IpHeader::parse(packet.get(..IP_PREFIX)?.try_into().ok()?)?;
    let at = ip.tcp_offset as usize + 2;
    let port = packet.get(at..at + 2)?;
    Some(u16::from_be_bytes([port[0], port[1]]))
}
