//! IP packets with one TCP segment, with correct checksums.

use std::net::{IpAddr, SocketAddr};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

const PROTOCOL_TCP: u8 = 6;

/// A TCP segment and the headers it is sent with.
#[derive(Clone, Debug)]
pub struct Segment {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub headers: Headers,
    pub payload: Vec<u8>,
}

/// Header fields of no meaning for the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    pub window: u16,
    /// In whole words.
    pub tcp_options: Vec<u8>,
    /// IPv4 options, or an IPv6 extension header, in whole words.
    pub extension: Vec<u8>,
    /// The extension header's protocol number; by default hop-by-hop options.
    pub extension_kind: u8,
    /// IPv4 only.
    pub identification: u16,
    /// An IPv4 length of 0: a packet of 64 KB or more, captured on its way out before the network
    /// card cuts it.
    pub without_length: bool,
}

impl Segment {
    /// The whole IP packet.
    pub fn packet(&self) -> Vec<u8> {
        ip_packet(
            self.from.ip(),
            self.to.ip(),
            PROTOCOL_TCP,
            &self.headers,
            &self.tcp(),
        )
    }

    /// The segment without IP.
    pub fn tcp(&self) -> Vec<u8> {
        let options = &self.headers.tcp_options;
        let mut tcp = [self.from.port().to_be_bytes(), self.to.port().to_be_bytes()].concat();
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.extend([((5 + options.len() / 4) << 4) as u8, self.flags]);
        tcp.extend(self.headers.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(options);
        tcp.extend(&self.payload);

        let mut summed = addresses(self.from.ip(), self.to.ip());
        summed.extend([0, PROTOCOL_TCP]);
        summed.extend((tcp.len() as u32).to_be_bytes());
        summed.extend(&tcp);
        tcp[16..18].copy_from_slice(&checksum(&summed));
        tcp
    }
}

/// An IP packet with any content, and a header without options.
///
/// # Panics
/// If the addresses are of two families.
pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, content: &[u8]) -> Vec<u8> {
    ip_packet(from, to, protocol, &Headers::default(), content)
}

fn ip_packet(from: IpAddr, to: IpAddr, protocol: u8, headers: &Headers, content: &[u8]) -> Vec<u8> {
    let extension = &headers.extension;
    let len = extension.len() + content.len();
    let mut packet = if from.is_ipv4() {
        let total = if headers.without_length { 0 } else { 20 + len };
        let mut header = vec![(0x45 + extension.len() / 4) as u8, 0];
        header.extend((total as u16).to_be_bytes());
        header.extend(headers.identification.to_be_bytes());
        // Don't fragment.
        header.extend([0x40, 0, 64, protocol, 0, 0]);
        header.extend(addresses(from, to));
        header.extend(extension);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum);
        header
    } else {
        let next = match extension.is_empty() {
            true => protocol,
            false => headers.extension_kind,
        };
        let mut header = vec![0x60, 0, 0, 0];
        header.extend((len as u16).to_be_bytes());
        header.extend([next, 64]);
        header.extend(addresses(from, to));
        header.extend(extension);
        header
    };
    packet.extend(content);
    packet
}

/// The Ethernet frame of an IP packet. A short one is padded to 60 bytes.
pub fn ethernet(ip_packet: &[u8]) -> Vec<u8> {
    let kind = if ip_packet[0] >> 4 == 6 {
        [0x86, 0xdd]
    } else {
        [8, 0]
    };
    let mut frame = [&[2; 12][..], &kind, ip_packet].concat();
    frame.resize(frame.len().max(60), 0xee);
    frame
}

fn addresses(from: IpAddr, to: IpAddr) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
        (IpAddr::V6(from), IpAddr::V6(to)) => [from.octets(), to.octets()].concat(),
        _ => panic!("two versions of IP in one packet"),
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let pairs: u64 = pairs
        .iter()
        .map(|pair| u64::from(u16::from_be_bytes(*pair)))
        .sum();
    let mut sum = pairs + odd.iter().map(|byte| u64::from(*byte) << 8).sum::<u64>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_with_options_has_valid_checksums() {
        let segment = Segment {
            from: "10.0.0.1:40000".parse().unwrap(),
            to: "10.0.0.2:8080".parse().unwrap(),
            seq: 1,
            ack: 2,
            flags: ACK,
            headers: Headers {
                window: 512,
                tcp_options: vec![1; 4],
                extension: vec![1; 4],
                ..Headers::default()
            },
            payload: b"odd".to_vec(),
        };
        let packet = segment.packet();
        assert_eq!(packet.len(), 24 + 24 + 3);
        assert_eq!(packet[..4], [0x46, 0, 0, 51]);
        // A sum over bytes and their checksum is zero.
        assert_eq!(checksum(&packet[..24]), [0, 0]);
        let tcp = &packet[24..];
        let pseudo = [&packet[12..20], &[0, 6, 0, 0, 0, tcp.len() as u8], tcp].concat();
        assert_eq!(checksum(&pseudo), [0, 0]);
    }
}
