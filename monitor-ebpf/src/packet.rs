//! The current packet: what the steps of a loop need of it, and its socket.

use aya_ebpf::{
    bindings::{self, bpf_sock},
    helpers::generated::bpf_sk_fullsock,
    programs::SkBuffContext,
};
use monitor_common::{flow::Flow, holes::Holes, segment::Segment, stats::ListenerStats};

use crate::payload::SkbPayload;

/// The context of a packet program. The verifier recognises it by its name.
///
/// Opaque in signatures: the kernel's own definition points to two structures that are known only by name,
/// and the compiler writes those into the BTF in varying order.
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

/// Shared by the steps of a loop. Lives on the stack of the function that loops.
///
/// The flow, its counters and the piece are only accessible through it. They are borrowed from it, so they
/// can't be held across a call that takes the context, or its [`Arguments`], and borrows them again.
#[repr(C)]
pub(crate) struct PacketContext {
    pub(crate) skb: *mut __sk_buff,
    flow: *mut Flow,
    stats: *mut ListenerStats,
    pub(crate) now: u64,
    /// A pointer, so that the other fields can stay in registers where nothing else points to it.
    piece: *mut Piece,
}

/// A context as the arguments of a global function.
pub(crate) type Arguments = (
    *mut __sk_buff,
    *mut Flow,
    *mut ListenerStats,
    *mut Piece,
    u64,
);

/// What a packet changes.
pub(crate) struct Parts<'a> {
    pub(crate) flow: &'a mut Flow,
    pub(crate) stats: &'a mut ListenerStats,
    pub(crate) piece: &'a mut Piece,
}

impl PacketContext {
    /// # Safety
    /// The pointers are valid for as long as the context is used. Until then the running program makes
    /// no reference to their targets except through this context, or one made from its arguments.
    #[inline(always)]
    pub(crate) unsafe fn new((skb, flow, stats, piece, now): Arguments) -> Self {
        Self {
            skb,
            flow,
            stats,
            now,
            piece,
        }
    }

    /// From the arguments of a global function, which the verifier treats as possibly null.
    ///
    /// # Safety
    /// Each pointer is null, or as for [`PacketContext::new`].
    #[inline(always)]
    pub(crate) unsafe fn from_arguments(arguments: Arguments) -> Option<Self> {
        let (_, flow, stats, piece, _) = arguments;
        if flow.is_null() || stats.is_null() || piece.is_null() {
            return None;
        }
        // SAFETY: the caller's promise, and none is null.
        Some(unsafe { Self::new(arguments) })
    }

    /// For a call; earlier borrows have ended by then.
    #[inline(always)]
    pub(crate) fn arguments(&mut self) -> Arguments {
        (self.skb, self.flow, self.stats, self.piece, self.now)
    }

    #[inline(always)]
    pub(crate) fn parts(&mut self) -> Parts<'_> {
        // SAFETY: valid and not borrowed elsewhere, as the caller of `new` promised; see `Flow` and
        // `Counter` for which other programs may access them.
        unsafe {
            Parts {
                flow: &mut *self.flow,
                stats: &mut *self.stats,
                piece: &mut *self.piece,
            }
        }
    }

    #[inline(always)]
    pub(crate) fn payload(&self) -> SkbPayload {
        SkbPayload {
            skb: self.skb.cast(),
            // SAFETY: as for `parts`; a reference would cover the whole piece.
            offset: unsafe { (*self.piece).segment.payload_offset },
        }
    }
}

/// The context of a packet whose flow has holes.
#[repr(C)]
pub(crate) struct HolesContext {
    pub(crate) packet: PacketContext,
    holes: *mut Holes,
}

impl HolesContext {
    /// # Safety
    /// As for [`PacketContext::new`].
    #[inline(always)]
    pub(crate) unsafe fn new(packet: PacketContext, holes: *mut Holes) -> Self {
        Self { packet, holes }
    }

    #[inline(always)]
    pub(crate) fn parts(&mut self) -> (Parts<'_>, &mut Holes) {
        // SAFETY: as for `PacketContext::parts`.
        (self.packet.parts(), unsafe { &mut *self.holes })
    }
}

/// The socket of a packet, of any kind.
///
/// # Safety
/// `skb` is the context of the running program.
#[inline(always)]
pub(crate) unsafe fn any_sock(skb: *mut __sk_buff) -> Option<*mut bpf_sock> {
    // SAFETY: the caller's promise.
    let sk = unsafe { (*skb.cast::<bindings::__sk_buff>()).__bindgen_anon_2.sk };
    (!sk.is_null()).then_some(sk)
}

/// The same if it is a full socket; `None` for request and TIME_WAIT minisockets.
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
