//! Connections that this host opens from a watched server port.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use monitor::decode;
use monitor_common::stats::ListenerStats;
use monitor_core::ConnId;
use rustix::net::{
    AddressFamily, SocketType, bind, connect, socket,
    sockopt::{set_socket_linger, socket_cookie},
};
use wire::{REQUEST, RESPONSE};

use super::{
    kernel::{Kernel, KernelGuard},
    tun::in_new_namespace,
    ws::{Frame, Stream},
};

const FAMILIES: [(&str, AddressFamily); 2] = [
    ("127.0.0.1", AddressFamily::INET),
    ("::1", AddressFamily::INET6),
];

/// Both ends of a connection from port `own`, with the listener closed.
fn connected(ip: &str, family: AddressFamily, own: u16, server: u16) -> [TcpStream; 2] {
    let address = |port| SocketAddr::new(ip.parse().unwrap(), port);
    let listener = TcpListener::bind(address(server)).unwrap();
    let client = socket(family, SocketType::STREAM, None).unwrap();
    bind(&client, &address(own)).unwrap();
    connect(&client, &address(server)).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    [client.into(), accepted]
}

fn upgrade([client, server]: &mut [TcpStream; 2]) {
    client.write_all(REQUEST).unwrap();
    server.read_exact(&mut [0; REQUEST.len()]).unwrap();
    server.write_all(RESPONSE).unwrap();
    client.read_exact(&mut [0; RESPONSE.len()]).unwrap();
}

fn ping([client, server]: &mut [TcpStream; 2]) {
    let masked = Stream::new(b"", &[Frame::new(true, wire::PING, 4)], true).bytes;
    client.write_all(&masked).unwrap();
    server.read_exact(&mut vec![0; masked.len()]).unwrap();
    let plain = Stream::new(b"", &[Frame::new(true, wire::PONG, 4)], false).bytes;
    server.write_all(&plain).unwrap();
    client.read_exact(&mut vec![0; plain.len()]).unwrap();
}

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn a_connection_opened_from_a_watched_port_is_outgoing() {
    let port = 28_094;
    let mut turn = KernelGuard::wait();
    let kernel = turn.watching(port);
    in_new_namespace(|_| {
        for (ip, family) in FAMILIES {
            // Server ports below and above the local port.
            for server in [27_001, 29_001] {
                let mut ends = connected(ip, family, port, server);
                upgrade(&mut ends);
                ping(&mut ends);
                let conn = ConnId(socket_cookie(&ends[0]).unwrap());
                assert!(kernel.snapshots.get(conn).unwrap().is_none());
                // A reset, so that the port is free again.
                set_socket_linger(&ends[0], Some(Duration::ZERO)).unwrap();
            }
        }
    });
    assert_eq!(kernel.stats(), ListenerStats::EMPTY);
    let vital = kernel.vitals.next(decode::vital);
    assert!(vital.is_none(), "{vital:?}");
}

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn an_older_connection_is_outgoing_only_without_a_listener_and_to_a_lower_port() {
    let port = 28_111;
    let _turn = KernelGuard::wait();
    for (ip, family) in FAMILIES {
        in_new_namespace(|_| {
            let mut outgoing = connected(ip, family, port, 27_002);
            let kernel = Kernel::watching(port..port + 1);
            ping(&mut outgoing);
            assert!(!is_known(&kernel, &outgoing[0]), "{ip}");
        });
        in_new_namespace(|_| {
            // Its server no longer listens.
            let mut drained = connected(ip, family, 29_002, port);
            let mut served = connected(ip, family, 27_002, port);
            let mut unserved = connected(ip, family, 27_003, port);
            let kernel = Kernel::watching(port..port + 1);
            ping(&mut drained);
            assert!(is_known(&kernel, &drained[1]), "{ip}");
            ping(&mut unserved);
            assert!(!is_known(&kernel, &unserved[1]), "{ip}");
            // With a listening socket, any client port is accepted.
            let _listener = TcpListener::bind(SocketAddr::new(ip.parse().unwrap(), port)).unwrap();
            ping(&mut served);
            assert!(is_known(&kernel, &served[1]), "{ip}");
        });
    }
}

fn is_known(kernel: &Kernel, socket: &TcpStream) -> bool {
    let conn = ConnId(socket_cookie(socket).unwrap());
    kernel.snapshots.get(conn).unwrap().is_some()
}
