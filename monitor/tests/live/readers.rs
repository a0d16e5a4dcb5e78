//! Clients that do not read what the server sends, or read slowly.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use lab::{Manner, rerun_after_stalls, wait_for, wait_until};
use rustix::process::Signal;
use wire::REQUEST;

use crate::{
    peers::Peer,
    stage::{SOON, Stage, Watch, assert_between},
};

/// 500 KB/s.
const STREAM: &str = "/stream?every=10ms&size=5000";
const SEGMENT: f64 = 1448.0;

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_stopped_client_is_backlogged_until_it_continues() {
    rerun_after_stalls(|| {
        let stage = Stage::new();
        let mut watch = stage.watch(&["--lb-timeout", "60s"]);
        let healthy = stage.client(1, STREAM, Manner::Responsive);
        let mut stopped = Peer::listener(stage.lab.client_ns(), &stage.server.url(STREAM));
        let peer = peer_other_than(&stage, healthy.local_addr());
        wait_for("frames to both", SOON, || {
            let tx = [("direction", "tx"), ("opcode", "binary")];
            (watch.metric("wsmon_frames_total", &tx) > 100.0).then_some(())
        })
        .unwrap();

        stopped.process.signal(Signal::STOP).unwrap();
        let rx = [("direction", "rx")];
        let before = Instant::now();
        watch.wait_for_metric("wsmon_tcp_zero_windows_total", &rx, 1.0);
        let closed = Instant::now();
        let alert = watch.verdict(peer, "backlogged", Duration::from_secs(40));
        assert_between(
            before + Duration::from_secs(29),
            alert.at,
            closed + Duration::from_secs(35),
        );
        assert_eq!(alert.text("/certainty"), "suspected");
        assert_eq!(alert.number("/evidence/limit_seconds"), Some(30.0));
        let queue = send_queue(&stage, peer);
        let reported = alert.number("/evidence/send_queue_bytes").unwrap();
        assert!(
            (reported - queue).abs() <= SEGMENT,
            "{reported} bytes, and ss has {queue}"
        );
        let scanned = |stat| watch.metric("wsmon_send_queue_bytes", &[("stat", stat)]);
        let max = scanned("max");
        assert!((max - queue).abs() <= SEGMENT, "{max} bytes in a scan");
        assert!(scanned("sum") >= max);
        assert_eq!(watch.metric("wsmon_zombie_connections", &[]), 1.0);

        stopped.process.signal(Signal::CONT).unwrap();
        assert_eq!(watch.resolution(peer, SOON), "recovered");
        watch.assert_never_accused(healthy.local_addr());
    });
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_client_that_reads_slowly_is_never_reported() {
    const PIECE: usize = 2_000;
    let stage = Stage::new();
    let mut watch = stage.watch(&["--lb-timeout", "60s"]);
    let mut slow = raw_client(&stage);
    let peer = slow.local_addr().unwrap();
    let began = Instant::now();
    let mut piece = [0; PIECE];
    // 20 kB/s, a 25th of what the server sends.
    for n in 0.. {
        slow.read_exact(&mut piece).unwrap();
        let due = began + Duration::from_millis(100) * n;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if began.elapsed() > Duration::from_secs(60) {
            break;
        }
    }
    assert_was_closed(&watch);
    assert!(send_queue(&stage, peer) > 0.0);
    watch.assert_never_accused(peer);
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_lossy_path_is_not_taken_for_a_client_that_does_not_read() {
    let stage = Stage::new();
    let mut watch = stage.watch(&["--lb-timeout", "60s"]);
    let client = stage.client(0, STREAM, Manner::Responsive);
    let peer = client.local_addr();
    stage.lab.lose_one_in(5).unwrap();
    let began = Instant::now();
    let mut queued = false;
    // A slow machine sends less.
    let waited = wait_until("losses for a minute", Duration::from_secs(180), || {
        queued |= send_queue(&stage, peer) > 100_000.0;
        let is_over = queued && began.elapsed() > Duration::from_secs(60);
        is_over && stage.lab.dropped_packets().unwrap().lost > 100
    });
    waited.unwrap_or_else(|error| {
        let dropped = stage.lab.dropped_packets();
        panic!("{error}: {dropped:?}, the path is slower than the server: {queued}")
    });
    // None, unless the client was kept from running.
    let closed = watch.metric("wsmon_tcp_zero_windows_total", &[]);
    let really_closed = zero_windows(&stage);
    assert!(closed <= really_closed, "{closed} of {really_closed}");
    let accusation = watch
        .alerts()
        .iter()
        .find(|alert| alert.text("/kind") == "backlogged");
    assert!(accusation.is_none(), "{accusation:?}");
}

fn assert_was_closed(watch: &Watch) {
    let rx = [("direction", "rx")];
    assert!(watch.metric("wsmon_tcp_zero_windows_total", &rx) >= 1.0);
}

/// A connection whose client's application does only what the test does.
fn raw_client(stage: &Stage) -> TcpStream {
    let addr = stage.server.addr();
    let stream = stage.lab.client_ns().run(|| TcpStream::connect(addr));
    let mut stream = stream.unwrap().unwrap();
    let request = String::from_utf8(REQUEST.to_vec()).unwrap();
    let (_, headers) = request.split_once('\n').unwrap();
    let request = format!("GET {STREAM} HTTP/1.1\r\n{headers}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{head:?}");
    stream
}

fn peer_other_than(stage: &Stage, other: SocketAddr) -> SocketAddr {
    let peers = stage.server.peers();
    let mut peers = peers.into_iter().filter(|peer| *peer != other);
    peers.next().expect("the second client")
}

/// How often a socket of the clients has closed its window, as the kernel counts it.
fn zero_windows(stage: &Stage) -> f64 {
    let read = || fs::read_to_string("/proc/thread-self/net/netstat");
    let text = stage.lab.client_ns().run(read).unwrap().unwrap();
    let mut rows = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let [names, counts] = [rows.next(), rows.next()].map(|row| row.unwrap().split_whitespace());
    let mut columns = names.zip(counts);
    let column = columns.find(|(name, _)| *name == "TCPToZeroWindowAdv");
    column.expect("the kernel counts them").1.parse().unwrap()
}

/// The bytes in the send queue of the server's socket, as `ss` reports them.
fn send_queue(stage: &Stage, peer: SocketAddr) -> f64 {
    let mut ss: Command = stage.lab.server_ns().command("ss");
    ss.args(["-tinmH", "dst", &peer.to_string()]);
    let output = ss.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut columns = text.split_whitespace();
    let queue = columns.nth(2);
    queue
        .and_then(|queue| queue.parse().ok())
        .unwrap_or_else(|| panic!("no send queue in {text:?}"))
}
