//! Payload that arrives before its socket exists; see [`monitor_common::early_data`].

use core::ptr;

use aya_ebpf::helpers::generated::{bpf_sk_cgroup_id, bpf_skb_load_bytes};
use monitor_common::{
    drop_reason::DropReason,
    early_data::EarlySegment,
    event::{HEAD_ROOMS, HandshakeRecord, REQUEST_HEAD_MAX},
    flow::Flow,
    handshake::{Needle, OPENING_LEN, Opening},
    recognition::ENDING_LEN,
    stream::Payload,
};

use crate::{
    emit::{count_drop, publish_changes},
    handshake::{copy_address, find, proxy_header_len},
    maps::{EARLY, HANDSHAKES, LISTENERS, STATS},
    opaque::opaque,
    packet::{__sk_buff, Piece, full_sock},
    payload::SkbPayload,
    traffic::{addresses, ip_header},
};

/// Keeps the contents of a segment with payload that reached a listening socket. Only the segment being
/// processed can create a socket.
///
/// A global function, see [`crate::walk`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn keep_early(skb: *mut __sk_buff, piece: *const Piece, now: u64) -> u32 {
    // SAFETY: callers pass null, or a piece that outlives the call.
    let Some(piece) = (unsafe { piece.as_ref() }) else {
        return 0;
    };
    // SAFETY: a per-CPU map value, which only this CPU uses until the current packet is done.
    let Some(early) = EARLY.get_ptr_mut(0).map(|early| unsafe { &mut *early }) else {
        return 0;
    };
    early.at = 0;
    if piece.segment.payload_len == 0 {
        return 0;
    }
    if read_early(skb, piece, early).is_none() {
        count_drop(DropReason::PayloadUnreadable);
        return 0;
    }
    early.at = now;
    0
}

#[inline(always)]
fn read_early(skb: *mut __sk_buff, piece: &Piece, early: &mut EarlySegment) -> Option<()> {
    let ctx = &__sk_buff::context(skb);
    let segment = piece.segment;
    let skip = proxy_header_len(skb, segment.payload_offset, segment.payload_len);
    let len = segment.payload_len.saturating_sub(skip);
    early.skip = skip;
    let payload = SkbPayload {
        skb: skb.cast(),
        offset: segment.payload_offset.wrapping_add(skip),
    };
    let have = OPENING_LEN.min(len);
    if len > 0 {
        early.opening = payload.read(0, have)?;
    }
    if len > ENDING_LEN {
        early.ending = payload.read(len - ENDING_LEN, ENDING_LEN)?;
    }
    let is_request = Opening::of(&early.opening, have) == Opening::Request;
    early.has_key = (is_request && find(&payload, len, Needle::KEY)) as u32;
    early.segment = segment;
    // SAFETY: the context of the running program.
    if let Some(sk) = unsafe { full_sock(skb) } {
        // SAFETY: a full socket.
        early.cgroup_id = unsafe { bpf_sk_cgroup_id(sk.cast()) };
    }

    let record = &mut early.record;
    let ip = ip_header(ctx)?;
    // RFC 9293 §3.1: the header begins with the ports, source first.
    let [source, destination] = ctx.load::<[[u8; 2]; 2]>(ip.tcp_offset as usize).ok()?;
    record.remote_port = u16::from_be_bytes(source);
    record.local_port = u16::from_be_bytes(destination);
    addresses(
        ctx,
        ip.version,
        &mut record.remote_addr,
        &mut record.local_addr,
    );
    record.ip_version = ip.version as u8;
    if is_request {
        // The mask shows both bounds to the verifier.
        let len = len.min(REQUEST_HEAD_MAX as u32);
        let taken = (opaque(len.into()).wrapping_sub(1) & (REQUEST_HEAD_MAX as u64 - 1)) as u32 + 1;
        record.len = taken as u16;
        let head: *mut u8 = (&raw mut record.head).cast();
        // SAFETY: there is room for what `taken` can be.
        if unsafe { bpf_skb_load_bytes(payload.skb, payload.offset, head.cast(), taken) } != 0 {
            return None;
        }
    }
    Some(())
}

/// Gives a new socket the contents of the segment that created it, if that had payload. Returns what is
/// notable about it, for `publish_changes`.
///
/// A global function, see [`crate::walk`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn take_early(flow: *mut Flow, now: u64) -> u32 {
    // SAFETY: callers pass null, or storage that lives as long as the call.
    let Some(flow) = (unsafe { flow.as_mut() }) else {
        return 0;
    };
    // SAFETY: a per-CPU map value, which only this CPU uses until the current packet is done.
    let Some(early) = EARLY.get_ptr_mut(0).map(|early| unsafe { &mut *early }) else {
        return 0;
    };
    let s = &mut flow.snapshot;
    if !early.claim(s.local_port, s.remote_port, now) {
        return 0;
    }
    s.cgroup_id = early.cgroup_id;
    s.ip_version = early.record.ip_version;
    // SAFETY: both lie at multiples of 8 bytes.
    unsafe {
        copy_address(&raw mut s.local_addr, &early.record.local_addr);
        copy_address(&raw mut s.remote_addr, &early.record.remote_addr);
    }
    let Some(limits) = LISTENERS.get(s.listener as u32) else {
        return 0;
    };
    let Some(stats) = STATS.get_ptr_mut(s.listener as u32) else {
        return 0;
    };
    // SAFETY: a per-CPU map value; see `Counter` for what else may access it.
    let head = flow.take_early(early, now, limits, unsafe { &mut *stats });
    if head != 0 {
        report(&mut early.record, head, flow, now);
    }
    flow.rx_walk.take_notes()
}

/// Does the same for a socket that TCP reports as established, and publishes what changed.
///
/// A global function, see [`crate::walk`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn begin_early(flow: *mut Flow, now: u64) -> u32 {
    let notes = take_early(flow, now);
    // SAFETY: as for `take_early`.
    if let Some(flow) = unsafe { flow.as_mut() } {
        publish_changes(&mut flow.snapshot, notes, now);
    }
    0
}

/// Sends the head with which the segment begins to the daemon, or counts the drop.
#[inline(always)]
fn report(record: &mut HandshakeRecord, kind: u8, flow: &Flow, now: u64) {
    let s = &flow.snapshot;
    record.at = now;
    record.cookie = s.cookie;
    record.established_at = s.established_at;
    record.listener = s.listener.into();
    record.role = s.role;
    record.kind = kind;
    const SHORT: usize = HEAD_ROOMS[0];
    const MIDDLE: usize = HEAD_ROOMS[1];
    let len = record.len as usize;
    let sent = if len <= SHORT {
        send::<SHORT>(record)
    } else if len <= MIDDLE {
        send::<MIDDLE>(record)
    } else {
        send::<REQUEST_HEAD_MAX>(record)
    };
    if !sent {
        count_drop(DropReason::HandshakesFull);
    }
}

/// Sends the record with room for the first `ROOM` bytes of the head.
#[inline(always)]
fn send<const ROOM: usize>(record: &HandshakeRecord) -> bool {
    const { assert!(ROOM <= REQUEST_HEAD_MAX) };
    // SAFETY: the two differ only in the room at their end, and this one has less.
    let record = unsafe { &*ptr::from_ref(record).cast::<HandshakeRecord<ROOM>>() };
    HANDSHAKES
        .output_untyped::<HandshakeRecord<ROOM>>(record, 0)
        .is_ok()
}
