//! Upgrade requests that are refused, unanswered, or preceded by other requests.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use lab::{Lab, defer_accept, wait_for};
use monitor_core::handshake::{UpgradeRequest, accept_of};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

use crate::{
    stage::{SOON, Watch, fresh_port},
    viewer::reported,
};

/// RFC 6455 §1.2.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const TIMEOUT: Duration = Duration::from_secs(10);

/// A server whose answer depends on the path: `/refuse/429` gives that status, `/plain` gives 200,
/// `/silent` gives no answer, and any other path gives a 101.
struct Host {
    lab: Lab,
    addr: SocketAddr,
    port: String,
    serving: AbortHandle,
}

impl Host {
    fn new() -> Self {
        Self::listening_as(|_| ())
    }

    /// On a socket that was passed to `prepare`.
    fn listening_as(prepare: impl FnOnce(&TcpListener)) -> Self {
        let lab = Lab::new().unwrap();
        let addr = lab.server_addr(fresh_port());
        let listener = lab.server_ns().block_on(TcpListener::bind(addr));
        let listener = listener.unwrap().unwrap();
        prepare(&listener);
        let serving = lab.server_ns().spawn(serve(listener));
        Self {
            lab,
            addr,
            port: addr.port().to_string(),
            serving: serving.unwrap().abort_handle(),
        }
    }

    fn watch(&self) -> Watch {
        Watch::start(&["--port", &self.port])
    }

    fn connect(&self) -> TcpStream {
        let client = self.lab.client_ns();
        client
            .block_on(TcpStream::connect(self.addr))
            .unwrap()
            .unwrap()
    }

    /// Sends a request and returns the connection with the status of its answer.
    fn exchange(&self, mut connection: TcpStream, request: String) -> (TcpStream, u16) {
        let exchange = async move {
            connection.write_all(request.as_bytes()).await.unwrap();
            let head = read_head(&mut connection).await.expect("an answer");
            let status = head.split(' ').nth(1).expect("a status");
            (connection, status.parse().expect("a number"))
        };
        self.lab.client_ns().block_on(exchange).unwrap()
    }

    /// Sends a request that will get no answer.
    fn send(&self, mut connection: TcpStream, request: String) -> TcpStream {
        let sending = async move {
            connection.write_all(request.as_bytes()).await.unwrap();
            connection
        };
        self.lab.client_ns().block_on(sending).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (connection, _) = listener.accept().await.unwrap();
        connections.spawn(answer_all(connection));
    }
}

async fn answer_all(mut connection: TcpStream) {
    while let Some(head) = read_head(&mut connection).await {
        let request = UpgradeRequest::parse(head.as_bytes());
        let path = request.path.expect("a path");
        let response = match path.strip_prefix("/refuse/") {
            Some(status) => format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n"),
            None if &*path == "/plain" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into(),
            None if &*path == "/silent" => continue,
            None => format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
                accept_of(KEY)
            ),
        };
        connection.write_all(response.as_bytes()).await.unwrap();
    }
}

/// Reads up to the blank line; `None` once the peer has closed its direction.
async fn read_head(connection: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).expect("ASCII"))
}

fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: lab\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

fn plain() -> String {
    "GET /plain HTTP/1.1\r\nHost: lab\r\n\r\n".to_owned()
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn refusals_are_counted_by_status_and_open_nothing() {
    let host = Host::new();
    let watch = host.watch();
    let mut refused = Vec::new();
    for status in [401, 429, 429, 503] {
        let path = format!("/refuse/{status}");
        let (connection, answered) = host.exchange(host.connect(), upgrade(&path));
        assert_eq!(answered, status);
        refused.push(connection);
    }
    for (status, times) in [("401", 1.0), ("429", 2.0), ("503", 1.0)] {
        watch.wait_for_metric("wsmon_handshakes_total", &[("status", status)], times);
    }
    assert_eq!(watch.metric("wsmon_handshakes_total", &[]), 4.0);
    assert_eq!(watch.metric("wsmon_handshakes_stuck", &[]), 0.0);
    assert_eq!(watch.metric("wsmon_connections", &[]), 0.0);
    assert_eq!(watch.metric("wsmon_connections_opened_total", &[]), 0.0);
    assert_eq!(watch.metric("wsmon_handshake_seconds_count", &[]), 0.0);

    drop(refused);
    // The later open and close of this connection prove that the earlier closes were processed.
    let (open, _) = host.exchange(host.connect(), upgrade("/chat"));
    drop(open);
    watch.wait_for_metric("wsmon_connections_closed_total", &[], 1.0);
    assert_eq!(watch.metric("wsmon_handshakes_total", &[]), 5.0);
    assert_eq!(watch.metric("wsmon_events_lost_total", &[]), 0.0);
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn an_unanswered_request_is_stuck_from_10_s_on_until_its_end() {
    let host = Host::new();
    let watch = host.watch();
    let before = Instant::now();
    let waiting = host.send(host.connect(), upgrade("/silent"));
    // Another request is answered in the meantime.
    let (_open, status) = host.exchange(host.connect(), upgrade("/chat"));
    assert_eq!(status, 101);
    wait_for("a stuck handshake", TIMEOUT + SOON, || {
        let stuck = watch.metric("wsmon_handshakes_stuck", &[]);
        (stuck > 0.0).then_some(())
    })
    .unwrap();
    assert!(before.elapsed() >= TIMEOUT, "stuck too early");
    assert_eq!(watch.metric("wsmon_handshakes_stuck", &[]), 1.0);
    assert_eq!(watch.metric("wsmon_connections", &[]), 1.0);

    drop(waiting);
    watch.wait_for_metric("wsmon_handshakes_stuck", &[], 0.0);
    watch.wait_for_metric("wsmon_handshakes_total", &[("status", "none")], 1.0);
    assert_eq!(watch.metric("wsmon_connections", &[]), 1.0);
    assert_eq!(watch.metric("wsmon_connections_closed_total", &[]), 0.0);
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn an_upgrade_after_plain_requests_and_a_refusal_opens_the_connection() {
    let host = Host::new();
    let watch = host.watch();
    let connection = host.connect();
    let mut connection = Some(connection);
    for (request, expected) in [
        (plain(), 200),
        (plain(), 200),
        (upgrade("/refuse/429"), 429),
        (upgrade("/chat?token=secret"), 101),
    ] {
        let (same, status) = host.exchange(connection.take().unwrap(), request);
        assert_eq!(status, expected);
        connection = Some(same);
    }
    let open = [("protocol", "websocket"), ("state", "open")];
    watch.wait_for_metric("wsmon_connections", &open, 1.0);
    assert_eq!(watch.metric("wsmon_connections", &[]), 1.0);
    assert_eq!(watch.metric("wsmon_connections_opened_total", &[]), 1.0);
    for (status, times) in [("101", 1.0), ("429", 1.0), ("200", 0.0)] {
        let status = [("status", status)];
        assert_eq!(watch.metric("wsmon_handshakes_total", &status), times);
    }
    assert_eq!(watch.metric("wsmon_handshake_seconds_count", &[]), 1.0);
    assert_eq!(watch.metric("wsmon_handshakes_stuck", &[]), 0.0);

    drop(connection);
    watch.wait_for_metric("wsmon_connections", &[], 0.0);
    assert!(!watch.daemon.log().contains("secret"));
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_server_with_deferred_accept_is_watched_like_any_other() {
    let host = Host::listening_as(|listener| defer_accept(listener).unwrap());
    let watch = host.watch();
    let (open, status) = host.exchange(host.connect(), upgrade("/chat"));
    assert_eq!(status, 101);
    let (refused, status) = host.exchange(host.connect(), upgrade("/refuse/503"));
    assert_eq!(status, 503);
    let (plain, status) = host.exchange(host.connect(), plain());
    assert_eq!(status, 200);
    let tls = host.send(host.connect(), "\x16\x03\x01 and so on".to_owned());

    for protocol in ["websocket", "opaque"] {
        watch.wait_for_metric("wsmon_connections", &[("protocol", protocol)], 1.0);
    }
    for (status, times) in [("101", 1.0), ("503", 1.0)] {
        watch.wait_for_metric("wsmon_handshakes_total", &[("status", status)], times);
    }
    assert_eq!(watch.metric("wsmon_handshake_seconds_count", &[]), 1.0);
    let control = watch.daemon.control();
    let peer = open.local_addr().unwrap().to_string();
    let list = reported(control, &["list", "--json"]);
    let record = list
        .lines()
        .find(|line| line.contains(&peer))
        .expect("listed");
    let record: serde_json::Value = serde_json::from_str(record).unwrap();
    assert_eq!(record["known_from"], "establishment");
    assert_eq!(record["handshake"]["path"], "/chat", "{record}");
    assert_eq!(record["states"][0]["state"], "connecting", "{record}");

    drop((open, refused, plain, tls));
    watch.wait_for_metric("wsmon_connections_closed_total", &[], 2.0);
    assert_eq!(watch.metric("wsmon_handshakes_total", &[]), 2.0);
    assert_eq!(watch.metric("wsmon_events_lost_total", &[]), 0.0);
}
