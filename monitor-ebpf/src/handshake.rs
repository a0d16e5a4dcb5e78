//! The heads of upgrade requests and responses.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use monitor_common::{
    Direction,
    drop_reason::DropReason,
    event::{HEAD_ROOMS, HandshakeRecord, REQUEST_HEAD_MAX, RESPONSE_HEAD_MAX, head_kind},
    flow::Flow,
    frame::HEADER_MAX,
    handshake::Needle,
    proxy_header::ProxyHeader,
    snapshot::Snapshot,
    stats::ListenerStats,
    stream::Payload,
};

use crate::{
    emit::count_drop,
    maps::HANDSHAKES,
    opaque::opaque,
    packet::{__sk_buff, PacketContext, Parts, Piece},
    payload::SkbPayload,
    repeat::{Body, repeat},
    tally,
};

/// Examines the first bytes of a segment until the protocol of the connection is known. Returns the length
/// of the PROXY header with which it begins.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn recognise_received(
    skb: *mut __sk_buff,
    flow: *mut Flow,
    stats: *mut ListenerStats,
    piece: *mut Piece,
    now: u64,
) -> u32 {
    // SAFETY: from the caller's context.
    let packet = unsafe { PacketContext::from_arguments((skb, flow, stats, piece, now)) };
    recognise(packet, Direction::Rx)
}

/// The same for a sent segment.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn recognise_sent(
    skb: *mut __sk_buff,
    flow: *mut Flow,
    stats: *mut ListenerStats,
    piece: *mut Piece,
    now: u64,
) -> u32 {
    // SAFETY: from the caller's context.
    let packet = unsafe { PacketContext::from_arguments((skb, flow, stats, piece, now)) };
    recognise(packet, Direction::Tx)
}

#[inline(always)]
fn recognise(packet: Option<PacketContext>, direction: Direction) -> u32 {
    let Some(mut packet) = packet else {
        return 0;
    };
    let (skb, mut payload, now) = (packet.skb, packet.payload(), packet.now);
    let Parts { flow, stats, piece } = packet.parts();
    let mut len = piece.segment.payload_len;
    let mut skip = 0;
    if flow.may_be_proxied(direction) {
        skip = proxy_header_len(skb, payload.offset, len);
        payload.offset = payload.offset.wrapping_add(skip);
        len = len.saturating_sub(skip);
    }
    let recognised = flow.recognise(
        direction,
        &piece.segment,
        len,
        &payload,
        now,
        stats,
        |needle| find(&payload, len, needle),
    );
    if recognised.unsynced_bytes > 0 {
        tally::unsynced(skb, stats, direction.opposite(), recognised.unsynced_bytes);
    }
    let head = recognised.head;
    if head != 0 {
        report(&payload, len, head, &flow.snapshot, now);
    }
    skip
}

/// Length of the PROXY protocol header at the start of `len` bytes of payload at `offset`.
///
/// A global function, see [`crate::walk`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn proxy_header_len(skb: *mut __sk_buff, offset: u32, len: u32) -> u32 {
    let payload = SkbPayload {
        skb: skb.cast(),
        offset,
    };
    let mut line = HeaderLine {
        skb: skb.cast(),
        offset,
        len,
        header: ProxyHeader::of(&payload, len),
    };
    repeat::<{ ProxyHeader::MAX_STEPS }, LineStep>(&mut line);
    // SAFETY: a live local; volatile because it was written behind the compiler's back.
    unsafe { (&raw const line.header.len).read_volatile() }
}

/// Shared by the steps of the search for the end of a line; lives on the stack.
#[repr(C)]
struct HeaderLine {
    skb: *mut c_void,
    offset: u32,
    len: u32,
    header: ProxyHeader,
}

enum LineStep {}

impl Body for LineStep {
    type Context = HeaderLine;

    #[inline(always)]
    fn step(_index: u32, line: &mut HeaderLine) -> bool {
        let payload = SkbPayload {
            skb: line.skb,
            offset: line.offset,
        };
        line.header.search(&payload, line.len)
    }
}

/// Shared by the steps of a search; lives on the stack.
#[repr(C)]
struct NeedleSearch {
    skb: *mut c_void,
    payload_offset: u32,
    len: u32,
    needle: Needle,
    found: u32,
    _pad: u32,
}

/// Whether the first [`Needle::REACH`] of `len` bytes of payload contain a needle.
#[inline(always)]
pub(crate) fn find(payload: &SkbPayload, len: u32, needle: Needle) -> bool {
    let mut search = NeedleSearch {
        skb: payload.skb,
        payload_offset: payload.offset,
        len,
        needle,
        found: 0,
        _pad: 0,
    };
    repeat::<{ Needle::MAX_STEPS }, SearchStep>(&mut search);
    // SAFETY: a live local; volatile because it was written behind the compiler's back.
    unsafe { (&raw const search.found).read_volatile() != 0 }
}

enum SearchStep {}

impl Body for SearchStep {
    type Context = NeedleSearch;

    #[inline(always)]
    fn step(index: u32, search: &mut NeedleSearch) -> bool {
        let at = index * Needle::STRIDE;
        if at >= search.len {
            return false;
        }
        let payload = SkbPayload {
            skb: search.skb,
            offset: search.payload_offset,
        };
        let Some(bytes) = payload.read(at, HEADER_MAX.min(search.len - at)) else {
            return false;
        };
        search.found = search.needle.is_in(&bytes) as u32;
        search.found == 0
    }
}

/// Sends the head with which a segment begins to the daemon, or counts the drop.
#[inline(always)]
fn report(payload: &SkbPayload, len: u32, kind: u8, s: &Snapshot, now: u64) {
    const SHORT: usize = HEAD_ROOMS[0];
    const MIDDLE: usize = HEAD_ROOMS[1];
    const LONG: usize = HEAD_ROOMS[2];
    let max = if kind == head_kind::REQUEST {
        REQUEST_HEAD_MAX
    } else {
        RESPONSE_HEAD_MAX
    } as u32;
    let len = len.min(max);
    if len <= SHORT as u32 {
        send::<SHORT>(payload, len, kind, s, now);
    } else if len <= MIDDLE as u32 {
        send::<MIDDLE>(payload, len, kind, s, now);
    } else {
        send::<LONG>(payload, len, kind, s, now);
    }
}

/// The same in a record with room for `ROOM` bytes, a power of two and at least `len`.
#[inline(always)]
fn send<const ROOM: usize>(payload: &SkbPayload, len: u32, kind: u8, s: &Snapshot, now: u64) {
    let Some(mut entry) = HANDSHAKES.reserve_untyped::<HandshakeRecord<ROOM>>(0) else {
        count_drop(DropReason::HandshakesFull);
        return;
    };
    // The mask shows both bounds to the verifier.
    let taken = (opaque(len.into()).wrapping_sub(1) & (ROOM as u64 - 1)) as u32 + 1;
    let record: *mut HandshakeRecord<ROOM> = entry.as_mut_ptr();
    // SAFETY: the entry has room for a record. Every field that is read later is written, and of `head` as
    // many bytes as `len` says.
    unsafe {
        (&raw mut (*record).at).write(now);
        (&raw mut (*record).cookie).write(s.cookie);
        (&raw mut (*record).established_at).write(s.established_at);
        copy_address(&raw mut (*record).local_addr, &s.local_addr);
        copy_address(&raw mut (*record).remote_addr, &s.remote_addr);
        (&raw mut (*record).local_port).write(s.local_port);
        (&raw mut (*record).remote_port).write(s.remote_port);
        (&raw mut (*record).listener).write(s.listener.into());
        (&raw mut (*record).len).write(taken as u16);
        (&raw mut (*record).ip_version).write(s.ip_version);
        (&raw mut (*record).role).write(s.role);
        (&raw mut (*record).kind).write(kind);
        let head: *mut u8 = (&raw mut (*record).head).cast();
        if bpf_skb_load_bytes(payload.skb, payload.offset, head.cast(), taken) != 0 {
            entry.discard(0);
            count_drop(DropReason::PayloadUnreadable);
            return;
        }
    }
    entry.submit(0);
}

/// Copies word by word: the compiler turns a whole copy into a call of `memcpy`, a loop over bytes.
///
/// # Safety
/// `to` is valid for writes and aligned to 8 bytes.
#[inline(always)]
pub(crate) unsafe fn copy_address(to: *mut [u8; 16], from: &[u8; 16]) {
    let (to, from) = (to.cast::<u64>(), ptr::from_ref(from).cast::<u64>());
    // SAFETY: addresses in records and snapshots lie at multiples of 8 bytes.
    unsafe {
        to.write_volatile(from.read_volatile());
        to.add(1).write_volatile(from.add(1).read_volatile());
    }
}
