//! What packets change in a flow: silences, acknowledgements, probes, windows, endings.

mod ws;

use monitor_common::{
    Direction,
    event::CloseHow,
    flow::notable,
    gap_scale,
    listener::ListenerLimits,
    replay::Connection,
    segment::{Segment, tcp_flags},
    snapshot::{origin, protocol},
    stats::{Counter, ListenerStats},
    stream::mode,
};

use ws::{FILL, Frame, REQUEST, RESPONSE, Stream};

const SECOND: u64 = 1_000_000_000;
const LIMIT: u64 = 60 * SECOND;

/// A server's socket at its birth, and a clock.
struct Socket {
    connection: Connection,
    stats: ListenerStats,
    limits: ListenerLimits,
    now: u64,
}

impl Socket {
    fn born() -> Self {
        Self {
            connection: Connection::EMPTY,
            stats: ListenerStats::EMPTY,
            limits: ListenerLimits {
                idle_limit_ns: LIMIT,
            },
            now: SECOND,
        }
    }

    /// After the upgrade, with nothing outstanding: client at 1000, server at 5000.
    fn upgraded() -> Self {
        let mut socket = Self::born();
        socket.rx(
            segment(1000 - REQUEST.len() as u32, 5000 - RESPONSE.len() as u32),
            REQUEST,
        );
        socket.tx(segment(5000 - RESPONSE.len() as u32, 1000), RESPONSE);
        socket.rx(segment(1000, 5000), b"");
        assert_eq!(
            socket.connection.flow.snapshot.protocol,
            protocol::WEBSOCKET
        );
        assert_eq!(socket.connection.flow.snapshot.outstanding(), 0);
        socket
    }

    fn wait(&mut self, nanos: u64) -> &mut Self {
        self.now += nanos;
        self
    }

    fn rx(&mut self, segment: Segment, payload: &[u8]) -> u32 {
        self.take(Direction::Rx, segment, payload)
    }

    fn tx(&mut self, segment: Segment, payload: &[u8]) -> u32 {
        self.take(Direction::Tx, segment, payload)
    }

    /// The silences that were survived, in seconds, as far as slots can tell them apart.
    fn survived(&self) -> Vec<u64> {
        let seconds = |slot| gap_scale::bounds(slot).1 / SECOND;
        filled(&self.stats.gaps_survived)
            .into_iter()
            .flat_map(|(slot, n)| (0..n).map(move |_| seconds(slot)))
            .collect()
    }

    fn take(&mut self, direction: Direction, segment: Segment, payload: &[u8]) -> u32 {
        let segment = Segment {
            payload_len: payload.len() as u32,
            ..segment
        };
        self.connection
            .take(
                direction,
                &segment,
                payload,
                self.now,
                &self.limits,
                &mut self.stats,
                |_| {},
            )
            .notes
    }
}

fn segment(seq: u32, ack: u32) -> Segment {
    Segment {
        ack,
        ..ws::data_segment(seq, 0)
    }
}

fn flagged(seq: u32, ack: u32, flags: u8) -> Segment {
    Segment {
        flags: tcp_flags::ACK | flags,
        ..segment(seq, ack)
    }
}

fn windowed(seq: u32, ack: u32, window: u16) -> Segment {
    Segment {
        window,
        ..segment(seq, ack)
    }
}

/// The slots that are not empty, and what is in them.
fn filled(slots: &[Counter]) -> Vec<(usize, u64)> {
    let counts = slots.iter().map(Counter::get).enumerate();
    counts.filter(|(_, n)| *n > 0).collect()
}

/// Payload inside a frame that began long ago: no header, no event of its own.
const DATA: &[u8] = &[FILL; 100];

#[test]
fn a_silence_longer_than_the_limit_is_told_by_whoever_ends_it_and_at_the_limit_it_is_not() {
    for (silence, by, told) in [
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
        assert_eq!(notes & notable::RESUMED != 0, told, "{silence} {by:?}");
        let s = &socket.connection.flow.snapshot;
        let gap = (from, from + silence, by as u8);
        assert_eq!((s.gap_from, s.gap_to, s.gap_ended_by), gap, "told or not");
        let gaps = &socket.stats.idle_gaps;
        assert_eq!(
            gaps.sum.get(),
            silence,
            "short of the limit it still is a gap"
        );
    }
}

#[test]
fn a_limit_below_a_second_is_watched_though_its_pauses_are_no_gaps() {
    let mut socket = Socket::upgraded();
    socket.limits.idle_limit_ns = SECOND / 2;
    let notes = socket.wait(SECOND * 7 / 10).tx(segment(5000, 1000), DATA);
    assert_ne!(notes & notable::RESUMED, 0);
    assert_eq!(socket.stats.idle_gaps.sum.get(), 0);
}

#[test]
fn a_pause_below_a_second_is_traffic_and_a_loss_is_no_silence() {
    let mut socket = Socket::upgraded();
    socket.wait(SECOND - 1).rx(segment(1000, 5000), b"");
    assert_eq!(socket.stats.idle_gaps.sum.get(), 0);

    socket.tx(segment(5000, 1000), DATA);
    let notes = socket.wait(2 * LIMIT).tx(segment(5000, 1000), DATA);
    assert_eq!(notes & notable::RESUMED, 0, "a retransmission");
    assert_eq!(socket.stats.idle_gaps.sum.get(), 0);
}

#[test]
fn without_a_limit_nothing_resumes() {
    let mut socket = Socket::upgraded();
    socket.limits.idle_limit_ns = 0;
    let notes = socket.wait(10 * LIMIT).rx(segment(1000, 5000), b"");
    assert_eq!(notes, 0);
    assert_eq!(socket.stats.idle_gaps.sum.get(), 10 * LIMIT);
}

#[test]
fn only_a_silence_longer_than_the_limit_makes_the_answer_to_it_news() {
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
fn a_silence_that_the_peer_ends_is_survived_at_once() {
    let mut socket = Socket::upgraded();
    socket.wait(50 * SECOND).rx(segment(1000, 5000), DATA);
    assert_eq!(socket.survived(), [50]);
    socket.wait(SECOND - 1).rx(segment(1100, 5000), DATA);
    assert_eq!(socket.survived(), [50], "a pause");
    socket.wait(90 * SECOND).rx(segment(1200, 5000), DATA);
    assert_eq!(socket.survived(), [50, 90]);
}

#[test]
fn a_silence_that_this_host_ends_is_survived_once_the_peer_is_heard() {
    let mut socket = Socket::upgraded();
    socket.wait(50 * SECOND).tx(segment(5000, 1000), DATA);
    socket.wait(2 * SECOND).tx(segment(5000, 1000), DATA);
    assert_eq!(socket.survived(), [0_u64; 0], "nobody has answered");
    socket.wait(SECOND).rx(segment(1000, 5100), b"");
    assert_eq!(socket.survived(), [50]);
    socket.wait(SECOND / 2).rx(segment(1000, 5100), DATA);
    assert_eq!(socket.survived(), [50], "once");
}

#[test]
fn resets_and_fins_are_no_survival() {
    let ends = [tcp_flags::RST, tcp_flags::FIN];
    for flags in ends {
        let mut socket = Socket::upgraded();
        socket.wait(50 * SECOND).tx(segment(5000, 1000), DATA);
        socket.wait(SECOND / 5).rx(flagged(1000, 5000, flags), b"");
        assert_eq!(socket.survived(), [0_u64; 0], "in answer: {flags}");

        let mut socket = Socket::upgraded();
        socket.wait(50 * SECOND).rx(flagged(1000, 5000, flags), b"");
        assert_eq!(socket.survived(), [0_u64; 0], "into the silence: {flags}");
    }
}

#[test]
fn probes_into_a_dead_path_keep_the_silence_that_it_died_in() {
    let mut socket = Socket::upgraded();
    let from = socket.now;
    let to = socket.wait(2 * LIMIT).now;
    let first = socket.tx(segment(4999, 1000), b"");
    assert_ne!(first & notable::RESUMED, 0);
    for _ in 0..3 {
        let probe = socket.wait(LIMIT + 1).tx(segment(4999, 1000), b"");
        assert_ne!(probe & notable::RESUMED, 0, "it still was a long silence");
        let s = &socket.connection.flow.snapshot;
        assert_eq!((s.gap_from, s.gap_to), (from, to));
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
        (s.gap_from, s.gap_to),
        (socket.now - 2 * SECOND, socket.now),
        "the old one was heard of"
    );
}

#[test]
fn what_plain_http_survives_is_not_counted() {
    let mut socket = Socket::born();
    let request = b"GET /health HTTP/1.1\r\n\r\n";
    socket.rx(segment(1, 1), request);
    socket.tx(segment(1, 25), b"HTTP/1.1 200 OK\r\n\r\n");
    socket.rx(segment(25, 20), b"");
    socket.wait(50 * SECOND).rx(segment(25, 20), request);
    assert_eq!(socket.survived(), [0_u64; 0]);
    assert_eq!(socket.stats.idle_gaps.sum.get(), 50 * SECOND);
}

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
fn the_second_transmission_after_a_long_silence_wakes_and_the_first_word_back_answers() {
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
    assert_eq!(socket.connection.flow.snapshot.unanswered_asks(), 3);

    let back = socket.wait(SECOND).rx(segment(1000, 5100), b"");
    assert_ne!(back & notable::ANSWERED, 0);
    assert_eq!(socket.connection.flow.snapshot.unanswered_asks(), 0);
    let again = socket.rx(segment(1000, 5100), b"");
    assert_eq!(again & notable::ANSWERED, 0, "once");
}

#[test]
fn retransmissions_wake_at_the_second_and_the_fifth_and_progress_starts_anew() {
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

/// Of what is never acknowledged nothing is counted.
#[test]
fn what_arrived_after_retransmissions_is_counted_once_it_is_acknowledged() {
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
    // Ten times as much as one segment has, of which one was lost.
    socket.connection.flow.retransmit(&mut socket.stats);
    socket.rx(segment(1000, 5100 + 20_480), b"");
    assert_eq!(counts(&socket), [before + 11, 2, 4]);
}

#[test]
fn the_losses_of_a_flow_are_smoothed_over_some_acknowledgements() {
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
    // One in four, for long.
    let long = (0..400).map(|i| deliver(i % 4 == 0)).last().unwrap();
    assert!((0.2..0.3).contains(&long), "{long}");
    let clean = (0..200).map(|_| deliver(false)).last().unwrap();
    assert!(clean < 0.01, "{clean}");
    let all = (0..400).map(|_| deliver(true)).last().unwrap();
    assert!(all > 0.95, "{all}");
}

#[test]
fn one_lost_segment_is_no_trouble_but_its_end_is_published() {
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
fn acks_are_duplicates_only_with_bytes_outstanding_and_nothing_else_to_say() {
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
fn a_window_is_counted_when_it_closes_and_not_while_it_is_closed() {
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
fn data_and_keepalive_probes_ask_and_acknowledgements_do_not() {
    for (what, sent, payload, asks) in [
        ("data", segment(5000, 1000), DATA, 1),
        ("a keepalive probe", segment(4999, 1000), &b""[..], 1),
        ("an acknowledgement", segment(5000, 1000), b"", 0),
        ("a FIN", flagged(5000, 1000, tcp_flags::FIN), b"", 0),
    ] {
        let mut socket = Socket::upgraded();
        let at = socket.wait(SECOND).now;
        socket.tx(sent, payload);
        assert_eq!(
            socket.connection.flow.snapshot.unanswered_asks(),
            asks,
            "{what}"
        );
        if asks > 0 {
            assert_eq!(
                socket.connection.flow.snapshot.unanswered_since, at,
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
fn bytes_are_outstanding_from_the_first_of_them_until_the_last_is_acknowledged() {
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
fn a_connection_ends_in_one_of_six_ways() {
    let closing = Stream::new(b"", &[Frame::close(1001, 0)], true).bytes;
    let end = |act: fn(&mut Socket, &[u8])| {
        let mut socket = Socket::upgraded();
        act(&mut socket, &closing);
        socket.connection.flow.snapshot.close_how()
    };
    // A local abort sets the state before its reset leaves.
    assert_eq!(end(|_, _| {}), CloseHow::RstSent);
    assert_eq!(
        end(|socket, _| socket.connection.flow.snapshot.origin = origin::SEEDED),
        CloseHow::Unknown,
        "no packet was ever seen, and so no FIN"
    );
    assert_eq!(
        end(|socket, _| {
            socket.tx(segment(5000, 1000), DATA);
        }),
        CloseHow::RstSent,
        "TCP does not give up before it has tried again"
    );
    assert_eq!(
        end(|socket, _| {
            socket.tx(segment(5000, 1000), DATA);
            socket.connection.flow.retransmit(&mut socket.stats);
        }),
        CloseHow::Timeout
    );
    assert_eq!(
        end(|socket, _| {
            socket.tx(segment(5000, 1000), DATA);
            socket.rx(flagged(1000, 5000, tcp_flags::FIN), b"");
        }),
        CloseHow::Fin
    );
    // The two tracepoints write these; what a reset tears down after a FIN had ended already.
    assert_eq!(
        end(|socket, _| {
            socket.rx(flagged(1000, 5000, tcp_flags::FIN), b"");
            socket.connection.flow.snapshot.rst_tx = 1;
        }),
        CloseHow::Fin
    );
    assert_eq!(
        end(|socket, _| socket.connection.flow.snapshot.rst_tx = 1),
        CloseHow::RstSent
    );
    assert_eq!(
        end(|socket, _| socket.connection.flow.snapshot.rst_rx = 1),
        CloseHow::RstReceived
    );
    assert_eq!(
        end(|socket, close| {
            let notes = socket.rx(segment(1000, 5000), close);
            assert_ne!(notes & notable::CLOSING, 0);
            let fin = socket.rx(flagged(1008, 5000, tcp_flags::FIN), b"");
            assert_eq!(
                fin & notable::CLOSING,
                0,
                "the close frame was the first sign"
            );
            socket.connection.flow.snapshot.rst_rx = 1;
            assert_eq!(socket.connection.flow.snapshot.close_code, 1001);
        }),
        CloseHow::CloseFrame
    );
}

#[test]
fn an_adopted_flow_keeps_its_seed_until_packets_bring_sequence_numbers() {
    let mut socket = Socket::born();
    let s = &mut socket.connection.flow.snapshot;
    s.origin = origin::SEEDED;
    (s.snd_nxt, s.una_known, s.nxt_known) = (100, 1, 1);
    s.unacked_since = 5;
    s.retransmits = 3;
    assert_eq!(s.outstanding(), 100);
    socket.connection.flow.adopt(Direction::Tx);
    assert_eq!(
        socket.connection.flow.snapshot.outstanding(),
        0,
        "the seed's numbers are not the stream's"
    );

    let notes = socket.tx(segment(70_000, 1), DATA);
    assert_ne!(notes & notable::OPENED, 0);
    let s = &socket.connection.flow.snapshot;
    assert_eq!(
        (s.outstanding(), s.unacked_since),
        (100, 5),
        "outstanding since before"
    );
    assert_eq!(s.protocol, protocol::ASSUMED);
    assert_eq!(
        socket.stats.opened.get(),
        0,
        "it opened before the monitor did"
    );

    let notes = socket.rx(segment(1, 70_100), b"");
    assert_ne!(notes & notable::ANSWERED, 0);
    assert_eq!(socket.connection.flow.snapshot.outstanding(), 0);
}

#[test]
fn an_adopted_flow_without_a_seed_is_outstanding_since_it_was_met() {
    let mut socket = Socket::born();
    socket.connection.flow.snapshot.unacked_since = 5;
    socket.connection.flow.adopt(Direction::Tx);
    socket.tx(segment(70_000, 1), DATA);
    let s = &socket.connection.flow.snapshot;
    assert_eq!((s.outstanding(), s.unacked_since), (100, socket.now));
}

#[test]
fn plain_http_is_never_watched() {
    let mut socket = Socket::born();
    for _ in 0..2 {
        let notes = socket.rx(segment(1, 1), b"GET /health HTTP/1.1\r\n\r\n");
        assert_eq!(notes & notable::EVENTS, 0);
        let notes = socket.tx(segment(1, 25), b"HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(notes & notable::EVENTS, 0);
    }
    assert_eq!(socket.connection.flow.snapshot.protocol, protocol::HTTP);
    assert!(!socket.connection.flow.snapshot.is_watched());
    assert_eq!(socket.stats, ListenerStats::EMPTY);
}

#[test]
fn an_adopted_flow_that_speaks_http_is_dismissed_and_may_still_upgrade() {
    for (direction, http) in [
        (Direction::Rx, &b"POST /a HTTP/1.1\r\n\r\n"[..]),
        (Direction::Tx, b"HTTP/1.1 404 Not Found\r\n\r\n"),
    ] {
        let mut socket = Socket::born();
        socket.connection.flow.snapshot.origin = origin::ADOPTED;
        socket.connection.flow.adopt(direction);
        let notes = socket.take(direction, segment(1, 1), http);
        assert_ne!(notes & notable::DISMISSED, 0);
        assert!(!socket.connection.flow.snapshot.is_watched());

        socket.rx(segment(100, 1), REQUEST);
        let notes = socket.tx(segment(100, 1), RESPONSE);
        assert_ne!(notes & notable::OPENED, 0);
        assert_eq!(
            socket.connection.flow.snapshot.protocol,
            protocol::WEBSOCKET
        );
        assert_eq!(socket.stats.opened.get(), 1);
    }
}

#[test]
fn tls_is_opaque_and_its_bytes_are_not_looked_at() {
    let mut socket = Socket::born();
    let notes = socket.rx(segment(1, 1), &[0x16, 3, 1, 0, 200]);
    assert_ne!(notes & notable::OPENED, 0);
    let frames = Stream::new(b"", &[Frame::new(true, ws::PING, 0); 3], true).bytes;
    socket.rx(segment(6, 1), &frames);
    socket.tx(segment(1, 6), RESPONSE);
    let s = &socket.connection.flow.snapshot;
    assert_eq!(
        (s.protocol, s.rx.frames, s.rx.last_payload),
        (protocol::OPAQUE, 0, socket.now)
    );
    assert_eq!(socket.stats.unsynced_bytes.map(|n| n.get()), [0, 0]);
    assert_eq!(socket.connection.flow.rx_walk.mode, mode::HANDSHAKE);
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
