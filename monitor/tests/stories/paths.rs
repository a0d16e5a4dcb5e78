//! Paths that break, lose segments, reset, and recover.

use crate::{
    assert_all,
    check::check,
    story::{Act::*, Step::*, *},
};

#[test]
fn paths_that_break() {
    assert_all(stories());
}

#[test]
fn an_outage_of_five_seconds_is_never_reported() {
    for interval in [1.0, 2.0, 5.0, 20.0] {
        for outage in [0.3, 1.0, 2.0, 3.5, 5.0] {
            for phase in [0.01, 0.4, 0.8, 0.99] {
                let from = 100.0 + phase * interval;
                let row = story("an outage", "mobile")
                    .every(interval, 10.0..200.0, Host(Ping))
                    .at(from, PathBreaks)
                    .at(from + outage, PathHeals)
                    .until(200.0);
                let wrong = check(&row);
                assert!(
                    wrong.is_empty(),
                    "{outage} s, pings each {interval} s: {wrong:?}"
                );
            }
        }
    }
}

pub(crate) fn stories() -> Vec<Story> {
    vec![
        story("a cable is pulled, pings every 20 s", "ws#1014")
            .live(1.0)
            .every(20.0, 20.0..200.0, Host(Ping))
            .at(50.0, PathBreaks)
            .until(150.0)
            .reports("black_holed confirmed", 67.0..69.0),
        story(
            "a cable is pulled below a stream of messages",
            "libwebsockets#1408",
        )
        .live(1.0)
        .every(1.0, 1.0..60.0, Host(Message(100)))
        .at(10.5, PathBreaks)
        .until(60.0)
        .reports("black_holed confirmed", 18.0..20.0),
        story(
            "a cable is pulled, and TCP tries for a quarter of an hour",
            "libwebsockets#1408",
        )
        .at(10.0, PathBreaks)
        .at(20.0, Host(Ping))
        .until(1000.0)
        .reports("black_holed confirmed", 27.0..29.0),
        story("a cable is pulled and nobody writes", "ws#1014")
            .at(10.0, PathBreaks)
            .until(1000.0)
            .unseen("nothing is sent, and no hop is configured"),
        story("a tunnel of 5 s", "mobile")
            .live(1.0)
            .every(1.0, 1.0..60.0, Host(Ping))
            .at(20.5, PathBreaks)
            .at(25.5, PathHeals)
            .until(60.0),
        story("a tunnel of 13 s", "mobile")
            .live(1.0)
            .every(20.0, 20.0..200.0, Host(Ping))
            .at(59.0, PathBreaks)
            .at(72.0, PathHeals)
            .until(150.0)
            .reports("black_holed confirmed", 67.0..69.0)
            .reports("black_holed recovered", 72.5..75.0),
        story(
            "a phone changes its network and comes back from another address",
            "mobile",
        )
        .live(1.0)
        .connections([
            connection("10.0.0.2:40000", 0.0)
                .every(10.0, 10.0..60.0, Host(Ping))
                .at(21.0, PathBreaks),
            connection("10.0.7.2:40001", 22.0).every(10.0, 32.0..60.0, Host(Ping)),
        ])
        .until(60.0)
        .reports("black_holed confirmed", 37.0..39.0),
        story(
            "a NAT forgets the mapping and a new one comes",
            "RFC 5382 REQ-5",
        )
        .behind(silent(120.0))
        .connections([
            connection("10.0.0.2:40000", 0.0).at(120.0, PathBreaks),
            connection("10.0.0.2:40001", 130.0).every(50.0, 150.0..300.0, Peer(Message(9))),
        ])
        .until(300.0)
        .reports("expired suspected", 120.0..120.3),
        story(
            "a peer that was restarted answers by a RST",
            "RFC 9293 3.5.1",
        )
        .live(1.0)
        .at(30.0, PathResets)
        .at(40.0, Host(Ping))
        .until(60.0)
        .shows("rst_received"),
        story("one segment of ten is lost", "lossy")
            .at(0.5, PathLoses(10))
            .every(2.0, 1.0..200.0, Host(Ping))
            .until(210.0),
        story("one segment of three is lost", "lossy")
            .at(0.5, PathLoses(3))
            .every(5.0, 1.0..200.0, Host(Ping))
            .until(210.0),
        story("one segment of two is lost below a stream", "lossy")
            .at(0.5, PathLoses(2))
            .every(1.0, 1.0..100.0, Host(Message(500)))
            .until(110.0),
        story("keepalive probes vanish behind the limit", "calico#9372")
            .behind(silent(60.0))
            .at(30.0, PathBreaks)
            .every(10.0, 70.0..150.0, Host(KeepAlive))
            .until(150.0)
            .reports("expired suspected", 60.0..60.3)
            .reports("expired confirmed", 80.0..82.0),
        story(
            "the path to the server breaks, seen by its client",
            "socket.io-client",
        )
        .live(1.0)
        .outgoing()
        .every(20.0, 20.0..200.0, Host(Ping))
        .at(50.0, PathBreaks)
        .until(150.0)
        .reports("black_holed confirmed", 67.0..69.0),
        story("the server closes what the path has forgotten", "deploy")
            .live(10.0)
            .behind(silent(60.0))
            .at(60.0, PathBreaks)
            .at(100.0, Host(Close(1001)))
            .at(100.1, Host(Fin))
            .until(130.0)
            .reports("expired suspected", 60.0..60.3)
            .reports("expired confirmed", 101.0..102.5),
        story(
            "the server closes a connection whose path is broken",
            "deploy",
        )
        .live(1.0)
        .at(20.0, PathBreaks)
        .at(30.0, Host(Close(1001)))
        .at(30.1, Host(Fin))
        .until(60.0)
        .reports("black_holed confirmed", 37.0..39.0),
        story("the path breaks inside TLS", "wss")
            .live(1.0)
            .opening(Opening::Tls)
            .every(20.0, 20.0..200.0, Host(Ping))
            .at(50.0, PathBreaks)
            .until(150.0)
            .reports("black_holed confirmed", 67.0..69.0),
    ]
}
