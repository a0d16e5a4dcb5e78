//! File formats and link layers.

use std::io::{self, Read, Write};

use monitor::replay::{Capture, CaptureError, Skip, unpacked};
use proptest::{prelude::*, sample::select};
use wire::{
    ACK, Conversation, End, MILLI, Order, PING, PONG, RST, Recording, SECOND, START, TEXT, ip,
};

use crate::{
    Played,
    files::{Block, pcap, pcapng},
    frame, judge,
    link::Link,
    opened, replay, server,
};

/// A handshake, a ping with its pong, a text frame, and the end: eleven packets.
fn short_story(mut conversation: Conversation) -> Recording {
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
fn reported(played: &Played) -> String {
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
    assert_eq!(played.summary.from, None);
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

/// The file packed with gzip, xz and zstd, in one piece and in two.
fn packed(file: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let gzip = |part: &[u8]| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(part).expect("memory");
        packer.finish().expect("memory")
    };
    let xz = |part: &[u8]| {
        let options = lzma_rust2::XzOptions::with_preset(1);
        let mut packer = lzma_rust2::XzWriter::new(Vec::new(), options).expect("an xz file");
        packer.write_all(part).expect("memory");
        packer.finish().expect("memory")
    };
    let zstd = |part: &[u8]| {
        use ruzstd::encoding::{CompressionLevel, compress_to_vec};
        compress_to_vec(part, CompressionLevel::Fastest)
    };
    // A skippable frame between the two (RFC 8878 §3.1.2).
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"any"].concat();
    let (first, second) = file.split_at(file.len() / 3);
    vec![
        ("gzip", gzip(file)),
        ("gzip", [gzip(first), gzip(second)].concat()),
        ("xz", xz(file)),
        ("xz", [xz(first), xz(second)].concat()),
        ("zstd", zstd(file)),
        ("zstd", [zstd(first), skippable, zstd(second)].concat()),
    ]
}

/// The records of a packed file, and how it ends.
fn played(source: Box<dyn Read + '_>) -> Result<Played, CaptureError> {
    let mut bytes = Vec::new();
    let mut unpacked = unpacked(source)?;
    match unpacked.read_to_end(&mut bytes) {
        Ok(_) => replay(&bytes, &[server(8080, None)]),
        Err(error) => Err(error.into()),
    }
}

#[test]
fn a_packed_recording_gives_the_same_records() {
    let recording = short_story(Conversation::v4());
    let file = recording.pcap();
    let expected = reported(&judge(&recording, &[server(8080, None)]));
    for (kind, packed) in packed(&file) {
        let played =
            played(Box::new(&packed[..])).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(reported(&played), expected, "{kind}");
    }
    assert_eq!(
        reported(&played(Box::new(&file[..])).expect("as it is")),
        expected
    );
    for short in [&b""[..], b"\x1f", b"abc"] {
        assert!(matches!(
            played(Box::new(short)),
            Err(CaptureError::Unrecognised(_))
        ));
    }
}

#[test]
fn truncation_and_damage_of_a_packed_recording_are_reported() {
    let file = short_story(Conversation::v4()).pcap();
    for (kind, packed) in packed(&file) {
        for cut in [20, packed.len() / 2, packed.len() - 5] {
            let mut capture = match unpacked(&packed[..cut]).map(Capture::open) {
                Ok(Ok(capture)) => capture,
                Ok(Err(CaptureError::Packed("cut off"))) => continue,
                other => panic!("{kind}, {cut}: {:?}", other.map(|opened| opened.err())),
            };
            let last = loop {
                match capture.next_packet() {
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            let is_cut = matches!(last, Some(CaptureError::Packed("cut off")));
            // The second of two pieces may be missing without a trace.
            assert!(
                is_cut || matches!(last, Some(CaptureError::Truncated { .. })),
                "{kind}, {cut}: {last:?}"
            );
        }
        let mut damaged = packed.clone();
        for byte in &mut damaged[30..60] {
            *byte ^= 0x5a;
        }
        let error = played(Box::new(&damaged[..])).expect_err(kind);
        let said = error.to_string();
        assert!(said.starts_with("compressed, and "), "{kind}: {said}");
    }
}

#[test]
fn a_read_error_is_not_reported_as_damage() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(5))
        }
    }
    let file = short_story(Conversation::v4()).pcap();
    for (kind, packed) in packed(&file) {
        let mut half = unpacked(packed[..packed.len() / 4].chain(Failing)).expect(kind);
        let error = half.read_to_end(&mut Vec::new()).expect_err(kind);
        assert_eq!(error.raw_os_error(), Some(5), "{kind}: {error}");
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
struct Slow<'a>(&'a [u8]);

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

#[test]
fn skipped_packets_are_counted_by_reason() {
    let v4 = |protocol, payload: &[u8]| {
        ip(
            [10, 0, 0, 1].into(),
            [10, 0, 0, 2].into(),
            protocol,
            payload,
        )
    };
    let v6 = |next, payload: &[u8]| {
        let [from, to] = [1, 2].map(|n| std::net::Ipv6Addr::from(n).into());
        ip(from, to, next, payload)
    };
    let data = tcp(8080, ACK, b"x");
    let mut later_fragment = v4(6, &data);
    later_fragment[7] = 1;
    let mut first_fragment = v4(6, &data);
    first_fragment[6] = 0x20;
    let mut no_header = tcp(8080, ACK, b"");
    no_header[12] = 1 << 4;
    let many_options = (0..4).fold(behind_options(6, &data), |rest, _| {
        behind_options(60, &rest)
    });
    let cases = [
        (Skip::NotTcp, v4(17, &[0; 30])),
        (Skip::NotTcp, v6(58, &[0; 30])),
        (Skip::Fragment, later_fragment),
        (Skip::Fragment, first_fragment),
        (Skip::Fragment, v6(44, &data)),
        (Skip::Fragment, v6(0, &behind_options(44, &data))),
        (Skip::NotTcp, v6(0, &behind_options(58, &[0; 30]))),
        (Skip::ExtensionHeader, v6(51, &data)),
        (Skip::ExtensionHeader, v6(60, &behind_options(135, &data))),
        (Skip::ExtensionHeader, v6(60, &many_options)),
        (Skip::TruncatedHeader, v6(60, &[])),
        (Skip::TruncatedHeader, v4(6, &data[..19])),
        (Skip::Malformed, v4(6, &no_header)),
        (Skip::NotWatched, v4(6, &tcp(8081, ACK, b"x"))),
        (Skip::StrayReset, v4(6, &tcp(8080, RST, b""))),
        (Skip::NotIp, vec![0x20; 40]),
    ];
    for (reason, packet) in cases {
        let recording = Recording {
            packets: vec![(START, packet)],
        };
        let file = pcap(&recording, Link::Raw, 1 << 16, Order::Little, 0xa1b2_c3d4);
        let played = replay(&file, &[server(8080, None)]).expect("a recording");
        let counted: Vec<_> = played.summary.skipped.iter().collect();
        assert_eq!(counted, [(reason, 1)]);
        assert_eq!(played.summary.segments, 0);
    }
}

/// A segment of a client.
fn tcp(port: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let conversation = Conversation::new("10.0.0.1:40000", &format!("10.0.0.2:{port}"));
    let segment = conversation.segment_at(End::Client, 1, flags, payload);
    segment.tcp()
}

/// An IPv6 options header of 16 bytes before `rest`, which has the protocol number `next`.
fn behind_options(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 16];
    header[..2].copy_from_slice(&[next, 1]);
    [&header, rest].concat()
}

#[test]
fn tcp_is_found_behind_extension_headers() {
    let mut recording = short_story(Conversation::v6());
    let listeners = [server(8080, None)];
    let expected = reported(&judge(&recording, &listeners));
    for (_, packet) in &mut recording.packets {
        let (ip, tcp) = packet.split_at(40);
        let mut ip = ip.to_vec();
        ip[6] = 0;
        let behind = behind_options(60, &behind_options(6, tcp));
        ip[4..6].copy_from_slice(&(behind.len() as u16).to_be_bytes());
        *packet = [ip, behind].concat();
    }
    assert_eq!(reported(&judge(&recording, &listeners)), expected);
}

#[test]
fn a_fragment_that_is_the_whole_packet_is_read() {
    let listeners = [server(8080, None)];
    let story = short_story(Conversation::v6());
    let expected = judge(&story, &listeners);
    // The offset and flags of the fragment header (RFC 8200 §4.5): reserved bits are ignored.
    for (place, more, is_whole) in [
        (0, 0, true),
        (0, 6, true),
        (0, 1, false),
        (0, 8, false),
        (1, 0, false),
    ] {
        for before in [0, 1] {
            let mut recording = story.clone();
            for (_, packet) in &mut recording.packets {
                let (ip, tcp) = packet.split_at(40);
                let mut ip = ip.to_vec();
                let mut behind = [&[6, 0, place, more, 0, 0, 0, 9][..], tcp].concat();
                ip[6] = 44;
                if before == 1 {
                    behind = behind_options(44, &behind);
                    ip[6] = 60;
                }
                ip[4..6].copy_from_slice(&(behind.len() as u16).to_be_bytes());
                *packet = [ip, behind].concat();
            }
            let played = judge(&recording, &listeners);
            match is_whole {
                true => assert_eq!(reported(&played), reported(&expected)),
                false => assert_eq!(
                    played.summary.skipped.get(Skip::Fragment),
                    played.summary.packets
                ),
            }
        }
    }
}

#[test]
fn packets_of_unsupported_link_layers_are_counted() {
    let mut file = short_story(Conversation::v4()).pcap();
    // LINKTYPE_USER0.
    file[20] = 147;
    let played = replay(&file, &[server(8080, None)]).expect("a recording");
    let packets = played.summary.packets;
    assert_eq!(played.summary.skipped.get(Skip::LinkType), packets);
    assert_eq!(played.summary.unread_links, [(147, packets)].into());
    // ARP
    let mut frame = vec![2; 12];
    frame.extend([8, 6]);
    frame.extend([0; 28]);
    let mut file = Recording::default().pcap();
    file.extend([0; 8]);
    file.extend((frame.len() as u32).to_le_bytes());
    file.extend((frame.len() as u32).to_le_bytes());
    file.extend(frame);
    let played = replay(&file, &[server(8080, None)]).expect("a recording");
    assert_eq!(played.summary.skipped.get(Skip::NotIp), 1);
}

/// A valid file header, so that the rest is parsed.
fn header() -> impl Strategy<Value = Vec<u8>> {
    let link = select(vec![0_u32, 1, 12, 101, 108, 113, 228, 229, 276, 7]);
    (link, any::<bool>(), any::<bool>()).prop_map(|(link, ng, big)| {
        let order = if big { Order::Big } else { Order::Little };
        if ng {
            return [order.section(), order.interface(link, 0, Some(6))].concat();
        }
        let mut header = order.u32(0xa1b2_c3d4).to_vec();
        header.extend([0; 16]);
        header.extend(order.u32(link));
        header
    })
}

/// Random bytes as the content of correctly framed records.
fn records() -> impl Strategy<Value = Vec<u8>> {
    let record = (
        prop::collection::vec(any::<u8>(), 0..120),
        any::<u32>(),
        any::<bool>(),
    );
    prop::collection::vec(record, 0..10).prop_map(|records| {
        let mut bytes = Vec::new();
        for (mut content, time, tcp) in records {
            if tcp && content.len() > 40 {
                // Towards the watched port, mid-stream.
                content[0] = 0x45;
                content[2..4].copy_from_slice(&90_u16.to_be_bytes());
                content[6..8].fill(0);
                content[9] = 6;
                content[20..24].copy_from_slice(&[0x10, 0, 0x1f, 0x90]);
                content[32] = 0x50;
            }
            let len = (content.len() as u32).to_le_bytes();
            bytes.extend(time.to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(len);
            bytes.extend(len);
            bytes.extend(content);
        }
        bytes
    })
}

proptest! {
    #[test]
    fn a_packed_recording_with_wrong_bytes_is_judged_or_refused(
        wrong in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end in prop::option::of(any::<prop::sample::Index>()),
    ) {
        for (_, mut bytes) in packed(&short_story(Conversation::v4()).pcap()) {
            for (at, byte) in &wrong {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            bytes.truncate(end.map_or(bytes.len(), |end| end.index(bytes.len())));
            let outcome = |source| match played(source) {
                Ok(played) => reported(&played),
                Err(error) => error.to_string(),
            };
            prop_assert_eq!(outcome(Box::new(&bytes[..])), outcome(Box::new(Slow(&bytes))));
        }
    }

    #[test]
    fn any_bytes_are_judged_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = replay(&bytes, &[server(8080, None)]);
    }

    #[test]
    fn any_bytes_behind_a_header_are_judged(header in header(), bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        replay(&[header, bytes].concat(), &[server(8080, None)]).expect("a valid header");
    }

    #[test]
    fn any_packets_are_judged_or_skipped(link in select(vec![0_u8, 1, 12, 101, 113]), bytes in records()) {
        let mut file = Recording::default().pcap();
        file[20] = link;
        file.extend(bytes);
        let limit = std::time::Duration::from_secs(60);
        let played = replay(&file, &[server(8080, Some(limit))]).expect("a valid header");
        prop_assert!(played.end.is_none());
        let skipped: u64 = played.summary.skipped.iter().map(|(_, packets)| packets).sum();
        prop_assert_eq!(played.summary.segments + skipped, played.summary.packets);
    }

    #[test]
    fn a_recording_with_a_wrong_byte_is_judged(at in any::<prop::sample::Index>(), byte in any::<u8>(), ng in any::<bool>()) {
        let recording = short_story(Conversation::v4());
        let mut file = match ng {
            true => pcapng(&recording, Order::Little, Block::Enhanced, 6),
            false => recording.pcap(),
        };
        *at.get_mut(&mut file) = byte;
        let _ = replay(&file, &[server(8080, None)]);
    }
}
