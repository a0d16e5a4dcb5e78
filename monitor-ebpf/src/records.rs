//! The records of TLS connections, from which `monitor-common` infers heartbeats.
//!
//! The parts are global functions for the same reason as those of [`crate::walk`].

use core::marker::PhantomData;

use aya_ebpf::helpers::bpf_ktime_get_ns;
use monitor_common::{
    Direction,
    drop_reason::DropReason,
    flow::Flow,
    stats::ListenerStats,
    tls::{RECORD_STEPS, RecordHeader, RecordStep, TlsFlow},
};

use crate::{
    emit::count_drop,
    marker::{DirectionMarker, Rx, Tx},
    packet::{__sk_buff, PacketContext, Parts, Piece, any_sock},
    payload::SkbPayload,
    repeat::{Body, repeat},
    sock,
};

/// Follows the records of a received segment, from the first byte of the piece on.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn records_received(
    skb: *mut __sk_buff,
    flow: *mut Flow,
    stats: *mut ListenerStats,
    piece: *mut Piece,
    now: u64,
) -> u32 {
    // SAFETY: from the caller's context.
    let packet = unsafe { PacketContext::from_arguments((skb, flow, stats, piece, now)) };
    packet.and_then(follow::<Rx>);
    0
}

/// The same for a sent segment.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn records_sent(
    skb: *mut __sk_buff,
    flow: *mut Flow,
    stats: *mut ListenerStats,
    piece: *mut Piece,
    now: u64,
) -> u32 {
    // SAFETY: from the caller's context.
    let packet = unsafe { PacketContext::from_arguments((skb, flow, stats, piece, now)) };
    packet.and_then(follow::<Tx>);
    0
}

/// Shared by the steps over the records of a segment.
#[repr(C)]
struct RecordsContext {
    packet: PacketContext,
    tls: *mut TlsFlow,
    /// Where the stream begins in the segment, behind a PROXY header.
    start: u32,
    /// Bytes from there on.
    len: u32,
    /// Of the first unseen byte, from there on.
    begin: u32,
    _pad: u32,
}

impl RecordsContext {
    /// The packet's parts, and the records' state.
    #[inline(always)]
    fn parts(&mut self) -> (Parts<'_>, &mut TlsFlow) {
        // SAFETY: the kernel's storage, not null; it stays valid until the program ends. Two directions may
        // change it at once, see `TlsFlow`.
        (self.packet.parts(), unsafe { &mut *self.tls })
    }

    #[inline(always)]
    fn payload(&self) -> SkbPayload {
        let mut payload = self.packet.payload();
        payload.offset = payload.offset.wrapping_add(self.start);
        payload
    }
}

#[inline(always)]
fn follow<M: DirectionMarker>(mut packet: PacketContext) -> Option<()> {
    // SAFETY: the context of the running program.
    let sk = unsafe { any_sock(packet.skb) }?;
    let mut payload = packet.payload();
    let Piece { segment, begin } = *packet.parts().piece;
    payload.offset = payload.offset.wrapping_add(begin);
    let len = segment.payload_len.saturating_sub(begin);
    let tls = match sock::tls(sk.cast()) {
        Some(tls) => tls,
        None if !RecordHeader::may_begin(&payload, len) => return None,
        None => {
            let tls = sock::tls_or_new(sk.cast());
            if tls.is_none() {
                count_drop(DropReason::StorageFull);
            }
            tls?
        }
    };
    let mut context = RecordsContext {
        packet,
        tls,
        start: begin,
        len,
        begin: 0,
        _pad: 0,
    };
    let (_, tls) = context.parts();
    let seq = segment.payload_seq().wrapping_add(begin);
    let begin = tls.walk_mut(M::DIRECTION).place(seq, len)?;
    tls.done[M::DIRECTION.index()] = begin;
    context.begin = begin;
    // Usually one step is enough.
    if RecordsOf::<M>::step(0, &mut context) {
        const REST: u32 = RECORD_STEPS - 1;
        repeat::<REST, RecordsOf<M>>(&mut context);
        let (_, tls) = context.parts();
        if tls.done[M::DIRECTION.index()] < len {
            count_drop(DropReason::WalkTooLong);
            tls.walk_mut(M::DIRECTION).lose_sync();
        }
    }
    Some(())
}

struct RecordsOf<M>(PhantomData<M>);

impl<M: DirectionMarker> Body for RecordsOf<M> {
    type Context = RecordsContext;

    #[inline(always)]
    fn step(_index: u32, context: &mut RecordsContext) -> bool {
        let (payload, now) = (context.payload(), context.packet.now);
        let (begin, len, tls) = (context.begin, context.len, context.tls);
        let (Parts { flow, stats, .. }, records) = context.parts();
        let mut done = records.done[M::DIRECTION.index()];
        let walk = records.walk_mut(M::DIRECTION);
        let step = walk.step(&mut done, begin, len, &payload);
        records.done[M::DIRECTION.index()] = done;
        match step {
            RecordStep::End | RecordStep::Again => {}
            RecordStep::Hello(fact) => flow.tls_hello(records, fact),
            RecordStep::Record(header) => {
                let what = M::DIRECTION as u32
                    | (header.content_type as u32) << 8
                    | (header.len as u32) << 16;
                account_record(flow, tls, stats, what, now);
            }
        }
        done < len
    }
}

/// Accounts for a record that begins.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn account_record(
    flow: *mut Flow,
    tls: *mut TlsFlow,
    stats: *mut ListenerStats,
    what: u32,
    coarse_now: u64,
) -> u32 {
    // SAFETY: callers pass null, or storage and a map value that live as long as the call.
    let parts = unsafe { (flow.as_mut(), tls.as_mut(), stats.as_mut()) };
    let (Some(flow), Some(tls), Some(stats)) = parts else {
        return 0;
    };
    let header = RecordHeader {
        content_type: (what >> 8) as u8,
        len: (what >> 16) as u16,
    };
    let now = if header.may_be_ping_or_pong() {
        // SAFETY: no preconditions.
        unsafe { bpf_ktime_get_ns() }
    } else {
        coarse_now
    };
    let direction = if what & 1 == Direction::Rx as u32 {
        Direction::Rx
    } else {
        Direction::Tx
    };
    flow.tls_record(tls, direction, &header, now, stats);
    0
}
