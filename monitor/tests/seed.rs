//! Seeding from real sockets in separate network namespaces.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use monitor::{
    config::listeners::{ListenerConfig, PortRange},
    kernel::{
        clock,
        host::netns::{self, NetNs},
        sock_diag::scan::{self, Scan, ScannedSocket},
    },
};
use monitor_core::{
    Ktime, ListenerId, ListenerRules,
    facts::{Facts, Role},
};
use rustix::net::sockopt::socket_cookie;

/// Two jiffies at `CONFIG_HZ=100`, and some time for a busy machine.
const TOLERANCE: Duration = Duration::from_millis(50);

const SERVER: ListenerId = ListenerId(1);
const REMOTE: ListenerId = ListenerId(2);

#[test]
#[ignore = "needs root: makes network namespaces"]
fn sockets_of_another_namespace_are_found_with_plain_addresses() {
    let namespace = Namespace::new();
    for (port, listen, server) in [
        (18_001, "127.0.0.1:18001", "127.0.0.1:18001"),
        (18_002, "[::1]:18002", "[::1]:18002"),
        // A dual-stack listener: its IPv4 connections are IPv6 sockets with mapped addresses.
        (18_003, "[::]:18003", "127.0.0.1:18003"),
    ] {
        let connection = namespace.connect(listen, server);
        let address: SocketAddr = server.parse().unwrap();
        let client = connection.client.local_addr().unwrap();

        let facts = only(scan_server(port));
        assert_eq!((facts.local, facts.peer), (address, client));
        assert_eq!((facts.listener, facts.role), (SERVER, Role::Server));
        assert_eq!(facts.conn.0, socket_cookie(&connection.server).unwrap());

        let facts = only(scan_client(port));
        assert_eq!((facts.local, facts.peer), (client, address));
        assert_eq!((facts.listener, facts.role), (REMOTE, Role::Client));
    }
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn a_connection_with_both_ends_here_counts_once_and_its_listener_never() {
    let namespace = Namespace::new();
    let _sockets = namespace.enter(|| {
        let listener = TcpListener::bind("127.0.0.1:18011").unwrap();
        let client = TcpStream::connect("127.0.0.1:18011").unwrap();
        let (server, _) = listener.accept().unwrap();
        (listener, client, server)
    });
    assert_eq!(only(scan_server(18_011)).local.port(), 18_011);
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn idle_time_follows_the_last_payload() {
    let namespace = Namespace::new();
    let mut connection = namespace.connect("127.0.0.1:18021", "127.0.0.1:18021");
    let sent = connection.server_sends(b"hello");
    connection.client_reads(5);

    let idle = Duration::from_millis(1200);
    let server = wait_for(|| scan_server(18_021), |facts| facts.at.since(sent) >= idle);
    assert_about(server.tx.last_payload, sent);
    assert_about(server.tx.last_packet, sent);
    assert_about(server.rx.last_packet, sent);
    assert_about(server.ack_progress_at, sent);
    assert_eq!(server.rx.last_payload, None);
    assert_eq!((server.unacked_bytes, server.unacked_since), (0, None));

    let client = only(scan_client(18_021));
    assert_about(client.rx.last_payload, sent);
    assert_about(client.tx.last_packet, sent);
    assert_eq!(client.tx.last_payload, None);
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn a_connection_without_data_is_idle_since_it_was_established() {
    let namespace = Namespace::new();
    let connection = namespace.connect("127.0.0.1:18031", "127.0.0.1:18031");
    let age = Duration::from_millis(300);
    for scan in [|| scan_server(18_031), || scan_client(18_031)] {
        let facts = wait_for(scan, |facts| facts.at.since(connection.established) >= age);
        assert_about(facts.last_activity(), connection.established);
        assert_eq!((facts.rx.last_payload, facts.tx.last_payload), (None, None));
        assert_eq!(facts.established_at, None);
    }
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn a_black_hole_starts_with_the_send_and_not_with_the_silence_before() {
    let namespace = Namespace::new();
    let mut connection = namespace.connect("127.0.0.1:18041", "127.0.0.1:18041");
    let spoken = connection.server_sends(b"hello");
    connection.client_reads(5);
    let silence = Duration::from_millis(1500);
    wait_for(
        || scan_server(18_041),
        |facts| facts.at.since(spoken) >= silence,
    );

    namespace.lose_all_packets();
    let sent = connection.server_sends(&[0; 100]);
    let facts = wait_for(|| scan_server(18_041), |facts| facts.retransmits >= 3);

    let unacked_since = facts.unacked_since.unwrap();
    assert!(
        unacked_since + TOLERANCE >= sent,
        "too early: {unacked_since}, sent at {sent}"
    );
    // The tail loss probe, and the restart of the timer after it, leave no trace in tcp_info.
    assert!(unacked_since.since(sent) < Duration::from_millis(600));
    assert_about(facts.rx.last_packet, spoken);
    assert_about(facts.ack_progress_at, spoken);
    assert_eq!(facts.unacked_bytes, 100);
    assert_eq!(facts.unanswered_transmissions, 1 + facts.retransmits);
    assert_eq!(facts.unanswered_since, facts.unacked_since);
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn a_half_closed_connection_shows_the_sender_of_the_fin() {
    let namespace = Namespace::new();
    let connection = namespace.connect("127.0.0.1:18051", "127.0.0.1:18051");
    connection.client.shutdown(Shutdown::Write).unwrap();
    let server = wait_for(|| scan_server(18_051), |facts| facts.fin_rx);
    assert!(!server.fin_tx);
    let client = wait_for(|| scan_client(18_051), |facts| facts.fin_tx);
    assert!(!client.fin_rx);
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn a_namespace_without_a_name_is_found_by_its_process() {
    let hermit = Hermit(
        Command::new("unshare")
            .args(["--net", "sleep", "60"])
            .spawn()
            .unwrap(),
    );
    let name = format!("pid {}", hermit.0.id());
    let deadline = clock::now() + Duration::from_secs(10);
    let found = loop {
        let mut found = netns::enumerate().unwrap().found;
        if let Some(index) = found.iter().position(|namespace| namespace.name() == name) {
            break found.swap_remove(index);
        }
        assert!(clock::now() < deadline, "no {name} among {found:?}");
        thread::yield_now();
    };
    let inside = netns::in_namespace(&found, || NetNs::own().unwrap().id()).unwrap();
    assert_eq!(inside, found.id());
    assert_ne!(inside, NetNs::own().unwrap().id());
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn a_dump_of_many_datagrams_is_complete() {
    const CONNECTIONS: u16 = 9_500;
    let namespace = Namespace::new();
    let _sockets: Vec<_> = namespace.enter(|| {
        let listener = TcpListener::bind("127.0.0.1:18061").unwrap();
        let connect = || {
            (
                TcpStream::connect("127.0.0.1:18061").unwrap(),
                listener.accept().unwrap(),
            )
        };
        (0..CONNECTIONS).map(|_| connect()).collect()
    });
    let found = scan_server(18_061);
    println!(
        "{CONNECTIONS} of {} sockets: {:?}",
        u32::from(CONNECTIONS) * 2,
        found.scan.elapsed
    );
    assert_eq!(found.sockets.len(), usize::from(CONNECTIONS));
    assert_eq!(found.scan.unparsed, 0);
}

/// Result of a scan.
struct Found {
    sockets: Vec<Facts>,
    scan: Scan,
}

fn scan_server(port: u16) -> Found {
    scan(&[listener(1, false), listener(port, false)])
}

fn scan_client(port: u16) -> Found {
    scan(&[listener(1, false), listener(2, false), listener(port, true)])
}

fn scan(listeners: &[ListenerConfig]) -> Found {
    let mut sockets = Vec::new();
    let (surveyed, _) = scan::survey(listeners).unwrap();
    let namespaces = surveyed.iter().filter(|it| it.has_connections);
    let namespaces: Vec<_> = namespaces.map(|it| &it.netns).collect();
    let visit = |found: &ScannedSocket<'_>| sockets.extend(found.facts());
    let scan = scan::connections(listeners, &namespaces, visit).unwrap();
    Found { sockets, scan }
}

fn listener(port: u16, remote: bool) -> ListenerConfig {
    ListenerConfig {
        rules: ListenerRules::new("l", None),
        ports: vec![PortRange(port..=port)],
        remote,
    }
}

/// The only socket that a scan found.
fn only(found: Found) -> Facts {
    assert_eq!(found.scan.unparsed, 0);
    let [facts] = <[Facts; 1]>::try_from(found.sockets).expect("one socket on this port");
    facts
}

/// Scans until `holds` is true.
fn wait_for(scan: impl Fn() -> Found, holds: impl Fn(&Facts) -> bool) -> Facts {
    let limit = Duration::from_secs(20);
    lab::wait_for("the facts of the scan", limit, || {
        Some(only(scan())).filter(&holds)
    })
    .unwrap()
}

#[track_caller]
fn assert_about(measured: Option<Ktime>, truth: Ktime) {
    let measured = measured.expect("a time");
    let off = measured.since(truth).max(truth.since(measured));
    assert!(off <= TOLERANCE, "{measured} is {off:?} from {truth}");
}

/// A network namespace with its loopback up; removed with this value.
struct Namespace {
    name: String,
}

impl Namespace {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wsmon-seed-{}-{number}", std::process::id());
        ip(&["netns", "add", &name]);
        let namespace = Self { name };
        ip(&["-n", &namespace.name, "link", "set", "lo", "up"]);
        namespace
    }

    fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let list = netns::enumerate().unwrap();
        let own = list.found.iter().find(|found| found.name() == self.name);
        netns::in_namespace(own.expect("it is mounted"), act).unwrap()
    }

    /// A connection to `server` inside the namespace; the listener is closed again.
    fn connect(&self, listen: &str, server: &str) -> Connection {
        self.enter(|| {
            let listener = TcpListener::bind(listen).unwrap();
            let client = TcpStream::connect(server).unwrap();
            let (server, _) = listener.accept().unwrap();
            Connection {
                client,
                server,
                established: clock::now(),
            }
        })
    }

    /// From now on TCP packets are silently dropped.
    fn lose_all_packets(&self) {
        let rules = "add table ip lost
            add chain ip lost input { type filter hook input priority 0; }
            add rule ip lost input meta l4proto tcp drop";
        ip(&["netns", "exec", &self.name, "nft", rules]);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}: {status}");
}

struct Connection {
    client: TcpStream,
    server: TcpStream,
    established: Ktime,
}

impl Connection {
    /// Returns the time just before the send.
    fn server_sends(&mut self, bytes: &[u8]) -> Ktime {
        let at = clock::now();
        self.server.write_all(bytes).unwrap();
        at
    }

    fn client_reads(&mut self, length: usize) {
        self.client.read_exact(&mut vec![0; length]).unwrap();
    }
}

/// A process in an unnamed network namespace; killed when dropped.
struct Hermit(Child);

impl Drop for Hermit {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn a_connection_opened_from_a_watched_port_is_outgoing() {
    let namespace = Namespace::new();
    let from_watched_port = |server: u16, own: u16| {
        namespace.enter(|| {
            let listener = TcpListener::bind(("127.0.0.1", server)).unwrap();
            let client = connect_from(own, server);
            let (server, _) = listener.accept().unwrap();
            // The server's end continues without its listening socket.
            (client, server)
        })
    };
    let outgoing = from_watched_port(18_091, 18_095);
    assert!(scan_server(18_095).sockets.is_empty());
    // From the other end it is a connection to the destination's port.
    assert_eq!(only(scan_server(18_091)).peer.port(), 18_095);
    assert_eq!(only(scan_client(18_091)).role, Role::Client);
    drop(outgoing);

    // A listening socket makes a port a server's, whatever the client's port.
    let _served = namespace.enter(|| {
        let listener = TcpListener::bind("127.0.0.1:18096").unwrap();
        let client = connect_from(18_092, 18_096);
        let (server, _) = listener.accept().unwrap();
        (listener, client, server)
    });
    assert_eq!(only(scan_server(18_096)).peer.port(), 18_092);
}

/// Connects to a port of this host from port `own`.
fn connect_from(own: u16, server: u16) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let client = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&client, &address(own)).unwrap();
    connect(&client, &address(server)).unwrap();
    client.into()
}
