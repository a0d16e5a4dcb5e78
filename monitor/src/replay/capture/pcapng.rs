//! The blocks of a pcapng file (draft-ietf-opsawg-pcapng §4).

use std::io::Read;

use super::{BLOCK_MAX, Buffered, ByteOrder, CaptureError, Packet};

/// Maximum number of interfaces in one section; a file that describes more is damaged.
const INTERFACES_MAX: usize = 1 << 16;

/// Block types (§11.1).
mod block {
    pub(super) const INTERFACE_DESCRIPTION: u32 = 1;
    /// Obsolete.
    pub(super) const PACKET: u32 = 2;
    pub(super) const SIMPLE_PACKET: u32 = 3;
    pub(super) const ENHANCED_PACKET: u32 = 6;
    /// The same in both byte orders.
    pub(super) const SECTION_HEADER: u32 = 0x0a0d_0d0a;
}

/// Block type and length before the content, length after it.
const FRAME: usize = 12;
const SECTION_HEADER_MIN: u32 = 28;

/// The section being read.
#[derive(Debug)]
pub(super) struct Interfaces {
    order: ByteOrder,
    described: Vec<Interface>,
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link: u16,
    snap_len: u32,
    resolution: TimestampResolution,
    /// Seconds to add.
    offset: i64,
}

/// The unit of an interface's time stamps (option if_tsresol).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TimestampResolution {
    /// 10^-n seconds.
    Decimal(u8),
    /// 2^-n seconds.
    Binary(u8),
}

/// The place of the packet in its block.
#[derive(Clone, Copy, Debug)]
struct PacketBlock {
    at: Option<u64>,
    link: Option<u32>,
    offset: usize,
    captured: usize,
    len: u32,
}

impl Interfaces {
    /// Recognises a file by its first bytes, without consuming them.
    pub(super) fn open(head: &[u8]) -> Result<Self, CaptureError> {
        let order = match (
            head.first_chunk(),
            head.get(8..).and_then(|b| b.first_chunk()),
        ) {
            (Some(kind), Some(magic)) if u32::from_le_bytes(*kind) == block::SECTION_HEADER => {
                byte_order(*magic)
            }
            _ => None,
        };
        Ok(Self {
            order: order.ok_or(CaptureError::Unrecognised(""))?,
            described: Vec::new(),
        })
    }

    pub(super) fn next<'a, R: Read>(
        &mut self,
        bytes: &'a mut Buffered<R>,
    ) -> Result<Option<Packet<'a>>, CaptureError> {
        let (found, len) = loop {
            if !bytes.begin(FRAME)? {
                return Ok(None);
            }
            let kind = self.order.read(bytes.peek(FRAME), 0).unwrap_or(0);
            if kind == block::SECTION_HEADER {
                self.begin_section(bytes)?;
            }
            let len = self.order.read(bytes.peek(FRAME), 4).unwrap_or(0) as usize;
            if !(FRAME..BLOCK_MAX).contains(&len) {
                return Err(bytes.damaged("a block of impossible length"));
            }
            bytes.whole(len)?;
            let (content, tail) = bytes.peek(len)[8..].split_at(len - FRAME);
            if self.order.read(tail, 0) != Some(len as u32) {
                return Err(bytes.damaged("a block whose two lengths differ"));
            }
            let found = match kind {
                block::INTERFACE_DESCRIPTION => self.describe(content).map(|()| None),
                block::ENHANCED_PACKET => self.packet(content, false).map(Some),
                block::PACKET => self.packet(content, true).map(Some),
                block::SIMPLE_PACKET => self.simple_packet(content).map(Some),
                _ => Some(None),
            };
            match found {
                Some(Some(found)) => break (found, len),
                Some(None) => bytes.consume(len),
                None => return Err(bytes.damaged("a block that contradicts itself")),
            }
        };
        let content = &bytes.take(len)[8..];
        Ok(Some(Packet {
            at: found.at,
            link: found.link,
            bytes: &content[found.offset..found.offset + found.captured],
            len: found.len,
        }))
    }

    /// A section has its own byte order and its own interfaces (§4.1).
    fn begin_section<R: Read>(&mut self, bytes: &mut Buffered<R>) -> Result<(), CaptureError> {
        let magic = bytes.peek(FRAME).get(8..).and_then(|b| b.first_chunk());
        let Some(order) = magic.and_then(|magic| byte_order(*magic)) else {
            return Err(bytes.damaged("a section without a byte order"));
        };
        self.order = order;
        self.described.clear();
        if order.read(bytes.peek(FRAME), 4).unwrap_or(0) < SECTION_HEADER_MIN {
            return Err(bytes.damaged("a section header that is too short"));
        }
        Ok(())
    }

    /// §4.2.
    fn describe(&mut self, content: &[u8]) -> Option<()> {
        let mut interface = Interface {
            link: self.order.u16(*content.first_chunk()?),
            snap_len: self.order.read(content, 4)?,
            resolution: TimestampResolution::Decimal(6),
            offset: 0,
        };
        for (code, value) in options(self.order, content.get(8..)?) {
            match code {
                IF_TSRESOL => {
                    let raw = *value.first()?;
                    interface.resolution = match raw & 0x80 {
                        0 => TimestampResolution::Decimal(raw),
                        _ => TimestampResolution::Binary(raw & 0x7f),
                    };
                }
                IF_TSOFFSET => {
                    let raw = *value.first_chunk()?;
                    interface.offset = match self.order {
                        ByteOrder::Little => i64::from_le_bytes(raw),
                        ByteOrder::Big => i64::from_be_bytes(raw),
                    };
                }
                _ => {}
            }
        }
        if self.described.len() == INTERFACES_MAX {
            return None;
        }
        self.described.push(interface);
        Some(())
    }

    /// An Enhanced Packet Block (§4.3), or the obsolete one (appendix A), which has a drop count in the
    /// upper half of its first field.
    fn packet(&self, content: &[u8], obsolete: bool) -> Option<PacketBlock> {
        let field = |at| self.order.read(content, at);
        let interface = if obsolete {
            u32::from(self.order.u16(*content.first_chunk()?))
        } else {
            field(0)?
        };
        let captured = field(12)? as usize;
        content.get(PACKET_HEADER..PACKET_HEADER.checked_add(captured)?)?;
        let interface = self.described.get(interface as usize);
        let ticks = (u64::from(field(4)?) << 32) | u64::from(field(8)?);
        Some(PacketBlock {
            at: interface.map(|interface| interface.nanos(ticks)),
            link: interface.map(|interface| interface.link.into()),
            offset: PACKET_HEADER,
            captured,
            len: field(16)?,
        })
    }

    /// A Simple Packet Block belongs to the first interface and has no time stamp (§4.4).
    fn simple_packet(&self, content: &[u8]) -> Option<PacketBlock> {
        let len = self.order.read(content, 0)?;
        let interface = self.described.first();
        let snapped = match interface.map(|interface| interface.snap_len) {
            Some(snap_len) if snap_len != 0 => len.min(snap_len),
            _ => len,
        };
        Some(PacketBlock {
            at: None,
            link: interface.map(|interface| interface.link.into()),
            offset: 4,
            captured: (snapped as usize).min(content.len() - 4),
            len,
        })
    }
}

impl Interface {
    /// A time stamp in nanoseconds since the epoch, clamped to the valid range.
    fn nanos(&self, ticks: u64) -> u64 {
        let ticks = u128::from(ticks);
        let nanos = match self.resolution {
            TimestampResolution::Decimal(n @ 0..=9) => ticks * 10_u128.pow(9 - u32::from(n)),
            TimestampResolution::Decimal(n) => 10_u128
                .checked_pow(u32::from(n) - 9)
                .map_or(0, |divisor| ticks / divisor),
            TimestampResolution::Binary(n) => (ticks * 1_000_000_000) >> n,
        };
        let offset = i128::from(self.offset) * 1_000_000_000;
        let nanos = i128::try_from(nanos).unwrap_or(i128::MAX);
        u64::try_from(nanos.saturating_add(offset).max(0)).unwrap_or(u64::MAX)
    }
}

fn byte_order(magic: [u8; 4]) -> Option<ByteOrder> {
    [ByteOrder::Little, ByteOrder::Big]
        .into_iter()
        .find(|order| order.u32(magic) == 0x1a2b_3c4d)
}

/// The options after a block's fields (§3.5), up to the first that is cut off.
fn options(order: ByteOrder, mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let code = order.u16(*bytes.first_chunk()?);
        let len = usize::from(order.u16(*bytes.get(2..)?.first_chunk()?));
        let value = bytes.get(4..4 + len)?;
        bytes = bytes.get(4 + len.next_multiple_of(4)..).unwrap_or_default();
        (code != END_OF_OPTIONS).then_some((code, value))
    })
}

const END_OF_OPTIONS: u16 = 0;
const IF_TSRESOL: u16 = 9;
const IF_TSOFFSET: u16 = 14;
/// Interface, time stamp, two lengths.
const PACKET_HEADER: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(resolution: TimestampResolution, offset: i64) -> Interface {
        Interface {
            link: 1,
            snap_len: 0,
            resolution,
            offset,
        }
    }

    #[test]
    fn every_resolution_becomes_nanoseconds() {
        let nanos = |resolution, ticks| interface(resolution, 0).nanos(ticks);
        assert_eq!(
            nanos(TimestampResolution::Decimal(6), 1_500_000),
            1_500_000_000
        );
        assert_eq!(nanos(TimestampResolution::Decimal(9), 7), 7);
        assert_eq!(nanos(TimestampResolution::Decimal(12), 7_999), 7);
        assert_eq!(nanos(TimestampResolution::Decimal(0), 3), 3_000_000_000);
        assert_eq!(nanos(TimestampResolution::Binary(10), 1_536), 1_500_000_000);
        assert_eq!(nanos(TimestampResolution::Decimal(127), u64::MAX), 0);
        assert_eq!(nanos(TimestampResolution::Decimal(0), u64::MAX), u64::MAX);
    }

    #[test]
    fn an_offset_moves_a_time_stamp_and_stays_in_range() {
        let seconds = |offset| interface(TimestampResolution::Decimal(0), offset).nanos(10);
        assert_eq!(seconds(5), 15_000_000_000);
        assert_eq!(seconds(-20), 0);
        assert_eq!(seconds(i64::MAX), u64::MAX);
        assert_eq!(seconds(i64::MIN), 0);
    }

    #[test]
    fn options_are_read_up_to_their_end_or_a_cut() {
        let bytes = [
            9, 0, 1, 0, 9, 0, 0, 0, // if_tsresol, padded
            2, 0, 4, 0, b'e', b't', b'h', b'0', // if_name
            0, 0, 0, 0, 7, 7, 7, 7, // end, and bytes that must not be read
        ];
        let read: Vec<_> = options(ByteOrder::Little, &bytes).collect();
        assert_eq!(read, [(9, &[9][..]), (2, b"eth0")]);
        assert_eq!(options(ByteOrder::Little, &bytes[..14]).count(), 1);
        assert_eq!(options(ByteOrder::Little, &[]).count(), 0);
    }
}
