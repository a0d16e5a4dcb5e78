//! Recordings as files of every kind.

use wire::{Order, Pcap, Recording, SECOND};

use crate::link::Link;

/// A pcap file with microseconds (`0xa1b2_c3d4`), nanoseconds (`0xa1b2_3c4d`) or longer records
/// (`0xa1b2_cd34`), each packet truncated to `snap` bytes.
pub(crate) fn pcap(
    recording: &Recording,
    link: Link,
    snap: usize,
    order: Order,
    magic: u32,
) -> Vec<u8> {
    let first = recording.packets.first();
    let form = Pcap {
        order,
        magic,
        link_type: first.map_or(1, |(_, packet)| link.number(packet)),
        snap: snap as u32,
    };
    let packets = recording.packets.iter();
    form.file(packets.map(|(at, packet)| (*at, link.wrap(packet))))
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
    let mut file = order.section();
    if block != Block::Simple {
        file.extend(order.interface(147, 0, Some(6)));
    }
    file.extend(order.interface(1, 0, Some(resolution)));
    for (at, packet) in &recording.packets {
        let frame = wire::ethernet(packet);
        let ticks = match resolution {
            n if n & 0x80 == 0 => u128::from(*at) * 10_u128.pow(n.into()) / u128::from(SECOND),
            n => (u128::from(*at) << (n & 0x7f)) / u128::from(SECOND),
        } as u64;
        let len = order.u32(frame.len() as u32);
        file.extend(match block {
            Block::Enhanced => {
                let comment = [order.u16(1), order.u16(2), *b"hi", [0, 0]].concat();
                order.enhanced_packet(1, ticks, u32::MAX, &frame, &comment)
            }
            Block::Simple => order.block(3, &[&len[..], &frame].concat()),
            Block::Obsolete => {
                let interface = [order.u16(1), order.u16(9)].concat();
                let time = [order.u32((ticks >> 32) as u32), order.u32(ticks as u32)].concat();
                order.block(2, &[&interface[..], &time, &len, &len, &frame].concat())
            }
        });
    }
    // A block of an unassigned type.
    file.extend(order.block(0x0bad_cafe, b"what"));
    file
}
