//! The account of each connection for its summary, in a storage of its own.
//!
//! Only if the daemon loaded the programs with `KEEP_TOTALS`: otherwise the verifier prunes every call. The
//! calls are global functions, see [`crate::walk`]. Each does little: where they are called, older kernels,
//! which round each function's stack up to 32 bytes, have 128 bytes left of 512.

use core::ffi::c_void;

use monitor_common::{
    Direction,
    connection_totals::ConnectionTotals,
    drop_reason::DropReason,
    flow::{Flow, FrameEffect},
    frame::Header,
    stats::ListenerStats,
};

use crate::{
    emit::count_drop,
    maps::KEEP_TOTALS,
    packet::{__sk_buff, any_sock},
    sock,
};

/// Accounts for a frame.
#[inline(always)]
pub(crate) fn frame(
    skb: *mut __sk_buff,
    direction: Direction,
    header: &Header,
    effect: FrameEffect,
) {
    if KEEP_TOTALS.load() != 0 {
        let first_byte = (header.first_byte() as u32) << FIRST_BYTE_SHIFT;
        let broken_rules = (effect.broken_rules() as u32) << BROKEN_RULES_SHIFT;
        tally_frame(skb, direction as u32 | first_byte | broken_rules);
        if effect.ping_rtt_us() != 0 {
            tally_round_trip(skb, direction as u32, effect.ping_rtt_us());
        }
    }
}

const FIRST_BYTE_SHIFT: u32 = 8;
const BROKEN_RULES_SHIFT: u32 = 16;

/// Accounts for stream bytes that could not be attributed to frames, in the listener's counts too.
#[inline(always)]
pub(crate) fn unsynced(
    skb: *mut __sk_buff,
    stats: &mut ListenerStats,
    direction: Direction,
    bytes: u64,
) {
    stats.unsynced_bytes[direction.index()].add(bytes);
    if KEEP_TOTALS.load() != 0 {
        tally_unsynced(skb, direction as u32, bytes);
    }
}

/// Accounts for the idle gap that the packet at `now` ended, if it ended one.
#[inline(always)]
pub(crate) fn idle_gap(skb: *mut __sk_buff, direction: Direction, flow: &Flow, now: u64) {
    if KEEP_TOTALS.load() != 0 {
        let ticks = flow.ended_gap(now);
        if ticks != 0 {
            tally_idle_gap(skb, direction as u32, ticks);
        }
    }
}

/// The account of a socket that is closing; `None` if the daemon does not need it.
#[inline(always)]
pub(crate) fn of_closing(sk: *mut c_void) -> Option<*mut ConnectionTotals> {
    if KEEP_TOTALS.load() == 0 {
        return None;
    }
    let totals = sock::totals_or_new(sk);
    if totals.is_none() {
        count_drop(DropReason::StorageFull);
    }
    totals
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tally_frame(skb: *mut __sk_buff, what: u32) -> u32 {
    if let Some(totals) = totals_of(skb) {
        let first_byte = (what >> FIRST_BYTE_SHIFT) as u8;
        let broken_rules = (what >> BROKEN_RULES_SHIFT) as u16;
        totals.frame(direction_of(what & 0xff), first_byte, broken_rules);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tally_round_trip(skb: *mut __sk_buff, direction: u32, micros: u32) -> u32 {
    if let Some(totals) = totals_of(skb) {
        totals.round_trip(direction_of(direction), micros);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tally_unsynced(skb: *mut __sk_buff, direction: u32, bytes: u64) -> u32 {
    if bytes != 0
        && let Some(totals) = totals_of(skb)
    {
        totals.unsynced(direction_of(direction), bytes);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tally_idle_gap(skb: *mut __sk_buff, direction: u32, ticks: u32) -> u32 {
    if let Some(totals) = totals_of(skb) {
        totals.idle_gap(direction_of(direction), ticks);
    }
    0
}

/// The account of a packet's socket, or `None` and a count.
#[inline(always)]
fn totals_of<'a>(skb: *mut __sk_buff) -> Option<&'a mut ConnectionTotals> {
    // SAFETY: the context of the running program.
    let totals = unsafe { any_sock(skb) }.and_then(|sk| sock::totals_or_new(sk.cast()));
    if totals.is_none() {
        count_drop(DropReason::StorageFull);
    }
    // SAFETY: storage that lives as long as this program runs; each field has one writer.
    totals.map(|totals| unsafe { &mut *totals })
}

#[inline(always)]
fn direction_of(raw: u32) -> Direction {
    if raw == Direction::Rx as u32 {
        Direction::Rx
    } else {
        Direction::Tx
    }
}
