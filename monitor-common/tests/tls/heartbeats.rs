//! Heartbeats inferred from records: the servers that were recorded, what looks like a heartbeat and is
//! none, losses, and clients that stop.

use monitor_common::snapshot::protocol;
use proptest::{prelude::*, sample::select};

use crate::{
    servers::{BROWSER, Client, SERVERS, Server},
    traffic::{Chatter, MILLI, SECOND, Scenario},
};

/// A connection on which a ping every 25 s is the only traffic.
const QUIET: Scenario = Scenario {
    server: SERVERS[0].0,
    client: BROWSER,
    chatter: Chatter::Nothing,
    ping_period: 25 * SECOND,
    round_trip: 30 * MILLI,
    loss: 0,
    stops_at: u64::MAX,
    ends_at: 600 * SECOND,
    seed: 1,
};

#[test]
fn the_heartbeat_of_every_server_is_learned_after_five_pings() {
    for (server, ping, pong) in SERVERS {
        let name = server.name;
        let overhead = server.overhead;
        let ping_len = 2 + server.ping + overhead + server.padding;
        assert_eq!(ping_len, usize::from(ping), "{name}");
        assert_eq!(6 + server.ping + overhead, usize::from(pong), "{name}");
        let outcome = Scenario { server, ..QUIET }.run();
        let s = outcome.last;
        let version = s.tls().and_then(|tls| tls.version());
        assert_eq!(version, Some(if server.is_1_3 { 4 } else { 3 }), "{name}");
        let learned = outcome.learned_at.unwrap_or_default() / SECOND;
        assert!((145..155).contains(&learned), "{name}: {learned} s");
        assert_eq!(s.tx.pings_unanswered(), 0, "{name}");
        let interval = u64::from(s.tx.ping_interval) << 24;
        let stray = interval.abs_diff(25 * SECOND);
        assert!(stray < SECOND / 10, "{name}: {interval}");
        assert!((30_000..35_000).contains(&s.ping_rtt_us[1]), "{name}");
        assert_eq!(outcome.accused_at, None, "{name}");
    }
}

#[test]
fn the_pings_of_a_client_are_learned_and_never_make_it_unresponsive() {
    for (server, ..) in SERVERS {
        let client = Client {
            pings: true,
            ..BROWSER
        };
        let outcome = Scenario {
            server,
            client,
            stops_at: 400 * SECOND,
            ..QUIET
        }
        .run();
        let s = outcome.last;
        assert!(s.rx.pings > 5, "{}: {}", server.name, s.rx.pings);
        assert_eq!(
            (s.rx.pings_unanswered(), s.tx.pings),
            (0, 0),
            "{}",
            server.name
        );
        assert_eq!(outcome.accused_at, None, "{}", server.name);
    }
}

/// Finished is the client's only message, or follows a certificate and its signature, or the end of early data.
#[test]
fn a_client_whose_library_pads_is_calibrated_too() {
    const FLIGHTS: [(&[usize], &[usize]); 3] =
        [(&[], &[]), (&[900, 281], &[]), (&[21], &[400, 53])];
    for (server, ..) in SERVERS.into_iter().filter(|(server, ..)| server.is_1_3) {
        for (flight, early_data) in FLIGHTS {
            for padding in [0, 16] {
                let client = Client {
                    padding,
                    flight,
                    early_data,
                    ..BROWSER
                };
                let outcome = Scenario {
                    server,
                    client,
                    ..QUIET
                }
                .run();
                let context = format!("{}: {client:?}", server.name);
                assert!(outcome.last.tx.pings > 5, "{context}");
            }
        }
    }
}

#[test]
fn a_connection_older_than_the_monitor_is_learned_unless_a_side_pads() {
    let client = Client {
        is_older: true,
        ..BROWSER
    };
    for (server, ..) in SERVERS {
        let outcome = Scenario {
            server,
            client,
            ..QUIET
        }
        .run();
        let s = outcome.last;
        assert_eq!(s.protocol, protocol::OPAQUE, "{}", server.name);
        assert_eq!(s.tls().and_then(|tls| tls.version()), None);
        assert_eq!(s.tx.pings > 5, server.padding == 0, "{}", server.name);
    }
}

#[test]
fn nothing_is_inferred_if_http_2_was_offered_or_sizes_are_rounded() {
    let h2 = Client {
        protocols: &["h2", "http/1.1"],
        ..BROWSER
    };
    let offered = Scenario {
        client: h2,
        ..QUIET
    }
    .run();
    assert!(offered.last.tls().is_some_and(|tls| tls.may_be_h2()));
    let server = Server {
        is_1_3: false,
        suite: 0xc028,
        overhead: 0,
        ..QUIET.server
    };
    let rounded = Scenario { server, ..QUIET }.run();
    assert!(rounded.last.tls().is_some_and(|tls| tls.has_block_cipher()));
    for outcome in [offered, rounded] {
        assert!(outcome.last.tls().is_some_and(|tls| tls.is_refused()));
        assert_eq!(outcome.learned_at, None);
    }
}

#[test]
fn pings_that_cease_are_not_expected_for_ever() {
    // The client stops answering, and others write to it: the server's pings end with the connection.
    let server = SERVERS[3].0;
    let outcome = Scenario {
        server,
        chatter: Chatter::Ticks,
        stops_at: 300 * SECOND,
        ..QUIET
    }
    .run();
    assert_eq!(outcome.last.tx.pings_unanswered(), 4);
}

/// Connections of all servers with all kinds of traffic, at round trips of 5 to 400 ms and losses of none to
/// 5 %.
fn scenarios(ping_period: u64) -> impl Iterator<Item = Scenario> {
    SERVERS.into_iter().flat_map(move |(server, ..)| {
        Chatter::ALL.into_iter().flat_map(move |chatter| {
            [5, 50, 150, 400].into_iter().flat_map(move |round_trip| {
                [0, 10, 50].map(move |loss| Scenario {
                    server,
                    chatter,
                    ping_period,
                    round_trip: round_trip * MILLI,
                    loss,
                    ends_at: 40 * ping_period,
                    seed: server.name.len() as u64 * 7919 + round_trip * 31 + loss,
                    ..QUIET
                })
            })
        })
    })
}

#[test]
fn the_living_are_not_accused_and_the_dead_are_found_within_three_pings() {
    for ping_period in [2 * SECOND, 25 * SECOND] {
        let (mut dead, mut found) = (0, 0);
        for scenario in scenarios(ping_period) {
            let living = scenario.run();
            assert_eq!(living.accused_at, None, "{scenario:?}");
            let scenario = Scenario {
                stops_at: 25 * ping_period,
                ..scenario
            };
            let outcome = scenario.run();
            let in_time = scenario.stops_at..scenario.stops_at + 3 * ping_period + 3 * SECOND;
            dead += 1;
            found += u32::from(outcome.accused_at.is_some_and(|at| in_time.contains(&at)));
        }
        assert!(found * 100 >= dead * 98, "{found} of {dead}");
    }
}

#[test]
fn without_pings_nothing_is_learned() {
    for scenario in scenarios(25 * SECOND) {
        let outcome = Scenario {
            ping_period: 0,
            ..scenario
        }
        .run();
        // The client's text may happen to come like a pong.
        if scenario.chatter != Chatter::TwoTimers {
            assert_eq!(outcome.learned_at, None, "{scenario:?}");
        }
    }
}

/// The client's timer fires less than a second after the server's, and later once a minute.
#[test]
fn timers_of_both_sides_are_rarely_taken_for_a_heartbeat_and_never_make_a_client_unresponsive() {
    let (mut all, mut learned) = (0, 0);
    for interval in [4, 10, 15, 25] {
        for (round_trip, loss, ack_delay) in [
            (5, 0, 0),
            (5, 50, 40),
            (50, 10, 40),
            (150, 50, 0),
            (400, 0, 40),
            (400, 50, 40),
        ] {
            for seed in 1..=200 {
                let scenario = Scenario {
                    server: SERVERS[seed as usize % SERVERS.len()].0,
                    client: Client {
                        ack_delay: ack_delay * MILLI,
                        ..BROWSER
                    },
                    chatter: Chatter::TwoTimers,
                    ping_period: 0,
                    round_trip: round_trip * MILLI,
                    loss,
                    ends_at: 40 * interval * SECOND,
                    seed: seed * 7919 + interval * 31 + round_trip,
                    ..QUIET
                };
                let outcome = scenario.run();
                assert_eq!(outcome.accused_at, None, "{scenario:?}");
                all += 1;
                learned += u32::from(outcome.learned_at.is_some());
            }
        }
    }
    assert!(learned * 5 < all, "{learned} of {all}");
}

#[test]
fn a_ping_every_twenty_minutes_is_enough_for_a_verdict() {
    let ping_period = 20 * 60 * SECOND;
    let scenario = Scenario {
        ping_period,
        ends_at: 30 * ping_period,
        ..QUIET
    };
    assert_eq!(scenario.run().accused_at, None);
    let scenario = Scenario {
        stops_at: 20 * ping_period,
        ..scenario
    };
    let accused_at = scenario.run().accused_at.expect("dead");
    let passed = accused_at - scenario.stops_at;
    assert!(passed < 3 * ping_period, "{} s", passed / SECOND);
}

proptest! {
    #[test]
    fn no_living_client_is_accused(
        server in select(&SERVERS[..]),
        chatter in select(&Chatter::ALL[..]),
        ping_period in SECOND..60 * SECOND,
        round_trip in 5 * MILLI..400 * MILLI,
        loss in 0..60_u64,
        client_pings in any::<bool>(),
        is_older in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let client = Client { pings: client_pings, is_older, ..BROWSER };
        let scenario = Scenario {
            server: server.0,
            client,
            chatter,
            ping_period,
            round_trip,
            loss,
            stops_at: u64::MAX,
            ends_at: 30 * ping_period,
            seed,
        };
        prop_assert_eq!(scenario.run().accused_at, None);
    }
}
