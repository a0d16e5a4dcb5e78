//! Ring-buffer records, which the kernel programs send and the daemon checks and decodes.

use std::mem::offset_of;

use jiff::Timestamp;
use monitor::{
    decode::{self, ClosedConnection, DecodeError},
    records::connection_summary::{ConnectionEnd, ConnectionSummary, SummarySource},
};
use monitor_common::{
    event::{
        ClosedEvent, EventKind, FrameSample, HEAD_ROOMS, HandshakeRecord, ListenEvent,
        REQUEST_HEAD_MAX, RESPONSE_HEAD_MAX, VitalEvent, head_kind,
    },
    moment::TICK,
    published::Published,
    snapshot::{Snapshot, closing_by, protocol},
};
use monitor_core::{
    CloseHow, ConnId, Event, Facts, Ktime,
    handshake::{UpgradeRequest, UpgradeResponse},
};

/// Decodes `data` as a record of each ring: as it is, and truncated or zero-padded to the size of a
/// record.
///
/// # Panics
/// If a record is refused for a reason other than its fields, or changed by decoding.
pub fn check(data: &[u8]) {
    check_vital(data);
    check_vital(&sized(data, size_of::<VitalEvent>()));
    check_closed(&sized(data, size_of::<ClosedEvent>()));
    check_listen(&sized(data, size_of::<ListenEvent>()));
    check_handshake(data);
    for room in HEAD_ROOMS {
        check_handshake(&sized(data, offset_of!(HandshakeRecord, head) + room));
    }
    check_published(&sized(data, size_of::<VitalEvent>()));
    check_sample(data);
    check_sample(&sized(data, size_of::<FrameSample>()));
}

fn check_vital(record: &[u8]) {
    if record.len() == size_of::<ListenEvent>() {
        return check_listen(record);
    }
    if record.len() == size_of::<ClosedEvent>() {
        return check_closed(record);
    }
    let decoded = decode::vital(record);
    if record.len() != size_of::<VitalEvent>() {
        assert_eq!(
            decoded.err(),
            Some(wrong_size(record, size_of::<VitalEvent>()))
        );
        return;
    }
    let u32_at = |at| u32::from_ne_bytes(array(record, at));
    let kind = u32_at(offset_of!(VitalEvent, kind));
    let detail = u32_at(offset_of!(VitalEvent, detail));
    let [protocol] = array(record, offset_of!(VitalEvent, snapshot.protocol));
    let conn = ConnId(u64::from_ne_bytes(array(
        record,
        offset_of!(VitalEvent, snapshot.cookie),
    )));
    let at = Ktime(u64::from_ne_bytes(array(
        record,
        offset_of!(VitalEvent, at),
    )));
    match (decoded, EventKind::try_from(kind)) {
        (
            Err(DecodeError::Kind(unknown)),
            Err(_) | Ok(EventKind::Listening | EventKind::ListenEnded),
        ) => assert_eq!(unknown, kind),
        (Err(DecodeError::Protocol(unknown)), Ok(_)) => {
            assert_eq!(unknown, protocol);
            assert!(!is_watched(protocol), "protocol {protocol} was refused");
        }
        (Err(DecodeError::CloseHow(unknown)), Ok(EventKind::Closed)) => {
            assert_eq!(unknown, detail);
            assert!(CloseHow::try_from(detail).is_err());
        }
        (Err(DecodeError::ClosingBy(unknown)), Ok(_)) => {
            let closing_by = array(record, offset_of!(VitalEvent, snapshot.closing_by));
            assert_eq!([unknown], closing_by);
            assert!(unknown > closing_by::FIN_TX);
        }
        (Ok(event), Ok(kind)) => {
            check_event(&event, kind, conn, at);
            if let Event::Closed { how, .. } = event {
                let index = CloseHow::ALL.iter().position(|known| *known == how);
                assert_eq!(index, Some(detail as usize), "how it ended");
            }
        }
        (decoded, kind) => panic!("{kind:?} was decoded to {decoded:?}"),
    }
}

/// The end of a connection with its account, which may hold anything.
fn check_closed(record: &[u8]) {
    let vital = &record[..size_of::<VitalEvent>()];
    let kind = u32::from_ne_bytes(array(record, offset_of!(VitalEvent, kind)));
    if kind != EventKind::Closed as u32 {
        assert_eq!(decode::vital(record).err(), Some(DecodeError::Kind(kind)));
        assert!(decode::closed(record).is_none());
        return;
    }
    assert_eq!(decode::vital(record), decode::vital(vital));
    let [with, without] = [record, vital].map(decode::closed);
    assert_eq!(with.is_some(), without.is_some());
    let Some(ClosedConnection { closed, totals }) = with.as_deref() else {
        return;
    };
    let source = SummarySource {
        conn: closed.detail.facts.conn,
        listener: "l",
        protocol: closed.detail.facts.protocol,
        end: ConnectionEnd::Closed(closed.how),
        at: closed.detail.facts.at,
        detail: Some(&closed.detail),
        totals: totals.as_ref(),
        verdicts: &[],
    };
    let summary = ConnectionSummary::new(&source, |_| Timestamp::UNIX_EPOCH);
    assert!(summary.rx.frames.is_some() && summary.rx.messages.is_some());
}

/// A listening socket.
fn check_listen(record: &[u8]) {
    let kind = u32::from_ne_bytes(array(record, offset_of!(ListenEvent, kind)));
    let (socket, begins) = match decode::vital(record) {
        Ok(Event::Listening { socket, begins, .. }) => (socket, begins),
        Ok(event) => panic!("a listening socket became {event:?}"),
        Err(error) => {
            assert_eq!(error, DecodeError::Kind(kind));
            let kind = EventKind::try_from(kind);
            assert!(!matches!(
                kind,
                Ok(EventKind::Listening | EventKind::ListenEnded)
            ));
            return;
        }
    };
    let expected = match begins {
        true => EventKind::Listening,
        false => EventKind::ListenEnded,
    };
    assert_eq!(kind, expected as u32);
    let cookie = u64::from_ne_bytes(array(record, offset_of!(ListenEvent, cookie)));
    let netns = u32::from_ne_bytes(array(record, offset_of!(ListenEvent, netns)));
    assert_eq!((socket.conn, socket.netns), (ConnId(cookie), netns));
}

/// Checks that the event is the one sent, with its connection and time.
fn check_event(event: &Event, kind: EventKind, conn: ConnId, at: Ktime) {
    let facts: &Facts = match (event, kind) {
        (Event::Dismissed { conn: of, at: when }, EventKind::Dismissed) => {
            assert_eq!((*of, *when), (conn, at));
            return;
        }
        (Event::Opened(facts), EventKind::Opened)
        | (Event::Closing(facts), EventKind::Closing)
        | (Event::Closed { facts, .. }, EventKind::Closed) => facts,
        (Event::Trouble { facts, trouble }, kind) => {
            assert_eq!(format!("{trouble:?}"), format!("{kind:?}"));
            facts
        }
        (event, kind) => panic!("{kind:?} became {event:?}"),
    };
    assert_eq!((facts.conn, facts.at), (conn, at));
    assert!(facts.unacked_since.is_none() || facts.unacked_bytes > 0);
    assert!(facts.second_try.is_none() || facts.first_try.is_some());
}

fn check_handshake(record: &[u8]) {
    let decoded = decode::handshake(record);
    let head = offset_of!(HandshakeRecord, head);
    let room = HEAD_ROOMS
        .into_iter()
        .find(|room| head + room == record.len());
    let Some(room) = room else {
        let expected = wrong_size(record, size_of::<HandshakeRecord>());
        assert_eq!(decoded.err(), Some(expected));
        return;
    };
    let [kind] = array(record, offset_of!(HandshakeRecord, kind));
    let len = u16::from_ne_bytes(array(record, offset_of!(HandshakeRecord, len)));
    if usize::from(len) > room {
        let beyond = DecodeError::HeadLen {
            found: len,
            max: room,
        };
        assert_eq!(decoded.err(), Some(beyond));
        return;
    }
    let max = match kind {
        head_kind::REQUEST => REQUEST_HEAD_MAX,
        head_kind::RESPONSE => RESPONSE_HEAD_MAX,
        _ => {
            assert_eq!(decoded.err(), Some(DecodeError::HeadKind(kind)));
            return;
        }
    };
    let head = &record[head..head + usize::from(len).min(max)];
    let of = match decoded {
        Ok(Event::UpgradeRequested { of, request }) => {
            assert_eq!(kind, head_kind::REQUEST);
            assert_eq!(*request, UpgradeRequest::parse(head));
            of
        }
        Ok(Event::UpgradeResponded { of, response }) => {
            assert_eq!(kind, head_kind::RESPONSE);
            assert_eq!(*response, UpgradeResponse::parse(head));
            of
        }
        Ok(event) => panic!("a handshake became {event:?}"),
        Err(error) => {
            assert_eq!(error, DecodeError::HeadLen { found: len, max });
            assert!(usize::from(len) > max);
            return;
        }
    };
    let cookie = u64::from_ne_bytes(array(record, offset_of!(HandshakeRecord, cookie)));
    let at = u64::from_ne_bytes(array(record, offset_of!(HandshakeRecord, at)));
    assert_eq!((of.conn, of.at), (ConnId(cookie), Ktime(at)));
}

/// The snapshot in a record, as the daemon would read it from the map.
fn check_published(record: &[u8]) {
    let at = offset_of!(VitalEvent, snapshot);
    let bytes = &record[at..at + size_of::<Snapshot>()];
    // SAFETY: as many bytes as it has, and integers only.
    let known = unsafe { bytes.as_ptr().cast::<Snapshot>().read_unaligned() };
    let now = known.published_at;
    let read = Published::of(&known).snapshot(known.cookie, now);
    // No clock has run for longer than 36 years, and no socket is younger than its snapshot. For
    // values that a kernel can't produce, decoding only must not panic.
    if now < 1 << 60 && known.opened_at.max(known.established_at) <= now {
        assert_eq!(Published::of(&read).snapshot(known.cookie, now), read);
        assert_eq!(read.published_at, now.next_multiple_of(TICK));
    }
    assert_eq!(read.rx.frames, known.rx.frames);
    assert_eq!(
        (read.local_addr, read.cgroup_id),
        (known.local_addr, known.cgroup_id)
    );
}

fn check_sample(record: &[u8]) {
    match decode::sample(record) {
        Ok(sample) => {
            let first_byte = array::<1>(record, offset_of!(FrameSample, first_byte));
            let payload_len = array(record, offset_of!(FrameSample, payload_len));
            assert_eq!(sample.first_byte.to_ne_bytes(), first_byte);
            assert_eq!(sample.payload_len.to_ne_bytes(), payload_len);
        }
        Err(error) => assert_eq!(error, wrong_size(record, size_of::<FrameSample>())),
    }
}

fn is_watched(raw: u8) -> bool {
    matches!(
        raw,
        protocol::WEBSOCKET | protocol::OPAQUE | protocol::ASSUMED
    )
}

fn wrong_size(record: &[u8], expected: usize) -> DecodeError {
    DecodeError::Size {
        found: record.len(),
        expected,
    }
}

fn sized(data: &[u8], size: usize) -> Vec<u8> {
    let mut record = data.to_vec();
    record.resize(size, 0);
    record
}

fn array<const N: usize>(record: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| record[at + i])
}
