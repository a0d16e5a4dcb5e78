//! TCP/IP headers, as a cgroup_skb program sees them: the packet begins at the IP header.

/// Bytes of an IPv4 header without options plus a TCP header, or of an IPv6 header.
pub const IP_PREFIX: usize = 40;
/// A TCP header without options (RFC 9293 §3.1).
pub const TCP_HEADER: usize = 20;

const PROTOCOL_TCP: u8 = 6;

/// IPv6 extension headers that may precede TCP (RFC 8200 §4.1). Fragments are not included, because the
/// hooks see whole packets.
const EXTENSIONS: [u8; 3] = [0, 43, 60];

/// Maximum number of extension headers to pass; RFC 8200 defines four that may precede TCP.
pub const MAX_EXTENSIONS: usize = 4;

/// What an IP header says about the header that follows it.
///
/// Only words: Linux before 6.3 refuses a program that copies padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct IpHeader {
    /// 4 or 6.
    pub version: u32,
    /// Offset of the next header, bytes: the TCP header if [`IpHeader::is_tcp`].
    pub tcp_offset: u32,
    next: u32,
}

impl IpHeader {
    /// Parses the fixed part of an IP header.
    ///
    /// `None` if it isn't IP, or if neither TCP nor an IPv6 extension header follows.
    #[inline(always)]
    pub fn parse(prefix: &[u8; IP_PREFIX]) -> Option<Self> {
        match prefix[0] >> 4 {
            // RFC 791 §3.1: IHL in 32-bit words, protocol at byte 9.
            4 if prefix[9] == PROTOCOL_TCP && prefix[0] & 0x0f >= 5 => Some(Self {
                version: 4,
                tcp_offset: (prefix[0] & 0x0f) as u32 * 4,
                next: PROTOCOL_TCP as u32,
            }),
            // RFC 8200 §3: next header at byte 6, fixed length of 40.
            6 if may_follow(prefix[6]) => Some(Self {
                version: 6,
                tcp_offset: 40,
                next: prefix[6] as u32,
            }),
            _ => None,
        }
    }

    /// Whether the TCP header follows; otherwise an extension header does.
    #[inline(always)]
    pub const fn is_tcp(&self) -> bool {
        self.next == PROTOCOL_TCP as u32
    }

    /// Passes an extension header that begins with these bytes (RFC 8200 §4.3). `None` if the next header
    /// cannot be TCP.
    #[inline(always)]
    pub fn pass_extension(self, first: [u8; 2]) -> Option<Self> {
        let [next, length] = first;
        may_follow(next).then_some(Self {
            tcp_offset: self.tcp_offset + (length as u32 + 1) * 8,
            next: next as u32,
            ..self
        })
    }
}

#[inline(always)]
const fn may_follow(next: u8) -> bool {
    let [hop_by_hop, routing, destination] = EXTENSIONS;
    next == PROTOCOL_TCP || next == hop_by_hop || next == routing || next == destination
}

/// Flag bits of byte 13 (RFC 9293 §3.1).
pub mod tcp_flags {
    pub const FIN: u16 = 0x01;
    pub const SYN: u16 = 0x02;
    pub const RST: u16 = 0x04;
    pub const ACK: u16 = 0x10;
}

/// The facts of one TCP segment, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    pub seq: u32,
    pub ack: u32,
    /// As advertised, before scaling.
    pub window: u16,
    /// Bits of [`tcp_flags`]; a word as wide as the window, so that there is no padding.
    pub flags: u16,
    /// Offset of the payload from the IP header, bytes.
    pub payload_offset: u32,
    /// Bytes; with GSO or GRO up to 64 KiB and more.
    pub payload_len: u32,
}

const _: () = assert!(size_of::<Segment>() == 20, "no padding");

impl Segment {
    /// All zero: no segment is being processed.
    pub const EMPTY: Self = Self {
        seq: 0,
        ack: 0,
        window: 0,
        flags: 0,
        payload_offset: 0,
        payload_len: 0,
    };

    /// Parses a TCP header at `tcp_offset` of a packet of `packet_len` bytes.
    ///
    /// The length comes from the packet, not from the IP header, whose 16 bits are too small for a GSO
    /// packet. `None` if the data offset is invalid.
    #[inline(always)]
    pub fn parse(tcp: &[u8; TCP_HEADER], tcp_offset: u32, packet_len: u32) -> Option<Self> {
        let header_len = (tcp[12] >> 4) as u32 * 4;
        let payload_offset = tcp_offset + header_len;
        if header_len < TCP_HEADER as u32 || payload_offset > packet_len {
            return None;
        }
        Some(Self {
            seq: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
            ack: u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]),
            window: u16::from_be_bytes([tcp[14], tcp[15]]),
            flags: tcp[13] as u16,
            payload_offset,
            payload_len: packet_len - payload_offset,
        })
    }

    #[inline(always)]
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// The sequence number of the payload's first byte. In a SYN with data it follows the SYN (RFC 7413).
    #[inline(always)]
    pub const fn payload_seq(&self) -> u32 {
        self.seq.wrapping_add(self.has(tcp_flags::SYN) as u32)
    }

    /// The sequence number after this segment; FIN and SYN take one (RFC 9293 §3.4).
    #[inline(always)]
    pub const fn end(&self) -> u32 {
        let phantom = (self.has(tcp_flags::FIN) || self.has(tcp_flags::SYN)) as u32;
        self.seq
            .wrapping_add(self.payload_len)
            .wrapping_add(phantom)
    }
}

/// Whether sequence number `a` comes after `b` (RFC 9293 §3.4, modulo 2^32).
#[inline(always)]
pub const fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(data_offset_words: u8, flags: u16) -> [u8; TCP_HEADER] {
        let mut header = [0; TCP_HEADER];
        header[4..8].copy_from_slice(&0x0102_0304_u32.to_be_bytes());
        header[8..12].copy_from_slice(&0x0506_0708_u32.to_be_bytes());
        header[12] = data_offset_words << 4;
        header[13] = flags as u8;
        header[14..16].copy_from_slice(&512_u16.to_be_bytes());
        header
    }

    #[test]
    fn a_segment_is_parsed_after_ip_options() {
        let segment = Segment::parse(&tcp(8, tcp_flags::ACK), 24, 24 + 32 + 7);
        assert_eq!(
            segment,
            Some(Segment {
                seq: 0x0102_0304,
                ack: 0x0506_0708,
                window: 512,
                flags: tcp_flags::ACK,
                payload_offset: 56,
                payload_len: 7,
            })
        );
    }

    #[test]
    fn a_data_offset_inside_the_header_or_beyond_the_packet_is_rejected() {
        assert_eq!(Segment::parse(&tcp(4, 0), 20, 60), None);
        assert_eq!(Segment::parse(&tcp(15, 0), 20, 60), None);
    }

    #[test]
    fn fin_takes_a_sequence_number() {
        let segment = Segment::parse(&tcp(5, tcp_flags::FIN), 20, 50).expect("a valid header");
        assert_eq!(segment.end(), 0x0102_0304 + 10 + 1);
    }

    #[test]
    fn data_in_a_syn_begins_after_it() {
        let syn = Segment::parse(&tcp(5, tcp_flags::SYN), 20, 50).expect("a valid header");
        assert_eq!(syn.payload_seq(), 0x0102_0304 + 1);
        let later = Segment::parse(&tcp(5, tcp_flags::ACK), 20, 50).expect("a valid header");
        assert_eq!(later.payload_seq(), 0x0102_0304);
    }

    #[test]
    fn only_tcp_is_accepted_after_extension_headers() {
        let mut v4 = [0; IP_PREFIX];
        v4[0] = 0x46;
        v4[9] = PROTOCOL_TCP;
        let header = IpHeader::parse(&v4);
        assert_eq!(header.map(|h| (h.version, h.tcp_offset)), Some((4, 24)));
        v4[9] = 17;
        assert_eq!(IpHeader::parse(&v4), None);

        let mut v6 = [0; IP_PREFIX];
        v6[0] = 0x60;
        v6[6] = PROTOCOL_TCP;
        let header = IpHeader::parse(&v6);
        assert_eq!(header.map(|h| (h.version, h.tcp_offset)), Some((6, 40)));
        v6[6] = 17;
        assert_eq!(IpHeader::parse(&v6), None);
        v6[6] = 0;
        let hop_by_hop = IpHeader::parse(&v6).expect("an extension header");
        assert!(!hop_by_hop.is_tcp());
        let options = hop_by_hop.pass_extension([60, 0]).expect("another one");
        let tcp = options.pass_extension([6, 2]).expect("TCP");
        assert_eq!((tcp.is_tcp(), tcp.tcp_offset), (true, 40 + 8 + 24));
        assert_eq!(options.pass_extension([17, 0]), None);
    }

    #[test]
    fn sequence_numbers_compare_across_the_wrap() {
        assert!(after(5, u32::MAX - 5));
        assert!(!after(u32::MAX - 5, 5));
        assert!(!after(7, 7));
    }
}
