//! The walk over the frames of one segment, under `bpf_loop`.

use core::{
    ffi::{c_long, c_void},
    ptr,
};

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_loop};
use monitor_common::{
    Direction,
    drop::DropReason,
    event::FrameSample,
    flow::{Flow, Place},
    frame::{Header, opcode},
    holes::{BRIDGE_STEPS, Bridge, Holes, Landing},
    snapshot::Snapshot,
    stats::ListenerStats,
    stream::{MAX_STEPS, Step},
};

use crate::{
    emit::{count_drop, sample},
    maps::SAMPLE_EVERY,
    payload::SkbPayload,
    sock,
};

/// One segment on its way: what the walk needs across the iterations of `bpf_loop`. Lives on the
/// stack.
#[repr(C)]
pub(crate) struct Passage {
    pub(crate) skb: *mut c_void,
    pub(crate) flow: *mut Flow,
    pub(crate) stats: *mut ListenerStats,
    /// Null until a hole needs it.
    pub(crate) holes: *mut Holes,
    pub(crate) now: u64,
    pub(crate) seq: u32,
    /// Of the payload, in the packet.
    pub(crate) payload_offset: u32,
    /// Offset of the first unseen byte of the payload.
    pub(crate) begin: u32,
    /// Bytes of payload.
    pub(crate) len: u32,
}

type Callback = unsafe extern "C" fn(u32, *mut Passage) -> c_long;

/// Walks over what a segment adds to the front of its stream.
#[inline(always)]
pub(crate) fn front(passage: &mut Passage, direction: Direction) {
    // SAFETY: map values that outlive this call; see `Flow` and `Counter` for who else may touch
    // them.
    let (flow, stats) = unsafe { (&mut *passage.flow, &mut *passage.stats) };
    flow.done[direction.index()] = passage.begin;
    repeat(
        MAX_STEPS,
        match direction {
            Direction::Rx => front_rx,
            Direction::Tx => front_tx,
        },
        passage,
    );
    let done = flow.done[direction.index()];
    let left = flow
        .walk_mut(direction)
        .abandon(done, passage.begin, passage.len);
    if left > 0 {
        count_drop(DropReason::WalkTooLong);
        stats.unsynced_bytes[direction.index()].add(left as u64);
    }
}

/// Takes in a received segment that lies behind a hole; where there is no room to wait for that,
/// returns where to go on without.
#[inline(always)]
pub(crate) fn ahead(passage: &mut Passage, sk: *mut c_void) -> Place {
    // SAFETY: as above.
    let (flow, stats) = unsafe { (&mut *passage.flow, &mut *passage.stats) };
    let Some(holes) = sock::holes_or_new(sk) else {
        count_drop(DropReason::StorageFull);
        return flow.place(Direction::Rx, passage.seq, passage.len, false, stats);
    };
    flow.rx_walk.set_holes(true);
    passage.holes = holes;
    // SAFETY: storage the kernel just handed out, not null.
    match unsafe { (*holes).land(passage.seq, passage.len) } {
        Landing::Old => Place::Nowhere,
        Landing::Island(begin) => {
            passage.begin = begin;
            flow.done[Direction::Rx.index()] = begin;
            repeat(MAX_STEPS, island, passage);
            Place::Nowhere
        }
        Landing::NoRoom => flow.place(Direction::Rx, passage.seq, passage.len, false, stats),
    }
}

/// Joins the front with what waits behind the holes it has filled.
#[inline(always)]
pub(crate) fn bridge(passage: &mut Passage, sk: *mut c_void) {
    let Some(holes) = sock::holes(sk) else {
        return;
    };
    passage.holes = holes;
    // SAFETY: storage of the kernel's, not null.
    unsafe { (*holes).begin_bridge() };
    repeat(BRIDGE_STEPS, bridge_step, passage);
    // SAFETY: as in `ahead`; the storage stays until this program ends.
    let (flow, holes) = unsafe { (&mut *passage.flow, &*holes) };
    if holes.is_empty() {
        flow.rx_walk.set_holes(false);
        sock::forget_holes(sk);
    }
}

#[inline(always)]
fn repeat(times: u32, step: Callback, passage: &mut Passage) {
    // SAFETY: the callback has the signature bpf_loop wants and the context outlives the loop.
    unsafe { bpf_loop(times, step as *mut c_void, ptr::from_mut(passage).cast(), 0) };
}

unsafe extern "C" fn front_rx(_index: u32, passage: *mut Passage) -> c_long {
    // SAFETY: bpf_loop passes the context that `repeat` gave it.
    front_step(unsafe { &mut *passage }, Direction::Rx)
}

unsafe extern "C" fn front_tx(_index: u32, passage: *mut Passage) -> c_long {
    // SAFETY: as above.
    front_step(unsafe { &mut *passage }, Direction::Tx)
}

/// One iteration of `bpf_loop`: 0 goes on, 1 ends the loop.
#[inline(always)]
fn front_step(passage: &mut Passage, direction: Direction) -> c_long {
    // SAFETY: map values that outlive the loop; see `Flow` and `Counter` for who else may touch
    // them.
    let (flow, stats) = unsafe { (&mut *passage.flow, &mut *passage.stats) };
    let payload = passage.payload();
    let from_client = flow.snapshot.from_client(direction);
    let mut done = flow.done[direction.index()];
    let step =
        flow.walk_mut(direction)
            .step(&mut done, passage.begin, passage.len, from_client, &payload);
    flow.done[direction.index()] = done;
    match step {
        Step::End => return 1,
        Step::Unreadable => {
            count_drop(DropReason::PayloadUnreadable);
            let left = passage.len.saturating_sub(done);
            stats.unsynced_bytes[direction.index()].add(left as u64);
            flow.done[direction.index()] = passage.len;
            return 1;
        }
        Step::Frame(header) => frame(flow, stats, direction, &header, passage.now),
        Step::Unsynced(bytes) => stats.unsynced_bytes[direction.index()].add(bytes as u64),
        Step::Synced(bytes) => {
            stats.unsynced_bytes[direction.index()].add(bytes as u64);
            flow.resync(direction, passage.now, stats);
        }
        Step::Again => {}
    }
    (done >= passage.len) as c_long
}

/// The same for a segment behind a hole: its frames are kept, not counted.
unsafe extern "C" fn island(_index: u32, passage: *mut Passage) -> c_long {
    // SAFETY: bpf_loop passes the context that `repeat` gave it, and there is an island.
    let passage = unsafe { &mut *passage };
    let (flow, holes) = (passage.flow, passage.holes);
    // SAFETY: map values that outlive the loop; see `Flow` for who else may touch them.
    let (flow, holes) = unsafe { (&mut *flow, &mut *holes) };
    let payload = passage.payload();
    let from_client = flow.snapshot.from_client(Direction::Rx);
    let mut done = flow.done[Direction::Rx.index()];
    let step =
        holes
            .island_walk()
            .step(&mut done, passage.begin, passage.len, from_client, &payload);
    flow.done[Direction::Rx.index()] = done;
    match step {
        Step::End | Step::Unreadable => return 1,
        Step::Frame(header) => holes.log(&header, passage.seq),
        Step::Again | Step::Synced(_) | Step::Unsynced(_) => {}
    }
    (done >= passage.len) as c_long
}

unsafe extern "C" fn bridge_step(_index: u32, passage: *mut Passage) -> c_long {
    // SAFETY: bpf_loop passes the context that `repeat` gave it, and `bridge` has holes.
    let passage = unsafe { &mut *passage };
    let (flow, stats, holes) = (passage.flow, passage.stats, passage.holes);
    // SAFETY: map values that outlive the loop; see `Flow` and `Counter` for who else may touch
    // them.
    let (flow, stats, holes) = unsafe { (&mut *flow, &mut *stats, &mut *holes) };
    match holes.bridge(&mut flow.rx_walk) {
        Bridge::End => return 1,
        Bridge::Again => {}
        Bridge::Frame(header) => frame(flow, stats, Direction::Rx, &header, passage.now),
        Bridge::Unsynced(bytes) => {
            stats.unsynced_bytes[Direction::Rx.index()].add(bytes as u64);
        }
    }
    0
}

/// Accounts for a frame and offers it to a live viewer.
#[inline(always)]
fn frame(
    flow: &mut Flow,
    stats: &mut ListenerStats,
    direction: Direction,
    header: &Header,
    coarse: u64,
) {
    let mut now = coarse;
    // Only round trips need better than a tick.
    if matches!(header.opcode(), opcode::PING | opcode::PONG) {
        // SAFETY: no preconditions.
        now = unsafe { bpf_ktime_get_ns() };
    }
    let ping_rtt_us = flow.frame(direction, header, now, stats);
    let every = SAMPLE_EVERY.get(0).copied().unwrap_or(0);
    if every != 0 {
        offer_sample(&flow.snapshot, direction, header, now, every, ping_rtt_us);
    }
}

/// Sends every n-th frame header of a direction to the live viewer.
#[inline(always)]
fn offer_sample(
    s: &Snapshot,
    direction: Direction,
    header: &Header,
    now: u64,
    every: u32,
    ping_rtt_us: u32,
) {
    let frames = match direction {
        Direction::Rx => s.rx.frames,
        Direction::Tx => s.tx.frames,
    };
    if frames % every != 0 {
        return;
    }
    sample(FrameSample {
        at: now,
        cookie: s.cookie,
        payload_len: header.payload_len,
        ping_rtt_us,
        close_code: header.close_code(),
        listener: s.listener,
        first_byte: header.first_byte(),
        masked: header.masked() as u8,
        direction: direction as u8,
        _pad: [0; 5],
    });
}

impl Passage {
    #[inline(always)]
    fn payload(&self) -> SkbPayload {
        SkbPayload {
            skb: self.skb,
            offset: self.payload_offset,
        }
    }
}
