//! WebSocket connections and other protocols, and Prometheus's check of the metrics.

use std::{
    io::Write,
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use lab::{Lab, Manner, Message};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::stage::{SOON, Stage, Watch, fresh_port};

const LIMIT_FLAGS: [&str; 2] = ["--lb-timeout", "2s"];

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn plain_http_on_a_watched_port_is_never_reported() {
    let stage = Stage::new();
    let http_addr = stage.lab.server_addr(fresh_port());
    let http_port = http_addr.port().to_string();
    let mut watch = stage.watch(&["--port", &http_port, "--lb-timeout", "2s"]);
    let listener = listen(&stage.lab, http_addr);
    let serving = stage.lab.server_ns().spawn(serve_http(listener)).unwrap();
    let get = "GET /health HTTP/1.1\r\nHost: server\r\n\r\n";
    let refused_upgrade = "GET /chat HTTP/1.1\r\nHost: server\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let kept_alive =
        [get, refused_upgrade].map(|request| request_over(&stage.lab, http_addr, request));

    // A later WebSocket connection gets a verdict, so the others would have had one by now.
    let idle = stage.client(0, "/quiet", Manner::Responsive);
    watch.verdict(idle.local_addr(), "expired", SOON);
    assert_eq!(watch.alerts().len(), 1);
    drop(kept_alive);
    serving.abort();
    for (port, connections) in [(stage.port(), 1.0), (&http_port, 0.0)] {
        let port = [("listener", port)];
        assert_eq!(watch.metric("wsmon_connections", &port), connections);
        assert_eq!(
            watch.metric("wsmon_connections_opened_total", &port),
            connections
        );
    }
    assert_eq!(watch.metric("wsmon_connections_closed_total", &[]), 0.0);
    assert_eq!(watch.metric("wsmon_frames_total", &[]), 0.0);
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn tls_is_opaque_and_expires_like_any_other_connection() {
    let lab = Lab::new().unwrap();
    let server = lab.server_addr(fresh_port());
    let port = server.port().to_string();
    let mut watch = Watch::start(&[&["--port", &port], &LIMIT_FLAGS[..]].concat());
    let listener = listen(&lab, server);
    let accepted = lab
        .server_ns()
        .spawn(async move { listener.accept().await.unwrap() })
        .unwrap();
    // A handshake record with the start of a ClientHello (RFC 8446 §5.1, §4.1.2).
    let client_hello = *b"\x16\x03\x01\x00\x2a\x01\x00\x00\x26\x03\x03 and then 32 bytes of random";
    let client = lab
        .client_ns()
        .block_on(async move {
            let mut client = TcpStream::connect(server).await.unwrap();
            client.write_all(&client_hello).await.unwrap();
            client
        })
        .unwrap();

    let opaque = [("protocol", "opaque"), ("state", "open")];
    watch.wait_for_metric("wsmon_connections", &opaque, 1.0);
    let followed = [("listener", port.as_str()), ("state", "none")];
    watch.wait_for_metric("wsmon_heartbeats_inferred", &followed, 1.0);
    assert_eq!(watch.metric("wsmon_heartbeats_inferred", &[]), 1.0);
    let alert = watch.verdict(client.local_addr().unwrap(), "expired", SOON);
    assert_eq!(alert.text("/conn/protocol"), "opaque");
    assert_eq!(watch.metric("wsmon_connections", &[]), 1.0);
    assert_eq!(watch.metric("wsmon_frames_total", &[]), 0.0);
    drop(client);
    watch.wait_for_metric("wsmon_connections", &opaque, 0.0);
    assert_eq!(watch.metric("wsmon_heartbeats_inferred", &[]), 0.0);
    accepted.abort();
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn promtool_accepts_the_metrics() {
    let stage = Stage::new();
    let mut watch = stage.watch(&LIMIT_FLAGS);
    let echo = stage.client(0, "/echo", Manner::Responsive);
    let idle = stage.client(1, "/quiet", Manner::Responsive);
    echo.send(Message::text("hello")).unwrap();
    echo.send(Message::Close(None)).unwrap();
    watch.verdict(idle.local_addr(), "expired", Duration::from_secs(2) + SOON);
    watch.wait_for_metric("wsmon_close_codes_total", &[], 1.0);

    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        watch.daemon.metrics_addr()
    );
    let mut connection = std::net::TcpStream::connect(watch.daemon.metrics_addr()).unwrap();
    connection.write_all(request.as_bytes()).unwrap();
    let response = std::io::read_to_string(connection).unwrap();
    let (head, metrics) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");

    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        println!("skipped: promtool is not installed (Debian package prometheus)");
        return;
    };
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(metrics.as_bytes()).unwrap();
    drop(stdin);
    let verdict = promtool.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&verdict.stderr).into_owned()
        + &String::from_utf8_lossy(&verdict.stdout);
    assert!(verdict.status.success(), "{complaints}");
    assert_eq!(complaints, "", "promtool has advice");
}

fn listen(lab: &Lab, addr: SocketAddr) -> TcpListener {
    lab.server_ns()
        .block_on(TcpListener::bind(addr))
        .unwrap()
        .unwrap()
}

/// Answers every request with 200 and keeps the connections open.
async fn serve_http(listener: TcpListener) {
    let mut kept_alive = Vec::new();
    loop {
        let (mut connection, _) = listener.accept().await.unwrap();
        let request = connection.read(&mut [0; 4096]).await.unwrap();
        assert_ne!(request, 0, "closed without a request");
        let response = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
        connection.write_all(response).await.unwrap();
        kept_alive.push(connection);
    }
}

/// A connection on which `request` was answered with 200.
fn request_over(lab: &Lab, server: SocketAddr, request: &'static str) -> TcpStream {
    let exchange = async move {
        let mut connection = TcpStream::connect(server).await?;
        connection.write_all(request.as_bytes()).await?;
        let mut response = [0; 15];
        connection.read_exact(&mut response).await?;
        assert_eq!(&response, b"HTTP/1.1 200 OK");
        Ok::<_, std::io::Error>(connection)
    };
    lab.client_ns().block_on(exchange).unwrap().unwrap()
}
