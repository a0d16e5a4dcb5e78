//! Pings, pongs, and messages in their place.

use crate::{
    assert_all,
    check::{check, replay},
    story::{Act::*, Step::*, *},
};

#[test]
fn heartbeats_and_what_delays_them() {
    assert_all(stories());
}

#[track_caller]
fn assert_never_confirmed(row: &Story) {
    let (reported, ..) = replay(row);
    let is_confirmed = reported.iter().any(|one| one.what.contains("confirmed"));
    assert!(
        !is_confirmed,
        "{:?}: {reported:?}",
        row.connections[0].steps
    );
}

/// The interval of the pings, seconds.
const INTERVALS: [f64; 6] = [1.0, 2.0, 5.0, 10.0, 20.0, 60.0];

#[test]
fn an_upload_excuses_its_client_at_every_rate_and_size() {
    for interval in INTERVALS {
        for (bytes, kbits) in [
            (10_000, 100),
            (600_000, 100),
            (100_000, 10),
            (1_000_000, 1_000),
            (3_000_000, 10_000),
            (5_000_000, 100_000),
            (100_000_000, 100),
            (100_000_000, 10_000),
            (100_000_000, 100_000),
        ] {
            let row = story("an upload", "socket.io#3135")
                .at(1.0, PeerUploads(bytes, kbits))
                .every(interval, 1.5..120.0, Host(Ping))
                .until(120.0);
            let wrong = check(&row);
            assert!(
                wrong.is_empty(),
                "{bytes} at {kbits} kbit/s, pings each {interval} s: {wrong:?}"
            );
        }
    }
}

/// A single ping from the first second of the queue may be suspected, as docs/limitations.md states.
#[test]
fn a_client_behind_a_download_is_never_confirmed_dead_at_any_rate_and_size() {
    for interval in INTERVALS {
        for (bytes, kbits) in [
            (10_000, 100),
            (600_000, 100),
            (100_000, 10),
            (1_000_000, 1_000),
            (5_000_000, 100_000),
        ] {
            let row = story("a download", "ws")
                .at(0.5, PathSlows(kbits))
                .at(1.0, Host(Message(bytes)))
                .every(interval, 1.5..120.0, Host(Ping))
                .until(120.0);
            assert_never_confirmed(&row);
        }
    }
}

#[test]
fn a_pause_below_the_floor_is_never_confirmed_as_death() {
    for interval in INTERVALS {
        for pause in [0.5, 1.5, 2.3, 3.7, 5.0, 8.0, 9.9] {
            for phase in [0.01, 0.3, 0.7, 0.99] {
                let from = 100.0 + phase * interval;
                let row = story("a pause", "floor")
                    .every(interval, 10.0..300.0, Host(Ping))
                    .at(from, PeerFreezes)
                    .at(from + pause, PeerWakes)
                    .until(300.0);
                assert_never_confirmed(&row);
            }
        }
    }
}

#[test]
fn a_death_behind_a_proxy_is_found_at_the_time_of_the_documented_formula() {
    for interval in INTERVALS {
        for phase in [0.1, 0.5, 0.9] {
            // The first and the second try, as in docs/alerts.md.
            let p1 = interval * 10.0;
            let p2 = p1 + interval;
            let suspected = (p2 + 1.0).min(p1 + 30.0);
            let confirmed = (p2 + 1.0).max(p1 + 10.0);
            let mut row = story("a death", "orca#1500")
                .every(interval, interval..p1 + 200.0, Host(Ping))
                .at(p1 - phase * interval, PeerFreezes)
                .until(p1 + 200.0);
            if suspected < confirmed {
                // A single try is noticed within a twentieth of the ping timeout.
                row = row.reports("unresponsive suspected", suspected..suspected + 1.51);
            }
            row = row.reports("unresponsive confirmed", confirmed..confirmed + 0.01);
            let wrong = check(&row);
            assert!(wrong.is_empty(), "pings each {interval} s: {wrong:?}");
        }
    }
}

pub(crate) fn stories() -> Vec<Story> {
    vec![
        story(
            "a client uploads 1 MB at 300 kbit/s, its pongs behind it",
            "socket.io#3135",
        )
        .live(1.0)
        .at(1.0, PeerUploads(1_000_000, 300))
        .every(1.0, 2.0..40.0, Host(Ping))
        .until(60.0),
        story(
            "a client uploads 300 kB at 50 kbit/s",
            "python-websockets#1005",
        )
        .at(1.0, PeerUploads(300_000, 50))
        .every(20.0, 2.0..100.0, Host(Ping))
        .until(100.0),
        story("a client uploads 3 MB at 1 Mbit/s", "sockjs-node#169")
            .live(1.0)
            .at(1.0, PeerUploads(3_000_000, 1000))
            .every(5.0, 2.0..60.0, Host(Ping))
            .until(60.0),
        story(
            "a client that uploads dies in the middle",
            "python-websockets#1005",
        )
        .live(1.0)
        .at(1.0, PeerUploads(300_000, 100))
        .at(10.0, PathBreaks)
        .every(5.0, 2.5..60.0, Host(Ping))
        .until(60.0)
        .reports("black_holed confirmed", 19.5..22.0),
        story("a collector pauses a client for 2.9 s", "floor")
            .live(1.0)
            .every(1.0, 1.0..30.0, Host(Ping))
            .at(2.5, PeerFreezes)
            .at(5.4, PeerWakes)
            .until(30.0)
            .reports("unresponsive suspected", 5.0..5.1)
            .reports("unresponsive recovered", 5.4..5.5),
        story(
            "a page in the background for just less than the floor",
            "floor",
        )
        .every(1.0, 1.0..30.0, Host(Ping))
        .at(2.9, PeerFreezes)
        .at(12.9, PeerWakes)
        .until(30.0)
        .reports("unresponsive suspected", 5.0..5.1)
        .reports("unresponsive recovered", 12.9..13.0),
        story(
            "a page in the background for longer than the floor",
            "floor",
        )
        .live(1.0)
        .every(1.0, 1.0..30.0, Host(Ping))
        .at(2.9, PeerFreezes)
        .at(17.9, PeerWakes)
        .until(30.0)
        .reports("unresponsive suspected", 5.0..5.1)
        .reports("unresponsive confirmed", 13.0..13.1)
        .reports("unresponsive recovered", 17.9..18.0),
        story(
            "a client dies behind a proxy, pings every 20 s",
            "orca#1500",
        )
        .live(4.0)
        .every(20.0, 20.0..120.0, Host(Ping))
        .at(50.0, PeerFreezes)
        .until(120.0)
        .reports("unresponsive confirmed", 81.0..81.1),
        story(
            "a client dies behind a proxy, pings every second",
            "multica#916",
        )
        .live(1.0)
        .every(1.0, 1.0..60.0, Host(Ping))
        .at(30.5, PeerFreezes)
        .until(60.0)
        .reports("unresponsive suspected", 33.0..33.1)
        .reports("unresponsive confirmed", 41.0..41.1),
        story(
            "a client dies behind a proxy, pings every minute",
            "ping_timeout",
        )
        .live(5.0)
        .every(60.0, 60.0..300.0, Host(Ping))
        .at(70.0, PeerFreezes)
        .until(300.0)
        .reports("unresponsive suspected", 150.0..152.0)
        .reports("unresponsive confirmed", 181.0..181.1),
        story("only one ping was ever sent", "ping_timeout")
            .live(2.0)
            .at(5.0, PeerFreezes)
            .at(10.0, Host(Ping))
            .until(100.0)
            .reports("unresponsive suspected", 40.0..42.0),
        story("a stricter ping timeout", "uvicorn ws_ping_timeout")
            .ping_timeout(20.0)
            .at(5.0, PeerFreezes)
            .at(10.0, Host(Ping))
            .until(100.0)
            .reports("unresponsive suspected", 30.0..31.5),
        story("three pings in one segment are one try", "RFC 6455 5.5.3")
            .live(1.0)
            .at(0.5, PeerFreezes)
            .at(1.0, Host(Pings(3)))
            .at(20.0, PeerWakes)
            .until(60.0),
        story("pings 0.1 s apart are one try", "RFC 6455 5.5.3")
            .live(1.0)
            .at(0.5, PeerFreezes)
            .at(1.0, Host(Ping))
            .at(1.1, Host(Ping))
            .at(1.2, Host(Ping))
            .at(20.0, PeerWakes)
            .until(60.0),
        story("one pong for several pings", "RFC 6455 5.5.3")
            .live(1.0)
            .every(1.0, 1.0..20.0, Host(Pings(2)))
            .until(30.0),
        story("a library without pongs sends messages", "sockjs-node#169")
            .live(1.0)
            .at(0.5, PeerIgnoresPings)
            .every(2.0, 1.0..60.0, Host(Ping))
            .every(1.9, 1.0..60.0, Peer(Message(20)))
            .until(60.0),
        story(
            "a proxy answers pings for a client that is gone",
            "hxa-connect#174",
        )
        .live(5.0)
        .every(20.0, 20.0..300.0, Host(Ping))
        .at(50.0, ProxyAnswersPings)
        .at(50.1, PeerFreezes)
        .until(300.0)
        .unseen("pings are answered"),
        story("only the client pings", "python-websockets")
            .every(20.0, 20.0..300.0, Peer(Ping))
            .until(300.0),
        story("unsolicited pongs as heartbeats", "RFC 6455 5.5.3")
            .every(15.0, 15.0..300.0, Peer(Pong))
            .every(30.0, 30.0..300.0, Host(Ping))
            .until(300.0),
        story("both sides ping", "uWebSockets")
            .live(4.0)
            .every(7.0, 7.0..200.0, Peer(Ping))
            .every(5.0, 5.0..200.0, Host(Ping))
            .until(200.0),
        story(
            "a client dies behind a proxy, heartbeats are messages",
            "engine.io",
        )
        .every(25.0, 25.0..300.0, Host(Message(1)))
        .every(25.0, 25.1..60.0, Peer(Message(1)))
        .at(60.0, PeerFreezes)
        .until(300.0)
        .unseen("there are no pings, and a proxy acknowledges"),
        story("the same, found by the gap between its messages", "SignalR")
            .live(5.0)
            .message_gap(30.0)
            .every(15.0, 15.0..300.0, Host(Message(11)))
            .every(15.0, 15.1..61.0, Peer(Message(11)))
            .at(61.0, PeerFreezes)
            .until(300.0)
            .reports("quiet suspected", 90.1..90.2)
            .unseen("quiet is a warning, not a death"),
        story(
            "the server beats every 3 s, the client never",
            "ActionCable",
        )
        .every(3.0, 3.0..300.0, Host(Message(40)))
        .until(300.0),
        story(
            "a ping waits behind a download of 300 kB at 200 kbit/s",
            "ws",
        )
        .at(0.5, PathSlows(200))
        .at(1.0, Host(Message(300_000)))
        .every(20.0, 2.0..60.0, Host(Ping))
        .until(70.0),
        story("pings wait behind a download of 1 MB at 200 kbit/s", "ws")
            .at(0.5, PathSlows(200))
            .at(1.0, Host(Message(1_000_000)))
            .every(1.0, 2.0..60.0, Host(Ping))
            .until(70.0),
        story("a round trip of 2.5 s, pings every second", "RFC 2488")
            .at(0.5, PathTakes(2.5))
            .every(1.0, 1.0..60.0, Host(Ping))
            .until(70.0),
        story("a round trip of 1.4 s, pings every second", "RFC 2488")
            .at(0.5, PathTakes(1.4))
            .every(1.0, 1.0..60.0, Host(Ping))
            .until(70.0),
        story(
            "a full buffer takes the round trip from 20 ms to 3 s",
            "bufferbloat",
        )
        .every(1.0, 1.0..60.0, Host(Ping))
        .at(10.5, PathTakes(3.0))
        .until(60.0),
        story(
            "a server behind a proxy dies, seen by its client",
            "socket.io-client",
        )
        .live(2.0)
        .outgoing()
        .every(10.0, 10.0..100.0, Host(Ping))
        .at(35.0, PeerFreezes)
        .until(100.0)
        .reports("unresponsive confirmed", 51.0..51.1),
    ]
}
