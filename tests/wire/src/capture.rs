//! pcap and pcapng files (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng).

/// Magic numbers of pcap files with these units of time.
pub const MICROSECONDS: u32 = 0xa1b2_c3d4;
pub const NANOSECONDS: u32 = 0xa1b2_3c4d;

const SECOND: u64 = 1_000_000_000;

/// Byte order of numbers in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Little,
    Big,
}

/// Form of a pcap file.
#[derive(Clone, Copy, Debug)]
pub struct Pcap {
    pub order: Order,
    /// Also `0xa1b2_cd34`: microseconds and longer records.
    pub magic: u32,
    /// See <https://www.tcpdump.org/linktypes.html>.
    pub link_type: u32,
    /// Bytes kept of each packet.
    pub snap: u32,
}

impl Pcap {
    /// A file of these packets, with their times in nanoseconds since 1970.
    pub fn file(self, packets: impl IntoIterator<Item = (u64, impl AsRef<[u8]>)>) -> Vec<u8> {
        let order = self.order;
        let unit = if self.magic == NANOSECONDS { 1 } else { 1000 };
        let mut file = order.u32(self.magic).to_vec();
        file.extend([order.u16(2), order.u16(4)].concat());
        file.extend([0; 8]);
        file.extend([order.u32(self.snap), order.u32(self.link_type)].concat());
        for (at, packet) in packets {
            let packet = packet.as_ref();
            let captured = &packet[..packet.len().min(self.snap as usize)];
            let fields = [
                (at / SECOND) as u32,
                (at % SECOND / unit) as u32,
                captured.len() as u32,
                packet.len() as u32,
            ];
            file.extend(fields.map(|field| order.u32(field)).concat());
            if self.magic == 0xa1b2_cd34 {
                file.extend([0; 8]);
            }
            file.extend(captured);
        }
        file
    }
}

impl Order {
    pub fn u16(self, value: u16) -> [u8; 2] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    pub fn u32(self, value: u32) -> [u8; 4] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    /// A pcapng block, padded to whole words.
    pub fn block(self, kind: u32, content: &[u8]) -> Vec<u8> {
        let padding = vec![0; content.len().next_multiple_of(4) - content.len()];
        let len = self.u32((content.len() + padding.len()) as u32 + 12);
        [&self.u32(kind)[..], &len, content, &padding, &len].concat()
    }

    /// The Section Header Block at the beginning of a pcapng file, of unspecified length.
    pub fn section(self) -> Vec<u8> {
        let version = [self.u16(1), self.u16(0)].concat();
        let content = [&self.u32(0x1a2b_3c4d)[..], &version, &[0xff; 8]].concat();
        self.block(0x0a0d_0d0a, &content)
    }

    /// An Interface Description Block. `resolution` is its `if_tsresol`; without it, times are in
    /// microseconds.
    pub fn interface(self, link_type: u32, snap: u32, resolution: Option<u8>) -> Vec<u8> {
        let mut content = [self.u16(link_type as u16), [0; 2]].concat();
        content.extend(self.u32(snap));
        if let Some(resolution) = resolution {
            content.extend([self.u16(9), self.u16(1), [resolution, 0], [0; 2]].concat());
            content.extend([0; 4]);
        }
        self.block(1, &content)
    }

    /// An Enhanced Packet Block with this time in the interface's unit.
    pub fn enhanced_packet(
        self,
        interface: u32,
        ticks: u64,
        snap: u32,
        packet: &[u8],
        options: &[u8],
    ) -> Vec<u8> {
        let captured = &packet[..packet.len().min(snap as usize)];
        let fields = [
            interface,
            (ticks >> 32) as u32,
            ticks as u32,
            captured.len() as u32,
            packet.len() as u32,
        ];
        let mut content = fields.map(|field| self.u32(field)).concat();
        content.extend(captured);
        content.resize(content.len().next_multiple_of(4), 0);
        content.extend(options);
        self.block(6, &content)
    }
}
