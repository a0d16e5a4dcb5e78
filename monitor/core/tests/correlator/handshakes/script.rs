//! The kernel's records of connections in their opening handshake, and the expected reports.

use std::time::Duration;

use monitor_core::{
    CloseHow, ConnId, Event, Facts, Ktime, ListenerId, Reason, State,
    event::HandshakeSocket,
    facts::{Close, Closing, ClosingBy, Direction},
    handshake::{UpgradeRequest, UpgradeResponse, accept_of},
};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::socket::facts;

/// One connection: refused attempts, then its outcome.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) start: u64,
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) last: Last,
    /// How many milliseconds the last request waits for its outcome.
    pub(crate) think: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// Milliseconds to the response, and from it to the next request.
    pub(crate) think: u64,
    pub(crate) pause: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Last {
    /// A 101, and a close frame this many milliseconds later.
    Opens(u64),
    Dies,
    /// Nothing more happens: the client waits.
    Waits,
}

/// A record, and the ring that carries it.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) at: Ktime,
    pub(crate) handshake: bool,
    pub(crate) event: Event,
}

pub(crate) fn scripts() -> impl Strategy<Value = Vec<Script>> {
    let think = || prop_oneof![3 => 1u64..50, 1 => 9_900u64..10_100, 1 => 10_100u64..40_000];
    let refusal = (
        select(vec![400u16, 401, 403, 426, 429, 503]),
        think(),
        1u64..3_000,
    )
        .prop_map(|(status, think, pause)| Refusal {
            status,
            think,
            pause,
        });
    let last = prop_oneof![
        (1u64..20_000).prop_map(Last::Opens),
        Just(Last::Dies),
        Just(Last::Waits),
    ];
    let script = (0u64..5_000, vec(refusal, 0..3), last, think());
    let script = script.prop_map(|(start, refusals, last, think)| Script {
        start,
        refusals,
        last,
        think,
    });
    vec(script, 1..8)
}

/// The kernel's records of these connections, in the order of time.
pub(crate) fn records(scripts: &[Script]) -> Vec<Record> {
    let mut all = Vec::new();
    for (index, script) in scripts.iter().enumerate() {
        let socket = facts(ConnId(index as u64 + 1), ListenerId(0), time(script.start));
        let mut record = |at, handshake, event| {
            all.push(Record {
                at,
                handshake,
                event,
            });
        };
        let mut now = script.start + 1;
        for refusal in &script.refusals {
            record(time(now), true, request(&socket, now));
            now += refusal.think;
            record(time(now), true, response(&socket, now, refusal.status));
            record(time(now), false, dismissed(&socket, now));
            now += refusal.pause;
        }
        record(time(now), true, request(&socket, now));
        now += script.think;
        match script.last {
            Last::Waits => {}
            Last::Dies => record(time(now), false, dismissed(&socket, now)),
            Last::Opens(lasts) => {
                let opened = Facts {
                    at: time(now),
                    opened_at: Some(time(now)),
                    ..socket.clone()
                };
                record(time(now), true, response(&socket, now, 101));
                record(time(now), false, Event::Opened(Box::new(opened.clone())));
                let closing = closing(&opened, now + lasts);
                record(closing.at, false, Event::Closing(Box::new(closing.clone())));
                let closed = Facts {
                    at: closing.at + Duration::from_millis(1),
                    ..closing
                };
                record(
                    closed.at,
                    false,
                    Event::Closed {
                        facts: Box::new(closed),
                        how: CloseHow::CloseFrame,
                    },
                );
            }
        }
    }
    all.sort_by_key(|record| record.at);
    all
}

fn closing(opened: &Facts, at: u64) -> Facts {
    let close = Close {
        initiator: Direction::Rx,
        code: Some(1000),
    };
    Facts {
        at: time(at),
        close: Some(close),
        closing: Some(Closing {
            at: time(at),
            by: ClosingBy::CloseFrame(close),
        }),
        ..opened.clone()
    }
}

pub(crate) fn request(socket: &Facts, at: u64) -> Event {
    let conn = socket.conn.0;
    let head = format!(
        "GET /chat/{conn}?token=secret HTTP/1.1\r\nHost: lab\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    Event::UpgradeRequested {
        of: handshake_socket(socket, at),
        request: Box::new(UpgradeRequest::parse(head.as_bytes())),
    }
}

pub(crate) fn response(socket: &Facts, at: u64, status: u16) -> Event {
    let accept = accept_of(KEY);
    let head = format!(
        "HTTP/1.1 {status} Whatever\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    Event::UpgradeResponded {
        of: handshake_socket(socket, at),
        response: Box::new(UpgradeResponse::parse(head.as_bytes())),
    }
}

fn dismissed(socket: &Facts, at: u64) -> Event {
    let (conn, at) = (socket.conn, time(at));
    Event::Dismissed { conn, at }
}

fn handshake_socket(socket: &Facts, at: u64) -> Box<HandshakeSocket> {
    Box::new(HandshakeSocket {
        at: time(at),
        conn: socket.conn,
        listener: socket.listener,
        role: socket.role,
        local: socket.local,
        peer: socket.peer,
        established_at: socket.established_at,
    })
}

/// Milliseconds after boot.
pub(crate) fn time(at: u64) -> Ktime {
    Ktime(7_000_000_000_000 + at * 1_000_000)
}

/// The expected reports about a connection, if nothing is lost.
pub(crate) fn expected(script: &Script) -> Vec<(State, Ktime, Reason)> {
    let mut reported = Vec::new();
    let mut now = script.start + 1;
    for refusal in &script.refusals {
        reported.push((State::Connecting, time(now), Reason::Requested));
        now += refusal.think;
        let reason = Reason::Refused {
            status: Some(refusal.status),
            retry_after: None,
        };
        reported.push((State::Closed, time(now), reason));
        now += refusal.pause;
    }
    reported.push((State::Connecting, time(now), Reason::Requested));
    now += script.think;
    match script.last {
        Last::Waits => {}
        Last::Dies => reported.push((State::Closed, time(now), Reason::NoAnswer)),
        Last::Opens(lasts) => {
            let after = Some(time(now).since(time(script.start)));
            reported.push((State::Open, time(now), Reason::Upgraded { after }));
            let (by, code) = (Direction::Rx, Some(1000));
            let end = time(now + lasts);
            reported.push((State::Closing, end, Reason::CloseFrame { by, code }));
            let (end, how) = (time(now + lasts + 1), CloseHow::CloseFrame);
            reported.push((State::Closed, end, Reason::Ended { how }));
        }
    }
    reported
}

pub(crate) fn waiting(scripts: &[Script]) -> Vec<ConnId> {
    let waiting = scripts.iter().enumerate();
    let waiting = waiting.filter(|(_, script)| script.last == Last::Waits);
    waiting.map(|(i, _)| ConnId(i as u64 + 1)).collect()
}

/// From RFC 6455 §1.2.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
