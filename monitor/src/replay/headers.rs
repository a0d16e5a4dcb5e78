//! Finds the TCP segment in a captured packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use monitor_common::segment::{MAX_EXTENSIONS, Segment, TCP_HEADER};

use super::{
    capture::Packet,
    layers::{Layer, RemainingBytes},
};
use crate::records::skipped::Skip;

mod ip_protocol {
    pub(super) const IPV4: u8 = 4;
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    pub(super) const IPV6: u8 = 41;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const GRE: u8 = 47;
    pub(super) const MPLS: u8 = 137;
    /// The extension headers that are followed: IPv6 hop-by-hop options, routing, destination options.
    pub(super) const EXTENSIONS: [u8; 3] = [0, 43, 60];
    /// Security payload, authentication, mobility, HIP, shim6, and two for experiments (IANA, IPv6
    /// Extension Header Types).
    pub(super) const OTHER_EXTENSIONS: [u8; 7] = [50, 51, 135, 139, 140, 253, 254];
}

/// Maximum number of layers before a segment, including nested tunnels. No real packet has more.
const MAX_LAYERS: usize = 24;

/// The captured part of one TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TcpSegment<'a> {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) segment: Segment,
    /// The captured part of the payload.
    pub(super) payload: &'a [u8],
    /// The captured part of the TCP header, with its options.
    pub(super) header: &'a [u8],
    /// IPv4's identification, which differs between a packet and its retransmission; 0 with IPv6.
    pub(super) id: u16,
}

impl<'a> TcpSegment<'a> {
    /// The options in the header; `None` if they were cut off.
    pub(super) fn options(&self) -> Option<&'a [u8]> {
        let (fixed, options) = self.header.split_first_chunk::<TCP_HEADER>()?;
        (self.header.len() == usize::from(fixed[12] >> 4) * 4).then_some(options)
    }
}

/// The content of an IP header.
struct Ip {
    source: IpAddr,
    destination: IpAddr,
    id: u16,
    /// The protocol after the header and its extensions, and its offset.
    protocol: u8,
    offset: usize,
    /// Length of the whole packet.
    len: u32,
}

/// Finds the TCP segment of a packet, the innermost if there are tunnels, or returns why there is none.
pub(super) fn tcp<'a>(packet: &Packet<'a>) -> Result<TcpSegment<'a>, Skip> {
    let mut layer = packet.link.and_then(Layer::of_link).ok_or(Skip::LinkType)?;
    let mut rest = RemainingBytes {
        bytes: packet.bytes,
        on_wire: packet.len,
    };
    for _ in 0..MAX_LAYERS {
        if layer != Layer::Ip {
            (layer, rest) = layer.open(rest)?;
            continue;
        }
        let ip = Ip::parse(rest)?;
        // The rest is padding of the link layer.
        rest.bytes = &rest.bytes[..rest.bytes.len().min(ip.len as usize)];
        rest.on_wire = ip.len;
        if ip.protocol == ip_protocol::TCP {
            return segment(&ip, rest.bytes);
        }
        let inner = rest.behind(ip.offset)?;
        (layer, rest) = match ip.protocol {
            ip_protocol::IPV4 | ip_protocol::IPV6 => (Layer::Ip, inner),
            ip_protocol::GRE => (Layer::Gre, inner),
            ip_protocol::MPLS => (Layer::Mpls, inner),
            ip_protocol::UDP => {
                let tunnel = Layer::in_udp(inner.u16(2)?).ok_or(Skip::NotTcp)?;
                (tunnel, inner.behind(8)?)
            }
            _ => return Err(Skip::NotTcp),
        };
    }
    Err(Skip::Malformed)
}

fn segment<'a>(ip: &Ip, captured: &'a [u8]) -> Result<TcpSegment<'a>, Skip> {
    let behind_ip = captured.get(ip.offset..).ok_or(Skip::TruncatedHeader)?;
    let tcp: &[u8; TCP_HEADER] = behind_ip.first_chunk().ok_or(Skip::TruncatedHeader)?;
    let offset = ip.offset as u32;
    let segment = Segment::parse(tcp, offset, ip.len).ok_or(Skip::Malformed)?;
    let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    let header_len = (segment.payload_offset - offset) as usize;
    Ok(TcpSegment {
        source: SocketAddr::new(ip.source, port(0)),
        destination: SocketAddr::new(ip.destination, port(2)),
        segment,
        payload: behind_ip.get(header_len..).unwrap_or_default(),
        header: behind_ip.get(..header_len).unwrap_or(behind_ip),
        id: ip.id,
    })
}

impl Ip {
    fn parse(rest: RemainingBytes<'_>) -> Result<Self, Skip> {
        match rest.u8(0)? >> 4 {
            4 => Self::v4(rest),
            6 => Self::v6(rest),
            _ => Err(Skip::NotIp),
        }
    }

    /// RFC 791 §3.1; a fragment is unsupported.
    fn v4(rest: RemainingBytes<'_>) -> Result<Self, Skip> {
        let header: &[u8; 20] = rest.read(0)?;
        let fragment = u16::from_be_bytes([header[6], header[7]]);
        // More fragments, or an offset.
        if fragment & 0x3fff != 0 {
            return Err(Skip::Fragment);
        }
        let offset = usize::from(header[0] & 0x0f) * 4;
        if offset < header.len() {
            return Err(Skip::Malformed);
        }
        let [.., a, b, c, d, e, f, g, h] = *header;
        Ok(Self {
            source: Ipv4Addr::new(a, b, c, d).into(),
            destination: Ipv4Addr::new(e, f, g, h).into(),
            id: u16::from_be_bytes([header[4], header[5]]),
            protocol: header[9],
            offset,
            len: length(u16::from_be_bytes([header[2], header[3]]).into(), rest),
        })
    }

    /// RFC 8200 §3.
    fn v6(rest: RemainingBytes<'_>) -> Result<Self, Skip> {
        let header: &[u8; 40] = rest.read(0)?;
        let address = |at: usize| {
            let octets = header[at..].first_chunk::<16>().copied();
            IpAddr::from(Ipv6Addr::from(octets.unwrap_or_default()))
        };
        let payload = u32::from(u16::from_be_bytes([header[4], header[5]]));
        let len = if payload == 0 { 0 } else { 40 + payload };
        let (protocol, offset) = behind_extensions(rest, header[6])?;
        Ok(Self {
            source: address(8),
            destination: address(24),
            id: 0,
            protocol,
            offset,
            len: length(len, rest),
        })
    }
}

/// Skips IPv6's extension headers; returns the protocol after them, and its offset.
fn behind_extensions(rest: RemainingBytes<'_>, mut next: u8) -> Result<(u8, usize), Skip> {
    let mut offset = 40;
    for _ in 0..=MAX_EXTENSIONS {
        match next {
            ip_protocol::FRAGMENT => {
                let [after, _, place, more] = *rest.read(offset)?;
                // A fragment that is the whole packet, as created by translators (RFC 6946).
                if place != 0 || more & !0x06 != 0 {
                    return Err(Skip::Fragment);
                }
                (next, offset) = (after, offset + 8);
            }
            extension if ip_protocol::EXTENSIONS.contains(&extension) => {
                let [after, length] = *rest.read(offset)?;
                (next, offset) = (after, offset + (usize::from(length) + 1) * 8);
            }
            other if ip_protocol::OTHER_EXTENSIONS.contains(&other) => {
                return Err(Skip::ExtensionHeader);
            }
            protocol => return Ok((protocol, offset)),
        }
    }
    Err(Skip::ExtensionHeader)
}

/// A packet that the network card has yet to segment may be too long for its length field, which is
/// then 0.
fn length(field: u32, rest: RemainingBytes<'_>) -> u32 {
    if field == 0 { rest.on_wire } else { field }
}
