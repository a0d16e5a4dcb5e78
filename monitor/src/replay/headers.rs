//! From a captured packet to the TCP segment in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use monitor_common::segment::{IP_PREFIX, IpHeader, MAX_EXTENSIONS, Segment, TCP_HEADER};

use super::{capture::Packet, skip::Skip};

/// Link types (<https://www.tcpdump.org/linktypes.html>).
mod link {
    pub(super) const NULL: u32 = 0;
    pub(super) const ETHERNET: u32 = 1;
    /// As OpenBSD and the others number their raw IP.
    pub(super) const RAW_BSD: [u32; 2] = [12, 14];
    pub(super) const RAW: u32 = 101;
    pub(super) const LOOP: u32 = 108;
    pub(super) const LINUX_SLL: u32 = 113;
    pub(super) const IPV4: u32 = 228;
    pub(super) const IPV6: u32 = 229;
    pub(super) const LINUX_SLL2: u32 = 276;
}

mod ether_type {
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const IPV6: u16 = 0x86dd;
    /// 802.1Q, 802.1ad, and what came before it.
    pub(super) const VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];
}

mod ip_protocol {
    pub(super) const TCP: u8 = 6;
    pub(super) const FRAGMENT: u8 = 44;
    /// IPv6 hop-by-hop options, routing, destination options: what is followed.
    pub(super) const EXTENSIONS: [u8; 3] = [0, 43, 60];
    /// Security payload, authentication, mobility, HIP, shim6, and two for experiments (IANA, IPv6
    /// Extension Header Types).
    pub(super) const OTHER_EXTENSIONS: [u8; 7] = [50, 51, 135, 139, 140, 253, 254];
}

const AF_INET: u32 = 2;
/// Linux, NetBSD and OpenBSD, FreeBSD, macOS.
const AF_INET6: [u32; 4] = [10, 24, 28, 30];

/// One TCP segment, as far as it was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tcp<'a> {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) segment: Segment,
    /// The captured part of the payload.
    pub(super) payload: &'a [u8],
    /// The TCP header with its options, as far as it was captured.
    pub(super) header: &'a [u8],
    /// IPv4's identification, which a retransmission does not share; 0 with IPv6.
    pub(super) id: u16,
}

/// Finds the TCP segment of a packet, or says why there is none.
pub(super) fn tcp<'a>(packet: &Packet<'a>) -> Result<Tcp<'a>, Skip> {
    let offset = ip_offset(packet)?;
    let captured = packet.bytes.get(offset..).ok_or(Skip::TruncatedHeader)?;
    let on_wire = packet.len.saturating_sub(offset as u32);
    let (len, [source, destination]) = match captured.first().map(|first| first >> 4) {
        Some(4) => v4(captured, on_wire)?,
        Some(6) => v6(captured, on_wire)?,
        Some(_) => return Err(Skip::NotIp),
        None => return Err(Skip::TruncatedHeader),
    };
    // What lies behind is padding of the link.
    let captured = &captured[..captured.len().min(len as usize)];
    let prefix: &[u8; IP_PREFIX] = captured.first_chunk().ok_or(Skip::TruncatedHeader)?;
    let mut ip = IpHeader::parse(prefix).ok_or(Skip::Malformed)?;
    for _ in 0..MAX_EXTENSIONS {
        if !ip.is_tcp() {
            let extension = captured.get(ip.tcp_offset as usize..);
            let first = extension.and_then(|bytes| bytes.first_chunk());
            let first = *first.ok_or(Skip::TruncatedHeader)?;
            may_lead_to_tcp(first[0])?;
            ip = ip.pass_extension(first).ok_or(Skip::ExtensionHeader)?;
        }
    }
    if !ip.is_tcp() {
        return Err(Skip::ExtensionHeader);
    }
    let tcp: &[u8; TCP_HEADER] = captured
        .get(ip.tcp_offset as usize..)
        .and_then(|tcp| tcp.first_chunk())
        .ok_or(Skip::TruncatedHeader)?;
    let segment = Segment::parse(tcp, ip.tcp_offset, len).ok_or(Skip::Malformed)?;
    let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    let behind_ip = &captured[ip.tcp_offset as usize..];
    let header_len = (segment.payload_offset - ip.tcp_offset) as usize;
    Ok(Tcp {
        source: SocketAddr::new(source, port(0)),
        destination: SocketAddr::new(destination, port(2)),
        segment,
        payload: captured
            .get(segment.payload_offset as usize..)
            .unwrap_or_default(),
        header: behind_ip.get(..header_len).unwrap_or(behind_ip),
        id: match ip.version {
            4 => u16::from_be_bytes([prefix[4], prefix[5]]),
            _ => 0,
        },
    })
}

/// Where the IP header begins.
fn ip_offset(packet: &Packet<'_>) -> Result<usize, Skip> {
    let Some(kind) = packet.link else {
        return Err(Skip::LinkType);
    };
    match kind {
        link::ETHERNET => behind_ether_type(packet.bytes, 12),
        link::LINUX_SLL => behind_ether_type(packet.bytes, 14),
        // The protocol comes first, the payload behind 20 bytes.
        link::LINUX_SLL2 => match ether_type_at(packet.bytes, 0)? {
            ether_type::IPV4 | ether_type::IPV6 => Ok(20),
            tag if ether_type::VLAN.contains(&tag) => behind_ether_type(packet.bytes, 22),
            _ => Err(Skip::NotIp),
        },
        link::NULL | link::LOOP => behind_family(packet.bytes),
        link::RAW | link::IPV4 | link::IPV6 => Ok(0),
        raw if link::RAW_BSD.contains(&raw) => Ok(0),
        _ => Err(Skip::LinkType),
    }
}

/// The address family is a number of the capturing system, in its byte order.
fn behind_family(bytes: &[u8]) -> Result<usize, Skip> {
    let raw = *bytes.first_chunk().ok_or(Skip::TruncatedHeader)?;
    match u32::from_le_bytes(raw).min(u32::from_be_bytes(raw)) {
        AF_INET => Ok(4),
        family if AF_INET6.contains(&family) => Ok(4),
        _ => Err(Skip::NotIp),
    }
}

/// Follows VLAN tags from the EtherType at `at` to the payload.
fn behind_ether_type(bytes: &[u8], mut at: usize) -> Result<usize, Skip> {
    loop {
        match ether_type_at(bytes, at)? {
            ether_type::IPV4 | ether_type::IPV6 => return Ok(at + 2),
            tag if ether_type::VLAN.contains(&tag) => at += 4,
            _ => return Err(Skip::NotIp),
        }
    }
}

fn ether_type_at(bytes: &[u8], at: usize) -> Result<u16, Skip> {
    let raw = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    raw.map(|raw| u16::from_be_bytes(*raw))
        .ok_or(Skip::TruncatedHeader)
}

/// The packet's length and addresses, if it is an unfragmented one of TCP (RFC 791 §3.1).
fn v4(captured: &[u8], on_wire: u32) -> Result<(u32, [IpAddr; 2]), Skip> {
    let header: &[u8; 20] = captured.first_chunk().ok_or(Skip::TruncatedHeader)?;
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    // More fragments, or an offset.
    if fragment & 0x3fff != 0 {
        return Err(Skip::Fragment);
    }
    if header[9] != ip_protocol::TCP {
        return Err(Skip::NotTcp);
    }
    let [.., a, b, c, d, e, f, g, h] = *header;
    Ok((
        length(u16::from_be_bytes([header[2], header[3]]).into(), on_wire),
        [
            Ipv4Addr::new(a, b, c, d).into(),
            Ipv4Addr::new(e, f, g, h).into(),
        ],
    ))
}

/// The same for IPv6 (RFC 8200 §3).
fn v6(captured: &[u8], on_wire: u32) -> Result<(u32, [IpAddr; 2]), Skip> {
    let header: &[u8; IP_PREFIX] = captured.first_chunk().ok_or(Skip::TruncatedHeader)?;
    may_lead_to_tcp(header[6])?;
    let address = |at: usize| {
        let octets = header[at..].first_chunk::<16>().copied();
        IpAddr::from(Ipv6Addr::from(octets.unwrap_or_default()))
    };
    let payload = u32::from(u16::from_be_bytes([header[4], header[5]]));
    let len = if payload == 0 { 0 } else { 40 + payload };
    Ok((length(len, on_wire), [address(8), address(24)]))
}

/// By what an IPv6 header says of the next one.
fn may_lead_to_tcp(next: u8) -> Result<(), Skip> {
    match next {
        ip_protocol::TCP => Ok(()),
        ip_protocol::FRAGMENT => Err(Skip::Fragment),
        next if ip_protocol::EXTENSIONS.contains(&next) => Ok(()),
        next if ip_protocol::OTHER_EXTENSIONS.contains(&next) => Err(Skip::ExtensionHeader),
        _ => Err(Skip::NotTcp),
    }
}

/// A packet that the card has yet to cut may be too long for its length field, which is 0 then.
fn length(field: u32, on_wire: u32) -> u32 {
    if field == 0 { on_wire } else { field }
}
