//! Decodes and validates what the kernel programs wrote: bytes in, events and facts of the core out.

use std::mem::offset_of;

use monitor_common::{
    connection_totals::ConnectionTotals,
    event::{
        ClosedEvent, EventKind, FrameSample, HEAD_ROOMS, HandshakeRecord, ListenEvent,
        REQUEST_HEAD_MAX, RESPONSE_HEAD_MAX, VitalEvent, head_kind,
    },
    published::Published,
    snapshot::Snapshot,
};

mod detail;
mod facts;

pub use detail::detail;
pub(crate) use facts::octets;
use facts::{address, end, moment};
pub use facts::{facts, seed};
use monitor_core::{
    CloseHow, Closed, ConnId, Event, Facts, Ktime, ListenerId, Trouble,
    event::{HandshakeSocket, ListeningSocket},
    handshake::{UpgradeRequest, UpgradeResponse},
};

/// An invalid record. It is counted and never stops the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("record of {found} bytes, expected {expected}")]
    Size { found: usize, expected: usize },
    #[error("unknown event kind {0}")]
    Kind(u32),
    #[error("unknown kind of close {0}")]
    CloseHow(u32),
    #[error("unexpected protocol {0}")]
    Protocol(u8),
    #[error("unknown start of a close {0}")]
    ClosingBy(u8),
    #[error("unknown kind of head {0}")]
    HeadKind(u8),
    #[error("head of {found} bytes, expected at most {max}")]
    HeadLen { found: u16, max: usize },
}

/// Decodes one record of the `VITALS` ring.
///
/// Its clocks are rounded like those of a published snapshot. The rules compare the two, so the same
/// packet must have the same moment in both.
pub fn vital(record: &[u8]) -> Result<Event, DecodeError> {
    if record.len() == size_of::<ListenEvent>() {
        return listening(&read(record)?);
    }
    let (record, _) = vital_event(record)?;
    let known = &record.snapshot;
    event(&VitalEvent {
        snapshot: Snapshot {
            // These are not clocks but moments that the record reports.
            opened_at: known.opened_at,
            closing_at: known.closing_at,
            // Copied unchanged, so that invalid values are refused.
            protocol: known.protocol,
            closing_by: known.closing_by,
            ..Published::of(known).snapshot(known.cookie, record.at)
        },
        ..record
    })
}

fn listening(event: &ListenEvent) -> Result<Event, DecodeError> {
    let begins = match EventKind::try_from(event.kind) {
        Ok(EventKind::Listening) => true,
        Ok(EventKind::ListenEnded) => false,
        _ => return Err(DecodeError::Kind(event.kind)),
    };
    Ok(Event::Listening {
        at: Ktime(event.at),
        socket: ListeningSocket {
            conn: ConnId(event.cookie),
            listener: ListenerId(event.listener),
            netns: event.netns,
            port: event.port,
        },
        begins,
    })
}

/// Decodes the event in a record of the `VITALS` ring.
pub fn event(event: &VitalEvent) -> Result<Event, DecodeError> {
    let kind = EventKind::try_from(event.kind).map_err(DecodeError::Kind)?;
    let at = Ktime(event.at);
    let conn = ConnId(event.snapshot.cookie);
    if kind == EventKind::Dismissed {
        return Ok(Event::Dismissed { conn, at });
    }
    // The snapshot is exact as of the event, however old its publication is.
    let facts = Box::new(Facts {
        at,
        ..facts(&event.snapshot)?
    });
    let trouble = |trouble| Event::Trouble {
        facts: facts.clone(),
        trouble,
    };
    Ok(match kind {
        EventKind::Opened => Event::Opened(facts),
        EventKind::Closing => Event::Closing(facts),
        EventKind::Closed => Event::Closed {
            how: close_how(event.detail)?,
            facts,
        },
        EventKind::Dismissed => Event::Dismissed { conn, at },
        EventKind::Retransmit => trouble(Trouble::Retransmit),
        EventKind::Resumed => trouble(Trouble::Resumed),
        EventKind::Answered => trouble(Trouble::Answered),
        EventKind::PingUnanswered => trouble(Trouble::PingUnanswered),
        EventKind::WindowClosed => trouble(Trouble::WindowClosed),
        EventKind::Reset => trouble(Trouble::Reset),
        EventKind::Listening | EventKind::ListenEnded => {
            return Err(DecodeError::Kind(event.kind));
        }
    })
}

/// A connection at its end.
#[derive(Clone, Debug)]
pub struct ClosedConnection {
    pub closed: Closed,
    /// `None` if the kernel programs did not account for it.
    pub totals: Option<ConnectionTotals>,
}

/// Decodes the final state of a connection from a record of the `VITALS` ring. `None` if the record is
/// not a `Closed`, or is invalid, which [`vital`] reports.
pub fn closed(record: &[u8]) -> Option<Box<ClosedConnection>> {
    let (event, totals) = vital_event(record).ok()?;
    if event.kind != EventKind::Closed as u32 {
        return None;
    }
    let mut detail = detail(&event.snapshot).ok()?;
    detail.facts.at = Ktime(event.at);
    let how = close_how(event.detail).ok()?;
    let closed = Closed { detail, how };
    Some(Box::new(ClosedConnection { closed, totals }))
}

/// The event in a record, with the account of the connection if the record has it.
fn vital_event(record: &[u8]) -> Result<(VitalEvent, Option<ConnectionTotals>), DecodeError> {
    if record.len() != size_of::<ClosedEvent>() {
        return Ok((read(record)?, None));
    }
    let ClosedEvent { vital, totals } = read(record)?;
    match EventKind::try_from(vital.kind) {
        Ok(EventKind::Closed) => Ok((vital, Some(totals))),
        _ => Err(DecodeError::Kind(vital.kind)),
    }
}

/// Decodes one record of the `HANDSHAKES` ring and parses its head.
pub fn handshake(record: &[u8]) -> Result<Event, DecodeError> {
    let mut whole = [0; size_of::<HandshakeRecord>()];
    let rooms = HEAD_ROOMS.map(|room| (offset_of!(HandshakeRecord, head) + room, room));
    let room = rooms.into_iter().find(|(size, _)| *size == record.len());
    let (Some((_, room)), Some(begin)) = (room, whole.get_mut(..record.len())) else {
        return Err(DecodeError::Size {
            found: record.len(),
            expected: whole.len(),
        });
    };
    begin.copy_from_slice(record);
    let record: HandshakeRecord = read(&whole)?;
    if usize::from(record.len) > room {
        return Err(DecodeError::HeadLen {
            found: record.len,
            max: room,
        });
    }
    upgrade(&record)
}

/// Decodes the content of a record of the `HANDSHAKES` ring.
pub fn upgrade(record: &HandshakeRecord) -> Result<Event, DecodeError> {
    let head = |max: usize| {
        let found = record.len;
        let fits = Some(usize::from(found)).filter(|len| *len <= max);
        fits.and_then(|len| record.head.get(..len))
            .ok_or(DecodeError::HeadLen { found, max })
    };
    let of = Box::new(HandshakeSocket {
        at: Ktime(record.at),
        conn: ConnId(record.cookie),
        listener: ListenerId(record.listener),
        role: end(record.role),
        local: address(record.ip_version, &record.local_addr, record.local_port),
        peer: address(record.ip_version, &record.remote_addr, record.remote_port),
        established_at: moment(record.established_at),
    });
    match record.kind {
        head_kind::REQUEST => Ok(Event::UpgradeRequested {
            of,
            request: Box::new(UpgradeRequest::parse(head(REQUEST_HEAD_MAX)?)),
        }),
        head_kind::RESPONSE => Ok(Event::UpgradeResponded {
            of,
            response: Box::new(UpgradeResponse::parse(head(RESPONSE_HEAD_MAX)?)),
        }),
        unknown => Err(DecodeError::HeadKind(unknown)),
    }
}

/// Decodes one record of the `SAMPLES` ring.
pub fn sample(record: &[u8]) -> Result<FrameSample, DecodeError> {
    read(record)
}

fn close_how(raw: u32) -> Result<CloseHow, DecodeError> {
    CloseHow::try_from(raw).map_err(DecodeError::CloseHow)
}

/// Reads a record of the ring: plain integers, any bit pattern is valid.
fn read<T: Wire>(record: &[u8]) -> Result<T, DecodeError> {
    let expected = size_of::<T>();
    if record.len() != expected {
        return Err(DecodeError::Size {
            found: record.len(),
            expected,
        });
    }
    // SAFETY: the length was checked, and `Wire` types are valid for any bytes.
    Ok(unsafe { record.as_ptr().cast::<T>().read_unaligned() })
}

/// Ring records.
///
/// # Safety
/// `repr(C)`, integers only, no implicit padding.
unsafe trait Wire {}

// SAFETY: the layout is asserted next to the type.
unsafe impl Wire for VitalEvent {}
// SAFETY: the layout is asserted next to the type.
unsafe impl Wire for ClosedEvent {}
// SAFETY: the layout is asserted next to the type.
unsafe impl Wire for ListenEvent {}
// SAFETY: the layout is asserted next to the type.
unsafe impl Wire for HandshakeRecord {}
// SAFETY: the layout is asserted next to the type.
unsafe impl Wire for FrameSample {}

#[cfg(test)]
mod tests {
    use monitor_common::snapshot::{protocol, role};

    use super::*;
    use monitor_core::facts::Role;

    fn record(kind: u8, head: &[u8]) -> HandshakeRecord {
        let mut record = HandshakeRecord {
            at: 9,
            cookie: 7,
            established_at: 5,
            local_addr: [0; 16],
            remote_addr: [0; 16],
            local_port: 8080,
            remote_port: 40_000,
            listener: 3,
            len: u16::try_from(head.len()).expect("a short head"),
            ip_version: 4,
            role: role::SERVER,
            kind,
            _pad: [0; 5],
            head: [0xff; REQUEST_HEAD_MAX],
        };
        record.local_addr[..4].copy_from_slice(&[127, 0, 0, 1]);
        record.head[..head.len()].copy_from_slice(head);
        record
    }

    fn decoded(record: &HandshakeRecord) -> Result<Event, DecodeError> {
        cut(record, REQUEST_HEAD_MAX)
    }

    /// A record with room for `room` bytes of the head.
    fn cut(record: &HandshakeRecord, room: usize) -> Result<Event, DecodeError> {
        let bytes = std::ptr::from_ref(record).cast::<u8>();
        let size = offset_of!(HandshakeRecord, head) + room;
        // SAFETY: at most as many bytes as the record has, none of them padding.
        handshake(unsafe { std::slice::from_raw_parts(bytes, size) })
    }

    #[test]
    fn a_head_is_the_same_in_a_record_of_any_size_that_has_room_for_it() {
        let short = record(head_kind::REQUEST, b"GET /chat HTTP/1.1\r\n\r\n");
        for room in HEAD_ROOMS {
            assert_eq!(cut(&short, room), decoded(&short), "{room}");
        }
        let mut long = record(head_kind::REQUEST, &[b'a'; 300]);
        let (found, max) = (300, 256);
        assert_eq!(cut(&long, 256), Err(DecodeError::HeadLen { found, max }));
        assert_eq!(cut(&long, 512), decoded(&long));
        long.kind = 0;
        assert_eq!(cut(&long, 512), Err(DecodeError::HeadKind(0)));
        for room in [0, 255, 257, 511, 1023] {
            let (found, expected) = (72 + room, size_of::<HandshakeRecord>());
            let wrong_size = DecodeError::Size { found, expected };
            assert_eq!(cut(&short, room), Err(wrong_size));
        }
    }

    #[test]
    fn a_request_and_its_response_are_decoded_with_their_connection() {
        let request = record(
            head_kind::REQUEST,
            b"GET /chat?x HTTP/1.1\r\nHost: a\r\n\r\n",
        );
        let Ok(Event::UpgradeRequested { of, request }) = decoded(&request) else {
            panic!("no request");
        };
        let handshake_socket = HandshakeSocket {
            at: Ktime(9),
            conn: ConnId(7),
            listener: ListenerId(3),
            role: Role::Server,
            local: ([127, 0, 0, 1], 8080).into(),
            peer: ([0, 0, 0, 0], 40_000).into(),
            established_at: Some(Ktime(5)),
        };
        assert_eq!(*of, handshake_socket);
        assert_eq!(request.path.as_deref(), Some("/chat"));
        assert_eq!(request.host.as_deref(), Some("a"));

        let response = record(
            head_kind::RESPONSE,
            b"HTTP/1.1 429 Too Many Requests\r\n\r\n",
        );
        let Ok(Event::UpgradeResponded { of, response }) = decoded(&response) else {
            panic!("no answer");
        };
        assert_eq!((*of, response.status), (handshake_socket, Some(429)));
    }

    #[test]
    fn a_listening_socket_is_recognized_by_the_length_of_its_record() {
        let record = |kind| ListenEvent {
            at: 9,
            kind,
            netns: 4,
            cookie: 7,
            listener: 3,
            port: 8080,
            _pad: 0,
        };
        let decoded = |record: ListenEvent| {
            let bytes = std::ptr::from_ref(&record).cast::<u8>();
            // SAFETY: as many bytes as the record has, none of them padding.
            vital(unsafe { std::slice::from_raw_parts(bytes, size_of::<ListenEvent>()) })
        };
        let listening = |begins| Event::Listening {
            at: Ktime(9),
            socket: ListeningSocket {
                conn: ConnId(7),
                listener: ListenerId(3),
                netns: 4,
                port: 8080,
            },
            begins,
        };
        assert_eq!(decoded(record(10)), Ok(listening(true)));
        assert_eq!(decoded(record(11)), Ok(listening(false)));
        for wrong in [0, 3, 12] {
            assert_eq!(decoded(record(wrong)), Err(DecodeError::Kind(wrong)));
        }
    }

    #[test]
    fn a_packet_has_the_same_moment_in_a_record_and_in_the_table() {
        let mut snapshot = Snapshot {
            cookie: 7,
            published_at: 50_000_000_001,
            established_at: 20_000_000_001,
            opened_at: 20_000_000_003,
            unacked_since: 49_000_000_001,
            gap_ticks: 1_000,
            gap_to: 40_000_000_001,
            snd_nxt: 9,
            una_known: 1,
            nxt_known: 1,
            protocol: protocol::WEBSOCKET,
            ..Snapshot::EMPTY
        };
        snapshot.rx.last_packet = 40_000_000_001;
        snapshot.tx.last_packet = 49_000_000_001;
        let record = VitalEvent {
            at: 60_000_000_001,
            kind: EventKind::Opened as u32,
            detail: 0,
            snapshot,
        };
        let bytes = std::ptr::from_ref(&record).cast::<u8>();
        // SAFETY: as many bytes as the record has, none of them padding.
        let decoded = vital(unsafe { std::slice::from_raw_parts(bytes, size_of::<VitalEvent>()) });
        let Ok(Event::Opened(decoded)) = decoded else {
            panic!("{decoded:?}")
        };
        let in_table = Published::of(&snapshot).snapshot(7, 70_000_000_001);
        let expected = Facts {
            at: Ktime(60_000_000_001),
            opened_at: Some(Ktime(20_000_000_003)),
            ..facts(&in_table).expect("a WebSocket")
        };
        assert_eq!(*decoded, expected);
        assert_ne!(decoded.rx.last_packet, Some(Ktime(40_000_000_001)));
    }

    #[test]
    fn an_invalid_handshake_record_is_refused() {
        let mut long = record(head_kind::RESPONSE, b"HTTP/1.1 200 OK\r\n\r\n");
        long.len = 513;
        let (found, max) = (513, RESPONSE_HEAD_MAX);
        assert_eq!(decoded(&long), Err(DecodeError::HeadLen { found, max }));
        long.kind = head_kind::REQUEST;
        long.len = 1025;
        let (found, max) = (1025, REQUEST_HEAD_MAX);
        assert_eq!(decoded(&long), Err(DecodeError::HeadLen { found, max }));
        let unknown = record(0, b"");
        assert_eq!(decoded(&unknown), Err(DecodeError::HeadKind(0)));
        let (found, expected) = (3, size_of::<HandshakeRecord>());
        assert_eq!(
            handshake(&[0; 3]),
            Err(DecodeError::Size { found, expected })
        );
    }
}
