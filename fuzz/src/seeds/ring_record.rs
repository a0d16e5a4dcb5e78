//! Ring-buffer records of one connection.

use std::mem::offset_of;

use monitor_common::{
    event::{
        CloseHow, EventKind, FrameSample, HandshakeRecord, ListenEvent, VitalEvent, head_kind,
    },
    moment::ticks_between,
    snapshot::{DirectionFacts, Snapshot, protocol},
};

use crate::segment::HTTP;

pub(super) fn records() -> Vec<(&'static str, Vec<u8>)> {
    let how = |how: CloseHow| how as u32;
    vec![
        ("opened", vital(EventKind::Opened, 0, protocol::WEBSOCKET)),
        ("opened_tls", vital(EventKind::Opened, 0, protocol::OPAQUE)),
        ("opened_old", vital(EventKind::Opened, 0, protocol::ASSUMED)),
        ("closing", vital(EventKind::Closing, 0, protocol::WEBSOCKET)),
        (
            "closed_by_frame",
            vital(
                EventKind::Closed,
                how(CloseHow::CloseFrame),
                protocol::WEBSOCKET,
            ),
        ),
        (
            "closed_by_timeout",
            vital(
                EventKind::Closed,
                how(CloseHow::Timeout),
                protocol::WEBSOCKET,
            ),
        ),
        (
            "closed_somehow",
            vital(EventKind::Closed, 77, protocol::WEBSOCKET),
        ),
        ("dismissed", vital(EventKind::Dismissed, 0, protocol::HTTP)),
        (
            "retransmit",
            vital(EventKind::Retransmit, 0, protocol::WEBSOCKET),
        ),
        ("resumed", vital(EventKind::Resumed, 0, protocol::WEBSOCKET)),
        (
            "answered",
            vital(EventKind::Answered, 0, protocol::WEBSOCKET),
        ),
        (
            "ping_unanswered",
            vital(EventKind::PingUnanswered, 0, protocol::WEBSOCKET),
        ),
        (
            "window_closed",
            vital(EventKind::WindowClosed, 0, protocol::WEBSOCKET),
        ),
        ("reset", vital(EventKind::Reset, 0, protocol::WEBSOCKET)),
        ("listening", listen(EventKind::Listening)),
        ("listen_ended", listen(EventKind::ListenEnded)),
        ("listen_somehow", listen(EventKind::Opened)),
        ("opened_http", vital(EventKind::Opened, 0, protocol::HTTP)),
        ("upgrade_request", handshake(head_kind::REQUEST, HTTP[0])),
        ("upgrade_answer", handshake(head_kind::RESPONSE, HTTP[1])),
        ("refusal", handshake(head_kind::RESPONSE, HTTP[3])),
        ("no_head", handshake(3, b"")),
        (
            "short_request",
            handshake(head_kind::REQUEST, HTTP[0])[..72 + 256].to_vec(),
        ),
        ("text_frame", sample(0x81, 5)),
        ("close_frame", sample(0x88, 2)),
        (
            "cut",
            vital(EventKind::Opened, 0, protocol::WEBSOCKET)[..40].to_vec(),
        ),
    ]
}

/// A record of the `VITALS` ring: an IPv4 server's connection with a ping and some bytes in flight.
fn vital(kind: EventKind, detail: u32, protocol: u8) -> Vec<u8> {
    const SECOND: u64 = 1_000_000_000;
    let mut record = vec![0; size_of::<VitalEvent>()];
    let snapshot = offset_of!(VitalEvent, snapshot);
    let rx = snapshot + offset_of!(Snapshot, rx);
    let tx = snapshot + offset_of!(Snapshot, tx);
    for (at, value) in [
        (offset_of!(VitalEvent, at), 90 * SECOND),
        (snapshot + offset_of!(Snapshot, cookie), 4711),
        (snapshot + offset_of!(Snapshot, published_at), 89 * SECOND),
        (snapshot + offset_of!(Snapshot, established_at), 10 * SECOND),
        (snapshot + offset_of!(Snapshot, unacked_since), 88 * SECOND),
        (
            snapshot + offset_of!(Snapshot, ack_progress_at),
            80 * SECOND,
        ),
        (snapshot + offset_of!(Snapshot, gap_to), 80 * SECOND),
        (rx, 80 * SECOND),
        (tx, 88 * SECOND),
    ] {
        put(&mut record, at, &value.to_ne_bytes());
    }
    for (at, value) in [
        (offset_of!(VitalEvent, kind), kind as u32),
        (offset_of!(VitalEvent, detail), detail),
        (
            snapshot + offset_of!(Snapshot, gap_ticks),
            ticks_between(20 * SECOND, 80 * SECOND),
        ),
        (snapshot + offset_of!(Snapshot, snd_nxt), 5100),
        (snapshot + offset_of!(Snapshot, snd_una), 5000),
        (snapshot + offset_of!(Snapshot, retransmits), 2),
        (tx + offset_of!(DirectionFacts, pings), 1),
    ] {
        put(&mut record, at, &value.to_ne_bytes());
    }
    for (at, value) in [
        (offset_of!(Snapshot, local_addr), &[10, 0, 0, 1][..]),
        (offset_of!(Snapshot, remote_addr), &[10, 0, 0, 2]),
        (offset_of!(Snapshot, eliciting_sends), &1_u16.to_ne_bytes()),
        (offset_of!(Snapshot, local_port), &8080_u16.to_ne_bytes()),
        (offset_of!(Snapshot, remote_port), &40_000_u16.to_ne_bytes()),
        (offset_of!(Snapshot, ip_version), &[4]),
        (offset_of!(Snapshot, protocol), &[protocol]),
        (offset_of!(Snapshot, una_known), &[1]),
        (offset_of!(Snapshot, nxt_known), &[1]),
    ] {
        put(&mut record, snapshot + at, value);
    }
    record
}

/// A record of the `VITALS` ring: a listening socket.
fn listen(kind: EventKind) -> Vec<u8> {
    let mut record = vec![0; size_of::<ListenEvent>()];
    for (at, value) in [
        (
            offset_of!(ListenEvent, kind),
            &(kind as u32).to_ne_bytes()[..],
        ),
        (
            offset_of!(ListenEvent, netns),
            &4_026_531_840_u32.to_ne_bytes(),
        ),
        (offset_of!(ListenEvent, cookie), &4711_u64.to_ne_bytes()),
        (offset_of!(ListenEvent, port), &8080_u16.to_ne_bytes()),
    ] {
        put(&mut record, at, value);
    }
    record
}

/// A record of the `HANDSHAKES` ring.
fn handshake(kind: u8, head: &[u8]) -> Vec<u8> {
    let mut record = vec![0; size_of::<HandshakeRecord>()];
    let len = head.len() as u16;
    for (at, value) in [
        (
            offset_of!(HandshakeRecord, cookie),
            &4711_u64.to_ne_bytes()[..],
        ),
        (offset_of!(HandshakeRecord, len), &len.to_ne_bytes()),
        (offset_of!(HandshakeRecord, ip_version), &[4]),
        (offset_of!(HandshakeRecord, kind), &[kind]),
        (offset_of!(HandshakeRecord, head), head),
    ] {
        put(&mut record, at, value);
    }
    record
}

/// A record of the `SAMPLES` ring.
fn sample(first_byte: u8, payload_len: u64) -> Vec<u8> {
    let mut record = vec![0; size_of::<FrameSample>()];
    put(
        &mut record,
        offset_of!(FrameSample, cookie),
        &4711_u64.to_ne_bytes(),
    );
    put(
        &mut record,
        offset_of!(FrameSample, payload_len),
        &payload_len.to_ne_bytes(),
    );
    put(
        &mut record,
        offset_of!(FrameSample, first_byte),
        &[first_byte],
    );
    record
}

fn put(record: &mut [u8], at: usize, bytes: &[u8]) {
    record[at..at + bytes.len()].copy_from_slice(bytes);
}
