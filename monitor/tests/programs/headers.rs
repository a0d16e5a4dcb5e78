//! Packets with unusual or malformed headers, and packets of other ports.

use aya::programs::{TestRun, TestRunOptions};
use monitor::kernel::bpf::maps::{Drops, Snapshots};
use monitor_common::{drop_reason::DropReason, stats::ListenerStats};
use wire::REQUEST;

use super::{
    kernel::{KernelGuard, load},
    link::Link,
    maps::published,
    tun::{Family, in_new_namespace},
    ws::{Frame, Stream},
};

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
