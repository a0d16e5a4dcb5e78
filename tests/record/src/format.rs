//! The file formats of the recordings.

use wire::{MICROSECONDS, NANOSECONDS, Order, Pcap};

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
        let pcap = |order, magic| {
            let form = Pcap {
                order,
                magic,
                link_type: link_types[0],
                snap,
            };
            form.file(packets.iter().map(|packet| (packet.at, &packet.bytes)))
        };
        let pcapng = |order: Order, resolution, unit| {
            let interface = |link_type: &u32| order.interface(*link_type, snap, resolution);
            let block = |packet: &Packet| {
                order.enhanced_packet(packet.interface, packet.at / unit, snap, &packet.bytes, &[])
            };
            [order.section()]
                .into_iter()
                .chain(link_types.iter().map(interface))
                .chain(packets.iter().map(block))
                .flatten()
                .collect()
        };
        match self {
            Self::Pcap => pcap(Order::Little, MICROSECONDS),
            Self::PcapNanosecondsBigEndian => pcap(Order::Big, NANOSECONDS),
            Self::PcapNg => pcapng(Order::Little, Some(9), 1),
            Self::PcapNgBigEndian => pcapng(Order::Big, None, 1000),
        }
    }
}
