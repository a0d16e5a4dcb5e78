//! Data in the segment that completes or begins a handshake, when the hook sees it before its
//! socket exists.

use std::fs;

use lab::defer_accept;
use monitor::decode;
use monitor_common::{Direction, drop_reason::DropReason};
use monitor_core::{Event, facts::Protocol};
use rustix::net::listen as listen_again;
use wire::{REQUEST, RESPONSE};

use super::{
    kernel::{Kernel, KernelGuard},
    link::{Link, listen},
    tun::{Family, Peer, Tun, in_new_namespace},
    ws::{Frame, Stream},
};

/// A handshake record with the start of a ClientHello (RFC 8446 §5.1, §4.1.2).
const CLIENT_HELLO: &[u8] =
    b"\x16\x03\x01\x00\x2a\x01\x00\x00\x26\x03\x03 and then 32 bytes of random";
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

const ISN: u32 = u32::MAX - 50;

/// How the first data arrives.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// The acknowledgement that would complete the handshake is lost.
    AckLost,
    /// The listening socket ignores that acknowledgement.
    Deferred,
    /// In the SYN; the server answers before the handshake is complete.
    InSyn,
}

const MANNERS: [Manner; 3] = [Manner::AckLost, Manner::Deferred, Manner::InSyn];

/// A connection whose `data` arrives in this manner, with a native twin that gets the same packets.
fn open(
    tun: &mut Tun,
    manner: Manner,
    family: Family,
    port: u16,
    own_port: u16,
    data: &[u8],
) -> Link {
    if matches!(manner, Manner::InSyn) {
        // For the server side, without a cookie, for every listening socket (ip-sysctl.rst,
        // tcp_fastopen).
        fs::write("/proc/sys/net/ipv4/tcp_fastopen", "1538").unwrap();
    }
    let listener = listen(family, port);
    if matches!(manner, Manner::Deferred) {
        defer_accept(&listener).unwrap();
    }
    if matches!(manner, Manner::InSyn) {
        let isn = ISN.wrapping_add(data.len() as u32);
        let (mut peer, syn, response) = Peer::knock(tun, family, &listener, own_port, ISN, data);
        assert_eq!(response.segment.ack, isn, "the data was not accepted");
        let socket = peer.accepted(&listener);
        peer.isn = isn;
        let mut link = Link::new(peer, socket);
        link.native.take(Direction::Rx, &syn);
        link.native.take(Direction::Tx, &response);
        return link;
    }
    let (peer, ..) = Peer::knock(tun, family, &listener, own_port, ISN, b"");
    if matches!(manner, Manner::Deferred) {
        tun.write(&peer.data(ISN, b""));
    }
    let packet = peer.data(ISN, data);
    tun.write(&packet);
    let socket = peer.accepted(&listener);
    let mut link = Link::new(peer, socket);
    link.has_taken(tun, &packet);
    link.next = ISN.wrapping_add(data.len() as u32);
    link
}

/// The paths of the requests reported to the daemon, all of this connection.
fn requests(kernel: &mut Kernel, link: &Link) -> Vec<String> {
    let mut paths = Vec::new();
    while let Some(event) = kernel.handshakes.next(decode::handshake) {
        if let Event::UpgradeRequested { of, request } = event.expect("a valid record") {
            assert_eq!(of.conn, link.conn());
            assert_eq!(of.peer.ip(), link.peer.family.peer());
            assert_eq!(of.local.ip(), link.peer.family.kernel());
            paths.push(request.path.expect("a path").into());
        }
    }
    paths
}

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn a_request_that_completes_or_begins_the_handshake_counts_like_a_later_one() {
    let port = 28_090;
    let mut turn = KernelGuard::wait();
    let kernel = turn.watching(port);
    in_new_namespace(|tun| {
        let client = Stream::new(b"", &[Frame::new(true, wire::TEXT, 5); 3], true).bytes;
        let server = Stream::new(b"", &[Frame::new(true, wire::BINARY, 700)], false).bytes;
        let mut own_port = 20_000;
        for manner in MANNERS {
            for family in [Family::V4, Family::V6] {
                // The shortest possible head, and one longer than the part that the daemon
                // receives.
                for padding in [0, 200, 3_000] {
                    own_port += 1;
                    let what = format!("{manner:?} {family:?} {padding}");
                    let request = padded_request(padding);
                    let mut link = open(tun, manner, family, port, own_port, &request);
                    link.socket_sends(tun, RESPONSE);
                    link.peer_sends_more(tun, &client);
                    link.socket_sends(tun, &server);
                    assert_eq!(
                        link.read(request.len() + client.len()),
                        [&request[..], &client].concat()
                    );
                    assert_eq!(link.native.stats.opened.get(), 1, "{what}");
                    assert_eq!(requests(kernel, &link), ["/chat"], "{what}");
                    kernel.agrees_with(&mut link, &what);
                    let detail = kernel.snapshots.detail(link.conn()).unwrap().expect("open");
                    assert_ne!(detail.facts.established_at, None, "{what}");
                    assert_eq!(detail.facts.protocol, Protocol::WebSocket, "{what}");
                    kernel.agrees_at_the_end(link, &what);
                }
            }
        }
    });
    assert_eq!(kernel.stats().upgrade_requests.get(), 18);
    for &reason in DropReason::ALL {
        assert_eq!(kernel.dropped(reason), 0, "{}", reason.as_str());
    }
}

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn tls_plain_http_and_a_refusal_are_recognised_in_data_that_completes_the_handshake() {
    let port = 28_091;
    let mut turn = KernelGuard::wait();
    let kernel = turn.watching(port);
    in_new_namespace(|tun| {
        let mut own_port = 21_000;
        for manner in MANNERS {
            own_port += 10;
            let mut tls = open(tun, manner, Family::V4, port, own_port, CLIENT_HELLO);
            tls.socket_sends(tun, b"\x16\x03\x03\x00\x02ab");
            kernel.agrees_with(&mut tls, &format!("{manner:?}, TLS"));
            let facts = kernel.snapshots.get(tls.conn()).unwrap().expect("watched");
            assert_eq!(facts.protocol, Protocol::Opaque);
            assert_eq!(facts.peer.port(), own_port);
            assert_eq!(tls.native.stats.opened.get(), 1);

            let mut refused = open(tun, manner, Family::V6, port, own_port + 1, REQUEST);
            refused.socket_sends(tun, REFUSAL);
            assert_eq!(refused.native.stats.handshakes[403].get(), 1);
            kernel.agrees_with(&mut refused, &format!("{manner:?}, refused"));
            assert!(kernel.snapshots.get(refused.conn()).unwrap().is_none());
            drop(refused);

            let get = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
            let mut plain = open(tun, manner, Family::V4, port, own_port + 2, get);
            plain.socket_sends(tun, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            kernel.agrees_with(&mut plain, &format!("{manner:?}, plain"));
            assert!(kernel.snapshots.get(plain.conn()).unwrap().is_none());
            drop(plain);
            kernel.agrees_at_the_end(tls, &format!("{manner:?}, TLS"));
        }
    });
    assert_eq!(kernel.stats().upgrade_requests.get(), 3);
}

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn a_request_retransmitted_because_of_a_full_queue_counts_once() {
    let port = 28_092;
    let mut turn = KernelGuard::wait();
    let kernel = turn.watching(port);
    in_new_namespace(|tun| {
        let listener = listen(Family::V4, port);
        // Room for three connections that wait to be accepted.
        listen_again(&listener, 2).unwrap();
        for own_port in [22_002, 22_003] {
            let (waiting, ..) = Peer::knock(tun, Family::V4, &listener, own_port, ISN, b"");
            tun.write(&waiting.data(ISN, b""));
        }
        let (first, ..) = Peer::knock(tun, Family::V4, &listener, 22_000, ISN, b"");
        let (second, ..) = Peer::knock(tun, Family::V4, &listener, 22_001, ISN, b"");
        tun.write(&first.data(ISN, REQUEST));
        let request = second.data(ISN, REQUEST);
        for _ in 0..3 {
            tun.write(&request);
        }
        assert_eq!(
            kernel.stats().upgrade_requests.get(),
            1,
            "the second one should not fit"
        );
        for _ in 0..3 {
            drop(listener.accept().unwrap());
        }
        tun.write(&request);
        let socket = second.accepted(&listener);
        let mut link = Link::new(second, socket);
        link.socket_sends(tun, RESPONSE);
        assert_eq!(kernel.stats().upgrade_requests.get(), 2);
        let facts = kernel.snapshots.get(link.conn()).unwrap().expect("open");
        assert_eq!(facts.protocol, Protocol::WebSocket);
    });
}

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn data_for_a_listening_socket_belongs_to_no_connection() {
    let port = 28_093;
    let mut turn = KernelGuard::wait();
    let kernel = turn.watching(port);
    in_new_namespace(|tun| {
        let listener = listen(Family::V4, port);
        let (mut stranger, ..) = Peer::knock(tun, Family::V4, &listener, 23_000, ISN, b"");
        // Segments to the listening socket that belong to no connection. The last of them is kept.
        for seq in 0..500_u32 {
            tun.write(&stranger.data(ISN.wrapping_add(1 << 20 | seq), REQUEST));
        }
        drop(listener);
        stranger.received(tun);
        let mut link = Link::open(tun, Family::V4, port, 23_000, ISN);
        kernel.agrees_with(&mut link, "no request yet");
        assert_eq!(kernel.stats().upgrade_requests.get(), 0);
        assert!(kernel.snapshots.get(link.conn()).unwrap().is_none());
        link.peer_sends_more(tun, REQUEST);
        link.socket_sends(tun, RESPONSE);
        kernel.agrees_with(&mut link, "its own request");
        assert_eq!(requests(kernel, &link), ["/chat"]);
    });
}

/// A request with a header of this many more bytes before the key.
fn padded_request(padding: usize) -> Vec<u8> {
    let at = REQUEST
        .windows(4)
        .position(|at| at == b"Sec-")
        .expect("a key");
    let cookie = format!("Cookie: {}\r\n", "c".repeat(padding));
    [&REQUEST[..at], cookie.as_bytes(), &REQUEST[at..]].concat()
}

/// Headers of both versions, the shortest and the longest forms included.
fn proxy_headers() -> Vec<Vec<u8>> {
    let binary = |variable: usize| {
        let len = (variable as u16).to_be_bytes();
        [
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11",
            &len[..],
            &vec![7; variable],
        ]
        .concat()
    };
    let longest = "ffff:f...f:ffff ".repeat(4);
    vec![
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 192.0.2.2 1000 443\r\n".to_vec(),
        format!("PROXY TCP6 {longest:.94}\r\n").into_bytes(),
        binary(0),
        binary(12),
        binary(36),
        binary(300),
    ]
}

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn data_behind_a_proxy_header_is_recognised_in_the_same_segment_and_in_the_next() {
    let port = 28_095;
    let mut turn = KernelGuard::wait();
    let kernel = turn.watching(port);
    in_new_namespace(|tun| {
        let mut own_port = 24_000;
        for header in proxy_headers() {
            // In one segment after the handshake, in two, and in one that completes it.
            for way in 0..3 {
                for first in [REQUEST, CLIENT_HELLO] {
                    own_port += 1;
                    let what = format!("{} {way} {own_port}", header.escape_ascii());
                    let both = [&header[..], first].concat();
                    let mut link = if way == 2 {
                        open(tun, Manner::AckLost, Family::V4, port, own_port, &both)
                    } else {
                        Link::open(tun, Family::V4, port, own_port, ISN)
                    };
                    match way {
                        0 => link.peer_sends_more(tun, &both),
                        1 => {
                            link.peer_sends_more(tun, &header);
                            link.peer_sends_more(tun, first);
                        }
                        _ => {}
                    }
                    let expected = if first == REQUEST {
                        link.socket_sends(tun, RESPONSE);
                        Protocol::WebSocket
                    } else {
                        Protocol::Opaque
                    };
                    kernel.agrees_with(&mut link, &what);
                    let facts = kernel.snapshots.get(link.conn()).unwrap().expect("watched");
                    assert_eq!(facts.protocol, expected, "{what}");
                    let requested = usize::from(first == REQUEST);
                    assert_eq!(requests(kernel, &link), ["/chat"][..requested], "{what}");
                    kernel.agrees_at_the_end(link, &what);
                }
            }
        }
    });
}
