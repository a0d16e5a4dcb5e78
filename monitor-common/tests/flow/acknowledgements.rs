//! Sent, acknowledged and retransmitted bytes.

use super::*;

#[test]
fn the_second_transmission_after_a_long_idle_gap_wakes_and_the_first_reply_answers() {
    let mut socket = Socket::upgraded();
    let first = socket.wait(2 * LIMIT).tx(segment(5000, 1000), DATA);
    assert_eq!(
        first & (notable::RESUMED | notable::RETRANSMIT),
        notable::RESUMED
    );
    let second = socket.wait(SECOND / 5).tx(segment(5000, 1000), DATA);
    assert_eq!(
        second & (notable::RESUMED | notable::RETRANSMIT),
        notable::RETRANSMIT
    );
    let third = socket.wait(SECOND / 2).tx(segment(5000, 1000), DATA);
    assert_eq!(third & notable::EVENTS, 0, "once");
    assert_eq!(socket.connection.flow.snapshot.unanswered_sends(), 3);

    let back = socket.wait(SECOND).rx(segment(1000, 5100), b"");
    assert_ne!(back & notable::ANSWERED, 0);
    assert_eq!(socket.connection.flow.snapshot.unanswered_sends(), 0);
    let again = socket.rx(segment(1000, 5100), b"");
    assert_eq!(again & notable::ANSWERED, 0, "once");
}

#[test]
fn the_second_and_fifth_retransmission_wake_and_progress_resets_the_count() {
    let mut socket = Socket::upgraded();
    socket.tx(segment(5000, 1000), DATA);
    let wakes: Vec<u32> = (1..=8)
        .filter(|_| socket.connection.flow.retransmit(&mut socket.stats))
        .collect();
    assert_eq!(wakes, [2, 5]);
    let notes = socket.rx(segment(1000, 5100), b"");
    assert_ne!(notes & notable::ANSWERED, 0);
    assert_eq!(
        socket
            .connection
            .flow
            .snapshot
            .retransmits_without_progress(),
        0
    );
    assert_eq!(
        (
            socket.connection.flow.snapshot.retransmits,
            socket.stats.retransmits.get()
        ),
        (8, 8)
    );
}

/// Bytes that are never acknowledged are not counted.
#[test]
fn segments_delivered_late_are_counted_when_they_are_acknowledged() {
    let mut socket = Socket::upgraded();
    let counts = |socket: &Socket| {
        let stats = &socket.stats;
        [
            &stats.segments_delivered,
            &stats.segments_delivered_late,
            &stats.retransmits_delivered,
        ]
        .map(|counter| counter.get())
    };
    let [before, ..] = counts(&socket);
    socket.tx(segment(5000, 1000), DATA);
    for _ in 0..3 {
        socket.connection.flow.retransmit(&mut socket.stats);
    }
    assert_eq!(counts(&socket), [before, 0, 0]);
    socket.rx(segment(1000, 5100), b"");
    assert_eq!(counts(&socket), [before + 1, 1, 3]);
    // Ten times the bytes of one segment, of which one was lost.
    socket.connection.flow.retransmit(&mut socket.stats);
    socket.rx(segment(1000, 5100 + 20_480), b"");
    assert_eq!(counts(&socket), [before + 11, 2, 4]);
}

#[test]
fn losses_of_a_flow_are_smoothed_over_acknowledgements() {
    let mut socket = Socket::upgraded();
    let mut end = 5000;
    let mut deliver = |late: bool| {
        if late {
            socket.connection.flow.retransmit(&mut socket.stats);
        }
        end += 100;
        socket.rx(segment(1000, end), b"");
        f64::from(socket.connection.flow.snapshot.loss) / 65_536.0
    };
    assert_eq!(deliver(false), 0.0);
    let once = deliver(true);
    assert!((0.03..0.04).contains(&once), "{once}");
    // One in four, for a long time.
    let long = (0..400).map(|i| deliver(i % 4 == 0)).last().unwrap();
    assert!((0.2..0.3).contains(&long), "{long}");
    let clean = (0..200).map(|_| deliver(false)).last().unwrap();
    assert!(clean < 0.01, "{clean}");
    let all = (0..400).map(|_| deliver(true)).last().unwrap();
    assert!(all > 0.95, "{all}");
}

#[test]
fn one_lost_segment_wakes_nothing_but_its_recovery_is_published() {
    let mut socket = Socket::upgraded();
    socket.tx(segment(5000, 1000), DATA);
    assert!(!socket.connection.flow.retransmit(&mut socket.stats));
    let notes = socket.rx(segment(1000, 5100), b"");
    assert_eq!(
        notes & (notable::ANSWERED | notable::PUBLISH),
        notable::PUBLISH
    );
}

#[test]
fn acks_are_duplicates_only_with_bytes_outstanding_and_nothing_else_changed() {
    for (what, outstanding, ack, payload, duplicates) in [
        ("a duplicate", true, segment(1000, 5000), &b""[..], 1),
        ("a keepalive reply", false, segment(1000, 5000), b"", 0),
        ("a window update", true, windowed(1000, 5000, 600), b"", 0),
        ("data of the peer's", true, segment(1000, 5000), DATA, 0),
        ("progress", true, segment(1000, 5050), b"", 0),
        ("an old acknowledgement", true, segment(1000, 4990), b"", 0),
        ("a FIN", true, flagged(1000, 5000, tcp_flags::FIN), b"", 0),
        ("a reset", true, flagged(1000, 5000, tcp_flags::RST), b"", 0),
    ] {
        let mut socket = Socket::upgraded();
        if outstanding {
            socket.tx(segment(5000, 1000), DATA);
        }
        socket.rx(ack, payload);
        assert_eq!(socket.stats.duplicate_acks.get(), duplicates, "{what}");
    }
}

#[test]
fn a_window_is_counted_only_when_it_closes() {
    let mut socket = Socket::upgraded();
    for window in [0, 0, 300, 0] {
        socket.rx(windowed(1000, 5000, window), b"");
        socket.tx(windowed(5000, 1000, window), b"");
    }
    socket.rx(
        Segment {
            window: 0,
            ..flagged(1000, 5000, tcp_flags::RST)
        },
        b"",
    );
    assert_eq!(socket.stats.zero_windows.map(|n| n.get()), [2, 2]);

    let mut socket = Socket::upgraded();
    socket.rx(
        Segment {
            window: 0,
            ..flagged(1000, 5000, tcp_flags::RST)
        },
        b"",
    );
    assert_eq!(
        socket.stats.zero_windows[0].get(),
        0,
        "a reset carries no window"
    );
}

#[test]
fn data_and_keepalive_probes_elicit_answers_and_acknowledgements_do_not() {
    for (what, sent, payload, unanswered) in [
        ("data", segment(5000, 1000), DATA, 1),
        ("a keepalive probe", segment(4999, 1000), &b""[..], 1),
        ("an acknowledgement", segment(5000, 1000), b"", 0),
        ("a FIN", flagged(5000, 1000, tcp_flags::FIN), b"", 0),
    ] {
        let mut socket = Socket::upgraded();
        let at = socket.wait(SECOND).now;
        socket.tx(sent, payload);
        assert_eq!(
            socket.connection.flow.snapshot.unanswered_sends(),
            unanswered,
            "{what}"
        );
        if unanswered > 0 {
            assert_eq!(
                socket.connection.flow.snapshot.unanswered_since,
                Moment::of(at),
                "{what}"
            );
        }
        assert_eq!(
            socket.connection.flow.snapshot.outstanding(),
            payload.len() as u32 + u32::from(sent.has(tcp_flags::FIN)),
            "{what}"
        );
    }
}

#[test]
fn bytes_are_outstanding_from_the_first_sent_until_the_last_acknowledged() {
    let mut socket = Socket::upgraded();
    let first = socket.wait(SECOND).now;
    socket.tx(segment(5000, 1000), DATA);
    socket.wait(SECOND).tx(segment(5100, 1000), DATA);
    assert_eq!(socket.connection.flow.snapshot.unacked_since, first);
    socket.rx(segment(1000, 5100), b"");
    let s = &socket.connection.flow.snapshot;
    assert_eq!(
        (s.outstanding(), s.unacked_since, s.ack_progress_at),
        (100, first, socket.now)
    );
    socket.rx(segment(1000, 5200), b"");
    let later = socket.wait(SECOND).now;
    socket.tx(segment(5200, 1000), DATA);
    assert_eq!(socket.connection.flow.snapshot.unacked_since, later);
}

#[test]
fn a_window_that_stays_closed_is_reported_once_and_again_when_it_opens() {
    window_of_this_host_or_the_peer(|socket, window| {
        let notes = socket.tx(windowed(5000, 1000, window), b"");
        (notes, socket.connection.flow.snapshot.own_window_closed_at)
    });
    window_of_this_host_or_the_peer(|socket, window| {
        let notes = socket.rx(windowed(1000, 5000, window), b"");
        (notes, socket.connection.flow.snapshot.peer_window_closed_at)
    });
}

fn window_of_this_host_or_the_peer(advertise: fn(&mut Socket, u16) -> (u32, Moment)) {
    let mut socket = Socket::upgraded();
    socket.now = rounded(socket.now);
    let closed_at = socket.now;
    let advertise = |socket: &mut Socket, window| {
        let (notes, closed_at) = advertise(socket, window);
        (notes, closed_at.nanos(socket.now))
    };
    assert_eq!(advertise(&mut socket, 0), (notable::PUBLISH, closed_at));
    // Probes are answered.
    for (after, notes) in [
        (CLOSED_WINDOW_REPORT - 1, 0),
        (1, notable::WINDOW_CLOSED),
        (SECOND, 0),
        (60 * SECOND, 0),
    ] {
        assert_eq!(advertise(socket.wait(after), 0), (notes, closed_at));
    }
    assert_eq!(advertise(&mut socket, 300), (notable::ANSWERED, 0));
    assert_eq!(advertise(&mut socket, 300), (0, 0));

    socket.now = rounded(socket.now);
    let closed_at = socket.now;
    assert_eq!(advertise(&mut socket, 0), (notable::PUBLISH, closed_at));
    let opened = advertise(socket.wait(CLOSED_WINDOW_REPORT - 1), 300);
    assert_eq!(opened, (notable::PUBLISH, 0), "a slow reader");
}

#[test]
fn a_reset_does_not_close_the_peers_window() {
    let mut socket = Socket::upgraded();
    let reset = Segment {
        window: 0,
        ..flagged(1000, 5000, tcp_flags::RST)
    };
    socket.rx(reset, b"");
    let s = &socket.connection.flow.snapshot;
    assert!(!s.peer_window_closed_at.is_some());
}
