//! Pings and what answers them.

use super::{
    ws::{Frame, Stream},
    *,
};

#[test]
fn the_times_between_pings_are_counted_by_the_side_that_pings() {
    let ping = |masked| Stream::new(b"", &[Frame::new(true, ws::PING, 4)], masked).bytes;
    let (from_peer, from_here) = (ping(true), ping(false));
    let mut socket = Socket::upgraded();
    socket.tx(segment(5000, 1000), &from_here);
    let mut seq = 1000;
    for nanos in [0, 30 * SECOND, 30 * SECOND, SECOND / 2] {
        socket.wait(nanos).rx(segment(seq, 5006), &from_peer);
        seq += from_peer.len() as u32;
    }
    let counted = socket.stats.ping_intervals.map(|slots| filled(&slots));
    let thirty = gap_scale::slot_of(30 * SECOND);
    assert_eq!(counted, [vec![(0, 1), (thirty, 2)], vec![]]);
    let s = &socket.connection.flow.snapshot;
    assert!(s.rx.ping_interval > 0 && s.rx.ping_jitter > 0);
    assert_eq!((s.tx.ping_interval, s.tx.ping_jitter), (0, 0), "one ping");
}

#[test]
fn pings_without_pong_are_told_at_the_second_and_the_pong_answers_them_all() {
    let ping = Stream::new(b"", &[Frame::new(true, ws::PING, 4)], false).bytes;
    let pong = Stream::new(b"", &[Frame::new(true, ws::PONG, 4)], true).bytes;
    let mut socket = Socket::upgraded();
    let first_at = socket.wait(SECOND).now;
    let first = socket.tx(segment(5000, 1000), &ping);
    assert_eq!(first & notable::EVENTS, 0);
    let second = socket.wait(SECOND).tx(segment(5006, 1000), &ping);
    assert_eq!(second & notable::EVENTS, notable::PING_UNANSWERED);
    let sent_at = socket.now;
    let s = &socket.connection.flow.snapshot;
    assert_eq!(
        (
            s.tx.pings_unanswered(),
            s.tx.first_unanswered_ping,
            s.tx.last_ping
        ),
        (2, first_at, sent_at)
    );

    let answer = socket.wait(SECOND / 2).rx(segment(1000, 5012), &pong);
    assert_eq!(answer & notable::EVENTS, notable::ANSWERED);
    let s = &socket.connection.flow.snapshot;
    assert_eq!((s.tx.pings_unanswered(), s.ping_rtt_us[1]), (0, 500_000));
    let unsolicited = socket.rx(segment(1010, 5012), &pong);
    assert_eq!(unsolicited & notable::EVENTS, 0);
    assert_eq!(socket.stats.ping_rtt[1].sum.get(), SECOND / 2);
}
