//! The walk over the frames of a segment that continues its stream, and over segments after a hole.
//!
//! Each part is a global function (`extern "C"`, `no_mangle`, never inlined): the verifier checks it once,
//! separately, and assumes nothing about its arguments. Inlined, all parts together exceed the limit of a
//! million instructions on some kernels. The cost is a null check for each argument, and only plain memory
//! and the context can be passed: no socket, no structure with pointers.

use core::marker::PhantomData;

use aya_ebpf::helpers::bpf_ktime_get_ns;
use monitor_common::{
    Direction,
    drop_reason::DropReason,
    event::FrameSample,
    flow::{Flow, SegmentPlace},
    frame::{Header, opcode},
    holes::{BRIDGE_STEPS, Bridge, Landing, PENDING_RUN_STEPS},
    stats::ListenerStats,
    stream::{MAX_STEPS, Step},
};

use crate::{
    emit::{count_drop, sample},
    maps::SAMPLE_EVERY,
    marker::{DirectionMarker, Rx, Tx},
    opaque::opaque,
    packet::{__sk_buff, HolesContext, PacketContext, Parts, Piece, any_sock},
    repeat::{Body, repeat},
    sock, tally,
};

/// Walks over the payload of a segment.
#[inline(always)]
pub(crate) fn walk<M: DirectionMarker>(packet: &mut PacketContext) {
    // Only ingress waits for holes to be filled: sent segments are in order.
    let rx = matches!(M::DIRECTION, Direction::Rx);
    let begin = match place(packet, M::DIRECTION, rx) {
        SegmentPlace::Nowhere => NOTHING_LEFT,
        SegmentPlace::Front(at) => at,
        SegmentPlace::Ahead => {
            let (skb, flow, stats, piece, now) = packet.arguments();
            walk_ahead(skb, flow, stats, piece, now)
        }
    };
    if begin != NOTHING_LEFT {
        let Parts { flow, piece, .. } = packet.parts();
        piece.begin = begin;
        flow.done[M::DIRECTION.index()] = begin;
        // Usually one step is enough. Calls are expensive where the kernel guards them against speculation,
        // and a loop of one iteration has three.
        if M::step(packet) != 0 {
            M::walk_on(packet);
        }
    }
    if rx && packet.parts().flow.rx_walk.has_holes() {
        let (skb, flow, stats, _, now) = packet.arguments();
        bridge_holes(skb, flow, stats, now);
    }
}

/// Marks that nothing is left to walk over.
const NOTHING_LEFT: u32 = u32::MAX;

/// One step of the walk over a received segment; 1 to go on.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn step_received(
    skb: *mut __sk_buff,
    flow: *mut Flow,
    stats: *mut ListenerStats,
    piece: *mut Piece,
    now: u64,
) -> u32 {
    // SAFETY: from the caller's context.
    let packet = unsafe { PacketContext::from_arguments((skb, flow, stats, piece, now)) };
    step(packet, Direction::Rx)
}

/// The same for a sent segment.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn step_sent(
    skb: *mut __sk_buff,
    flow: *mut Flow,
    stats: *mut ListenerStats,
    piece: *mut Piece,
    now: u64,
) -> u32 {
    // SAFETY: from the caller's context.
    let packet = unsafe { PacketContext::from_arguments((skb, flow, stats, piece, now)) };
    step(packet, Direction::Tx)
}

#[inline(always)]
fn step(packet: Option<PacketContext>, direction: Direction) -> u32 {
    let Some(mut packet) = packet else {
        return 0;
    };
    let (skb, payload, now) = (packet.skb, packet.payload(), packet.now);
    let Parts { flow, stats, piece } = packet.parts();
    let Piece { segment, begin } = piece;
    let len = segment.payload_len;
    let from_client = flow.snapshot.from_client(direction);
    let mut done = flow.done[direction.index()];
    let walk = flow.walk_mut(direction);
    let step = walk.step(&mut done, *begin, len, from_client, &payload);
    flow.done[direction.index()] = done;
    match step {
        Step::End => return 0,
        Step::Unreadable => {
            count_drop(DropReason::PayloadUnreadable);
            let left = len.saturating_sub(done);
            flow.done[direction.index()] = len;
            tally::unsynced(skb, stats, direction, left as u64);
            return 0;
        }
        Step::Frame(header) => account_frame(skb, flow, stats, direction, &header, now),
        Step::Unsynced(bytes) | Step::Synced(bytes) => {
            if matches!(step, Step::Synced(_)) {
                flow.resync(direction, now, stats);
            }
            tally::unsynced(skb, stats, direction, bytes as u64);
        }
        Step::Again => {}
    }
    (done < len) as u32
}

/// Continues with a received segment that needs more than one step.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn walk_on_received(
    skb: *mut __sk_buff,
    flow: *mut Flow,
    stats: *mut ListenerStats,
    piece: *mut Piece,
    now: u64,
) -> u32 {
    // SAFETY: from the caller's context.
    let packet = unsafe { PacketContext::from_arguments((skb, flow, stats, piece, now)) };
    walk_on::<Rx>(packet)
}

/// The same for a sent segment.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn walk_on_sent(
    skb: *mut __sk_buff,
    flow: *mut Flow,
    stats: *mut ListenerStats,
    piece: *mut Piece,
    now: u64,
) -> u32 {
    // SAFETY: from the caller's context.
    let packet = unsafe { PacketContext::from_arguments((skb, flow, stats, piece, now)) };
    walk_on::<Tx>(packet)
}

#[inline(always)]
fn walk_on<M: DirectionMarker>(packet: Option<PacketContext>) -> u32 {
    let Some(mut packet) = packet else {
        return 0;
    };
    repeat::<{ MAX_STEPS - 1 }, FrontStep<M>>(&mut packet);
    let skb = packet.skb;
    let Parts { flow, stats, piece } = packet.parts();
    let direction = M::DIRECTION;
    let Piece { segment, begin } = piece;
    let done = flow.done[direction.index()];
    let left = flow
        .walk_mut(direction)
        .abandon(done, *begin, segment.payload_len);
    if left > 0 {
        count_drop(DropReason::WalkTooLong);
        tally::unsynced(skb, stats, direction, left as u64);
    }
    0
}

struct FrontStep<M>(PhantomData<M>);

impl<M: DirectionMarker> Body for FrontStep<M> {
    type Context = PacketContext;

    #[inline(always)]
    fn step(_index: u32, packet: &mut PacketContext) -> bool {
        opaque(M::step(packet).into()) != 0
    }
}

/// Processes a received segment after a hole. Without room to wait for the missing bytes, returns the
/// offset at which the walk continues, otherwise [`NOTHING_LEFT`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_ahead(
    skb: *mut __sk_buff,
    flow: *mut Flow,
    stats: *mut ListenerStats,
    piece: *mut Piece,
    now: u64,
) -> u32 {
    // SAFETY: from the caller's context.
    let packet = unsafe { PacketContext::from_arguments((skb, flow, stats, piece, now)) };
    let Some(mut packet) = packet else {
        return NOTHING_LEFT;
    };
    // SAFETY: the context of the running program.
    let holes = unsafe { any_sock(skb) }.and_then(|sk| sock::holes_or_new(sk.cast()));
    let Some(holes) = holes else {
        count_drop(DropReason::StorageFull);
        return jump_ahead(&mut packet);
    };
    // SAFETY: storage the kernel just handed out, not null.
    let mut context = unsafe { HolesContext::new(packet, holes) };
    let (Parts { flow, piece, .. }, holes) = context.parts();
    flow.rx_walk.set_holes(true);
    let (seq, payload_len) = (piece.segment.payload_seq(), piece.segment.payload_len);
    match holes.land(seq, payload_len) {
        Landing::Old => NOTHING_LEFT,
        Landing::PendingRun(begin) => {
            piece.begin = begin;
            flow.done[Direction::Rx.index()] = begin;
            let steps = repeat::<PENDING_RUN_STEPS, AheadStep>(&mut context);
            let (Parts { flow, .. }, holes) = context.parts();
            if steps == PENDING_RUN_STEPS && flow.done[Direction::Rx.index()] < payload_len {
                holes.give_up_segment();
            }
            NOTHING_LEFT
        }
        Landing::NoRoom => jump_ahead(&mut context.packet),
    }
}

/// Gives up the hole in front of a received segment; returns the same as [`walk_ahead`].
#[inline(always)]
fn jump_ahead(packet: &mut PacketContext) -> u32 {
    match place(packet, Direction::Rx, false) {
        SegmentPlace::Front(at) => at,
        SegmentPlace::Nowhere | SegmentPlace::Ahead => NOTHING_LEFT,
    }
}

#[inline(always)]
fn place(packet: &mut PacketContext, direction: Direction, patient: bool) -> SegmentPlace {
    let skb = packet.skb;
    let Parts { flow, stats, piece } = packet.parts();
    let (seq, payload_len) = (piece.segment.payload_seq(), piece.segment.payload_len);
    let (place, lost) = flow.place(direction, seq, payload_len, patient);
    if lost > 0 {
        tally::unsynced(skb, stats, direction, lost as u64);
    }
    place
}

/// A step of the walk over a segment after a hole: its frames are kept, not counted.
enum AheadStep {}

impl Body for AheadStep {
    type Context = HolesContext;

    #[inline(always)]
    fn step(_index: u32, context: &mut HolesContext) -> bool {
        let payload = context.packet.payload();
        let (Parts { flow, piece, .. }, holes) = context.parts();
        let Piece { segment, begin } = piece;
        let from_client = flow.snapshot.from_client(Direction::Rx);
        let mut done = flow.done[Direction::Rx.index()];
        let goes_on = holes.step(
            &mut done,
            *begin,
            segment.payload_seq(),
            segment.payload_len,
            from_client,
            &payload,
        );
        flow.done[Direction::Rx.index()] = done;
        goes_on
    }
}

/// Joins the front with the pending runs after the holes that it has filled.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn bridge_holes(
    skb: *mut __sk_buff,
    flow: *mut Flow,
    stats: *mut ListenerStats,
    now: u64,
) -> u32 {
    let mut none = Piece::EMPTY;
    // SAFETY: from the caller's context, except the piece, which nothing else points to.
    let packet = unsafe { PacketContext::from_arguments((skb, flow, stats, &mut none, now)) };
    let Some(packet) = packet else {
        return 0;
    };
    // SAFETY: the context of the running program.
    let Some(sk) = (unsafe { any_sock(skb) }) else {
        return 0;
    };
    let Some(holes) = sock::holes(sk.cast()) else {
        return 0;
    };
    // SAFETY: the kernel's storage, not null; it stays valid until this program ends.
    let mut context = unsafe { HolesContext::new(packet, holes) };
    context.parts().1.begin_bridge();
    repeat::<BRIDGE_STEPS, BridgeStep>(&mut context);
    let (Parts { flow, .. }, holes) = context.parts();
    if holes.is_empty() {
        flow.rx_walk.set_holes(false);
        sock::forget_holes(sk.cast());
    }
    0
}

enum BridgeStep {}

impl Body for BridgeStep {
    type Context = HolesContext;

    #[inline(always)]
    fn step(_index: u32, context: &mut HolesContext) -> bool {
        let (skb, now) = (context.packet.skb, context.packet.now);
        let (Parts { flow, stats, .. }, holes) = context.parts();
        match holes.bridge(&mut flow.rx_walk) {
            Bridge::End => return false,
            Bridge::Again => {}
            Bridge::Frame(header) => {
                account_frame(skb, flow, stats, Direction::Rx, &header, now);
            }
            Bridge::Unsynced(bytes) => {
                tally::unsynced(skb, stats, Direction::Rx, bytes as u64);
            }
        }
        true
    }
}

/// Accounts for a frame and offers it to a live viewer.
#[inline(always)]
fn account_frame(
    skb: *mut __sk_buff,
    flow: &mut Flow,
    stats: &mut ListenerStats,
    direction: Direction,
    header: &Header,
    coarse_now: u64,
) {
    let mut now = coarse_now;
    // Only round trips need better resolution than a tick.
    if matches!(header.opcode(), opcode::PING | opcode::PONG) {
        // SAFETY: no preconditions.
        now = unsafe { bpf_ktime_get_ns() };
    }
    let effect = flow.frame(direction, header, now, stats);
    tally::frame(skb, direction, header, effect);
    if SAMPLE_EVERY.get(0).is_some_and(|every| *every != 0) {
        let what = direction as u32
            | (header.masked() as u32) << 1
            | (header.first_byte() as u32) << 8
            | (header.close_code() as u32) << 16;
        offer_sample(flow, what, header.payload_len, now, effect.ping_rtt_us());
    }
}

/// Sends every n-th frame header of a direction to the live viewer. A global function, so that its values
/// take no stack of the walk.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn offer_sample(
    flow: *const Flow,
    what: u32,
    payload_len: u64,
    now: u64,
    ping_rtt_us: u32,
) -> u32 {
    // SAFETY: callers pass null, or storage that lives as long as the call.
    let Some(s) = (unsafe { flow.as_ref() }).map(|flow| &flow.snapshot) else {
        return 0;
    };
    let direction = what as u8 & 1;
    let frames = if direction == Direction::Rx as u8 {
        s.rx.frames
    } else {
        s.tx.frames
    };
    let every = SAMPLE_EVERY.get(0).copied().unwrap_or(0);
    if every == 0 || frames % every != 0 {
        return 0;
    }
    sample(FrameSample {
        at: now,
        cookie: s.cookie,
        payload_len,
        ping_rtt_us,
        close_code: (what >> 16) as u16,
        listener: s.listener.into(),
        first_byte: (what >> 8) as u8,
        masked: what as u8 >> 1 & 1,
        direction,
        _pad: 0,
        _pad_word: 0,
    });
    0
}
