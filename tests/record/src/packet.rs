//! IP packets with one TCP segment, and their link layers.

use std::net::{IpAddr, SocketAddr};

pub(crate) mod flags {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const PSH: u8 = 0x08;
    pub(crate) const ACK: u8 = 0x10;
}

#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) payload: Vec<u8>,
    pub(crate) options: Options,
}

/// What is unusual about a packet's headers.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Options {
    #[default]
    None,
    /// TCP timestamps, an IPv4 router alert, an IPv6 hop-by-hop header.
    Both,
    /// None, and an IPv4 length of 0: a packet of 64 KB or more, captured on its way out before the
    /// network card cuts it.
    NoLength,
}

impl Segment {
    /// The whole IP packet, with correct checksums.
    pub(crate) fn ip_packet(&self) -> Vec<u8> {
        let tcp = self.tcp();
        let mut packet = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let options: &[u8] = match self.options {
                    Options::Both => &[0x94, 4, 0, 0],
                    _ => &[],
                };
                let header_len = 20 + options.len();
                let total = match self.options {
                    Options::NoLength => 0,
                    _ => (header_len + tcp.len()) as u16,
                };
                let mut header = vec![0x40 | (header_len / 4) as u8, 0];
                header.extend(total.to_be_bytes());
                header.extend([0, 0, 0x40, 0, 64, PROTOCOL_TCP, 0, 0]);
                header.extend(from.octets());
                header.extend(to.octets());
                header.extend(options);
                let sum = checksum(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                header
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let hop_by_hop: &[u8] = match self.options {
                    // Six bytes of padding (RFC 8200 §4.2).
                    Options::Both => &[PROTOCOL_TCP, 0, 1, 4, 0, 0, 0, 0],
                    _ => &[],
                };
                let next = if hop_by_hop.is_empty() {
                    PROTOCOL_TCP
                } else {
                    0
                };
                let mut header = vec![0x60, 0, 0, 0];
                header.extend(((hop_by_hop.len() + tcp.len()) as u16).to_be_bytes());
                header.extend([next, 64]);
                header.extend(from.octets());
                header.extend(to.octets());
                header.extend(hop_by_hop);
                header
            }
            _ => unreachable!("both ends of a connection are of one family"),
        };
        packet.extend(tcp);
        packet
    }

    fn tcp(&self) -> Vec<u8> {
        let options: &[u8] = match self.options {
            Options::Both => &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1],
            _ => &[],
        };
        let header_words = (20 + options.len()) / 4;
        let mut tcp = self.from.port().to_be_bytes().to_vec();
        tcp.extend(self.to.port().to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.extend([(header_words << 4) as u8, self.flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(options);
        tcp.extend(&self.payload);

        let mut summed = octets(self.from.ip());
        summed.extend(octets(self.to.ip()));
        summed.extend([0, PROTOCOL_TCP]);
        summed.extend((tcp.len() as u32).to_be_bytes());
        summed.extend(&tcp);
        tcp[16..18].copy_from_slice(&checksum(&summed).to_be_bytes());
        tcp
    }
}

/// The link layer of a recording.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Ethernet,
    /// Ethernet with frames padded to 60 bytes, as a network card delivers them.
    PaddedEthernet,
    /// One 802.1Q tag.
    Vlan,
    /// An 802.1ad tag and an 802.1Q tag.
    StackedVlan,
    /// `LINKTYPE_RAW`: no link layer.
    RawIp,
    /// `LINKTYPE_NULL`: BSD loopback, in this byte order.
    Null,
}

impl Link {
    /// See <https://www.tcpdump.org/linktypes.html>.
    pub(crate) const fn link_type(self) -> u32 {
        match self {
            Self::Null => 0,
            Self::RawIp => 101,
            Self::Ethernet | Self::PaddedEthernet | Self::Vlan | Self::StackedVlan => 1,
        }
    }

    pub(crate) fn wrap(self, ip_packet: &[u8], from_client: bool) -> Vec<u8> {
        let v6 = ip_packet[0] >> 4 == 6;
        let tags: &[u8] = match self {
            Self::RawIp => return ip_packet.to_vec(),
            Self::Null => {
                // FreeBSD's AF_INET6; AF_INET is 2 everywhere.
                let family: u32 = if v6 { 28 } else { 2 };
                return [&family.to_le_bytes()[..], ip_packet].concat();
            }
            Self::Ethernet | Self::PaddedEthernet => &[],
            Self::Vlan => &[0x81, 0x00, 0, 10],
            Self::StackedVlan => &[0x88, 0xa8, 0, 20, 0x81, 0x00, 0, 10],
        };
        const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 1];
        const SERVER: [u8; 6] = [2, 0, 0, 0, 0, 2];
        let (from, to) = if from_client {
            (CLIENT, SERVER)
        } else {
            (SERVER, CLIENT)
        };
        let ethertype: [u8; 2] = if v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
        let mut frame = [&to, &from, tags, &ethertype, ip_packet].concat();
        if self == Self::PaddedEthernet {
            // 0x89: read as payload, the padding would be a ping.
            frame.resize(frame.len().max(60), 0x89);
        }
        frame
    }
}

const PROTOCOL_TCP: u8 = 6;

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
