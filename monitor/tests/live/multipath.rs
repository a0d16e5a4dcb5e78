//! Multipath TCP: a subflow dies, but its connection lives on.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use lab::{Lab, Namespace, wait_until};
use rustix::net::{AddressFamily, SocketType, bind, connect, ipproto, listen, socket};

use crate::stage::{SOON, Watch, fresh_port};

/// Both ends of a connection from the client's first address. It may add a second subflow from the
/// next address while the server listens. `None` if this kernel lacks MPTCP.
fn connected(lab: &Lab, port: u16) -> Option<(TcpListener, [TcpStream; 2])> {
    let open = || {
        let mptcp = Some(ipproto::MPTCP);
        socket(AddressFamily::INET, SocketType::STREAM, mptcp).ok()
    };
    let server = lab.server_addr(port);
    let listening = lab.server_ns().run(open).unwrap()?;
    bind(&listening, &server).unwrap();
    listen(&listening, 1).unwrap();
    let (client_ns, second) = (lab.client_ns(), lab.client_addr(1).to_string());
    for namespace in [client_ns, lab.server_ns()] {
        mptcp(namespace, &["limits", "set", "subflow", "2"]);
    }
    mptcp(
        client_ns,
        &["endpoint", "add", &second, "dev", "uplink", "subflow"],
    );
    let client = client_ns.run(open).unwrap()?;
    bind(&client, &SocketAddr::new(lab.client_addr(0), 0)).unwrap();
    connect(&client, &server).unwrap();
    let listener = TcpListener::from(listening);
    let (server, _) = listener.accept().unwrap();
    Some((listener, [client.into(), server]))
}

fn mptcp(namespace: &Namespace, arguments: &[&str]) {
    let mut ip = namespace.command("ip");
    let status = ip.arg("mptcp").args(arguments).status().unwrap();
    assert!(status.success(), "ip mptcp {arguments:?}");
}

/// A server that pushes data over two subflows; the one of the handshake dies.
#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_connection_with_a_live_second_subflow_is_never_reported_dead_or_aborted() {
    let (lab, port) = (Lab::new().unwrap(), fresh_port());
    let mut watch = Watch::start(&["--port", &port.to_string(), "--reap", "confirmed"]);
    let Some((_listener, [mut client, mut server])) = connected(&lab, port) else {
        eprintln!("skipped: this kernel lacks MPTCP");
        return;
    };
    let peer = client.local_addr().unwrap();
    let frame = wire::frame(wire::BINARY, &[0; 100], None);
    let received = Arc::new(AtomicU64::new(0));
    let pushed = frame.clone();
    thread::spawn(move || {
        server.read_exact(&mut [0; wire::REQUEST.len()]).unwrap();
        server.write_all(wire::RESPONSE).unwrap();
        while server.write_all(&pushed).is_ok() {
            // The rate of the server's messages.
            thread::sleep(Duration::from_millis(20));
        }
    });
    let counter = Arc::clone(&received);
    thread::spawn(move || {
        wire::upgrade(&mut client).unwrap();
        let mut bytes = vec![0; frame.len()];
        while client.read_exact(&mut bytes).is_ok() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let arrives = |what: &str| {
        let before = received.load(Ordering::Relaxed);
        let ten_more = || received.load(Ordering::Relaxed) >= before + 10;
        wait_until(what, SOON, ten_more).unwrap();
    };
    arrives("frames by both subflows");
    lab.black_hole(peer.ip()).unwrap();
    let alert = watch.verdict(peer, "black_holed", 2 * SOON);
    assert_eq!(alert.text("/certainty"), "suspected", "{}", alert.json);
    let why = ": one subflow of an MPTCP connection, which may live on by another";
    assert!(alert.text("/reason").ends_with(why), "{}", alert.json);
    arrives("frames by the second subflow");
    assert_eq!(watch.metric("wsmon_reaped_total", &[]), 0.0);
}
