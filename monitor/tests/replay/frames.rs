//! The frames reported are those of the stream generator.

use monitor::records::frames::FrameRecord;
use monitor_core::facts::Direction;
use proptest::prelude::*;
use wire::{
    CLOSE, Conversation, End, MILLI, Order, PING, PONG, REQUEST, RESPONSE, Recording, SECOND,
    START, TEXT,
};

use crate::{
    files::pcap,
    frame,
    link::Link,
    opened, replay, server,
    ws::{self, Stream, cut, frames, lengths, sizes},
};

/// Longest payload of a packet whose IPv4 length fits in 16 bits.
const SEGMENT_MAX: usize = 65_000;

/// The part of a frame record that the generator knows.
fn known(frame: &FrameRecord) -> ws::Frame {
    ws::Frame {
        fin: frame.fin,
        opcode: frame.opcode,
        len: frame.length as usize,
        code: frame.close_code,
    }
}

/// One packet per cut, with the two ends alternating.
fn talk(client: &Stream, server: &Stream, cuts: &[Vec<usize>; 2], v6: bool) -> Recording {
    let mut conversation = if v6 {
        Conversation::v6()
    } else {
        Conversation::v4()
    };
    let mut recording = Recording::default();
    conversation.open(&mut recording, START);
    let mut at = START + 10 * MILLI;
    let mut say = |from, bytes: &[u8]| {
        at += MILLI;
        conversation.says(&mut recording, at, from, bytes);
    };
    say(End::Client, REQUEST);
    say(End::Server, RESPONSE);
    let rest = |stream: &Stream, sizes: &[usize]| {
        let sizes: Vec<_> = sizes.iter().map(|size| (*size).min(SEGMENT_MAX)).collect();
        cut(stream.bytes.len() - stream.http, &sizes)
            .into_iter()
            .map(|range| stream.bytes[stream.http + range.start..stream.http + range.end].to_vec())
            .collect::<Vec<_>>()
    };
    let mut ours = rest(client, &cuts[0]).into_iter();
    let mut theirs = rest(server, &cuts[1]).into_iter();
    loop {
        match (ours.next(), theirs.next()) {
            (None, None) => return recording,
            (from_client, from_server) => {
                if let Some(bytes) = from_client {
                    say(End::Client, &bytes);
                }
                if let Some(bytes) = from_server {
                    say(End::Server, &bytes);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_frame_is_reported_once_with_the_fields_of_its_header(
        from_client in frames(lengths()),
        from_server in frames(lengths()),
        cuts in [sizes(), sizes()],
        v6 in any::<bool>(),
    ) {
        let client = Stream::new(REQUEST, &from_client, true);
        let answers = Stream::new(RESPONSE, &from_server, false);
        let recording = talk(&client, &answers, &cuts, v6);
        let file = pcap(&recording, Link::Raw, 1 << 18, Order::Little, 0xa1b2_3c4d);
        let played = replay(&file, &[server(8080, None)]).expect("a recording");

        for (direction, expected, masked) in [
            (Direction::Rx, &from_client, true),
            (Direction::Tx, &from_server, false),
        ] {
            let reported: Vec<_> = played
                .frames()
                .into_iter()
                .filter(|frame| frame.direction == direction)
                .collect();
            let read: Vec<_> = reported.iter().map(|frame| known(frame)).collect();
            prop_assert_eq!(&read, expected);
            prop_assert!(reported.iter().all(|frame| frame.masked == masked && frame.rsv == 0));
        }
        let connections = played.connections();
        prop_assert_eq!(connections.len(), 1);
        let sum = |frames: &[ws::Frame]| frames.iter().map(|frame| frame.len as u64).sum::<u64>();
        prop_assert_eq!(connections[0].rx.payload_bytes, Some(sum(&from_client)));
        prop_assert_eq!(connections[0].tx.payload_bytes, Some(sum(&from_server)));
        prop_assert_eq!(connections[0].rx.unsynced_bytes, Some(0));
        prop_assert_eq!(connections[0].tx.unsynced_bytes, Some(0));
    }
}

/// Ethernet, IPv4 with options, TCP with options.
const HEADERS: usize = 14 + 24 + 32;

#[test]
fn a_frame_is_counted_if_its_header_was_captured_but_its_payload_was_not() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    for i in 0..20 {
        let at = START + SECOND + i * MILLI;
        conversation.says(
            &mut recording,
            at,
            End::Client,
            &frame(TEXT, &[7; 100], true),
        );
    }
    // Six bytes of header: truncated directly behind them, within the payload, and not at all.
    for snap in [HEADERS + 6, HEADERS + 7, HEADERS + 50, HEADERS + 106] {
        let snapped = snap.max(HEADERS + RESPONSE.len());
        // The handshake stays complete.
        let (handshake, rest) = recording.packets.split_at(6);
        let part = |packets: &[(u64, Vec<u8>)], snap| {
            let packets = packets.to_vec();
            pcap(
                &Recording { packets },
                Link::Ethernet,
                snap,
                Order::Little,
                0xa1b2_c3d4,
            )
        };
        let file = [part(handshake, snapped), part(rest, snap)[24..].to_vec()].concat();
        let played = replay(&file, &[server(8080, None)]).expect("a recording");
        assert_eq!(played.frames().len(), 20, "cut at {snap}");
        assert!(played.frames().iter().all(|frame| frame.length == 100));
        assert_eq!(played.summary.rx.unsynced_bytes, 0, "cut at {snap}");
    }
}

#[test]
fn frames_without_a_captured_header_are_unsynced_bytes() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    let kept = recording.packets.len();
    let at = START + SECOND;
    // The second frame of the segment begins where the capture ends.
    let two = [frame(TEXT, &[7; 20], true), frame(TEXT, &[7; 20], true)].concat();
    conversation.says(&mut recording, at, End::Client, &two);
    for i in 1..=10 {
        let text = frame(TEXT, &[7; 30], true);
        conversation.says(&mut recording, at + i * MILLI, End::Client, &text);
    }
    let snap = HEADERS + 26;
    let cut = |packets: &[(u64, Vec<u8>)], snap| {
        let packets = packets.to_vec();
        pcap(
            &Recording { packets },
            Link::Ethernet,
            snap,
            Order::Little,
            0xa1b2_c3d4,
        )
    };
    let (handshake, rest) = recording.packets.split_at(kept);
    let file = [cut(handshake, 1 << 16), cut(rest, snap)[24..].to_vec()].concat();
    let played = replay(&file, &[server(8080, None)]).expect("a recording");
    let lengths: Vec<_> = played.frames().iter().map(|frame| frame.length).collect();
    assert_eq!(lengths[0], 20);
    // In sync again after a few segments that begin with frames.
    let later = lengths.len() - 1;
    assert!((1..10).contains(&later), "{lengths:?}");
    assert!(lengths[1..].iter().all(|length| *length == 30));
    let doubted = 26 + (10 - later) * 36;
    assert_eq!(played.summary.rx.unsynced_bytes, doubted as u64);
}

#[test]
fn a_pong_has_the_round_trip_time_and_a_close_frame_its_code() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    let at = START + SECOND;
    conversation.says(&mut recording, at, End::Server, &frame(PING, b"7", false));
    conversation.says(
        &mut recording,
        at + 3 * MILLI,
        End::Client,
        &frame(PONG, b"7", true),
    );
    conversation.says(
        &mut recording,
        at + 4 * MILLI,
        End::Client,
        &frame(PONG, b"", true),
    );
    conversation.says(
        &mut recording,
        at + 5 * MILLI,
        End::Client,
        &frame(CLOSE, &[3, 232], true),
    );
    conversation.says(
        &mut recording,
        at + 6 * MILLI,
        End::Server,
        &frame(CLOSE, &[], false),
    );
    let played = crate::judge(&recording, &[server(8080, None)]);
    let reported: Vec<_> = played
        .frames()
        .iter()
        .map(|frame| {
            (
                frame.opcode,
                frame.ping_rtt.map(|rtt| rtt.as_micros()),
                frame.close_code,
            )
        })
        .collect();
    assert_eq!(
        reported,
        [
            (PING, None, None),
            (PONG, Some(3000), None),
            (PONG, None, None),
            (CLOSE, None, Some(1000)),
            (CLOSE, None, None),
        ]
    );
}

#[test]
fn a_101_with_truncated_headers_is_accepted_by_its_status_line() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    for i in 0..20 {
        let at = START + SECOND + i * MILLI;
        let text = frame(TEXT, &[7; 30], true);
        conversation.says(&mut recording, at, End::Client, &text);
        let response = frame(TEXT, &[7; 30], false);
        conversation.says(&mut recording, at, End::Server, &response);
    }
    let snap = HEADERS + 30;
    let file = pcap(&recording, Link::Ethernet, snap, Order::Little, 0xa1b2_c3d4);
    let played = replay(&file, &[server(8080, None)]).expect("a recording");
    assert_eq!(played.connections()[0].protocol, "websocket");
    assert_eq!(
        played.summary.rx.frames, 20,
        "frames begin with the next segment"
    );
    let reported = played.summary.tx.frames;
    assert!(
        (1..20).contains(&reported),
        "the first frame was not captured: {reported}"
    );
}
