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
        tun.write(&peer.packet(isn, tcp_flags::ACK, &[]));
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
        let mut syn = peer.packet(isn.wrapping_sub(1), tcp_flags::SYN, &[]);
        let mss = (MAX_PAYLOAD as u16 - 20).to_be_bytes();
        peer.add_options(&mut syn, &[2, 4, mss[0], mss[1], 1, 3, 3, 6], data);
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
        self.packet(seq, tcp_flags::ACK, payload)
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

    fn packet(&self, seq: u32, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut tcp = Vec::with_capacity(TCP_HEADER + payload.len());
        tcp.extend(self.own_port.to_be_bytes());
        tcp.extend(self.kernel_port.to_be_bytes());
        tcp.extend(seq.to_be_bytes());
        tcp.extend(self.expected.to_be_bytes());
        // A header of five words.
        tcp.extend((5 << 12 | flags).to_be_bytes());
        tcp.extend(WINDOW.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(payload);
        self.finish(&[], tcp)
    }

    /// The same packet with eight bytes of TCP options, followed by payload.
    fn add_options(&self, packet: &mut Vec<u8>, options: &[u8; 8], payload: &[u8]) {
        let mut tcp = packet.split_off(packet.len() - TCP_HEADER);
        tcp[12] += 2 << 4;
        tcp.extend(options);
        tcp.extend(payload);
        *packet = self.finish(&[], tcp);
    }

    /// A data packet with IPv4 options or an IPv6 extension header in front of TCP.
    pub(crate) fn data_behind(&self, extension: &[u8], seq: u32, payload: &[u8]) -> Vec<u8> {
        let plain = self.data(seq, payload);
        let tcp = plain[plain.len() - TCP_HEADER - payload.len()..].to_vec();
        self.finish(extension, tcp)
    }

    /// Adds an IP header before `tcp`, and both checksums.
    fn finish(&self, extension: &[u8], mut tcp: Vec<u8>) -> Vec<u8> {
        tcp[16..18].fill(0);
        let mut sum = Sum::default();
        match (self.family.peer(), self.family.kernel()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => sum.add(&[from.octets(), to.octets()].concat()),
            (IpAddr::V6(from), IpAddr::V6(to)) => sum.add(&[from.octets(), to.octets()].concat()),
            _ => unreachable!("one family"),
        }
        sum.add(&(tcp.len() as u32).to_be_bytes());
        sum.add(&[0, 6]);
        sum.add(&tcp);
        tcp[16..18].copy_from_slice(&sum.finish());
        let mut packet = match (self.family.peer(), self.family.kernel()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let words = 5 + extension.len() as u8 / 4;
                let total = (usize::from(words) * 4 + tcp.len()) as u16;
                let mut ip = vec![0x40 | words, 0];
                ip.extend(total.to_be_bytes());
                ip.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
                ip.extend([from.octets(), to.octets()].concat());
                ip.extend(extension);
                let mut sum = Sum::default();
                sum.add(&ip);
                ip[10..12].copy_from_slice(&sum.finish());
                ip
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut ip = vec![0x60, 0, 0, 0];
                ip.extend(((extension.len() + tcp.len()) as u16).to_be_bytes());
                // 60 = destination options (RFC 8200 §4.6).
                ip.extend([if extension.is_empty() { 6 } else { 60 }, 64]);
                ip.extend([from.octets(), to.octets()].concat());
                ip.extend(extension);
                ip
            }
            _ => unreachable!("one family"),
        };
        packet.extend(tcp);
        packet
    }
}

/// The TCP destination port of an outgoing packet.
fn destination(packet: &[u8]) -> Option<u16> {
    let ip = IpHeader::parse(packet.get(..IP_PREFIX)?.try_into().ok()?)?;
    let at = ip.tcp_offset as usize + 2;
    let port = packet.get(at..at + 2)?;
    Some(u16::from_be_bytes([port[0], port[1]]))
}

/// The Internet checksum (RFC 1071).
#[derive(Default)]
struct Sum(u64);

impl Sum {
    /// Only the last piece may be of odd length.
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks(2) {
            self.0 += u64::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]));
        }
    }

    fn finish(mut self) -> [u8; 2] {
        while self.0 >> 16 != 0 {
            self.0 = (self.0 & 0xffff) + (self.0 >> 16);
        }
        (!(self.0 as u16)).to_be_bytes()
    }
}
