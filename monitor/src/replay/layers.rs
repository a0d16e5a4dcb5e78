//! The layers before an IP packet: link layers (<https://www.tcpdump.org/linktypes.html>) and tunnels.

use crate::records::skipped::Skip;

/// The type of the next header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    Ip,
    Ethernet,
    /// The EtherType field.
    EtherType,
    /// Linux cooked capture, v1 and v2.
    Sll,
    Sll2,
    /// The address family, as numbered by the recording system.
    Loopback,
    Ppp,
    /// PPP or Cisco's protocol in HDLC frames.
    Hdlc,
    /// PPP after a byte with the packet's direction, which may replace PPP's address.
    PppWithDirection,
    /// RFC 2516 §4.
    Pppoe,
    Mpls,
    Gre,
    Vxlan,
    Geneve,
    /// IEEE 802.11; its header may be padded to four bytes.
    Wireless {
        padded: bool,
    },
    Radiotap,
}

/// The captured bytes after the headers already parsed, and their length on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct RemainingBytes<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) on_wire: u32,
}

impl<'a> RemainingBytes<'a> {
    pub(super) fn behind(self, len: usize) -> Result<Self, Skip> {
        Ok(Self {
            bytes: self.bytes.get(len..).ok_or(Skip::TruncatedHeader)?,
            on_wire: self.on_wire.saturating_sub(len as u32),
        })
    }

    pub(super) fn read<const N: usize>(self, at: usize) -> Result<&'a [u8; N], Skip> {
        let bytes = self.bytes.get(at..).and_then(|bytes| bytes.first_chunk());
        bytes.ok_or(Skip::TruncatedHeader)
    }

    pub(super) fn u8(self, at: usize) -> Result<u8, Skip> {
        self.read(at).map(|[byte]| *byte)
    }

    pub(super) fn u16(self, at: usize) -> Result<u16, Skip> {
        self.read(at).copied().map(u16::from_be_bytes)
    }
}

impl Layer {
    /// By the LINKTYPE_ value; `None` if it is unsupported.
    pub(super) fn of_link(kind: u32) -> Option<Self> {
        Some(match kind {
            // LINKTYPE_NULL and LINKTYPE_LOOP.
            0 | 108 => Self::Loopback,
            1 => Self::Ethernet,
            9 => Self::Ppp,
            // Raw IP as numbered by OpenBSD and the others, then LINKTYPE_RAW, _IPV4, _IPV6.
            12 | 14 | 101 | 228 | 229 => Self::Ip,
            // LINKTYPE_PPP_HDLC, _C_HDLC.
            50 | 104 => Self::Hdlc,
            // LINKTYPE_PPP_ETHER.
            51 => Self::Pppoe,
            105 => Self::Wireless { padded: false },
            113 => Self::Sll,
            127 => Self::Radiotap,
            // LINKTYPE_PPP_PPPD, _PPP_WITH_DIR.
            166 | 204 => Self::PppWithDirection,
            276 => Self::Sll2,
            _ => return None,
        })
    }

    /// By the destination port of a UDP datagram.
    pub(super) fn in_udp(port: u16) -> Option<Self> {
        match port {
            // IANA's, and Linux' default.
            4789 | 8472 => Some(Self::Vxlan),
            6081 => Some(Self::Geneve),
            _ => None,
        }
    }

    /// Skips its header and returns the next layer.
    pub(super) fn open(self, rest: RemainingBytes<'_>) -> Result<(Self, RemainingBytes<'_>), Skip> {
        match self {
            Self::Ip => Ok((Self::Ip, rest)),
            Self::Ethernet => Ok((Self::EtherType, rest.behind(12)?)),
            Self::EtherType => behind_ether_type(rest.u16(0)?, rest.behind(2)?),
            Self::Sll => Ok((Self::EtherType, rest.behind(14)?)),
            // The protocol field comes first.
            Self::Sll2 => behind_ether_type(rest.u16(0)?, rest.behind(20)?),
            Self::Loopback => behind_family(rest),
            Self::Ppp => behind_ppp(rest),
            Self::PppWithDirection => Ok((Self::Ppp, rest.behind(1)?)),
            Self::Hdlc => match rest.u8(0)? {
                // Cisco's unicast and multicast addresses, and a control byte.
                0x0f | 0x8f => Ok((Self::EtherType, rest.behind(2)?)),
                _ => Ok((Self::Ppp, rest)),
            },
            Self::Pppoe => Ok((Self::Ppp, rest.behind(6)?)),
            Self::Mpls => behind_labels(rest),
            Self::Gre => behind_gre(rest),
            // RFC 7348 §5, and RFC 8926 §3.4 with options in words of four bytes.
            Self::Vxlan => Ok((Self::Ethernet, rest.behind(8)?)),
            Self::Geneve => {
                let options = usize::from(rest.u8(0)? & 0x3f) * 4;
                behind_ether_type(rest.u16(2)?, rest.behind(8 + options)?)
            }
            Self::Wireless { padded } => behind_wireless(rest, padded),
            Self::Radiotap => behind_radiotap(rest),
        }
    }
}

fn behind_ether_type(
    kind: u16,
    rest: RemainingBytes<'_>,
) -> Result<(Layer, RemainingBytes<'_>), Skip> {
    match kind {
        0x0800 | 0x86dd => Ok((Layer::Ip, rest)),
        // 802.1Q, 802.1ad, and its predecessor.
        0x8100 | 0x88a8 | 0x9100 => Ok((Layer::EtherType, rest.behind(2)?)),
        // Unicast and multicast.
        0x8847 | 0x8848 => Ok((Layer::Mpls, rest)),
        0x8864 => Ok((Layer::Pppoe, rest)),
        // Transparent Ethernet bridging, PPP in GRE.
        0x6558 => Ok((Layer::Ethernet, rest)),
        0x880b => Ok((Layer::Ppp, rest)),
        _ => Err(Skip::NotIp),
    }
}

/// The address family is a number of the recording system, in its byte order.
fn behind_family(rest: RemainingBytes<'_>) -> Result<(Layer, RemainingBytes<'_>), Skip> {
    const AF_INET: u32 = 2;
    /// Linux, NetBSD and OpenBSD, FreeBSD, macOS.
    const AF_INET6: [u32; 4] = [10, 24, 28, 30];
    let raw = *rest.read(0)?;
    match u32::from_le_bytes(raw).min(u32::from_be_bytes(raw)) {
        family if family == AF_INET || AF_INET6.contains(&family) => {
            Ok((Layer::Ip, rest.behind(4)?))
        }
        _ => Err(Skip::NotIp),
    }
}

/// RFC 1661 §2 and RFC 1662 §3.1: address and control may be omitted, the protocol may be one byte.
fn behind_ppp(rest: RemainingBytes<'_>) -> Result<(Layer, RemainingBytes<'_>), Skip> {
    let rest = match rest.read(0)? {
        [0xff, 0x03] => rest.behind(2)?,
        // The control byte alone, where another byte replaced the address.
        [0x03, _] => rest.behind(1)?,
        _ => rest,
    };
    let first = rest.u8(0)?;
    let (protocol, len) = match first & 1 {
        1 => (u16::from(first), 1),
        _ => (rest.u16(0)?, 2),
    };
    let rest = rest.behind(len)?;
    match protocol {
        // IPv4 and IPv6.
        0x0021 | 0x0057 => Ok((Layer::Ip, rest)),
        0x0281 | 0x0283 => Ok((Layer::Mpls, rest)),
        _ => Err(Skip::NotIp),
    }
}

/// RFC 3032 §2.1: the last label is marked. The first four bits after it show what follows
/// (RFC 4385 §3).
fn behind_labels(mut rest: RemainingBytes<'_>) -> Result<(Layer, RemainingBytes<'_>), Skip> {
    while rest.u8(2)? & 1 == 0 {
        rest = rest.behind(4)?;
    }
    let rest = rest.behind(4)?;
    match rest.u8(0)? >> 4 {
        4 | 6 => Ok((Layer::Ip, rest)),
        // A control word, and Ethernet.
        0 => Ok((Layer::Ethernet, rest.behind(4)?)),
        _ => Err(Skip::NotIp),
    }
}

/// RFC 2784 §2.1 and RFC 2890 §2; PPTP's version is RFC 2637 §4.1.
fn behind_gre(rest: RemainingBytes<'_>) -> Result<(Layer, RemainingBytes<'_>), Skip> {
    const CHECKSUM: u16 = 0x8000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    const ACKNOWLEDGEMENT: u16 = 0x0080;
    let flags = rest.u16(0)?;
    let optional = match flags & 7 {
        0 => [CHECKSUM, KEY, SEQUENCE],
        1 => [KEY, SEQUENCE, ACKNOWLEDGEMENT],
        _ => return Err(Skip::NotIp),
    };
    let words = optional.iter().filter(|bit| flags & **bit != 0).count();
    behind_ether_type(rest.u16(2)?, rest.behind(4 + words * 4)?)
}

/// IEEE 802.11 §9.3.2.1 and the SNAP header after it. Frames that are encrypted or hold several packets
/// are unsupported.
fn behind_wireless(
    rest: RemainingBytes<'_>,
    padded: bool,
) -> Result<(Layer, RemainingBytes<'_>), Skip> {
    let [kind, flags] = *rest.read(0)?;
    let is_data = kind & 0x0c == 0x08 && kind & 0x40 == 0;
    let is_protected = flags & 0x40 != 0;
    if !is_data || is_protected {
        return Err(Skip::NotIp);
    }
    let mut len = 24;
    if flags & 0x03 == 0x03 {
        // A fourth address.
        len += 6;
    }
    if kind & 0x80 != 0 {
        // Quality of service, with the flag for several packets.
        if rest.u8(len)? & 0x80 != 0 {
            return Err(Skip::NotIp);
        }
        len += 2;
        if flags & 0x80 != 0 {
            // High throughput.
            len += 4;
        }
    }
    if padded {
        len = len.next_multiple_of(4);
    }
    let rest = rest.behind(len)?;
    match rest.read(0)? {
        [0xaa, 0xaa, 0x03, 0, 0, 0 | 0xf8] => Ok((Layer::EtherType, rest.behind(6)?)),
        _ => Err(Skip::NotIp),
    }
}

/// <https://www.radiotap.org>: only the flags matter, which show whether the next header is padded.
fn behind_radiotap(rest: RemainingBytes<'_>) -> Result<(Layer, RemainingBytes<'_>), Skip> {
    const TSFT: u8 = 0x01;
    const FLAGS: u8 = 0x02;
    const PADDED: u8 = 0x20;
    let len = usize::from(u16::from_le_bytes(*rest.read(2)?));
    let present = rest.u8(4)?;
    let mut fields = 8;
    // A word with its highest bit set is followed by another.
    while rest.u8(fields - 1)? & 0x80 != 0 {
        fields += 4;
    }
    if present & TSFT != 0 {
        fields = fields.next_multiple_of(8) + 8;
    }
    let padded = present & FLAGS != 0 && rest.u8(fields)? & PADDED != 0;
    Ok((Layer::Wireless { padded }, rest.behind(len)?))
}
