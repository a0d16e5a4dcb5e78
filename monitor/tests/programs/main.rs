//! The loaded programs account for packets exactly like the native logic, and count every record
//! they lose.
//!
//! Real sockets receive hand-written segments (see `tun`). `BPF_PROG_TEST_RUN` is used only for
//! packets that a socket would not receive, because the socket of a test run is always closed.

#[path = "../../../monitor-common/tests/ws/mod.rs"]
mod ws;

#[path = "../tun/mod.rs"]
mod tun;

mod early;
mod headers;
mod kernel;
mod link;
mod maps;
mod multipath;
mod outgoing;

use std::{collections::VecDeque, ops::Range, thread::sleep, time::Duration};

use monitor_common::{drop_reason::DropReason, idle_gap_scale, stats::Counter, stream::MAX_STEPS};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};
use wire::{REQUEST, RESPONSE};

use kernel::{Kernel, KernelGuard};
use link::{Link, Native};
use tun::{Family, MAX_PAYLOAD, in_new_namespace};
use ws::{Fate, Frame, Stream, cut, fates, frames, lengths, sizes};

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn generated_connections_are_accounted_like_the_native_run() {
    const CONNECTIONS: u16 = 260;
    const SEGMENTS: usize = 10_000;
    let port = 28_101;
    let mut turn = KernelGuard::wait();
    let kernel = turn.watching(port);
    let mut runner = TestRunner::new_with_rng(
        ProptestConfig::default(),
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let connections = (
        [frames(lengths()), frames(lengths())],
        [sizes(), sizes()],
        fates(),
        any::<u32>(),
        any::<bool>(),
        prop::collection::vec(any::<bool>(), 1..20),
    );
    let mut segments = 0;
    in_new_namespace(|tun| {
        for number in 0..CONNECTIONS {
            let (both, cuts, fates, isn, v6, turns) = connections
                .new_tree(&mut runner)
                .expect("no filters")
                .current();
            let family = if v6 { Family::V6 } else { Family::V4 };
            let [from_client, from_server] = both;
            let client = Stream::new(REQUEST, &from_client, true);
            let server = Stream::new(RESPONSE, &from_server, false);
            let mut link = Link::open(tun, family, port, 20_000 + number, isn);
            link.peer_sends(tun, 0..REQUEST.len(), &client.bytes);
            link.socket_sends(tun, &server.bytes[..RESPONSE.len()]);

            let mut to_kernel = rest(&client, &cuts[0]).into_iter();
            let mut from_kernel = rest(&server, &cuts[1]).into_iter();
            let mut fates = fates.iter().cycle();
            // Delayed behind later segments, as after a loss; the last ones are never sent.
            let mut held = VecDeque::new();
            for turn in turns.iter().cycle() {
                let peers_turn = *turn || from_kernel.as_slice().is_empty();
                if peers_turn && let Some(range) = to_kernel.next() {
                    match *fates.next().expect("a cycle") {
                        Fate::Unseen => {
                            held.push_back(range);
                            if held.len() > 3 {
                                let range = held.pop_front().expect("not empty");
                                link.peer_sends(tun, range, &client.bytes);
                            }
                        }
                        Fate::Arrives => link.peer_sends(tun, range, &client.bytes),
                        Fate::ArrivesTwice => {
                            link.peer_sends(tun, range.clone(), &client.bytes);
                            link.peer_sends(tun, range, &client.bytes);
                        }
                        Fate::Overlaps(by) => {
                            let start = range.start.saturating_sub(by);
                            let end = range.end.min(start + MAX_PAYLOAD);
                            link.peer_sends(tun, start..end, &client.bytes);
                        }
                    }
                } else if let Some(range) = from_kernel.next() {
                    link.socket_sends(tun, &server.bytes[range]);
                } else if peers_turn {
                    break;
                }
            }
            segments += link.taken;
            kernel.agrees_at_the_end(link, &format!("connection {number}"));
        }
    });
    println!("{segments} segments compared");
    assert!(segments >= SEGMENTS, "only {segments} segments");
    for &reason in DropReason::ALL {
        assert_eq!(kernel.dropped(reason), 0, "{}", reason.as_str());
    }
}

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn a_header_is_parsed_wherever_it_is_cut() {
    let port = 28_102;
    let mut turn = KernelGuard::wait();
    let kernel = turn.watching(port);
    in_new_namespace(|tun| {
        let long = [Frame::new(true, wire::BINARY, 70_000); 15];
        let client = Stream::new(b"", &long, true);
        let server = Stream::new(b"", &long, false);
        let mut link = Link::upgraded(tun, Family::V4, port, 20_000);
        for (stream, by_peer) in [(&client, true), (&server, false)] {
            let mut at = 0;
            for (i, (header_end, frame)) in stream.frames.iter().enumerate() {
                let header = header_end - if by_peer { 14 } else { 10 };
                let middle = header_end + frame.len / 2;
                for end in [header + i, middle, header_end + frame.len] {
                    let end = end.min(stream.bytes.len());
                    if by_peer {
                        link.peer_sends_more(tun, &stream.bytes[at..end]);
                    } else {
                        link.socket_sends(tun, &stream.bytes[at..end]);
                    }
                    at = end;
                }
            }
        }
        assert_eq!(link.native.stats.frames.map(|n| n[2].get()), [15, 15]);
        assert_eq!(link.native.stats.unsynced_bytes.map(|n| n.get()), [0, 0]);
        kernel.agrees_with(&mut link, "every cut");
    });
}

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn frames_before_the_101_are_unsynced_bytes_and_later_frames_are_found() {
    let port = 28_096;
    let mut turn = KernelGuard::wait();
    let kernel = turn.watching(port);
    let frames = Stream::new(b"", &[Frame::new(true, wire::TEXT, 50); 4], true).bytes;
    in_new_namespace(|tun| {
        for (own_port, cut) in (25_000..).zip((1..frames.len()).step_by(5)) {
            let mut link = Link::open(tun, Family::V4, port, own_port, u32::MAX - 200);
            link.peer_sends_more(tun, REQUEST);
            link.peer_sends_more(tun, &frames[..cut]);
            link.socket_sends(tun, RESPONSE);
            link.peer_sends_more(tun, &frames[cut..]);
            let stats = &link.native.stats;
            let reported = stats.frames[0][1].get() * 56 + stats.unsynced_bytes[0].get();
            assert_eq!(reported, frames.len() as u64);
            kernel.agrees_at_the_end(link, &format!("cut at {cut}"));
        }
    });
}

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn a_segment_of_thousands_of_frames_is_walked_up_to_the_cap_and_the_rest_is_counted() {
    let port = 28_103;
    let mut turn = KernelGuard::wait();
    let kernel = turn.watching(port);
    let pings =
        |n, masked| Stream::new(b"", &vec![Frame::new(true, wire::PING, 0); n], masked).bytes;
    in_new_namespace(|tun| {
        let mut link = Link::upgraded(tun, Family::V4, port, 20_000);
        link.peer_sends_more(tun, &pings(MAX_PAYLOAD / 6, true));
        kernel.agrees_with(&mut link, "below the cap");
        link.socket_sends(tun, &pings(20_000, false));
        let stats = &link.native.stats;
        assert_eq!(stats.frames[0][9].get(), MAX_PAYLOAD as u64 / 6);
        assert_eq!(stats.frames[1][9].get(), u64::from(MAX_STEPS));
        assert_eq!(
            stats.unsynced_bytes[1].get(),
            40_000 - 2 * u64::from(MAX_STEPS)
        );
        kernel.agrees_with(&mut link, "beyond the cap");
    });
    assert_eq!(kernel.dropped(DropReason::WalkTooLong), 1);
}

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn idle_gaps_and_heartbeats_are_timed_by_the_kernel_clock() {
    const SILENCE: Duration = Duration::from_millis(1_200);
    let port = 28_109;
    let mut turn = KernelGuard::wait();
    let kernel = turn.watching(port);
    let ping = |masked| Stream::new(b"", &[Frame::new(true, wire::PING, 4)], masked).bytes;
    let (from_peer, from_here) = (ping(true), ping(false));
    in_new_namespace(|tun| {
        let mut link = Link::upgraded(tun, Family::V4, port, 20_000);
        link.peer_sends_more(tun, &from_peer);
        sleep(SILENCE);
        link.peer_sends_more(tun, &from_peer);
        sleep(SILENCE);
        link.socket_sends(tun, &from_here);
        kernel.agrees_with(&mut link, "two idle gaps, and two pings of the peer");
        let stats = kernel.stats();
        // The first acknowledgement may have been delayed into the idle gap.
        let shortest = idle_gap_scale::slot_of(1_000_000_000);
        let longest = idle_gap_scale::slot_of(10_000_000_000);
        let within =
            |slots: &[Counter]| -> u64 { slots[shortest..longest].iter().map(Counter::get).sum() };
        assert_eq!(within(&stats.idle_gaps_survived), 2);
        assert_eq!(within(&stats.ping_intervals[0]), 1);
        let s = kernel.snapshots.detail(link.conn()).unwrap().expect("open");
        let interval = s.rx.ping_interval.expect("two pings");
        assert!(interval.as_secs_f64() > 1.18, "{interval:?}");
        assert_eq!(s.tx.ping_interval, None, "one ping");
    });
}

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn a_connection_older_than_the_programs_is_adopted_like_in_the_native_run() {
    let port = 28_111;
    let _turn = KernelGuard::wait();
    in_new_namespace(|tun| {
        let mut link = Link::upgraded(tun, Family::V6, port, 40_000);
        link.native = Native::adopted();
        let mut kernel = Kernel::watching(port..port + 1);

        let sent = [
            Frame::new(true, wire::TEXT, 300),
            Frame::new(true, wire::PING, 4),
            Frame::new(false, wire::BINARY, 70_000),
        ];
        let (client, server) = (
            Stream::new(b"", &sent, true),
            Stream::new(b"", &sent, false),
        );
        // From the middle of a payload; then whole frames, until the fourth is sufficient evidence;
        // then in sync.
        for (start, end) in [
            (100, 300),
            (0, 318),
            (0, 318),
            (318, 20_000),
            (20_000, 70_332),
        ] {
            link.peer_sends_more(tun, &client.bytes[start..end]);
        }
        for (start, end) in [
            (50, 304),
            (0, 310),
            (0, 310),
            (310, 60_000),
            (60_000, 70_320),
        ] {
            link.socket_sends(tun, &server.bytes[start..end]);
        }
        assert_eq!(link.native.stats.frames.map(|n| n[2].get()), [1, 1]);
        assert_eq!(
            link.native.stats.unsynced_bytes.map(|n| n.get()),
            [200 + 318 + 308, 254 + 310 + 304]
        );
        kernel.agrees_with(&mut link, "adopted");
        let facts = kernel.snapshots.get(link.conn()).unwrap();
        assert_eq!(facts.expect("published").established_at, None);
    });
}

/// The pieces after the HTTP exchange: some as generated, then large ones.
fn rest(stream: &Stream, sizes: &[usize]) -> Vec<Range<usize>> {
    const GENERATED: usize = 60;
    let mut ranges = cut(stream.bytes.len() - stream.http, sizes);
    let end = ranges.last().map_or(0, |last| last.end);
    ranges.truncate(GENERATED);
    let at = ranges.last().map_or(0, |last| last.end);
    ranges.extend(
        cut(end - at, &[40_000])
            .into_iter()
            .map(|r| r.start + at..r.end + at),
    );
    ranges
        .into_iter()
        .map(|r| r.start + stream.http..r.end + stream.http)
        .collect()
}
