//! Ends that do not read, on either side.

use crate::{
    assert_all,
    story::{Act::*, Step::*, *},
};

#[test]
fn slow_and_stuck_readers() {
    assert_all(stories());
}

pub(crate) fn stories() -> Vec<Story> {
    vec![
        story(
            "a server's loop is stuck, and its client isn't blamed",
            "own window",
        )
        .live(1.0)
        .at(1.0, HostStopsReading)
        .at(2.0, Peer(Message(20_000)))
        .every(2.0, 3.0..27.0, Host(Ping))
        .at(27.0, HostReads)
        .until(80.0)
        .reports("stalled suspected", 12.0..12.1)
        .reports("stalled recovered", 27.0..27.1),
        story("a server is stuck for 8 s now and then", "own window")
            .live(1.0)
            .every(20.0, 1.0..100.0, HostStopsReading)
            .every(20.0, 2.0..100.0, Peer(Message(100)))
            .every(1.0, 3.0..100.0, Host(Ping))
            .every(20.0, 9.9..100.0, HostReads)
            .until(110.0),
        story(
            "a client doesn't read, and answers every probe of its window",
            "zero window",
        )
        .live(1.0)
        .at(1.0, Host(Message(1000)))
        .at(10.5, PeerStopsReading)
        .at(11.0, Host(Message(20_000)))
        .every(1.0, 12.0..70.0, Host(Message(1000)))
        .until(80.0)
        .reports("backlogged suspected", 41.0..41.1),
        story(
            "a client doesn't read for a minute, then does",
            "zero window",
        )
        .every(1.0, 1.0..100.0, Host(Message(1000)))
        .at(10.5, PeerStopsReading)
        .at(70.5, PeerReads)
        .until(200.0)
        .reports("backlogged suspected", 41.0..41.1)
        .reports("backlogged recovered", 70.5..70.6),
        story(
            "a client is slow: its window opens every 28 s, for one message",
            "zero window",
        )
        .every(1.0, 1.0..190.0, Host(Message(1000)))
        .every(28.0, 10.5..190.0, PeerStopsReading)
        .every(28.0, 38.4..190.0, PeerReads)
        .until(200.0),
        story(
            "a client doesn't read, and pings wait on this host",
            "zero window",
        )
        .every(20.0, 20.0..200.0, Host(Ping))
        .at(10.5, PeerStopsReading)
        .at(11.0, Host(Message(1000)))
        .until(200.0)
        .reports("backlogged suspected", 41.0..41.1),
        story("a client dies whose window was closed", "zero window")
            .behind(silent(60.0))
            .at(10.5, PeerStopsReading)
            .every(1.0, 11.0..30.0, Host(Message(1000)))
            .at(40.0, PathBreaks)
            .until(300.0)
            .reports("backlogged suspected", 41.0..41.1)
            .reports("backlogged superseded", 100.0..240.0)
            .reports("expired confirmed", 100.0..240.0),
    ]
}
