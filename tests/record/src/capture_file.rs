//! pcap and pcapng files (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng).

/// One captured packet.
pub(crate) struct Packet {
    /// Nanoseconds since 1970.
    pub(crate) at: u64,
    /// Interface number in a pcapng file.
    pub(crate) interface: u32,
    /// The whole packet, including the link layer.
    pub(crate) bytes: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Microseconds, little-endian.
    Pcap,
    /// Nanoseconds, big-endian.
    PcapNanosecondsBigEndian,
    /// Nanoseconds, little-endian.
    PcapNg,
    /// Microseconds, big-endian.
    PcapNgBigEndian,
}

impl Format {
    pub(crate) const fn extension(self) -> &'static str {
        match self {
            Self::Pcap | Self::PcapNanosecondsBigEndian => "pcap",
            Self::PcapNg | Self::PcapNgBigEndian => "pcapng",
        }
    }

    /// A file of `packets`, each truncated to `snap` bytes; `link_types` has one entry per
    /// interface.
    pub(crate) fn file(self, link_types: &[u32], snap: u32, packets: &[Packet]) -> Vec<u8> {
        match self {
            Self::Pcap | Self::PcapNanosecondsBigEndian => self.pcap(link_types[0], snap, packets),
            Self::PcapNg | Self::PcapNgBigEndian => self.pcapng(link_types, snap, packets),
        }
    }

    fn pcap(self, link_type: u32, snap: u32, packets: &[Packet]) -> Vec<u8> {
        let (magic, unit) = match self {
            Self::PcapNanosecondsBigEndian => (0xa1b2_3c4d, 1),
            _ => (0xa1b2_c3d4, 1000),
        };
        let mut file = self.u32(magic).to_vec();
        file.extend(self.u16(2));
        file.extend(self.u16(4));
        for field in [0, 0, snap, link_type] {
            file.extend(self.u32(field));
        }
        for packet in packets {
            let captured = packet.bytes.len().min(snap as usize);
            let fraction = packet.at % 1_000_000_000 / unit;
            for field in [
                (packet.at / 1_000_000_000) as u32,
                fraction as u32,
                captured as u32,
                packet.bytes.len() as u32,
            ] {
                file.extend(self.u32(field));
            }
            file.extend(&packet.bytes[..captured]);
        }
        file
    }

    fn pcapng(self, link_types: &[u32], snap: u32, packets: &[Packet]) -> Vec<u8> {
        const SECTION_HEADER: u32 = 0x0a0d_0d0a;
        const INTERFACE: u32 = 1;
        const ENHANCED_PACKET: u32 = 6;
        let mut section = self.u32(0x1a2b_3c4d).to_vec();
        section.extend(self.u16(1));
        section.extend(self.u16(0));
        section.extend([0xff; 8]); // section length unspecified
        let mut file = self.block(SECTION_HEADER, &section);
        for link_type in link_types {
            let mut interface = self.u16(*link_type as u16).to_vec();
            interface.extend(self.u16(0));
            interface.extend(self.u32(snap));
            if self == Self::PcapNg {
                // if_tsresol: 10^-9 s; the default is 10^-6.
                interface.extend(self.u16(9));
                interface.extend(self.u16(1));
                interface.extend([9, 0, 0, 0]);
                interface.extend(self.u32(0)); // opt_endofopt
            }
            file.extend(self.block(INTERFACE, &interface));
        }
        for packet in packets {
            let captured = packet.bytes.len().min(snap as usize);
            let at = if self == Self::PcapNg {
                packet.at
            } else {
                packet.at / 1000
            };
            let mut body = Vec::new();
            for field in [
                packet.interface,
                (at >> 32) as u32,
                at as u32,
                captured as u32,
                packet.bytes.len() as u32,
            ] {
                body.extend(self.u32(field));
            }
            body.extend(&packet.bytes[..captured]);
            body.resize(body.len().next_multiple_of(4), 0);
            file.extend(self.block(ENHANCED_PACKET, &body));
        }
        file
    }

    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let len = self.u32(body.len() as u32 + 12);
        [&self.u32(kind), &len, body, &len].concat()
    }

    fn u16(self, value: u16) -> [u8; 2] {
        if self.big_endian() {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    fn u32(self, value: u32) -> [u8; 4] {
        if self.big_endian() {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    const fn big_endian(self) -> bool {
        matches!(self, Self::PcapNanosecondsBigEndian | Self::PcapNgBigEndian)
    }
}
