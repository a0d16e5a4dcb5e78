//! Hand-made recordings: TCP conversations as packets, and packets as files.

use std::net::{IpAddr, SocketAddr};

/// 2026-01-01T00:00:00Z, in nanoseconds.
pub(crate) const START: u64 = 1_767_225_600 * SECOND;
pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const MILLI: u64 = 1_000_000;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// IP packets with their times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recording {
    pub(crate) packets: Vec<(u64, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Client,
    Server,
}

impl End {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// One TCP connection; each end acknowledges everything the other has sent so far.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    client: SocketAddr,
    server: SocketAddr,
    /// The next sequence numbers of client and server.
    pub(crate) next: [u32; 2],
    /// Acknowledged sequence number of each end.
    pub(crate) acked: [u32; 2],
}

impl Conversation {
    pub(crate) fn new(client: &str, server: &str) -> Self {
        Self {
            client: client.parse().expect("an address"),
            server: server.parse().expect("an address"),
            next: [1000, u32::MAX - 50],
            acked: [0; 2],
        }
    }

    pub(crate) fn v4() -> Self {
        Self::new("10.0.0.2:40000", "10.0.0.1:8080")
    }

    pub(crate) fn v6() -> Self {
        Self::new("[fd00::2]:40000", "[fd00::1]:8080")
    }

    /// SYN, SYN and ACK, ACK, a millisecond apart.
    pub(crate) fn open(&mut self, to: &mut Recording, at: u64) {
        self.syn(to, at);
        self.syn_ack(to, at + MILLI);
        self.ack(to, at + 2 * MILLI, End::Client);
    }

    pub(crate) fn syn(&mut self, to: &mut Recording, at: u64) {
        self.segment(to, at, End::Client, SYN, &[]);
        self.acked[1] = self.next[0];
    }

    pub(crate) fn syn_ack(&mut self, to: &mut Recording, at: u64) {
        self.segment(to, at, End::Server, SYN | ACK, &[]);
        self.acked[0] = self.next[1];
    }

    /// Payload that the other end receives.
    pub(crate) fn says(&mut self, to: &mut Recording, at: u64, from: End, payload: &[u8]) {
        self.shouts(to, at, from, payload);
        self.acked[from.other() as usize] = self.next[from as usize];
    }

    /// Payload that the other end does not acknowledge.
    pub(crate) fn shouts(&mut self, to: &mut Recording, at: u64, from: End, payload: &[u8]) {
        self.segment(to, at, from, ACK, payload);
    }

    /// Retransmits the last bytes.
    pub(crate) fn repeats(&mut self, to: &mut Recording, at: u64, from: End, payload: &[u8]) {
        self.next[from as usize] = self.next[from as usize].wrapping_sub(payload.len() as u32);
        self.segment(to, at, from, ACK, payload);
    }

    pub(crate) fn ack(&mut self, to: &mut Recording, at: u64, from: End) {
        self.segment(to, at, from, ACK, &[]);
    }

    pub(crate) fn fin(&mut self, to: &mut Recording, at: u64, from: End) {
        self.segment(to, at, from, FIN | ACK, &[]);
        self.acked[from.other() as usize] = self.next[from as usize];
    }

    pub(crate) fn rst(&mut self, to: &mut Recording, at: u64, from: End) {
        self.segment(to, at, from, RST | ACK, &[]);
    }

    /// Both FINs and their acknowledgements.
    pub(crate) fn close(&mut self, to: &mut Recording, at: u64, first: End) {
        self.fin(to, at, first);
        self.fin(to, at.saturating_add(MILLI), first.other());
        self.ack(to, at.saturating_add(2 * MILLI), first);
    }

    pub(crate) fn segment(
        &mut self,
        to: &mut Recording,
        at: u64,
        from: End,
        flags: u8,
        payload: &[u8],
    ) {
        let i = from as usize;
        let (source, destination) = match from {
            End::Client => (self.client, self.server),
            End::Server => (self.server, self.client),
        };
        let ack = if flags & ACK != 0 { self.acked[i] } else { 0 };
        let tcp = tcp(
            source.port(),
            destination.port(),
            self.next[i],
            ack,
            flags,
            payload,
        );
        let mut packet = ip(source.ip(), destination.ip(), 6, &tcp);
        if source.is_ipv4() {
            // Each packet has its own identification.
            packet[4..6].copy_from_slice(&(to.packets.len() as u16).to_be_bytes());
        }
        to.packets.push((at, packet));
        let phantom = u32::from(flags & (SYN | FIN) != 0);
        self.next[i] = self.next[i].wrapping_add(payload.len() as u32 + phantom);
    }
}

pub(crate) fn tcp(
    source: u16,
    dest: u16,
    seq: u32,
    ack: u32,
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(source.to_be_bytes());
    bytes.extend(dest.to_be_bytes());
    bytes.extend(seq.to_be_bytes());
    bytes.extend(ack.to_be_bytes());
    // 12 bytes of options, the size of a timestamp option.
    bytes.extend([8 << 4, flags, 2, 0, 0, 0, 0, 0]);
    bytes.extend([1; 12]);
    bytes.extend(payload);
    bytes
}

pub(crate) fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            // With four bytes of options.
            bytes.extend([0x46, 0]);
            bytes.extend((24 + payload.len() as u16).to_be_bytes());
            bytes.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            bytes.extend([1; 4]);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend((payload.len() as u16).to_be_bytes());
            bytes.extend([protocol, 64]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
        }
        _ => panic!("two versions of IP in one packet"),
    }
    bytes.extend(payload);
    bytes
}

/// The layers before an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Ethernet,
    Vlan,
    QinQ,
    Sll,
    SllVlan,
    Sll2,
    Raw,
    RawBsd,
    Ip,
    Null,
    NullSwapped,
    Loop,
    Ppp,
    /// Without address and control, and with a one-byte protocol.
    PppShort,
    PppInHdlc,
    CiscoHdlc,
    PppPppd,
    PppWithDirection,
    PppEther,
    Pppoe,
    /// Two labels.
    Mpls,
    /// A pseudowire: a label, a control word, Ethernet.
    MplsEthernet,
    /// 802.11: from a station, between access points with quality of service, and behind radiotap.
    Wireless,
    WirelessQos,
    Radiotap,
    RadiotapPadded,
    IpInIp,
    Gre,
    GrePptp,
    /// With key and sequence number.
    GreEthernet,
    Vxlan,
    GeneveEthernet,
    GeneveIp,
    /// VXLAN in IP in GRE in a VLAN.
    TunnelInTunnel,
}

impl Link {
    pub(crate) const ALL: [Self; 34] = [
        Self::Ethernet,
        Self::Vlan,
        Self::QinQ,
        Self::Sll,
        Self::SllVlan,
        Self::Sll2,
        Self::Raw,
        Self::RawBsd,
        Self::Ip,
        Self::Null,
        Self::NullSwapped,
        Self::Loop,
        Self::Ppp,
        Self::PppShort,
        Self::PppInHdlc,
        Self::CiscoHdlc,
        Self::PppPppd,
        Self::PppWithDirection,
        Self::PppEther,
        Self::Pppoe,
        Self::Mpls,
        Self::MplsEthernet,
        Self::Wireless,
        Self::WirelessQos,
        Self::Radiotap,
        Self::RadiotapPadded,
        Self::IpInIp,
        Self::Gre,
        Self::GrePptp,
        Self::GreEthernet,
        Self::Vxlan,
        Self::GeneveEthernet,
        Self::GeneveIp,
        Self::TunnelInTunnel,
    ];

    pub(crate) fn number(self, packet: &[u8]) -> u32 {
        match self {
            Self::Ethernet | Self::Vlan | Self::QinQ => 1,
            Self::Sll | Self::SllVlan => 113,
            Self::Sll2 => 276,
            Self::Raw => 101,
            Self::RawBsd => 12,
            Self::Ip => {
                if is_v6(packet) {
                    229
                } else {
                    228
                }
            }
            Self::Null | Self::NullSwapped => 0,
            Self::Loop => 108,
            Self::Ppp | Self::PppShort => 9,
            Self::PppInHdlc => 50,
            Self::CiscoHdlc => 104,
            Self::PppPppd => 166,
            Self::PppWithDirection => 204,
            Self::PppEther => 51,
            Self::Wireless | Self::WirelessQos => 105,
            Self::Radiotap | Self::RadiotapPadded => 127,
            Self::Pppoe
            | Self::Mpls
            | Self::MplsEthernet
            | Self::IpInIp
            | Self::Gre
            | Self::GrePptp
            | Self::GreEthernet
            | Self::Vxlan
            | Self::GeneveEthernet
            | Self::GeneveIp
            | Self::TunnelInTunnel => 1,
        }
    }

    pub(crate) fn wrap(self, packet: &[u8]) -> Vec<u8> {
        let kind: [u8; 2] = if is_v6(packet) { [0x86, 0xdd] } else { [8, 0] };
        let family: u32 = if is_v6(packet) { 30 } else { 2 };
        let mut frame = Vec::new();
        match self {
            Self::Ethernet => frame.extend([2; 12]),
            Self::Vlan => frame.extend([&[2; 12][..], &[0x81, 0, 0, 5]].concat()),
            Self::QinQ => {
                frame.extend([&[2; 12][..], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6]].concat());
            }
            Self::Sll => frame.extend([0, 0, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0]),
            Self::SllVlan => {
                frame.extend([0, 0, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0, 0x81, 0, 0, 5]);
            }
            Self::Sll2 => frame.extend([
                kind[0], kind[1], 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0,
            ]),
            Self::Null => frame.extend(family.to_le_bytes()),
            Self::NullSwapped | Self::Loop => frame.extend(family.to_be_bytes()),
            Self::Raw | Self::RawBsd | Self::Ip => {}
            _ => return self.wrap_deeper(packet, kind),
        }
        if matches!(
            self,
            Self::Ethernet | Self::Vlan | Self::QinQ | Self::Sll | Self::SllVlan
        ) {
            frame.extend(kind);
        }
        frame.extend(packet);
        if self == Self::Ethernet {
            // A short frame is padded to 60 bytes.
            frame.resize(frame.len().max(60), 0xee);
        }
        frame
    }
}

impl Link {
    fn wrap_deeper(self, packet: &[u8], kind: [u8; 2]) -> Vec<u8> {
        let ppp: [u8; 2] = if is_v6(packet) { [0, 0x57] } else { [0, 0x21] };
        let ethernet = |kind: [u8; 2], packet: &[u8]| [&[2; 12][..], &kind, packet].concat();
        let [from, to] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        let outer = |protocol, content: &[u8]| ip(from, to, protocol, content);
        let in_ip = |protocol, content: &[u8]| ethernet([8, 0], &outer(protocol, content));
        let udp = |port: u16, content: &[u8]| {
            let len = (8 + content.len() as u16).to_be_bytes();
            [&[0xc0, 0][..], &port.to_be_bytes(), &len, &[0, 0], content].concat()
        };
        let vxlan = udp(
            4789,
            &[&[8, 0, 0, 0, 0, 0, 7, 0][..], &ethernet(kind, packet)].concat(),
        );
        let snap = [&[0xaa, 0xaa, 3, 0, 0, 0][..], &kind, packet].concat();
        let wireless =
            |control: [u8; 2], more: &[u8]| [&control[..], &[0; 22], more, &snap].concat();
        match self {
            Self::Ppp | Self::PppInHdlc => [&[0xff, 3][..], &ppp, packet].concat(),
            Self::PppShort => [&ppp[1..], packet].concat(),
            Self::CiscoHdlc => [&[0x0f, 0][..], &kind, packet].concat(),
            Self::PppPppd => [&[1, 3][..], &ppp, packet].concat(),
            Self::PppWithDirection => [&[0, 0xff, 3][..], &ppp, packet].concat(),
            Self::PppEther => [&[0x11, 0, 0, 1, 0, 9][..], &ppp, packet].concat(),
            Self::Pppoe => {
                let session = [&[0x11, 0, 0, 1, 0, 9][..], &ppp, packet].concat();
                ethernet([0x88, 0x64], &session)
            }
            Self::Mpls => {
                let labels = [0, 1, 0x40, 64, 0, 2, 0x41, 64];
                ethernet([0x88, 0x47], &[&labels[..], packet].concat())
            }
            Self::MplsEthernet => {
                let wire = [&[0, 2, 1, 64, 0, 0, 0, 0][..], &ethernet(kind, packet)].concat();
                ethernet([0x88, 0x48], &wire)
            }
            Self::Wireless => wireless([0x08, 0x01], &[]),
            Self::WirelessQos => wireless(
                [0x88, 0x83],
                &[[0; 6].as_slice(), &[5, 0], &[0; 4]].concat(),
            ),
            // Time, flags.
            Self::Radiotap => {
                let head = [&[0, 0, 17, 0, 3, 0, 0, 0][..], &[9; 8], &[0x10]].concat();
                [head, wireless([0x08, 0x02], &[])].concat()
            }
            // Two presence words, flags that announce padding; 26 bytes become 28.
            Self::RadiotapPadded => {
                let head = [0, 0, 13, 0, 2, 0, 0, 0x80, 0, 0, 0, 0, 0x20];
                [&head[..], &wireless([0x88, 0x02], &[0, 0, 0, 0])].concat()
            }
            Self::IpInIp => in_ip(if is_v6(packet) { 41 } else { 4 }, packet),
            Self::Gre => in_ip(47, &[&[0x80, 0][..], &kind, &[0; 4], packet].concat()),
            Self::GrePptp => {
                let head = [0x30, 0x81, 0x88, 0x0b, 0, 9, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1];
                in_ip(47, &[&head[..], &ppp, packet].concat())
            }
            Self::GreEthernet => {
                let head = [0x30, 0, 0x65, 0x58, 0, 0, 0, 1, 0, 0, 0, 2];
                in_ip(47, &[&head[..], &ethernet(kind, packet)].concat())
            }
            Self::Vxlan => in_ip(17, &vxlan),
            Self::GeneveEthernet => {
                let head = [2, 0, 0x65, 0x58, 0, 0, 1, 0, 0, 1, 2, 1, 0, 0, 0, 0];
                in_ip(
                    17,
                    &udp(6081, &[&head[..], &ethernet(kind, packet)].concat()),
                )
            }
            Self::GeneveIp => {
                let head = [0, 0, kind[0], kind[1], 0, 0, 1, 0];
                in_ip(17, &udp(6081, &[&head[..], packet].concat()))
            }
            Self::TunnelInTunnel => {
                let gre = [&[0, 0, 8, 0][..], &outer(17, &vxlan)].concat();
                [&[2; 12][..], &[0x81, 0, 0, 5, 8, 0], &outer(47, &gre)].concat()
            }
            _ => unreachable!("{self:?} has its bytes in wrap"),
        }
    }
}

fn is_v6(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 6)
}

/// Byte order of numbers in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Little,
    Big,
}

impl Order {
    pub(crate) fn u16(self, value: u16) -> [u8; 2] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    pub(crate) fn u32(self, value: u32) -> [u8; 4] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }
}

/// A pcap file with microseconds (`0xa1b2c3d4`), nanoseconds (`0xa1b23c4d`) or longer records
/// (`0xa1b2cd34`), each packet truncated to `snap` bytes.
pub(crate) fn pcap(
    recording: &Recording,
    link: Link,
    snap: usize,
    order: Order,
    magic: u32,
) -> Vec<u8> {
    let first = recording.packets.first();
    let number = first.map_or(1, |(_, packet)| link.number(packet));
    let mut file = Vec::new();
    file.extend(order.u32(magic));
    file.extend(order.u16(2));
    file.extend(order.u16(4));
    file.extend([0; 8]);
    file.extend(order.u32(snap as u32));
    file.extend(order.u32(number));
    for (at, packet) in &recording.packets {
        let frame = link.wrap(packet);
        let captured = &frame[..frame.len().min(snap)];
        let unit = if magic == 0xa1b2_3c4d { 1 } else { 1000 };
        file.extend(order.u32((at / SECOND) as u32));
        file.extend(order.u32((at % SECOND / unit) as u32));
        file.extend(order.u32(captured.len() as u32));
        file.extend(order.u32(frame.len() as u32));
        if magic == 0xa1b2_cd34 {
            file.extend([0; 8]);
        }
        file.extend(captured);
    }
    file
}

/// Ethernet, little-endian, microseconds, whole packets.
pub(crate) fn simple_pcap(recording: &Recording) -> Vec<u8> {
    pcap(
        recording,
        Link::Ethernet,
        1 << 18,
        Order::Little,
        0xa1b2_c3d4,
    )
}

/// Block type for the packets in a pcapng file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    Enhanced,
    Simple,
    Obsolete,
}

/// A pcapng file whose first interface is unused and whose timestamps have this `if_tsresol`.
pub(crate) fn pcapng(recording: &Recording, order: Order, block: Block, resolution: u8) -> Vec<u8> {
    let mut file = section(order);
    let ours = interface(order, 1, resolution);
    if block == Block::Simple {
        file.extend(ours);
    } else {
        file.extend(interface(order, 147, 6));
        file.extend(ours);
    }
    for (at, packet) in &recording.packets {
        let frame = Link::Ethernet.wrap(packet);
        let ticks = match resolution {
            n if n & 0x80 == 0 => u128::from(*at) * 10_u128.pow(n.into()) / u128::from(SECOND),
            n => (u128::from(*at) << (n & 0x7f)) / u128::from(SECOND),
        } as u64;
        let len = order.u32(frame.len() as u32);
        let interface = match block {
            Block::Obsolete => [order.u16(1), order.u16(9)].concat(),
            _ => order.u32(1).to_vec(),
        };
        let time = [order.u32((ticks >> 32) as u32), order.u32(ticks as u32)].concat();
        let head = match block {
            Block::Simple => len.to_vec(),
            _ => [&interface[..], &time, &len, &len].concat(),
        };
        let kind = match block {
            Block::Enhanced => 6,
            Block::Simple => 3,
            Block::Obsolete => 2,
        };
        // A comment, which only an Enhanced Packet Block may have.
        let options: &[u8] = match block {
            Block::Enhanced => &[order.u16(1), order.u16(2), [b'h', b'i'], [0, 0]].concat(),
            _ => &[],
        };
        file.extend(framed(order, kind, &head, &frame, options));
    }
    // A block of an unassigned type.
    file.extend(framed(order, 0x0bad_cafe, b"what", &[], &[]));
    file
}

pub(crate) fn section(order: Order) -> Vec<u8> {
    let magic = order.u32(0x1a2b_3c4d);
    let version = [order.u16(1), order.u16(0)].concat();
    framed(
        order,
        0x0a0d_0d0a,
        &magic,
        &[&version[..], &[0xff; 8]].concat(),
        &[],
    )
}

pub(crate) fn interface(order: Order, link: u16, resolution: u8) -> Vec<u8> {
    let head = [&order.u16(link)[..], &[0; 2], &order.u32(0)].concat();
    let option = [
        &order.u16(9)[..],
        &order.u16(1),
        &[resolution, 0, 0, 0],
        &[0; 4],
    ]
    .concat();
    framed(order, 1, &head, &option, &[])
}

fn framed(order: Order, kind: u32, head: &[u8], body: &[u8], options: &[u8]) -> Vec<u8> {
    let padding = vec![0; body.len().next_multiple_of(4) - body.len()];
    let content = [head, body, &padding, options].concat();
    let len = order.u32(content.len() as u32 + 12);
    [&order.u32(kind)[..], &len, &content, &len].concat()
}
