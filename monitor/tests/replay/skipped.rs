//! Packets that are skipped, each counted by its reason, and headers that are not a reason.

use monitor::records::skipped::Skip;
use wire::{ACK, Conversation, End, Order, RST, Recording, START, ip};

use crate::{
    files::pcap,
    formats::{reported, short_story},
    judge,
    link::Link,
    replay, server,
};

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
