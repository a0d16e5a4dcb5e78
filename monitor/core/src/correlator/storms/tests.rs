use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use super::*;
use crate::{
    Action, Event, ListenerRules, Subject,
    event::{CloseHow, ListeningSocket},
    facts::{Closing, ClosingBy, ConnId, Direction, Protocol},
    handshake::UpgradeResponse,
    storm::{StormPhase, Usual},
};

/// Milliseconds since boot.
fn ms(at: u64) -> Ktime {
    Ktime(at * 1_000_000)
}

fn core(forwarded: bool) -> Correlator {
    let rules = vec![ListenerRules::new("web", None)];
    Correlator::new(rules, Duration::ZERO).with_storms(&StormSetup {
        forwarded,
        ..StormSetup::default()
    })
}

/// Each client has one connection, with the same number.
fn peer(conn: u64) -> SocketAddr {
    let [.., high, low] = conn.to_be_bytes();
    ([10, 0, high, low], 40_000).into()
}

fn handshake_socket(conn: u64, at: u64) -> Box<HandshakeSocket> {
    Box::new(HandshakeSocket {
        at: ms(at),
        conn: ConnId(conn),
        listener: ListenerId(0),
        role: Role::Server,
        local: ([10, 1, 0, 1], 80).into(),
        peer: peer(conn),
        established_at: Some(ms(at)),
    })
}

fn request(conn: u64, at: u64) -> Event {
    let head = b"GET / HTTP/1.1\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n";
    Event::UpgradeRequested {
        of: handshake_socket(conn, at),
        request: Box::new(UpgradeRequest::parse(head)),
    }
}

fn response(conn: u64, at: u64, status: u16) -> Event {
    let response = UpgradeResponse {
        status: Some(status),
        ..UpgradeResponse::default()
    };
    Event::UpgradeResponded {
        of: handshake_socket(conn, at),
        response: Box::new(response),
    }
}

fn facts(conn: u64, at: u64) -> Facts {
    Facts {
        local: ([10, 1, 0, 1], 80).into(),
        peer: peer(conn),
        opened_at: Some(ms(at)),
        ..Facts::just_opened(conn, ms(at))
    }
}

fn opened(conn: u64, at: u64) -> Event {
    Event::Opened(Box::new(facts(conn, at)))
}

fn closed(conn: u64, at: u64) -> Event {
    Event::Closed {
        facts: Box::new(Facts {
            at: ms(at),
            ..facts(conn, at)
        }),
        how: CloseHow::RstReceived,
    }
}

/// Attempts, accepted and refused ones, by client.
fn counts(core: &Correlator) -> BTreeMap<IpAddr, [u64; 3]> {
    let (_, rows) = core.clients().next().expect("a listener");
    let count = |row: ClientRow| (row.client, [row.attempts, row.accepted, row.refused]);
    rows.into_iter().map(count).collect()
}

#[test]
fn an_attempt_counts_once_whichever_of_its_records_is_lost() {
    let all = [
        request(1, 1),
        response(1, 2, 101),
        opened(1, 2),
        closed(1, 9),
    ];
    for lost in 0..8 {
        let mut core = core(false);
        for (index, event) in all.iter().enumerate() {
            if index == 3 || lost & (1 << index) == 0 {
                core.handle_event(event.clone());
            }
        }
        let expected = match lost {
            // A close alone doesn't count as an attempt.
            7 => BTreeMap::new(),
            _ => [(peer(1).ip(), [1, 1, 0])].into(),
        };
        assert_eq!(counts(&core), expected, "{lost:03b}");
    }
}

#[test]
fn a_refused_and_an_unanswered_attempt_count_as_failures_of_their_client() {
    let mut core = core(false);
    core.handle_event(request(1, 1));
    core.handle_event(response(1, 2, 103));
    core.handle_event(response(1, 2, 503));
    // On the same connection.
    core.handle_event(request(1, 3));
    core.handle_event(response(1, 4, 429));
    core.handle_event(Event::Dismissed {
        conn: ConnId(1),
        at: ms(5),
    });
    core.handle_event(response(2, 5, 503));
    core.handle_event(request(3, 6));
    core.handle_event(Event::Dismissed {
        conn: ConnId(3),
        at: ms(7),
    });
    let expected = [(1, [2, 0, 2]), (2, [1, 0, 1]), (3, [1, 0, 1])];
    let expected = expected.map(|(conn, counts)| (peer(conn).ip(), counts));
    assert_eq!(counts(&core), expected.into());
}

#[test]
fn tls_counts_when_it_begins_unless_it_is_older_than_the_monitor() {
    let mut core = core(false);
    let tls = Facts {
        protocol: Protocol::Opaque,
        ..facts(1, 1)
    };
    core.handle_event(Event::Opened(Box::new(tls)));
    let older = Facts {
        established_at: None,
        ..facts(2, 1)
    };
    let assumed = Facts {
        protocol: Protocol::Assumed,
        ..older.clone()
    };
    core.handle_event(Event::Seeded(Box::new(assumed)));
    core.handle_event(Event::Opened(Box::new(older)));
    assert_eq!(counts(&core), [(peer(1).ip(), [1, 1, 0])].into());
}

#[test]
fn a_forwarded_address_is_the_client_only_if_it_is_trusted() {
    let all = || [request(1, 1), response(1, 2, 101), opened(1, 2)];
    let client = |forwarded| {
        let mut core = core(forwarded);
        all().into_iter().for_each(|event| core.handle_event(event));
        let counted: Vec<_> = counts(&core).into_keys().collect();
        assert_eq!(counted, [core.client_of(&facts(1, 2))]);
        counted[0].to_string()
    };
    assert_eq!(client(true), "192.0.2.7");
    assert_eq!(client(false), peer(1).ip().to_string());
}

#[test]
fn this_host_is_the_client_of_its_outgoing_connections() {
    let outgoing = Facts {
        role: Role::Client,
        ..facts(1, 1)
    };
    let core = core(true);
    assert_eq!(core.client_of(&outgoing), outgoing.local.ip());
}

#[test]
fn open_connections_of_an_address_include_those_older_than_the_monitor() {
    // All through one proxy: connections found by sock_diag at the start, and five short ones.
    let of_proxy = |facts: Facts| Facts {
        peer: ([10, 9, 9, 9], facts.conn.0 as u16).into(),
        ..facts
    };
    for older in [0, 4, 5, 115] {
        let mut core = core(false);
        for conn in 0..older {
            let mut facts = of_proxy(facts(conn, 1));
            (facts.established_at, facts.opened_at) = (None, None);
            facts.protocol = Protocol::Assumed;
            core.handle_event(Event::Seeded(Box::new(facts)));
        }
        for n in 0..5 {
            let facts = of_proxy(facts(1_000 + n, 10_000 + n * 5_000));
            core.handle_event(Event::Opened(Box::new(facts.clone())));
            core.handle_event(Event::Closed {
                facts: Box::new(Facts {
                    at: facts.at + Duration::from_secs(1),
                    ..facts
                }),
                how: CloseHow::Fin,
            });
        }
        let (_, rows) = core.clients().next().expect("a listener");
        assert_eq!((rows[0].open, rows[0].attempts), (older, 5));
        assert_eq!(core.standing_storms().count() > 0, older < 5, "{older}");
        for conn in 0..older {
            core.handle_event(Event::Gone {
                conn: ConnId(conn),
                at: ms(60_000),
            });
        }
        let (_, rows) = core.clients().next().expect("a listener");
        assert_eq!(rows[0].open, 0);
    }
}

#[test]
fn a_connection_belongs_to_its_forwarded_client_even_if_the_request_record_is_late() {
    let proxy = peer(1).ip().to_string();
    let named = || [("192.0.2.7".to_owned(), 1)].into();
    // If the opening is handled before the request, the attempt counts for the proxy.
    let orders = [
        ([request(1, 1), response(1, 2, 101), opened(1, 2)], named()),
        (
            [response(1, 2, 101), opened(1, 2), request(1, 1)],
            [(proxy.clone(), 0)].into(),
        ),
        (
            [opened(1, 2), request(1, 1), response(1, 2, 101)],
            [(proxy, 0)].into(),
        ),
    ];
    for (order, expected) in orders {
        let mut core = core(true);
        order.into_iter().for_each(|event| core.handle_event(event));
        let (_, rows) = core.clients().next().expect("a listener");
        let open = |row: &ClientRow| (row.client.to_string(), row.open);
        let all: BTreeMap<_, _> = rows.iter().map(open).collect();
        assert_eq!(all, expected);
        core.handle_event(closed(1, 9));
        let (_, rows) = core.clients().next().expect("a listener");
        assert!(rows.iter().all(|row| row.open == 0));
    }
}

#[test]
fn a_closing_connection_is_no_longer_open_and_leaves_once() {
    let mut core = core(false);
    core.handle_event(opened(1, 1));
    let open = |core: &Correlator| core.clients().next().expect("a listener").1[0].open;
    assert_eq!(open(&core), 1);
    let by = ClosingBy::Fin(Direction::Rx);
    let closing = Facts {
        closing: Some(Closing { at: ms(3), by }),
        ..facts(1, 3)
    };
    core.handle_event(Event::Closing(Box::new(closing)));
    assert_eq!(open(&core), 0);
    core.handle_event(closed(1, 9));
    assert_eq!(open(&core), 0);
}

/// A server exits with 40 connections, which end in a FIN or a RST.
fn killed(core: &mut Correlator) -> Vec<Alert> {
    for conn in 0..40 {
        core.handle_event(opened(conn, conn));
    }
    let listens = |at, begins| Event::Listening {
        at: ms(at),
        socket: ListeningSocket {
            conn: ConnId(1_000),
            listener: ListenerId(0),
            netns: 1,
            port: 80,
        },
        begins,
    };
    core.handle_event(listens(0, true));
    core.handle_event(listens(10_000, false));
    for conn in 0..40 {
        let mut facts = facts(conn, conn);
        facts.at = ms(10_001);
        let by = ClosingBy::Fin(Direction::Tx);
        facts.closing = (conn % 2 == 0).then_some(Closing { at: ms(10_001), by });
        let facts = Box::new(facts);
        if facts.closing.is_some() {
            core.handle_event(Event::Closing(facts.clone()));
        }
        let how = CloseHow::RstSent;
        core.handle_event(Event::Closed { facts, how });
    }
    core.handle_timeout(ms(12_000));
    let actions = std::iter::from_fn(|| core.poll_action());
    let storms = actions.filter_map(|action| match action {
        Action::Alert(alert) => Some(alert),
        _ => None,
    });
    storms.collect()
}

#[test]
fn a_mass_close_counts_each_connection_once_and_names_the_restart_of_the_server() {
    let mut core = core(false);
    let reported = killed(&mut core);
    let Subject::Storm(last) = &reported.last().expect("a report").subject else {
        panic!("{reported:?}");
    };
    assert_eq!((last.phase, last.closes), (StormPhase::MassClose, 40));
    assert_eq!(
        last.cause.map(|cause| cause.as_str()),
        Some("server_restart")
    );
    let standing: Vec<_> = core.standing_storms().cloned().collect();
    assert_eq!(standing.as_slice(), &reported[reported.len() - 1..]);
    assert!(core.storm_phases().eq([Some(StormPhase::MassClose)]));
    assert!(core.poll_timeout().is_some(), "a deadline is pending");

    // New rules don't end the storm.
    core.handle_rules(vec![ListenerRules::new("web", None)]);
    assert_eq!(core.standing_storms().count(), 1);
    while let Some(at) = core.poll_timeout() {
        core.handle_timeout(at);
    }
    assert_eq!(core.standing_storms().count(), 0);
    assert!(core.storm_phases().eq([None]));
    let last = std::iter::from_fn(|| core.poll_action()).last();
    assert!(matches!(last, Some(Action::Alert(over)) if !over.is_firing()));
}

#[test]
fn a_storm_of_clients_that_first_came_a_moment_ago_is_reported() {
    let mut core = core(false);
    for conn in 0..2_000 {
        core.handle_event(opened(conn, conn));
    }
    for conn in 0..2_000 {
        core.handle_event(closed(conn, 3_000));
    }
    for conn in 0..2_000 {
        core.handle_event(request(10_000 + conn, 5_000 + conn / 10));
        core.handle_event(response(10_000 + conn, 5_000 + conn / 10, 503));
    }
    let storm = std::iter::from_fn(|| core.poll_action()).find_map(|action| match action {
        Action::Alert(alert) => match alert.subject {
            Subject::Storm(storm) if storm.phase == StormPhase::Storm => Some((alert.at, storm)),
            _ => None,
        },
        _ => None,
    });
    let (at, storm) = storm.expect("a storm at once");
    assert!(at <= ms(5_200), "{at}: {storm:?}");
    assert_eq!(storm.baseline_rate, 0.0, "no baseline is known yet");
}

#[test]
fn a_listener_continues_from_the_baseline_of_its_name() {
    let usual = Usual {
        fast: 3.0,
        slow: 3.0,
        variance: 3.0,
    };
    let learned = Baseline {
        arrivals: usual,
        closes: usual,
        seconds: 1_000,
    };
    let rules = ["web", "other"].map(|name| ListenerRules::new(name, None));
    let core = Correlator::new(rules.into(), Duration::ZERO).with_storms(&StormSetup {
        baselines: [("web".to_owned(), learned)].into(),
        ..StormSetup::default()
    });
    let baselines: BTreeMap<_, _> = core.baselines().collect();
    assert_eq!(baselines["web"], learned);
    assert_eq!(baselines["other"], Baseline::default());
}
