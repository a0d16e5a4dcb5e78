//! File formats and link layers.

use std::io::{self, Read};

use monitor::{
    records::skipped::Skip,
    replay::{Capture, CaptureError},
};
use wire::{Conversation, End, MILLI, Order, PING, PONG, Recording, SECOND, START, TEXT};

use crate::{
    Played,
    files::{Block, pcap, pcapng},
    frame, judge,
    link::Link,
    opened, replay, server,
};

/// A handshake, a ping with its pong, a text frame, and the end: eleven packets.
pub(crate) fn short_story(mut conversation: Conversation) -> Recording {
    let mut recording = opened(&mut conversation);
    let at = START + SECOND;
    conversation.says(&mut recording, at, End::Server, &frame(PING, b"1", false));
    conversation.says(
        &mut recording,
        at + 250_000,
        End::Client,
        &frame(PONG, b"1", true),
    );
    conversation.says(
        &mut recording,
        at + MILLI,
        End::Client,
        &frame(TEXT, b"hello", true),
    );
    conversation.close(&mut recording, at + 5 * MILLI, End::Client);
    recording
}

/// All records as text.
pub(crate) fn reported(played: &Played) -> String {
    let Played {
        records, summary, ..
    } = played;
    format!("{records:#?}\n{summary:#?}")
}

#[test]
fn every_link_layer_gives_the_same_connection() {
    for conversation in [Conversation::v4(), Conversation::v6()] {
        let recording = short_story(conversation);
        let expected = judge(&recording, &[server(8080, None)]);
        assert_eq!(expected.frames().len(), 3);
        assert_eq!(expected.connections().len(), 1);
        assert_eq!(expected.summary.segments, recording.packets.len() as u64);
        for link in Link::ALL {
            let file = pcap(&recording, link, 1 << 16, Order::Little, 0xa1b2_c3d4);
            let played = replay(&file, &[server(8080, None)]).expect("a recording");
            assert_eq!(reported(&played), reported(&expected), "{link:?}");
        }
    }
}

#[test]
fn every_format_byte_order_and_timestamp_gives_the_same_records() {
    let recording = short_story(Conversation::v4());
    let listeners = [server(8080, None)];
    let expected = reported(&judge(&recording, &listeners));
    for order in [Order::Little, Order::Big] {
        for magic in [0xa1b2_c3d4, 0xa1b2_3c4d, 0xa1b2_cd34] {
            let file = pcap(&recording, Link::Ethernet, 1 << 16, order, magic);
            let played = replay(&file, &listeners).expect("a pcap file");
            assert_eq!(reported(&played), expected, "{order:?} {magic:x}");
        }
        for block in [Block::Enhanced, Block::Obsolete] {
            for resolution in [6, 9] {
                let file = pcapng(&recording, order, block, resolution);
                let played = replay(&file, &listeners).expect("a pcapng file");
                assert_eq!(
                    reported(&played),
                    expected,
                    "{order:?} {block:?} {resolution}"
                );
            }
        }
    }
}

#[test]
fn a_binary_timestamp_is_exact_to_its_unit() {
    let mut conversation = Conversation::v4();
    let mut recording = Recording::default();
    let at = START + SECOND / 2 + SECOND / 4;
    conversation.open(&mut recording, at);
    recording.packets.truncate(1);
    let file = pcapng(&recording, Order::Little, Block::Enhanced, 0x80 | 10);
    let mut capture = Capture::open(&file[..]).expect("a pcapng file");
    let packet = capture.next_packet().expect("readable").expect("a packet");
    assert_eq!(packet.at, Some(at));
}

#[test]
fn each_section_has_its_own_byte_order_and_interfaces() {
    let recording = short_story(Conversation::v4());
    let (first, second) = recording.packets.split_at(5);
    let part = |packets: &[(u64, Vec<u8>)], order| {
        let packets = packets.to_vec();
        pcapng(&Recording { packets }, order, Block::Enhanced, 6)
    };
    let file = [part(first, Order::Little), part(second, Order::Big)].concat();
    let listeners = [server(8080, None)];
    let played = replay(&file, &listeners).expect("a pcapng file");
    assert_eq!(reported(&played), reported(&judge(&recording, &listeners)));
}

#[test]
fn packets_without_a_timestamp_get_the_latest_one() {
    let recording = short_story(Conversation::v4());
    let file = pcapng(&recording, Order::Little, Block::Simple, 6);
    let played = replay(&file, &[server(8080, None)]).expect("a pcapng file");
    assert_eq!(played.frames().len(), 3);
    assert_eq!(played.summary.untimed, recording.packets.len() as u64);
    assert_eq!(played.summary.first_packet_at, None);
}

#[test]
fn a_packet_of_an_undescribed_interface_is_counted() {
    let recording = short_story(Conversation::v4());
    let whole = pcapng(&recording, Order::Little, Block::Enhanced, 6);
    let described = Order::Little.interface(147, 0, Some(6)).len();
    let at = Order::Little.section().len();
    let file = [&whole[..at], &whole[at + described..]].concat();
    let played = replay(&file, &[server(8080, None)]).expect("a pcapng file");
    let skipped = played.summary.skipped.get(Skip::LinkType);
    assert_eq!(skipped, recording.packets.len() as u64);
}

#[test]
fn a_truncated_file_is_judged_up_to_its_last_whole_packet() {
    let recording = short_story(Conversation::v4());
    let listeners = [server(8080, None)];
    for (file, header, overhead) in [
        (recording.pcap(), 24, 16),
        (
            pcapng(&recording, Order::Big, Block::Obsolete, 6),
            Order::Big.section().len() + 2 * Order::Big.interface(1, 0, Some(6)).len(),
            32,
        ),
    ] {
        // End of each packet.
        let mut ends = Vec::new();
        let mut at = header;
        for (_, packet) in &recording.packets {
            let len = Link::Ethernet.wrap(packet).len();
            at += overhead
                + if overhead == 32 {
                    len.next_multiple_of(4)
                } else {
                    len
                };
            ends.push(at);
        }
        let first = if overhead == 16 { header } else { 12 };
        for cut in 0..=file.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count() as u64;
            match replay(&file[..cut], &listeners) {
                Ok(played) => {
                    assert!(cut >= first);
                    assert_eq!(played.summary.packets, whole, "cut at {cut}");
                    let at_a_border = cut == header || ends.contains(&cut) || cut == file.len();
                    match played.end {
                        None => assert!(at_a_border || cut < header, "cut at {cut}"),
                        Some(CaptureError::Truncated { at }) => {
                            assert!(!at_a_border, "cut at {cut}");
                            assert_eq!(at, cut as u64);
                        }
                        Some(other) => panic!("cut at {cut}: {other}"),
                    }
                }
                Err(CaptureError::Unrecognised(_)) => assert!(cut < first, "cut at {cut}"),
                Err(other) => panic!("cut at {cut}: {other}"),
            }
        }
    }
}

#[test]
fn a_file_that_is_not_a_recording_is_refused_with_a_reason() {
    let refusal = |bytes: &[u8]| match Capture::open(bytes) {
        Err(error @ CaptureError::Unrecognised(_)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refusal(b"hello, world, this is text"),
        "not a pcap or pcapng recording"
    );
    assert!(refusal(b"").ends_with("it is empty"));
    for (bytes, kind) in [
        (&b"BZh91AY&SY\x12\x34"[..], "bzip2"),
        (&[0x04, 0x22, 0x4d, 0x18, 0x64, 0x40, 0xa7, 0], "lz4"),
        (b"PK\x03\x04\x14\0\0\0", "zip"),
        (b"7z\xbc\xaf\x27\x1c\0\x04", "7z"),
        (b"snoop\0\0\0\0\0\0\x02", "snoop"),
    ] {
        let refusal = refusal(bytes);
        assert!(refusal.contains(kind), "{kind}: {refusal}");
    }
}

#[test]
fn damage_ends_the_replay_at_its_position_with_a_reason() {
    let recording = short_story(Conversation::v4());
    let listeners = [server(8080, None)];
    let mut file = recording.pcap();
    let second = 24 + 16 + Link::Ethernet.wrap(&recording.packets[0].1).len();
    file[second + 8..second + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    let played = replay(&file, &listeners).expect("a recording");
    assert_eq!(played.summary.packets, 1);
    let end = played.end.expect("damage").to_string();
    assert_eq!(
        end,
        format!("damaged at byte {second}: a packet of impossible length")
    );

    let mut file = pcapng(&recording, Order::Little, Block::Enhanced, 6);
    let last = file.len() - 1;
    file[last] = 1;
    let played = replay(&file, &listeners).expect("a recording");
    assert_eq!(played.summary.packets, recording.packets.len() as u64);
    let end = played.end.expect("damage").to_string();
    assert!(end.ends_with("a block whose two lengths differ"), "{end}");
}

/// A source that returns one byte per read.
pub(crate) struct Slow<'a>(pub(crate) &'a [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = buffer.len().min(1);
        self.0.read(&mut buffer[..n])
    }
}

#[test]
fn one_byte_per_read_gives_the_same_records() {
    let recording = short_story(Conversation::v6());
    for file in [
        recording.pcap(),
        pcapng(&recording, Order::Little, Block::Enhanced, 9),
    ] {
        let mut fast = Capture::open(&file[..]).expect("a recording");
        let mut slow = Capture::open(Slow(&file)).expect("a recording");
        for _ in 0..recording.packets.len() {
            let expected = fast.next_packet().expect("readable");
            assert!(expected.is_some());
            assert_eq!(slow.next_packet().expect("readable"), expected);
        }
        assert!(slow.next_packet().expect("readable").is_none());
    }
}
