use std::{net::SocketAddr, time::Duration};

use super::*;
use crate::{
    CloseHow, Event, ListenerRules,
    facts::{ListenerId, Protocol, Role},
};

const CONN: ConnId = ConnId(1);

fn ms(at: u64) -> Ktime {
    Ktime(at * 1_000_000)
}

fn core() -> Correlator {
    let rules = vec![ListenerRules::new("web", None)];
    Correlator::new(rules, Duration::from_millis(260))
}

fn handshake_socket(at: u64, listener: u16) -> Box<HandshakeSocket> {
    Box::new(HandshakeSocket {
        at: ms(at),
        conn: CONN,
        listener: ListenerId(listener),
        role: Role::Server,
        local: SocketAddr::from(([127, 0, 0, 1], 8080)),
        peer: SocketAddr::from(([127, 0, 0, 1], 40_000)),
        established_at: None,
    })
}

fn request(at: u64) -> Event {
    Event::UpgradeRequested {
        of: handshake_socket(at, 0),
        request: Box::new(UpgradeRequest::parse(
            b"GET /chat HTTP/1.1\r\nHost: a\r\n\r\n",
        )),
    }
}

fn response(at: u64, status: u16) -> Event {
    let head = format!("HTTP/1.1 {status} Whatever\r\n\r\n");
    Event::UpgradeResponded {
        of: handshake_socket(at, 0),
        response: Box::new(UpgradeResponse::parse(head.as_bytes())),
    }
}

/// The facts of a connection older than the monitor.
fn facts(at: u64, protocol: Protocol) -> Box<Facts> {
    Box::new(Facts {
        at: ms(at),
        established_at: None,
        protocol,
        ..Facts::just_opened(CONN.0, ms(at))
    })
}

fn reported(core: &mut Correlator) -> Vec<(Option<State>, State, Reason)> {
    let actions = std::iter::from_fn(|| core.poll_action());
    actions
        .filter_map(|action| match action {
            Action::Transition(reported) => Some((reported.from, reported.to, reported.reason)),
            Action::Alert(_) | Action::Ended(_) | Action::Reconcile => None,
        })
        .collect()
}

#[test]
fn an_older_connection_that_upgrades_is_followed_through_its_dismissal() {
    let mut core = core();
    core.handle_event(Event::Seeded(facts(1, Protocol::Assumed)));
    core.handle_event(request(5));
    // The kernel dismisses the connection as HTTP at the same packet.
    core.handle_event(Event::Dismissed {
        conn: CONN,
        at: ms(5),
    });
    assert!(core.is_unanswered(CONN));
    core.handle_event(response(7, 101));
    core.handle_event(Event::Opened(facts(7, Protocol::WebSocket)));
    let (open, connecting) = (Some(State::Open), Some(State::Connecting));
    let upgraded = Reason::Upgraded { after: None };
    assert_eq!(
        reported(&mut core),
        [
            (None, State::Open, Reason::Found),
            (open, State::Connecting, Reason::Requested),
            (connecting, State::Open, upgraded),
        ]
    );
    assert_eq!(core.handshake(CONN).and_then(|h| h.path), Some("/chat"));
}

#[test]
fn a_connection_found_by_sock_diag_still_waits_for_its_response() {
    let mut core = core();
    core.handle_event(request(5));
    core.handle_event(Event::Seeded(facts(6, Protocol::Assumed)));
    assert!(core.is_unanswered(CONN));
    core.handle_timeout(ms(10_005));
    assert_eq!(core.tallies()[0].handshakes_stuck, 1);
    core.handle_event(Event::Opened(facts(20_000, Protocol::WebSocket)));
    assert_eq!(core.tallies()[0].handshakes_stuck, 0);
    let states: Vec<_> = reported(&mut core)
        .into_iter()
        .map(|reported| reported.1)
        .collect();
    assert_eq!(states, [State::Connecting, State::Open]);
}

#[test]
fn an_interim_response_is_not_an_answer() {
    let mut core = core();
    core.handle_event(request(5));
    core.handle_event(response(6, 103));
    assert!(core.is_unanswered(CONN));
    core.handle_event(response(7, 403));
    assert!(!core.is_unanswered(CONN));
}

#[test]
fn a_101_whose_opening_was_lost_is_forgotten_after_10_s() {
    let mut core = core();
    core.handle_event(request(5));
    core.handle_event(response(8, 101));
    core.handle_timeout(ms(10_007));
    assert_eq!(core.handshake(CONN).and_then(|h| h.path), Some("/chat"));
    core.handle_timeout(ms(10_008));
    assert_eq!(core.handshake(CONN), None);
    assert_eq!(core.poll_timeout(), None);
}

#[test]
fn a_connection_whose_answer_was_lost_keeps_its_request() {
    let mut core = core();
    core.handle_event(request(5));
    core.handle_event(Event::Opened(facts(8, Protocol::WebSocket)));
    assert!(!core.is_unanswered(CONN));
    core.handle_timeout(ms(10_008));
    assert_eq!(core.tallies()[0].handshakes_stuck, 0);
    assert_eq!(core.handshake(CONN).and_then(|h| h.path), Some("/chat"));
    core.handle_event(Event::Closed {
        facts: facts(20_000, Protocol::WebSocket),
        how: CloseHow::Fin,
    });
    assert_eq!(core.handshake(CONN), None);
    assert_eq!(core.interner.len(), 0, "its strings are released");
}

#[test]
fn a_dismissal_of_an_earlier_attempt_does_not_end_a_later_one() {
    let mut core = core();
    core.handle_event(request(5));
    core.handle_event(response(6, 401));
    core.handle_event(request(7));
    core.handle_event(Event::Dismissed {
        conn: CONN,
        at: ms(6),
    });
    assert!(core.is_unanswered(CONN));
    core.handle_event(Event::Dismissed {
        conn: CONN,
        at: ms(8),
    });
    assert!(!core.is_unanswered(CONN));
    let refused = Reason::Refused {
        status: Some(401),
        retry_after: None,
    };
    let connecting = Some(State::Connecting);
    assert_eq!(
        reported(&mut core),
        [
            (None, State::Connecting, Reason::Requested),
            (connecting, State::Closed, refused),
            (None, State::Connecting, Reason::Requested),
            (connecting, State::Closed, Reason::NoAnswer),
        ]
    );
}

#[test]
fn a_listener_that_is_not_configured_is_rejected() {
    let mut core = core();
    core.handle_event(Event::UpgradeRequested {
        of: handshake_socket(5, 9),
        request: Box::default(),
    });
    core.handle_event(Event::UpgradeResponded {
        of: handshake_socket(6, 9),
        response: Box::default(),
    });
    assert_eq!(core.rejected(), 2);
    assert!(reported(&mut core).is_empty());
    assert!(core.unanswered().is_empty());
}
