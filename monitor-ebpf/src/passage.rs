//! One packet on its way through the stages.

use core::ffi::c_void;

use monitor_common::{
    flow::Flow, holes::Holes, listener::ListenerLimits, segment::Segment, stats::ListenerStats,
};

use crate::payload::SkbPayload;

/// What the stages, and the iterations of `bpf_loop` in them, need of a packet. Lives on the stack.
#[repr(C)]
pub(crate) struct Passage {
    pub(crate) skb: *mut c_void,
    pub(crate) sk: *mut c_void,
    pub(crate) flow: *mut Flow,
    pub(crate) stats: *mut ListenerStats,
    pub(crate) limits: *const ListenerLimits,
    /// Null until a hole needs it.
    pub(crate) holes: *mut Holes,
    pub(crate) now: u64,
    pub(crate) segment: Segment,
    /// Offset of the first unseen byte of the payload.
    pub(crate) begin: u32,
}

impl Passage {
    /// The flow and its listener's counters.
    #[inline(always)]
    pub(crate) fn parts<'a>(&self) -> (&'a mut Flow, &'a mut ListenerStats) {
        // SAFETY: map values that outlive the program's run; see `Flow` and `Counter` for who else
        // may touch them.
        unsafe { (&mut *self.flow, &mut *self.stats) }
    }

    #[inline(always)]
    pub(crate) fn payload(&self) -> SkbPayload {
        SkbPayload {
            skb: self.skb,
            offset: self.segment.payload_offset,
        }
    }
}
