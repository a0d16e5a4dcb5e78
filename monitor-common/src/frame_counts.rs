//! What a listener counts of the frames of one direction.
//!
//! A counter is added to atomically, which is the dearest thing a packet does. Most frames are whole
//! messages, and of those one slot tells opcode and size at once, and one sum is the payload of the
//! frames and the sizes of the messages.

use crate::{
    bounds::within,
    frame::{Header, opcode},
    stats::{Counter, Histogram, SIZE_BOUNDS},
};

/// Sizes of messages on the wire.
pub type MessageSizes = Histogram<SIZE_BUCKETS>;

const SIZE_BUCKETS: usize = SIZE_BOUNDS.len() + 1;
const OPCODE_BITS: u32 = 4;
const OPCODES: usize = 1 << OPCODE_BITS;

/// The frames of one direction, and the finished data messages they make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FrameCounts {
    /// By [`SLOT`]: first the frames that are no whole message, by opcode; then those that are, by
    /// opcode and size.
    slots: [Counter; SLOTS],
    /// Payload of frames that are no whole message, and of those that are; bytes.
    payload: [Counter; 2],
    /// Messages of several frames.
    fragmented: MessageSizes,
}

impl FrameCounts {
    pub const EMPTY: Self = Self {
        slots: [Counter::ZERO; SLOTS],
        payload: [Counter::ZERO; 2],
        fragmented: Histogram::EMPTY,
    };

    /// Counts a frame, and its message if it is a whole one.
    #[inline(always)]
    pub fn add(&mut self, header: &Header) {
        let slot = SLOT[header.first_byte() as usize] as usize;
        // Arithmetic, because the verifier follows every branch: 1 from OPCODES on.
        let whole = ((slot >> OPCODE_BITS) + OPCODES - 1) >> OPCODE_BITS;
        let size = MessageSizes::bucket_of(header.payload_len, &SIZE_BOUNDS) * whole;
        self.slots[within(slot + size, SLOTS - 1)].add(1);
        self.payload[within(whole, 1)].add(header.payload_len);
    }

    /// Counts a message of several frames, whose last was counted just now.
    #[inline(always)]
    pub fn finish(&mut self, size: u64) {
        self.fragmented.observe(size, &SIZE_BOUNDS);
    }

    /// Frames by raw opcode.
    pub fn by_opcode(&self) -> [u64; OPCODES] {
        core::array::from_fn(|opcode| {
            let whole: u64 = self.whole(opcode).iter().map(Counter::get).sum();
            self.slots[opcode].get() + whole
        })
    }

    /// Payload of all frames, bytes.
    pub fn payload_bytes(&self) -> u64 {
        let [parts, whole] = &self.payload;
        parts.get().wrapping_add(whole.get())
    }

    /// Finished data messages by size: payload bytes of all their frames.
    pub fn message_sizes(&self) -> MessageSizes {
        let mut sizes = self.fragmented;
        for opcode in 0..OPCODES {
            for (bucket, whole) in sizes.buckets.iter_mut().zip(self.whole(opcode)) {
                bucket.add(whole.get());
            }
        }
        sizes.sum.add(self.payload[1].get());
        sizes
    }

    /// Adds what another CPU counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        let Self {
            slots,
            payload,
            fragmented,
        } = self;
        crate::stats::merge(slots, &other.slots);
        crate::stats::merge(payload, &other.payload);
        fragmented.merge(&other.fragmented);
    }

    /// Whole messages of an opcode, by size; empty where it begins none.
    fn whole(&self, opcode: usize) -> &[Counter] {
        match first_whole_slot(opcode as u8) {
            Some(first) => &self.slots[first as usize..][..SIZE_BUCKETS],
            None => &[],
        }
    }
}

/// More than are used, so that a mask keeps an index inside.
const SLOTS: usize = 128;

/// By the first byte of a header (FIN, RSV, opcode). A table, because the verifier follows every
/// branch.
static SLOT: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let opcode = byte as u8 & 0x0f;
        let fin = byte >= 0x80;
        table[byte] = match first_whole_slot(opcode) {
            Some(first) if fin => first,
            _ => opcode,
        };
        byte += 1;
    }
    table
};

/// Where the whole messages that begin with this opcode are counted; `None` for control frames and
/// continuations.
const fn first_whole_slot(opcode: u8) -> Option<u8> {
    if opcode == opcode::CONTINUATION || opcode >= opcode::CLOSE {
        return None;
    }
    Some(OPCODES as u8 + (opcode - 1) * SIZE_BUCKETS as u8)
}

const _: () = assert!(OPCODES + (opcode::CLOSE as usize - 1) * SIZE_BUCKETS <= SLOTS);
const _: () = assert!(SLOTS <= OPCODES * OPCODES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Head;

    fn frame(first_byte: u8, len: u8) -> Header {
        Header::parse(&Head([u64::from(first_byte) | u64::from(len) << 8, 0]), 14)
            .expect("complete")
    }

    #[test]
    fn a_whole_message_counts_as_a_frame_and_as_a_message() {
        let mut counts = FrameCounts::EMPTY;
        counts.add(&frame(0x81, 100));
        counts.add(&frame(0xc2, 25));
        counts.add(&frame(0x83, 7));
        let mut expected = [0; OPCODES];
        expected[1..=3].copy_from_slice(&[1, 1, 1]);
        assert_eq!(counts.by_opcode(), expected);
        assert_eq!(counts.payload_bytes(), 132);
        let sizes = counts.message_sizes();
        assert_eq!((sizes.buckets[0].get(), sizes.sum.get()), (3, 132));
    }

    #[test]
    fn fragments_are_frames_and_their_message_counts_once() {
        let mut counts = FrameCounts::EMPTY;
        counts.add(&frame(0x01, 100));
        counts.add(&frame(0x00, 50));
        counts.add(&frame(0x80, 50));
        counts.finish(200);
        assert_eq!(counts.by_opcode()[..2], [2, 1]);
        assert_eq!(counts.payload_bytes(), 200);
        let sizes = counts.message_sizes();
        assert_eq!((sizes.buckets[1].get(), sizes.sum.get()), (1, 200));
    }

    #[test]
    fn every_first_byte_is_counted_by_its_opcode_and_a_control_frame_is_no_message() {
        for byte in 0..=u8::MAX {
            let mut counts = FrameCounts::EMPTY;
            counts.add(&frame(byte, 5));
            let mut expected = [0; OPCODES];
            expected[usize::from(byte & 0x0f)] = 1;
            assert_eq!(counts.by_opcode(), expected, "{byte:x}");
            assert_eq!(counts.payload_bytes(), 5, "{byte:x}");
            let whole = byte >= 0x80 && matches!(byte & 0x0f, 1..=7);
            let sizes = counts.message_sizes();
            let messages: u64 = sizes.buckets.iter().map(Counter::get).sum();
            assert_eq!(messages, u64::from(whole), "{byte:x}");
        }
    }
}
