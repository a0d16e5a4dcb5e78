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
mod kernel;
mod link;
mod multipath;
mod outgoing;

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    ops::Range,
    os::unix::fs::MetadataExt,
    thread::sleep,
    time::Duration,
};

use aya::programs::{TestRun, TestRunOptions};
use monitor::kernel::{
    decode,
    maps::{Drops, Snapshots},
    snapshot_pages::Pages,
};
use monitor_common::{
    drop_reason::DropReason,
    event::EventKind,
    idle_gap_scale,
    stats::{Counter, ListenerStats},
    stream::MAX_STEPS,
};
use monitor_core::{
    ConnId, Event, Facts, Ktime, ListenerId,
    facts::{Protocol, Role},
};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};
use wire::{REQUEST, RESPONSE};

use kernel::{Kernel, KernelGuard, load};
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
    for reason in DropReason::ALL {
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

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn odd_but_valid_ip_headers_are_read_or_counted() {
    let port = 28_105;
    let mut turn = KernelGuard::wait();
    let kernel = turn.watching(port);
    let ping = Stream::new(b"", &[Frame::new(true, wire::PING, 3)], true).bytes;
    in_new_namespace(|tun| {
        let mut v4 = Link::upgraded(tun, Family::V4, port, 20_000);
        // Router alert and an end of options (RFC 2113).
        let packet = v4
            .peer
            .data_behind(&[148, 4, 0, 0, 0, 0, 0, 0], v4.next, &ping);
        v4.peer_sends_packet(tun, &packet);
        assert_eq!(v4.native.stats.frames[0][9].get(), 1);
        kernel.agrees_with(&mut v4, "IPv4 options");
        assert_eq!(kernel.dropped(DropReason::HeaderUnreadable), 0);

        let mut v6 = Link::upgraded(tun, Family::V6, port, 20_001);
        // Destination options with six bytes of padding (RFC 8200 §4.6): the socket accepts them.
        const PADDING: [u8; 6] = [0, 1, 4, 0, 0, 0];
        let options = |next: u8| [&[next][..], &PADDING, &[0]].concat();
        let behind_one = v6.peer.data_behind(&options(6), v6.next, &ping);
        v6.peer_sends_packet(tun, &behind_one);
        kernel.agrees_with(&mut v6, "IPv6 destination options");
        assert_eq!(v6.native.stats.frames[0][9].get(), 1);

        // Five of them are more than RFC 8200 defines, but the socket accepts them too.
        v6.next = v6.next.wrapping_add(ping.len() as u32);
        let five = [options(60).repeat(4), options(6)].concat();
        tun.write(&v6.peer.data_behind(&five, v6.next, &ping));
        assert_eq!(
            v6.read(REQUEST.len() + 2 * ping.len())[REQUEST.len()..],
            ping.repeat(2)
        );
        kernel.agrees_with(&mut v6, "not parsed, so unchanged");
        assert_eq!(kernel.dropped(DropReason::HeaderUnreadable), 1);
    });
}

#[test]
#[ignore = "needs root: loads programs"]
fn malformed_packets_are_counted_and_always_pass() {
    // The socket of a test run has no ports, so port 0 is watched.
    let mut loaded = load(0..1);
    let drops = Drops::take(&mut loaded).unwrap();
    let snapshots = Snapshots::take(&mut loaded).unwrap();
    let tcp = |offset_words: u8| {
        let mut header = [0; 20];
        header[12] = offset_words << 4;
        header.to_vec()
    };
    let ip = |first: u8, protocol: u8, rest: Vec<u8>| {
        let mut packet = vec![0; 20];
        (packet[0], packet[9]) = (first, protocol);
        [packet, rest].concat()
    };
    let ipv6 = |next_header: u8, rest: Vec<u8>| {
        let mut packet = vec![0; 40];
        (packet[0], packet[6]) = (0x60, next_header);
        [packet, rest].concat()
    };
    let mut unreadable = 0;
    for (what, ethertype, packet, counted) in [
        ("plain TCP", 0x0800, ip(0x45, 6, tcp(5)), false),
        ("UDP", 0x0800, ip(0x45, 17, tcp(5)), true),
        (
            "a header length of 4 words",
            0x0800,
            ip(0x44, 6, tcp(5)),
            true,
        ),
        (
            "options beyond the packet",
            0x0800,
            ip(0x4f, 6, tcp(5)),
            true,
        ),
        (
            "a data offset inside the header",
            0x0800,
            ip(0x45, 6, tcp(4)),
            true,
        ),
        (
            "a data offset beyond the packet",
            0x0800,
            ip(0x45, 6, tcp(15)),
            true,
        ),
        (
            "a truncated TCP header",
            0x0800,
            ip(0x45, 6, tcp(5)[..19].to_vec()),
            true,
        ),
        ("a fifth version", 0x0800, ip(0x55, 6, tcp(5)), true),
        ("plain TCP over IPv6", 0x86dd, ipv6(6, tcp(5)), false),
        ("hop-by-hop options", 0x86dd, ipv6(0, tcp(5)), true),
    ] {
        let frame = [&[0; 12][..], &u16::to_be_bytes(ethertype), &packet].concat();
        for name in ["ingress", "egress"] {
            let program = loaded.packet_program(name).unwrap();
            let run = TestRun::test_run(
                program,
                TestRunOptions {
                    data_in: Some(&frame),
                    ..TestRunOptions::new()
                },
            )
            .unwrap_or_else(|error| panic!("{what}: {error:?}"));
            assert_eq!(run.return_value, 1, "{name} dropped: {what}");
            unreadable += u64::from(counted);
            assert_eq!(
                drops.read(DropReason::HeaderUnreadable).unwrap(),
                unreadable,
                "{name}: {what}"
            );
        }
    }
    assert_eq!(published(&snapshots), [], "a closed socket was adopted");
}

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn a_connection_on_another_port_leaves_no_trace() {
    let mut turn = KernelGuard::wait();
    let kernel = turn.watching(28_106);
    in_new_namespace(|tun| {
        let mut link = Link::upgraded(tun, Family::V4, 28_112, 20_000);
        let frames = Stream::new(b"", &[Frame::new(true, wire::PING, 3); 10], true).bytes;
        link.peer_sends_more(tun, &frames);
        assert_eq!(link.native.stats.frames[0][9].get(), 10);
    });
    assert_eq!(kernel.stats(), ListenerStats::EMPTY);
    assert_eq!(published(&kernel.snapshots), []);
    assert!(kernel.vitals.next(|_| ()).is_none());
    assert!(kernel.samples.next(|_| ()).is_none());
}

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn every_vital_event_is_either_read_or_counted_as_dropped() {
    // With three events each, more than the ring holds.
    const CONNECTIONS: u64 = 9_000;
    let port = 28_108;
    let mut turn = KernelGuard::wait();
    let kernel = turn.watching(port);
    in_new_namespace(|_| {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        for _ in 0..CONNECTIONS {
            let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            client.write_all(REQUEST).unwrap();
            server.read_exact(&mut [0; REQUEST.len()]).unwrap();
            server.write_all(RESPONSE).unwrap();
            client.read_exact(&mut [0; RESPONSE.len()]).unwrap();
            drop(client);
            assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
        }
    });

    let mut read = [0_u64; 13];
    let kind = |record: &[u8]| {
        decode::vital(record).expect("a valid record");
        usize::from(record[8])
    };
    while let Some(kind) = kernel.vitals.next(kind) {
        read[kind] += 1;
    }
    let dropped = kernel.dropped(DropReason::VitalsFull);
    let consumed = read.iter().sum::<u64>();
    println!("{consumed} read, {dropped} dropped: {read:?}");
    assert!(dropped > 0, "the ring was never full");
    // Opened, the first FIN, and the close of each connection, plus the listening socket's open and
    // close. On a slow machine a retransmission may come after the close, and elicit a reset.
    let resets = read[EventKind::Reset as usize];
    assert_eq!(consumed + dropped, 3 * CONNECTIONS + 2 + resets);
    assert!(read[1] >= read[2] && read[2] >= read[3], "out of order");

    // Once there is room again, new events arrive.
    in_new_namespace(|tun| {
        let _link = Link::upgraded(tun, Family::V4, port, 20_000);
    });
    let reported: Vec<_> = std::iter::from_fn(|| kernel.vitals.next(kind)).collect();
    assert_eq!(
        (reported[0], reported.contains(&1)),
        (10, true),
        "{reported:?}"
    );
    assert_eq!(kernel.dropped(DropReason::VitalsFull), dropped);
}

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn opening_and_closing_a_listening_socket_is_reported_with_its_namespace() {
    let port = 28_110;
    let mut turn = KernelGuard::wait();
    let kernel = turn.watching(port);
    let netns = in_new_namespace(|_| {
        let elsewhere = TcpListener::bind(("10.99.0.1", 28_112)).unwrap();
        let listener = TcpListener::bind(("10.99.0.1", port)).unwrap();
        drop((elsewhere, listener));
        std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino()
    });
    // Another test may be starting a process, which briefly holds a copy of the socket.
    let mut next = || {
        let event = lab::wait_for("a record", Duration::from_secs(10), || {
            kernel.vitals.next(decode::vital)
        });
        match event.unwrap() {
            Ok(Event::Listening { socket, begins, .. }) => {
                assert_eq!((socket.port, u64::from(socket.netns)), (port, netns));
                (socket.conn, begins)
            }
            other => panic!("{other:?}"),
        }
    };
    let (begun, ended) = (next(), next());
    assert_eq!((begun.1, ended), (true, (begun.0, false)));
}

/// The connections published by the kernel.
fn published(snapshots: &Snapshots) -> Vec<ConnId> {
    let (mut pages, mut conns) = (Pages::new(16), Vec::new());
    loop {
        let (page, last) = snapshots.next_page(&mut pages).unwrap();
        conns.extend(page.into_iter().map(|(conn, _)| conn));
        if last {
            return conns;
        }
    }
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

#[test]
#[ignore = "needs root: loads programs"]
fn a_sweep_visits_every_snapshot_once_in_any_number_of_parts() {
    const CONNS: u64 = 5_000;
    let mut loaded = load(0..1);
    let mut snapshots = Snapshots::take(&mut loaded).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], 8080));
    for conn in (1..=CONNS).map(ConnId) {
        let (listener, role) = (ListenerId(0), Role::Server);
        let facts = Facts::new(
            Ktime(1),
            conn,
            listener,
            role,
            Protocol::Assumed,
            address,
            address,
        );
        assert!(snapshots.seed(&facts).unwrap());
    }
    for parts in [1, 2, 7, 1_000] {
        let mut seen = Vec::new();
        for part in 1..=parts {
            let before = seen.len();
            let share = f64::from(part) / f64::from(parts);
            snapshots
                .sweep(share, |facts| seen.push(facts.unwrap().conn.0))
                .unwrap();
            // A system call may reach a few hundred entries into the next part.
            let fair = CONNS as usize / parts as usize;
            assert!(seen.len() - before < fair + fair / 2 + 512, "{parts} parts");
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(1..=CONNS), "{parts} parts");
        snapshots.restart_sweep();
    }
}
