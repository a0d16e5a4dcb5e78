//! Inputs that a kernel never sends.

use std::time::Duration;

use monitor_core::{
    CloseHow, ConnId, Event, Facts, Ktime, ListenerId, Trouble,
    event::HandshakeSocket,
    facts::{Close, Closing, ClosingBy, Direction, DirectionActivity, IdleGap, Protocol},
    handshake::{UpgradeRequest, UpgradeResponse},
};
use proptest::{option, prelude::*, sample::select};

use crate::socket::facts;

/// Few, so that garbage hits the same connection again.
pub(crate) const CONNS: u64 = 4;

#[derive(Clone, Debug)]
pub(crate) enum Garbage {
    Event(Event),
    Snapshot(Box<Facts>),
    Unasked(ConnId, Option<Box<Facts>>),
    Clock(Ktime),
}

pub(crate) fn garbage() -> impl Strategy<Value = Garbage> {
    let facts = any_facts().prop_map(Box::new).boxed();
    let boxed = || facts.clone();
    let conn = || (0..CONNS).prop_map(ConnId);
    let trouble = select(vec![
        Trouble::Retransmit,
        Trouble::Resumed,
        Trouble::Answered,
        Trouble::PingUnanswered,
        Trouble::WindowClosed,
        Trouble::Reset,
    ]);
    let how = select(CloseHow::ALL.to_vec());
    let event = prop_oneof![
        boxed().prop_map(Event::Opened),
        boxed().prop_map(Event::Seeded),
        boxed().prop_map(Event::Closing),
        (boxed(), how).prop_map(|(facts, how)| Event::Closed { facts, how }),
        (boxed(), trouble).prop_map(|(facts, trouble)| Event::Trouble { facts, trouble }),
        (conn(), any_time()).prop_map(|(conn, at)| Event::Dismissed { conn, at }),
        (conn(), any_time()).prop_map(|(conn, at)| Event::Gone { conn, at }),
        any_time().prop_map(|at| Event::Lost { at }),
        (handshake_socket(), heads()).prop_map(|(of, head)| Event::UpgradeRequested {
            of,
            request: Box::new(UpgradeRequest::parse(head.as_bytes())),
        }),
        (handshake_socket(), heads()).prop_map(|(of, head)| Event::UpgradeResponded {
            of,
            response: Box::new(UpgradeResponse::parse(head.as_bytes())),
        }),
    ];
    prop_oneof![
        6 => event.prop_map(Garbage::Event),
        2 => boxed().prop_map(Garbage::Snapshot),
        2 => (conn(), option::of(boxed())).prop_map(|(conn, facts)| Garbage::Unasked(conn, facts)),
        3 => any_time().prop_map(Garbage::Clock),
    ]
}

fn handshake_socket() -> impl Strategy<Value = Box<HandshakeSocket>> {
    let handshake_socket = (0..CONNS, 0u16..6, any_time());
    handshake_socket.prop_map(|(conn, listener, at)| {
        let facts = facts(ConnId(conn), ListenerId(listener), at);
        Box::new(HandshakeSocket {
            at,
            conn: facts.conn,
            listener: facts.listener,
            role: facts.role,
            local: facts.local,
            peer: facts.peer,
            established_at: facts.established_at,
        })
    })
}

fn heads() -> impl Strategy<Value = &'static str> {
    select(vec![
        "GET /chat HTTP/1.1\r\nHost: a\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\n",
        "HTTP/1.1 429 Too Many Requests\r\n\r\n",
        "nonsense",
    ])
}

fn any_time() -> impl Strategy<Value = Ktime> {
    let seconds = (0u64..60).prop_map(|s| s * 1_000_000_000);
    prop_oneof![8 => seconds, 1 => any::<u64>(), 1 => Just(u64::MAX), 1 => Just(0)].prop_map(Ktime)
}

fn any_facts() -> impl Strategy<Value = Facts> {
    let time = || option::of(any_time());
    let direction = || select(vec![Direction::Rx, Direction::Tx]);
    let activity = || {
        (time(), time(), time(), time()).prop_map(
            |(last_packet, last_payload, last_frame, last_message)| DirectionActivity {
                last_packet,
                last_payload,
                last_frame,
                last_message,
            },
        )
    };
    let gap = (any_time(), any_time(), direction()).prop_map(|(from, to, ended_by)| IdleGap {
        from,
        to,
        ended_by,
    });
    let close = (direction(), option::of(any::<u16>()))
        .prop_map(|(initiator, code)| Close { initiator, code });
    let identity = (
        0..CONNS,
        0u16..6,
        select(Protocol::ALL.to_vec()),
        any_time(),
        time(),
    );
    let tcp = (
        activity(),
        activity(),
        any::<bool>(),
        time(),
        time(),
        0u32..7,
        0u32..4,
        time(),
    );
    let pings = (
        0u32..4,
        time(),
        time(),
        option::of(any::<Duration>()),
        option::weighted(0.2, any_time()),
    );
    let rest = (
        option::of(gap),
        option::of(close),
        any::<[bool; 8]>(),
        option::of(0..5_u64),
    );
    (identity, tcp, pings, rest).prop_map(|(identity, tcp, pings, rest)| {
        let (conn, listener, protocol, at, established_at) = identity;
        let (
            rx,
            tx,
            stalled,
            unacked_since,
            ack_progress_at,
            retransmits,
            unanswered,
            unanswered_since,
        ) = tcp;
        let (last_idle_gap, close, flags, cgroup_id) = rest;
        let closing = close.map(|close| Closing {
            at,
            by: if flags[7] {
                ClosingBy::Fin(close.initiator)
            } else {
                ClosingBy::CloseFrame(close)
            },
        });
        Facts {
            protocol,
            cgroup_id,
            established_at,
            rx,
            tx,
            unacked_bytes: if stalled { 100 } else { 0 },
            unacked_since,
            ack_progress_at,
            retransmits,
            unanswered_transmissions: unanswered,
            unanswered_since,
            pings_unanswered: pings.0,
            first_try: pings.1,
            second_try: pings.2,
            ping_rtt: pings.3,
            own_window_closed_at: pings.4,
            last_idle_gap,
            close: close.filter(|_| flags[0]),
            opened_at: established_at.filter(|_| flags[7]),
            closing: closing.filter(|_| flags[0]),
            // Most flows are open.
            fin_rx: flags[1] && flags[2] && flags[3],
            fin_tx: flags[1] && flags[2] && flags[4],
            rst_rx: flags[1] && flags[2] && flags[5],
            rst_tx: flags[1] && flags[2] && flags[6],
            ..facts(ConnId(conn), ListenerId(listener), at)
        }
    })
}
