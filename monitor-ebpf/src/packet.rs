//! The packet in hand: what the steps of a loop need of it, and its socket.

use core::ptr;

use aya_ebpf::{
    bindings::{self, bpf_sock},
    helpers::generated::bpf_sk_fullsock,
    programs::SkBuffContext,
};
use monitor_common::{flow::Flow, holes::Holes, segment::Segment, stats::ListenerStats};

use crate::payload::SkbPayload;

/// The context of a packet program. The verifier knows it by its name.
///
/// Opaque in signatures: the kernel's own definition points to two structures that are known by name
/// only, and the compiler puts those into the BTF now in one order, now in the other.
#[repr(C)]
pub(crate) struct __sk_buff {
    _opaque: [u32; 0],
}

impl __sk_buff {
    /// The same context with its fields and helpers.
    #[inline(always)]
    pub(crate) fn context(skb: *mut Self) -> SkBuffContext {
        SkBuffContext::new(skb.cast())
    }
}

/// The new bytes of a segment: plain words, so that it can be passed to a global function.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Piece {
    pub(crate) segment: Segment,
    /// Offset of the first unseen byte of the payload.
    pub(crate) begin: u32,
}

impl Piece {
    pub(crate) const EMPTY: Self = Self::whole(Segment::EMPTY);

    #[inline(always)]
    pub(crate) const fn whole(segment: Segment) -> Self {
        Self { segment, begin: 0 }
    }
}

/// What the steps of a loop share. Lives on the stack of the function that loops.
#[repr(C)]
pub(crate) struct PacketContext {
    pub(crate) skb: *mut __sk_buff,
    pub(crate) flow: *mut Flow,
    pub(crate) stats: *mut ListenerStats,
    /// Null where no hole is in play.
    pub(crate) holes: *mut Holes,
    pub(crate) now: u64,
    /// A pointer, so that the rest can stay in registers where nothing else points to it.
    pub(crate) piece: *mut Piece,
}

impl PacketContext {
    /// From the arguments of a global function, which the verifier takes for maybe null.
    #[inline(always)]
    pub(crate) fn new(
        skb: *mut __sk_buff,
        flow: *mut Flow,
        stats: *mut ListenerStats,
        piece: *mut Piece,
        now: u64,
    ) -> Option<Self> {
        if flow.is_null() || stats.is_null() || piece.is_null() {
            return None;
        }
        Some(Self {
            skb,
            flow,
            stats,
            holes: ptr::null_mut(),
            now,
            piece,
        })
    }

    /// The flow and its listener's counters.
    #[inline(always)]
    pub(crate) fn parts<'a>(&self) -> (&'a mut Flow, &'a mut ListenerStats) {
        // SAFETY: map values that outlive the program's run; see `Flow` and `Counter` for who else
        // may touch them.
        unsafe { (&mut *self.flow, &mut *self.stats) }
    }

    #[inline(always)]
    pub(crate) fn piece<'a>(&self) -> &'a mut Piece {
        // SAFETY: lives in the program's first function.
        unsafe { &mut *self.piece }
    }

    #[inline(always)]
    pub(crate) fn payload(&self) -> SkbPayload {
        SkbPayload {
            skb: self.skb.cast(),
            offset: self.piece().segment.payload_offset,
        }
    }
}

/// The socket a packet belongs to, of any kind.
///
/// # Safety
/// `skb` is the context of the running program.
#[inline(always)]
pub(crate) unsafe fn any_sock(skb: *mut __sk_buff) -> Option<*mut bpf_sock> {
    // SAFETY: the caller's promise.
    let sk = unsafe { (*skb.cast::<bindings::__sk_buff>()).__bindgen_anon_2.sk };
    (!sk.is_null()).then_some(sk)
}

/// The same if it is a full one; `None` for request and TIME_WAIT minisockets.
///
/// # Safety
/// As for [`any_sock`].
#[inline(always)]
pub(crate) unsafe fn full_sock(skb: *mut __sk_buff) -> Option<*mut bpf_sock> {
    // SAFETY: the caller's promise.
    let sk = unsafe { any_sock(skb) }?;
    // SAFETY: a socket the verifier knows.
    let sk = unsafe { bpf_sk_fullsock(sk) };
    (!sk.is_null()).then_some(sk)
}
