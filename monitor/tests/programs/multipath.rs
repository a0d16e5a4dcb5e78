//! MPTCP subflows between real sockets of this kernel.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use monitor::{
    config::listeners::{ListenerConfig, PortRange},
    decode,
    kernel::{host::netns::NetNs, sock_diag::scan},
};
use monitor_core::{ConnId, Event, Facts, ListenerRules};
use rustix::net::{AddressFamily, Protocol, SocketType, bind, connect, ipproto, listen, socket};
use wire::{REQUEST, RESPONSE};

use super::{
    kernel::{Kernel, KernelGuard},
    tun::in_new_namespace,
    ws::{Frame, Stream},
};

const MPTCP: Option<Protocol> = Some(ipproto::MPTCP);
const SOON: Duration = Duration::from_secs(20);

/// `None` if this kernel lacks MPTCP. The tests have separate programs, and ports that the shared ones do not
/// watch: MPTCP keeps a subflow for up to a minute after its close, and the next test would get its records.
fn connected(ip: &str, port: u16, of: [Option<Protocol>; 2]) -> Option<[TcpStream; 2]> {
    let address = SocketAddr::new(ip.parse().unwrap(), port);
    let family = match address.is_ipv4() {
        true => AddressFamily::INET,
        false => AddressFamily::INET6,
    };
    let [client, listening] = of.map(|protocol| socket(family, SocketType::STREAM, protocol));
    let (Ok(client), Ok(listening)) = (client, listening) else {
        eprintln!("skipped: this kernel lacks MPTCP");
        return None;
    };
    bind(&listening, &address).unwrap();
    listen(&listening, 1).unwrap();
    connect(&client, &address).unwrap();
    let (server, _) = TcpListener::from(listening).accept().unwrap();
    Some([client.into(), server])
}

fn upgrade([client, server]: &mut [TcpStream; 2]) {
    client.write_all(REQUEST).unwrap();
    server.read_exact(&mut [0; REQUEST.len()]).unwrap();
    server.write_all(RESPONSE).unwrap();
    client.read_exact(&mut [0; RESPONSE.len()]).unwrap();
}

/// The facts of the latest connection. The application's socket is not known here: its cookie
/// differs from its subflow's.
fn opened(kernel: &mut Kernel) -> Facts {
    lab::wait_for("the opening", SOON, || {
        while let Some(event) = kernel.vitals.next(decode::vital) {
            if let Ok(Event::Opened(facts)) = event {
                return Some(*facts);
            }
        }
        None
    })
    .unwrap()
}

fn published(kernel: &Kernel, conn: ConnId) -> Facts {
    kernel.snapshots.get(conn).unwrap().expect("published")
}

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn a_subflow_is_recognised_and_a_fallback_to_tcp_is_not_a_subflow() {
    let port = 28_121;
    let _turn = KernelGuard::wait();
    let kernel = &mut Kernel::watching(port..port + 1);
    for (ip, of, is_subflow) in [
        ("10.99.0.1", [MPTCP, MPTCP], true),
        ("fd99::1", [MPTCP, MPTCP], true),
        ("10.99.0.1", [None, MPTCP], false),
        ("10.99.0.1", [MPTCP, None], false),
        ("fd99::1", [None, None], false),
    ] {
        in_new_namespace(|_| {
            let Some(mut ends) = connected(ip, port, of) else {
                return;
            };
            upgrade(&mut ends);
            let facts = opened(kernel);
            assert_eq!(facts.is_subflow, is_subflow, "{ip}, {of:?}");
            let facts = published(kernel, facts.conn);
            assert_eq!(facts.is_subflow, is_subflow, "{ip}, {of:?}, published");
        });
    }
}

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn an_older_subflow_is_recognised_by_a_scan_and_by_its_next_packet() {
    let port = 28_111;
    let _turn = KernelGuard::wait();
    in_new_namespace(|_| {
        let Some(mut ends) = connected("10.99.0.1", port, [MPTCP; 2]) else {
            return;
        };
        upgrade(&mut ends);
        let listeners = [ListenerConfig {
            rules: ListenerRules::new("l", None),
            ports: vec![PortRange(port..=port)],
            remote: false,
        }];
        let mut found = Vec::new();
        let own = NetNs::own().unwrap();
        let scan = scan::connections(&listeners, &[&own], |one| found.extend(one.facts())).unwrap();
        if let Some(refused) = scan.refused.first() {
            eprintln!("skipped: this kernel lists no sockets: {}", refused.error);
            return;
        }
        let subflows: Vec<_> = found.iter().map(|facts| facts.is_subflow).collect();
        assert_eq!(subflows, [true]);

        let kernel = Kernel::watching(port..port + 1);
        let ping = Stream::new(b"", &[Frame::new(true, wire::PING, 4)], true).bytes;
        ends[0].write_all(&ping).unwrap();
        ends[1].read_exact(&mut vec![0; ping.len()]).unwrap();
        assert!(published(&kernel, found[0].conn).is_subflow);
    });
}

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn an_mptcp_server_that_does_not_read_is_detected_by_its_closed_window() {
    let port = 28_122;
    let _turn = KernelGuard::wait();
    let kernel = &mut Kernel::watching(port..port + 1);
    in_new_namespace(|_| {
        let Some(mut ends) = connected("10.99.0.1", port, [MPTCP; 2]) else {
            return;
        };
        upgrade(&mut ends);
        let conn = opened(kernel).conn;
        let [client, server] = &mut ends;
        client.set_nonblocking(true).unwrap();
        lab::wait_until("a closed window", SOON, || {
            loop {
                match client.write(&[0x77; 65_536]) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
            published(kernel, conn).own_window_closed_at.is_some()
        })
        .unwrap();
        server.set_nonblocking(true).unwrap();
        lab::wait_until("an open window", SOON, || {
            while server.read(&mut [0; 65_536]).is_ok() {}
            published(kernel, conn).own_window_closed_at.is_none()
        })
        .unwrap();
    });
}
