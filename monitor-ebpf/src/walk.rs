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
    holes::{BRIDGE_STEPS, Bridge, ISLAND_STEPS, Landing},
    segment::Segment,
    snapshot::Snapshot,
    stats::ListenerStats,
    stream::{MAX_STEPS, Step},
};

use crate::{
    emit::{count_drop, sample},
    maps::SAMPLE_EVERY,
    passage::Passage,
    sock,
};

type Callback = unsafe extern "C" fn(u32, *mut Passage) -> c_long;

/// Walks over the payload of a packet.
#[inline(always)]
pub(crate) fn over_payload<W: Way>(passage: &mut Passage) {
    // Only ingress waits for holes to be filled: what leaves is in order.
    let rx = matches!(W::DIRECTION, Direction::Rx);
    let in_front = match place(passage, W::DIRECTION, rx) {
        Place::Nowhere => false,
        Place::Front(at) => {
            passage.begin = at;
            true
        }
        Place::Ahead => rx && ahead(passage),
    };
    if in_front {
        front::<W>(passage);
    }
    let (flow, _) = passage.parts();
    if rx && flow.rx_walk.has_holes() {
        bridge(passage);
    }
}

#[inline(always)]
fn place(passage: &mut Passage, direction: Direction, patient: bool) -> Place {
    let (flow, stats) = passage.parts();
    let Segment {
        seq, payload_len, ..
    } = passage.segment;
    flow.place(direction, seq, payload_len, patient, stats)
}

/// Walks over what a segment adds to the front of its stream.
#[inline(always)]
fn front<W: Way>(passage: &mut Passage) {
    let direction = W::DIRECTION;
    let (flow, stats) = passage.parts();
    flow.done[direction.index()] = passage.begin;
    // Mostly one step is all. Calls and returns are dear where the kernel guards them against
    // speculation: a loop of one iteration has three.
    if front_step::<W>(passage) != 0 {
        return;
    }
    repeat(MAX_STEPS - 1, front_again::<W>, passage);
    let done = flow.done[direction.index()];
    let len = passage.segment.payload_len;
    let left = flow.walk_mut(direction).abandon(done, passage.begin, len);
    if left > 0 {
        count_drop(DropReason::WalkTooLong);
        stats.unsynced_bytes[direction.index()].add(left as u64);
    }
}

/// Takes in a received segment that lies behind a hole. True where there is no room to wait for that,
/// so that the walk has to go on at [`Passage::begin`].
#[inline(never)]
fn ahead(passage: &mut Passage) -> bool {
    let (flow, _) = passage.parts();
    let Some(holes) = sock::holes_or_new(passage.sk) else {
        count_drop(DropReason::StorageFull);
        return jump_ahead(passage);
    };
    flow.rx_walk.set_holes(true);
    passage.holes = holes;
    let Segment {
        seq, payload_len, ..
    } = passage.segment;
    // SAFETY: storage the kernel just handed out, not null.
    match unsafe { (*holes).land(seq, payload_len) } {
        Landing::Old => false,
        Landing::Island(begin) => {
            passage.begin = begin;
            flow.done[Direction::Rx.index()] = begin;
            let times = repeat(ISLAND_STEPS, island, passage);
            if times == ISLAND_STEPS && flow.done[Direction::Rx.index()] < payload_len {
                // SAFETY: as above.
                unsafe { (*holes).give_up_segment() };
            }
            false
        }
        Landing::NoRoom => jump_ahead(passage),
    }
}

/// Gives up the hole in front of a received segment; true if there is something to walk over.
#[inline(always)]
fn jump_ahead(passage: &mut Passage) -> bool {
    let Place::Front(at) = place(passage, Direction::Rx, false) else {
        return false;
    };
    passage.begin = at;
    true
}

/// Joins the front with what waits behind the holes it has filled.
#[inline(never)]
fn bridge(passage: &mut Passage) {
    let Some(holes) = sock::holes(passage.sk) else {
        return;
    };
    passage.holes = holes;
    // SAFETY: storage of the kernel's, not null.
    unsafe { (*holes).begin_bridge() };
    repeat(BRIDGE_STEPS, bridge_step, passage);
    // SAFETY: as above; the storage stays until this program ends.
    if unsafe { (*holes).is_empty() } {
        let (flow, _) = passage.parts();
        flow.rx_walk.set_holes(false);
        sock::forget_holes(passage.sk);
    }
}

/// Returns how many times it was.
#[inline(always)]
fn repeat(times: u32, step: Callback, passage: &mut Passage) -> u32 {
    // SAFETY: the callback has the signature bpf_loop wants and the context outlives the loop.
    unsafe { bpf_loop(times, step as *mut c_void, ptr::from_mut(passage).cast(), 0) as u32 }
}

unsafe extern "C" fn front_again<W: Way>(_index: u32, passage: *mut Passage) -> c_long {
    // SAFETY: bpf_loop passes the context that `repeat` gave it.
    front_step::<W>(unsafe { &mut *passage })
}

/// One iteration of `bpf_loop`: 0 goes on, 1 ends the loop.
#[inline(always)]
fn front_step<W: Way>(passage: &mut Passage) -> c_long {
    let direction = W::DIRECTION;
    let (flow, stats) = passage.parts();
    let len = passage.segment.payload_len;
    let payload = passage.payload();
    let from_client = flow.snapshot.from_client(direction);
    let mut done = flow.done[direction.index()];
    let walk = flow.walk_mut(direction);
    let step = walk.step(&mut done, passage.begin, len, from_client, &payload);
    flow.done[direction.index()] = done;
    match step {
        Step::End => return 1,
        Step::Unreadable => {
            count_drop(DropReason::PayloadUnreadable);
            let left = len.saturating_sub(done);
            stats.unsynced_bytes[direction.index()].add(left as u64);
            flow.done[direction.index()] = len;
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
    (done >= len) as c_long
}

/// The same for a segment behind a hole: its frames are kept, not counted.
unsafe extern "C" fn island(_index: u32, passage: *mut Passage) -> c_long {
    // SAFETY: bpf_loop passes the context that `repeat` gave it, and there is an island.
    let passage = unsafe { &mut *passage };
    let (flow, _) = passage.parts();
    // SAFETY: storage that outlives the loop, not null.
    let holes = unsafe { &mut *passage.holes };
    let payload = passage.payload();
    let from_client = flow.snapshot.from_client(Direction::Rx);
    let mut done = flow.done[Direction::Rx.index()];
    let Segment {
        seq, payload_len, ..
    } = passage.segment;
    let goes_on = holes.step(
        &mut done,
        passage.begin,
        seq,
        payload_len,
        from_client,
        &payload,
    );
    flow.done[Direction::Rx.index()] = done;
    (!goes_on) as c_long
}

unsafe extern "C" fn bridge_step(_index: u32, passage: *mut Passage) -> c_long {
    // SAFETY: bpf_loop passes the context that `repeat` gave it, and `bridge` has holes.
    let passage = unsafe { &mut *passage };
    let (flow, stats) = passage.parts();
    // SAFETY: storage that outlives the loop, not null.
    let holes = unsafe { &mut *passage.holes };
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

/// A [`Direction`] as a type, so that each gets code of its own.
pub(crate) trait Way {
    const DIRECTION: Direction;
}

pub(crate) enum Rx {}
pub(crate) enum Tx {}

impl Way for Rx {
    const DIRECTION: Direction = Direction::Rx;
}

impl Way for Tx {
    const DIRECTION: Direction = Direction::Tx;
}
