//! Idle gaps: which side ends them, which are survived, and which are reported.

use super::*;

#[test]
fn only_an_idle_gap_longer_than_the_limit_is_reported_whichever_side_ends_it() {
    for (silence, by, is_reported) in [
        (LIMIT, Direction::Rx, false),
        (LIMIT + 1, Direction::Rx, true),
        (LIMIT, Direction::Tx, false),
        (LIMIT + 1, Direction::Tx, true),
    ] {
        let mut socket = Socket::upgraded();
        let from = socket.now;
        socket.wait(silence);
        let notes = match by {
            Direction::Rx => socket.rx(segment(1000, 5000), b""),
            Direction::Tx => socket.tx(segment(5000, 1000), b""),
        };
        assert_eq!(
            notes & notable::RESUMED != 0,
            is_reported,
            "{silence} {by:?}"
        );
        let s = &socket.connection.flow.snapshot;
        let gap = (
            ticks_between(from, from + silence),
            from + silence,
            by as u8,
        );
        assert_eq!((s.gap_ticks, s.gap_to, s.gap_ended_by), gap, "either way");
        let gaps = &socket.stats.idle_gaps;
        assert_eq!(
            gaps.sum.get(),
            silence,
            "a gap within the limit also counts"
        );
    }
}

#[test]
fn a_limit_below_a_second_is_reported_but_not_counted_as_a_gap() {
    let mut socket = Socket::upgraded();
    socket.limits.idle_limit_ns = SECOND / 2;
    let notes = socket.wait(SECOND * 7 / 10).tx(segment(5000, 1000), DATA);
    assert_ne!(notes & notable::RESUMED, 0);
    assert_eq!(socket.stats.idle_gaps.sum.get(), 0);
}

#[test]
fn neither_a_pause_below_a_second_nor_a_loss_is_an_idle_gap() {
    let mut socket = Socket::upgraded();
    socket.wait(SECOND - 1).rx(segment(1000, 5000), b"");
    assert_eq!(socket.stats.idle_gaps.sum.get(), 0);

    socket.tx(segment(5000, 1000), DATA);
    let notes = socket.wait(2 * LIMIT).tx(segment(5000, 1000), DATA);
    assert_eq!(notes & notable::RESUMED, 0, "a retransmission");
    assert_eq!(socket.stats.idle_gaps.sum.get(), 0);
}

#[test]
fn without_a_limit_no_resumption_is_reported() {
    let mut socket = Socket::upgraded();
    socket.limits.idle_limit_ns = 0;
    let notes = socket.wait(10 * LIMIT).rx(segment(1000, 5000), b"");
    assert_eq!(notes, 0);
    assert_eq!(socket.stats.idle_gaps.sum.get(), 10 * LIMIT);
}

#[test]
fn only_an_idle_gap_longer_than_the_limit_makes_its_answer_an_event() {
    for (silence, news) in [(LIMIT, 0), (LIMIT + 1, notable::ANSWERED)] {
        let mut socket = Socket::upgraded();
        socket.wait(silence).tx(segment(5000, 1000), DATA);
        let resumed_at = socket.connection.flow.snapshot.resumed_at;
        assert_eq!(resumed_at != 0, news != 0, "{silence}");
        let second = socket.wait(SECOND / 5).tx(segment(5000, 1000), DATA);
        assert_eq!(second & notable::RETRANSMIT != 0, news != 0, "{silence}");
        let back = socket.wait(SECOND / 5).rx(segment(1000, 5100), b"");
        assert_eq!(back & notable::ANSWERED, news, "{silence}");
    }
}

#[test]
fn an_idle_gap_ended_by_the_peer_is_survived_at_once() {
    let mut socket = Socket::upgraded();
    socket.wait(50 * SECOND).rx(segment(1000, 5000), DATA);
    assert_eq!(socket.survived(), [50]);
    socket.wait(SECOND - 1).rx(segment(1100, 5000), DATA);
    assert_eq!(socket.survived(), [50], "a pause below a second");
    socket.wait(90 * SECOND).rx(segment(1200, 5000), DATA);
    assert_eq!(socket.survived(), [50, 90]);
}

#[test]
fn an_idle_gap_ended_by_this_host_is_survived_once_the_peer_answers() {
    let mut socket = Socket::upgraded();
    socket.wait(50 * SECOND).tx(segment(5000, 1000), DATA);
    socket.wait(2 * SECOND).tx(segment(5000, 1000), DATA);
    assert_eq!(socket.survived(), [0_u64; 0], "no answer yet");
    socket.wait(SECOND).rx(segment(1000, 5100), b"");
    assert_eq!(socket.survived(), [50]);
    socket.wait(SECOND / 2).rx(segment(1000, 5100), DATA);
    assert_eq!(socket.survived(), [50], "counted once");
}

#[test]
fn resets_and_fins_do_not_count_as_survival() {
    let ends = [tcp_flags::RST, tcp_flags::FIN];
    for flags in ends {
        let mut socket = Socket::upgraded();
        socket.wait(50 * SECOND).tx(segment(5000, 1000), DATA);
        socket.wait(SECOND / 5).rx(flagged(1000, 5000, flags), b"");
        assert_eq!(socket.survived(), [0_u64; 0], "in answer: {flags}");

        let mut socket = Socket::upgraded();
        socket.wait(50 * SECOND).rx(flagged(1000, 5000, flags), b"");
        assert_eq!(socket.survived(), [0_u64; 0], "during the gap: {flags}");
    }
}

#[test]
fn probes_into_a_dead_path_keep_the_idle_gap_in_which_it_died() {
    let mut socket = Socket::upgraded();
    let from = socket.now;
    let to = socket.wait(2 * LIMIT).now;
    let first = socket.tx(segment(4999, 1000), b"");
    assert_ne!(first & notable::RESUMED, 0);
    for _ in 0..3 {
        let probe = socket.wait(LIMIT + 1).tx(segment(4999, 1000), b"");
        assert_ne!(probe & notable::RESUMED, 0, "a long gap is still reported");
        let s = &socket.connection.flow.snapshot;
        assert_eq!((s.gap_ticks, s.gap_to), (ticks_between(from, to), to));
    }
    assert_eq!(socket.survived(), [0_u64; 0]);
    let longer = socket.wait(3 * LIMIT).now;
    socket.tx(segment(4999, 1000), b"");
    assert_eq!(socket.connection.flow.snapshot.gap_to, longer);
    socket.wait(SECOND / 5).rx(segment(1000, 5000), b"");
    assert_eq!(socket.survived(), [3 * LIMIT / SECOND], "alive after all");
    socket.wait(2 * SECOND).tx(segment(4999, 1000), b"");
    let s = &socket.connection.flow.snapshot;
    assert_eq!(
        (s.gap_ticks, s.gap_to),
        (
            ticks_between(socket.now - 2 * SECOND, socket.now),
            socket.now
        ),
        "the peer has answered since the old gap"
    );
}

#[test]
fn idle_gaps_survived_by_plain_http_are_not_counted() {
    let mut socket = Socket::established();
    let request = b"GET /health HTTP/1.1\r\n\r\n";
    socket.rx(segment(1, 1), request);
    socket.tx(segment(1, 25), b"HTTP/1.1 200 OK\r\n\r\n");
    socket.rx(segment(25, 20), b"");
    socket.wait(50 * SECOND).rx(segment(25, 20), request);
    assert_eq!(socket.survived(), [0_u64; 0]);
    assert_eq!(socket.stats.idle_gaps.sum.get(), 50 * SECOND);
}

#[test]
fn a_keepalive_repeating_the_last_byte_moves_no_payload_clock_on_either_side() {
    for byte in [&b""[..], b"\0"] {
        let mut socket = Socket::upgraded();
        let ping = ws::Stream::new(b"", &[ws::Frame::new(true, wire::PING, 3)], true).bytes;
        socket.rx(segment(1000, 5000), &ping);
        let next = 1000 + ping.len() as u32;
        let payload_at = [socket.now, SECOND];
        for _ in 0..20 {
            socket.wait(3 * SECOND).rx(segment(next - 1, 5000), byte);
            socket.tx(segment(5000, next), b"");
            socket.wait(3 * SECOND).tx(segment(4999, next), byte);
            socket.rx(segment(next, 5000), b"");
        }
        let s = &socket.connection.flow.snapshot;
        assert_eq!(
            [s.rx.last_payload, s.tx.last_payload],
            payload_at,
            "{byte:?}"
        );
        assert_eq!([s.rx.last_packet, s.tx.last_packet], [socket.now; 2]);
        assert_eq!(s.unanswered_sends(), 0);
        // New bytes move it, even a single one.
        socket.wait(SECOND).rx(segment(next, 5000), b"\x89");
        socket.tx(segment(5000, next + 1), b"\x89");
        let s = &socket.connection.flow.snapshot;
        assert_eq!([s.rx.last_payload, s.tx.last_payload], [socket.now; 2]);
        // An unacknowledged byte is retransmitted, which isn't a keepalive.
        socket.wait(SECOND).tx(segment(5000, next + 1), b"\x89");
        assert_eq!(socket.connection.flow.snapshot.tx.last_payload, socket.now);
    }
}
