//! Pings and their answers.

use super::{
    ws::{Frame, Stream},
    *,
};

#[test]
fn ping_intervals_are_counted_by_the_side_that_pings() {
    let ping = |masked| Stream::new(b"", &[Frame::new(true, wire::PING, 4)], masked).bytes;
    let (from_peer, from_here) = (ping(true), ping(false));
    let mut socket = Socket::upgraded();
    socket.tx(segment(5000, 1000), &from_here);
    let mut seq = 1000;
    for nanos in [0, 30 * SECOND, 30 * SECOND, SECOND / 2] {
        socket.wait(nanos).rx(segment(seq, 5006), &from_peer);
        seq += from_peer.len() as u32;
    }
    let counted = socket.stats.ping_intervals.map(|slots| filled(&slots));
    let thirty = idle_gap_scale::slot_of(30 * SECOND);
    assert_eq!(counted, [vec![(0, 1), (thirty, 2)], vec![]]);
    let s = &socket.connection.flow.snapshot;
    assert!(s.rx.ping_interval > 0 && s.rx.ping_jitter > 0);
    assert_eq!((s.tx.ping_interval, s.tx.ping_jitter), (0, 0), "one ping");
}

#[test]
fn the_first_and_second_unanswered_ping_are_reported_and_a_pong_answers_all() {
    let ping = Stream::new(b"", &[Frame::new(true, wire::PING, 4)], false).bytes;
    let pong = Stream::new(b"", &[Frame::new(true, wire::PONG, 4)], true).bytes;
    let mut socket = Socket::upgraded();
    let first_at = socket.wait(SECOND).now;
    let first = socket.tx(segment(5000, 1000), &ping);
    assert_eq!(first & notable::EVENTS, notable::PING_UNANSWERED);
    socket.rx(segment(1000, 5006), b"");
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

/// The socket sends a ping at `seq`. The peer has acknowledged everything before it.
fn ping_at(socket: &mut Socket, seq: u32) -> u32 {
    socket.rx(segment(1000, seq), b"");
    let ping = Stream::new(b"", &[Frame::new(true, wire::PING, 4)], false).bytes;
    socket.tx(segment(seq, 1000), &ping)
}

/// The number of tries so far, and when the first left.
fn tries(socket: &Socket) -> (usize, u64) {
    let s = &socket.connection.flow.snapshot;
    let first = s.first_try.nanos(socket.now);
    let tries = [first, s.second_try(first)];
    (tries.into_iter().filter(|&at| at != 0).count(), first)
}

#[test]
fn pings_sent_together_are_one_try() {
    let pings = Stream::new(b"", &[Frame::new(true, wire::PING, 4); 3], false).bytes;
    let mut socket = Socket::upgraded();
    let first = rounded(socket.wait(SECOND).now);
    socket.tx(segment(5000, 1000), &pings);
    socket.now = first;
    for (n, apart) in [(0, TRY_APART / 2), (1, TRY_APART / 2 - 1)] {
        socket.wait(apart);
        assert_eq!(ping_at(&mut socket, 5018 + 6 * n) & notable::EVENTS, 0);
        assert_eq!(tries(&socket), (1, first));
    }
    socket.wait(1);
    let notes = ping_at(&mut socket, 5030);
    assert_eq!(notes & notable::EVENTS, notable::PING_UNANSWERED);
    assert_eq!(tries(&socket), (2, first));
    let second = socket.connection.flow.snapshot.second_try_after;
    let later = ping_at(socket.wait(SECOND), 5036);
    assert_eq!(later & notable::EVENTS, 0, "already reported");
    assert_eq!(socket.connection.flow.snapshot.second_try_after, second);
}

#[test]
fn only_new_payload_excuses_a_peer() {
    for (what, at, payload, excuses) in [
        ("an acknowledgement", 1_200, &b""[..], false),
        ("data again", 1_000, &[FILL; 200][..], false),
        ("the end of the data again", 1_100, &[FILL; 100], false),
        ("a keepalive probe with a byte", 1_199, &[FILL; 1], false),
        ("data", 1_200, &[FILL; 1], true),
        ("old data and new", 1_100, &[FILL; 101], true),
        ("data behind a hole", 1_300, &[FILL; 10], true),
    ] {
        for pings in [1, 2] {
            let mut socket = Socket::upgraded();
            socket.rx(segment(1000, 5000), &[FILL; 200]);
            for n in 0..pings {
                ping_at(socket.wait(SECOND), 5000 + 6 * n);
            }
            let notes = socket.wait(SECOND).rx(segment(at, 5012), payload);
            assert_eq!(tries(&socket).0 == 0, excuses, "{what}");
            let answered = notes & notable::ANSWERED != 0;
            assert_eq!(answered, excuses && pings == 2, "{what}");
            assert_eq!(
                notes & notable::PUBLISH != 0,
                excuses && pings == 1,
                "{what}"
            );
        }
    }
}

#[test]
fn after_an_excuse_the_next_ping_is_a_first_try() {
    let mut socket = Socket::upgraded();
    for n in 0..3 {
        ping_at(socket.wait(SECOND), 5000 + 6 * n);
    }
    let answer = socket.wait(SECOND).rx(segment(1000, 5018), &[FILL; 50]);
    assert_eq!(answer & notable::EVENTS, notable::ANSWERED);
    assert_eq!(tries(&socket).0, 0);
    let first = rounded(socket.wait(SECOND).now);
    assert_eq!(ping_at(&mut socket, 5018) & notable::EVENTS, 0);
    assert_eq!(tries(&socket), (1, first));
    assert_eq!(socket.connection.flow.snapshot.tx.pings_unanswered(), 4);
}

#[test]
fn a_ping_queued_behind_bytes_outstanding_for_a_second_is_not_a_try() {
    let ping = Stream::new(b"", &[Frame::new(true, wire::PING, 4)], false).bytes;
    let message = Stream::new(b"", &[Frame::new(true, wire::BINARY, 996)], false).bytes;
    for (queued_for, is_try) in [(0, true), (TRY_QUEUED - 1, true), (TRY_QUEUED, false)] {
        let mut socket = Socket::upgraded();
        ping_at(socket.wait(SECOND), 5000);
        let first = rounded(socket.now);
        // The second ping waits behind a message of which the peer has acknowledged a part.
        socket.rx(segment(1000, 5006), b"");
        socket.wait(SECOND).tx(segment(5006, 1000), &message);
        socket.wait(queued_for).rx(segment(1000, 5900), b"");
        let notes = socket.tx(segment(6006, 1000), &ping);
        assert_eq!(notes & notable::EVENTS != 0, is_try, "{queued_for}");
        assert_eq!(tries(&socket), (1 + usize::from(is_try), first));
        // Later pings are not tries either until the peer has caught up.
        let later = socket.wait(SECOND).tx(segment(6012, 1000), &ping);
        assert_eq!(later & notable::EVENTS, 0);
        ping_at(socket.wait(SECOND), 6018);
        assert_eq!(tries(&socket), (2, first));
    }
}

#[test]
fn no_ping_is_a_try_while_the_window_of_this_host_is_closed() {
    let ping = Stream::new(b"", &[Frame::new(true, wire::PING, 4)], false).bytes;
    let mut socket = Socket::upgraded();
    ping_at(socket.wait(SECOND), 5000);
    ping_at(socket.wait(SECOND), 5006);
    assert_eq!(tries(&socket).0, 2);
    socket.wait(SECOND).tx(windowed(5012, 1000, 0), b"");
    assert_eq!(tries(&socket).0, 0);
    for n in 0..5 {
        let notes = socket
            .wait(SECOND)
            .tx(windowed(5012 + 6 * n, 1000, 0), &ping);
        assert_eq!(notes & notable::PING_UNANSWERED, 0);
    }
    assert_eq!(tries(&socket).0, 0);
    let first = rounded(socket.wait(SECOND).now);
    ping_at(&mut socket, 5042);
    assert_eq!(tries(&socket), (1, first), "the window is open again");
}

#[test]
fn a_ping_is_no_try_while_the_peers_window_is_closed() {
    let ping = Stream::new(b"", &[Frame::new(true, wire::PING, 4)], false).bytes;
    let mut socket = Socket::upgraded();
    socket.wait(SECOND).tx(segment(5000, 1000), &ping);
    assert!(socket.connection.flow.snapshot.has_tries());
    let hear = |socket: &mut Socket, ack, window| {
        socket.wait(SECOND).rx(windowed(1000, ack, window), b"");
    };
    hear(&mut socket, 5006, 0);
    let tries = |socket: &Socket| socket.connection.flow.snapshot.has_tries();
    assert!(!tries(&socket), "it waits behind what is not read");
    socket.tx(segment(5006, 1000), &ping);
    assert!(!tries(&socket));
    hear(&mut socket, 5012, 300);
    socket.tx(segment(5012, 1000), &ping);
    assert!(tries(&socket));
}
