//! Out-of-order segments of one direction.

use alloc::vec::Vec;

use crate::segment::{Segment, after};

/// Maximum bytes of payload waiting in one direction: the largest receive buffer of a usual Linux host.
/// Bytes still missing then were not recorded.
const MAX_BYTES: u64 = 6 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentQueue {
    waiting: Vec<QueuedSegment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QueuedSegment {
    pub(super) segment: Segment,
    pub(super) payload: Vec<u8>,
}

impl SegmentQueue {
    pub(super) fn push(&mut self, segment: &Segment, payload: &[u8]) {
        self.waiting.push(QueuedSegment {
            segment: *segment,
            payload: payload.to_vec(),
        });
    }

    /// The next segment for a stream that has reached `seq`, if it is available.
    pub(super) fn pop(&mut self, seq: u32) -> Option<QueuedSegment> {
        let next = self
            .waiting
            .iter()
            .position(|waiting| !after(waiting.segment.payload_seq(), seq))?;
        Some(self.waiting.swap_remove(next))
    }

    /// Bytes missing between `seq` and the first segment here.
    pub(super) fn distance(&self, seq: u32) -> Option<u32> {
        self.waiting
            .iter()
            .map(|waiting| waiting.segment.payload_seq().wrapping_sub(seq))
            .min()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn is_too_long(&self) -> bool {
        self.bytes() > MAX_BYTES
    }

    /// Bytes of waiting payload; duplicates count twice.
    pub(super) fn bytes(&self) -> u64 {
        self.waiting
            .iter()
            .map(|waiting| u64::from(waiting.segment.payload_len))
            .sum()
    }
}
