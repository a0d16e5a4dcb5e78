//! Recordings out of order, and recordings that begin mid-stream.

use monitor::{records::connection_summary::DirectionSummary, replay::ReplayRecord};
use monitor_core::State;
use wire::{
    ACK, CLOSE, Conversation, End, MILLI, PING, PONG, REQUEST, RESPONSE, Recording, SECOND, START,
    SYN, TEXT,
};

use crate::{Played, frame, judge, opened, server, upgrade};

/// A conversation in which each side answers the other: 3 packets of TCP's handshake, 3 of the
/// upgrade, then frames, and the end.
fn story() -> Recording {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    let mut at = START + SECOND;
    for n in 0..4_u8 {
        conversation.says(&mut recording, at, End::Server, &frame(PING, &[n], false));
        conversation.says(
            &mut recording,
            at + MILLI,
            End::Client,
            &frame(PONG, &[n], true),
        );
        conversation.says(
            &mut recording,
            at + 2 * MILLI,
            End::Client,
            &frame(TEXT, b"hello", true),
        );
        conversation.says(
            &mut recording,
            at + 3 * MILLI,
            End::Server,
            &frame(TEXT, b"hi", false),
        );
        at += 10 * MILLI;
    }
    conversation.says(
        &mut recording,
        at,
        End::Client,
        &frame(CLOSE, &[3, 232], true),
    );
    conversation.says(
        &mut recording,
        at + MILLI,
        End::Server,
        &frame(CLOSE, &[3, 232], false),
    );
    conversation.close(&mut recording, at + 2 * MILLI, End::Server);
    recording
}

/// The result independent of times: how the connection went, and the frames each way.
fn gist(played: &Played) -> String {
    let connections = played.connections();
    let [connection] = &connections[..] else {
        panic!("{:?}", played.records);
    };
    let direction = |direction: &DirectionSummary| {
        let untimed = DirectionSummary {
            ping_rtt_seconds: None,
            ping_rtt_min_seconds: None,
            ping_rtt_median_seconds: None,
            ping_rtt_max_seconds: None,
            ..direction.clone()
        };
        format!("{untimed:?}")
    };
    format!(
        "{} {} {:?} {:?}",
        direction(&connection.rx),
        direction(&connection.tx),
        connection.how,
        connection.close.map(|close| close.code),
    )
}

fn states(played: &Played) -> Vec<State> {
    let states = played.records.iter().filter_map(|record| match record {
        ReplayRecord::State(transition) => Some(transition.to),
        _ => None,
    });
    states.collect()
}

/// The same packets in another order, with the recorded times in their original order.
fn reordered(recording: &Recording, order: impl Fn(&mut [Vec<u8>])) -> Recording {
    let (moments, mut packets): (Vec<u64>, Vec<Vec<u8>>) =
        recording.packets.iter().cloned().unzip();
    order(&mut packets);
    Recording {
        packets: moments.into_iter().zip(packets).collect(),
    }
}

#[test]
fn swapped_neighbours_change_nothing() {
    let recording = story();
    let listeners = [server(8080, None)];
    let expected = judge(&recording, &listeners);
    assert_eq!(
        states(&expected),
        [
            State::Connecting,
            State::Open,
            State::Closing,
            State::Closed
        ]
    );
    for first in 3..recording.packets.len() - 1 {
        let mut swapped = reordered(&recording, |packets| packets.swap(first, first + 1));
        let played = judge(&swapped, &listeners);
        assert_eq!(gist(&played), gist(&expected), "{first}");
        assert_eq!(states(&played), states(&expected), "{first}");
        // Also if their timestamps are swapped.
        swapped.packets.swap(first, first + 1);
        let moments = [first, first + 1].map(|i| swapped.packets[i].0);
        swapped.packets[first].0 = moments[0].max(moments[1]);
        let played = judge(&swapped, &listeners);
        assert_eq!(gist(&played), gist(&expected), "{first}, by time");
    }
}

#[test]
fn a_101_recorded_before_its_request_waits_for_it() {
    let listeners = [server(8080, None)];
    // Where the recording begins, and whether a frame follows the 101 in its segment.
    for (from, with_frame) in [(0, false), (3, false), (0, true), (3, true)] {
        let mut conversation = Conversation::v4();
        let mut recording = Recording::default();
        conversation.open(&mut recording, START);
        conversation.says(&mut recording, START + 5 * MILLI, End::Client, REQUEST);
        let mut response = RESPONSE.to_vec();
        if with_frame {
            response.extend(frame(TEXT, b"welcome", false));
        }
        conversation.says(&mut recording, START + 6 * MILLI, End::Server, &response);
        conversation.says(
            &mut recording,
            START + 7 * MILLI,
            End::Client,
            &frame(TEXT, b"hello", true),
        );
        recording.packets.drain(..from);
        let expected = judge(&recording, &listeners);
        let request = recording.packets.len() - 3;
        let swapped = reordered(&recording, |packets| packets.swap(request, request + 1));
        let played = judge(&swapped, &listeners);
        assert_eq!(gist(&played), gist(&expected), "{from} {with_frame}");
        assert_eq!(states(&played), [State::Connecting, State::Open]);
        assert_eq!(played.frames().len(), 1 + usize::from(with_frame));
    }
}

#[test]
fn waiting_for_missing_packets_loses_nothing() {
    let whole = story();
    let listeners = [server(8080, None)];
    let is_of = |packet: &[u8], port: u16| packet[24..26] == port.to_be_bytes();
    for (what, kept) in [
        (
            "only the server's packets",
            Box::new(|n: usize, p: &[u8]| n < 3 || is_of(p, 8080))
                as Box<dyn Fn(usize, &[u8]) -> bool>,
        ),
        (
            "only the server's packets, without the opening",
            Box::new(|_, p| is_of(p, 8080)),
        ),
        ("no request", Box::new(|n, _| n != 3)),
        ("no ping", Box::new(|n, _| n != 6)),
        ("no pongs", Box::new(|n, _| n < 6 || n % 4 != 3)),
    ] {
        let packets = whole.packets.iter().enumerate();
        let packets = packets.filter(|(n, (_, packet))| kept(*n, packet));
        let recording = Recording {
            packets: packets.map(|(_, packet)| packet.clone()).collect(),
        };
        let played = judge(&recording, &listeners);
        let summary = &played.summary;
        let skipped: u64 = summary.skipped.iter().map(|(_, packets)| packets).sum();
        assert_eq!(
            summary.segments + skipped,
            recording.packets.len() as u64,
            "{what}"
        );
        assert_eq!(summary.connections, 1, "{what}: {:?}", played.records);
        assert!(states(&played).contains(&State::Open), "{what}");
    }
}

#[test]
fn packets_beyond_the_queue_limit_are_processed_in_order() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    // The client's frame is recorded behind 200 segments that acknowledge it, all within the time
    // limit for waiting.
    let at = START + SECOND;
    conversation.says(&mut recording, at, End::Client, &frame(TEXT, b"late", true));
    for n in 0..200 {
        conversation.says(
            &mut recording,
            at + 1 + n,
            End::Server,
            &frame(TEXT, b"early", false),
        );
    }
    let late = recording.packets.len() - 201;
    let recording = reordered(&recording, |packets| packets[late..].rotate_left(1));
    let played = judge(&recording, &[server(8080, None)]);
    assert_eq!(played.frames().len(), 201);
    assert_eq!(
        played.summary.rx.unsynced_bytes + played.summary.tx.unsynced_bytes,
        0
    );
}

#[test]
fn a_recording_that_begins_with_a_request_reports_each_state_once() {
    use State::{Closed, Connecting, Open};
    const REFUSAL: &[u8] = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    const PAGE: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    /// Bytes sent by each end, and the resulting states.
    type Case<'a> = (&'a [(End, &'a [u8])], &'a [State]);
    let cases: [Case<'_>; 5] = [
        (
            &[(End::Client, REQUEST), (End::Server, RESPONSE)],
            &[Connecting, Open],
        ),
        (
            &[(End::Client, REQUEST), (End::Server, REFUSAL)],
            &[Connecting, Closed],
        ),
        (&[(End::Client, REQUEST)], &[Connecting]),
        (&[(End::Client, PAGE), (End::Server, OK)], &[]),
        (
            &[
                (End::Client, PAGE),
                (End::Server, OK),
                (End::Client, REQUEST),
                (End::Server, RESPONSE),
            ],
            &[Connecting, Open],
        ),
    ];
    for (said, expected) in cases {
        // Answers at once, within a tick, or seconds later.
        for pause in [0, MILLI, 3 * SECOND] {
            let mut conversation = Conversation::v4();
            let mut recording = Recording::default();
            conversation.acked = [conversation.next[1], conversation.next[0]];
            for (n, (from, bytes)) in (0..).zip(said) {
                conversation.says(&mut recording, START + n * pause, *from, bytes);
            }
            let played = judge(&recording, &[server(8080, None)]);
            assert_eq!(states(&played), expected, "{said:?} {pause}");
        }
    }
}

#[test]
fn frames_are_reported_after_the_opening_in_their_segment_and_before_the_end_they_cause() {
    let text = frame(TEXT, b"welcome", false);
    let close = frame(CLOSE, &[3, 232], false);
    for (behind, expected) in [
        (text.clone(), vec!["connecting", "open", "text"]),
        (
            [text, close.clone()].concat(),
            vec!["connecting", "open", "text", "close", "closing"],
        ),
        (close, vec!["connecting", "open", "close", "closing"]),
    ] {
        let mut conversation = Conversation::v4();
        let mut recording = Recording::default();
        conversation.open(&mut recording, START);
        conversation.says(&mut recording, START + 5 * MILLI, End::Client, REQUEST);
        let response = [RESPONSE, &behind].concat();
        conversation.says(&mut recording, START + 6 * MILLI, End::Server, &response);
        let played = judge(&recording, &[server(8080, None)]);
        let reported = played.records.iter().filter_map(|record| match record {
            ReplayRecord::State(transition) => Some(transition.to.as_str()),
            ReplayRecord::Frame(frame) => Some(if frame.opcode == CLOSE {
                "close"
            } else {
                "text"
            }),
            _ => None,
        });
        assert_eq!(reported.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_segment_that_acknowledges_too_much_does_not_delay_another_connection() {
    let mut one = Conversation::v4();
    let mut other = Conversation::new("10.0.0.3:40000", "10.0.0.1:8080");
    let mut recording = opened(&mut one);
    one.acked[1] = one.next[0].wrapping_add(500);
    one.shouts(
        &mut recording,
        START + SECOND,
        End::Server,
        &frame(TEXT, b"odd", false),
    );
    other.open(&mut recording, START + SECOND + MILLI);
    upgrade(&mut other, &mut recording, START + SECOND + MILLI);
    other.segment(
        &mut recording,
        START + SECOND + 9 * MILLI,
        End::Client,
        SYN | ACK,
        &[],
    );
    let played = judge(&recording, &[server(8080, None)]);
    let opened = played.records.iter().filter_map(|record| match record {
        ReplayRecord::State(transition) if transition.to == State::Open => Some(transition.at.0),
        _ => None,
    });
    assert_eq!(
        opened.collect::<Vec<_>>(),
        [START + 6 * MILLI, START + SECOND + 7 * MILLI]
    );
    assert_eq!(played.frames().len(), 1);
}
