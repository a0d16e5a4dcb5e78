//! Connections of Multipath TCP (RFC 8684). A recording has their first subflow only.

use crate::{
    assert_all,
    check::replay,
    story::{Act::*, Step::*, *},
};

#[test]
fn subflows() {
    assert_all(stories());
}

#[test]
fn the_reason_explains_why_a_subflow_is_only_suspected() {
    for story in stories() {
        let (reported, ..) = replay(&story);
        let reasons: Vec<_> = reported.iter().map(|one| one.reason()).collect();
        assert!(reasons[0].contains("of an MPTCP connection"), "{reasons:?}");
    }
}

pub(crate) fn stories() -> Vec<Story> {
    vec![
        story(
            "a phone leaves its Wi-Fi and goes on by another subflow, behind a load balancer",
            "RFC 8684 §2.2",
        )
        .over_mptcp()
        .behind(silent(60.0))
        .every(20.0, 10.0..60.0, Peer(Message(100)))
        .at(55.0, PathBreaks)
        .until(1000.0)
        .reports("expired suspected", 110.0..110.1),
        story(
            "the first subflow dies while the server sends, and a second one lives",
            "RFC 8684 §3.3.6",
        )
        .over_mptcp()
        .every(5.0, 10.0..100.0, Host(Message(100)))
        .at(50.0, PathBreaks)
        .until(1000.0)
        .reports("black_holed suspected", 57.8..57.9),
        story(
            "pings leave by the first subflow, and their pongs come by a second",
            "RFC 8684 §3.3",
        )
        .over_mptcp()
        .at(30.0, PeerIgnoresPings)
        .every(20.0, 10.0..200.0, Host(Ping))
        .until(300.0)
        .reports("unresponsive suspected", 51.0..51.1),
        story(
            "the peer closes the first subflow, and goes on by another",
            "RFC 8684 §3.3.3",
        )
        .over_mptcp()
        .at(20.0, Peer(Fin))
        .until(200.0)
        .reports("half_closed suspected", 80.0..80.1),
        story("a server over MPTCP does not read", "own window")
            .over_mptcp()
            .at(1.0, HostStopsReading)
            .at(2.0, Peer(Message(100)))
            .every(2.0, 3.0..41.0, Peer(KeepAlive))
            .at(41.0, HostReads)
            .until(80.0)
            .reports("stalled suspected", 12.0..12.1)
            .reports("stalled recovered", 41.0..41.1),
    ]
}
