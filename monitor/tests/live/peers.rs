//! Third-party implementations: node's `ws` and Python's `websockets`, both at both ends.
//!
//! Each peer counts the frames it sends. The daemon must count the clients' frames as received and
//! the server's frames as sent.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ChildStdout, Stdio},
};

use lab::{Lab, Namespace, Process};

use crate::stage::{SOON, Watch, fresh_port};

const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

type FrameCounts = BTreeMap<String, u64>;

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn frames_and_closes_of_a_node_server_match_the_counts_of_its_peers() {
    compare(Library::Ws);
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn frames_and_closes_of_a_compressing_python_server_match_the_counts_of_its_peers() {
    compare(Library::Websockets);
}

fn compare(library: Library) {
    let lab = Lab::new().unwrap();
    let addr = lab.server_addr(fresh_port());
    let watch = Watch::start(&["--port", &addr.port().to_string()]);
    let mut server = Peer::server(lab.server_ns(), library, addr);
    let mut received = FrameCounts::new();
    for client in [Library::Ws, Library::Websockets] {
        for ending in ["close", "ask"] {
            let mut client = Peer::client(lab.client_ns(), client, addr, ending);
            for (opcode, frames) in client.frames_sent() {
                *received.entry(opcode).or_default() += frames;
            }
        }
    }
    let closed = |how| watch.wait_for_metric("wsmon_connections_closed_total", how, 4.0);
    closed(&[("how", "close_frame")]);
    for (initiator, code) in [("peer", "4001"), ("local", "4002")] {
        let labels = [("initiator", initiator), ("code", code)];
        assert_eq!(watch.metric("wsmon_close_codes_total", &labels), 2.0);
    }
    assert_eq!(watch.metric("wsmon_close_codes_total", &[]), 4.0);
    assert_eq!(watch.metric("wsmon_abnormal_closures_total", &[]), 0.0);
    assert_eq!(watch.metric("wsmon_connections_opened_total", &[]), 4.0);
    assert_eq!(watch.metric("wsmon_unsynced_bytes_total", &[]), 0.0);
    assert_eq!(watch.metric("wsmon_events_lost_total", &[]), 0.0);
    let fragmented = [("direction", "rx")];
    let fragmented = watch.metric("wsmon_fragmented_messages_total", &fragmented);
    assert_eq!(fragmented, 4.0);

    // Each client sent a message of 70,000 equal bytes; only this server agrees to compress.
    let payload = watch.metric("wsmon_frame_payload_bytes_total", &[("direction", "rx")]);
    let compresses = matches!(library, Library::Websockets);
    assert_eq!(payload < 70_000.0, compresses, "{payload} bytes");

    server.process.terminate(SOON).unwrap();
    let counted = [("rx", received), ("tx", server.frames_sent())];
    let metrics = watch.metrics();
    for (direction, frames) in counted {
        assert_eq!(frames.len(), 6, "{frames:?}");
        for (opcode, frames) in frames {
            let labels = [("direction", direction), ("opcode", opcode.as_str())];
            let seen = metrics.sum("wsmon_frames_total", &labels);
            assert_eq!(seen, frames as f64, "{direction} {opcode}");
        }
    }
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn clients_that_are_killed_are_abnormal_closures() {
    for library in [Library::Ws, Library::Websockets] {
        let lab = Lab::new().unwrap();
        let addr = lab.server_addr(fresh_port());
        let watch = Watch::start(&["--port", &addr.port().to_string()]);
        let _server = Peer::server(lab.server_ns(), library, addr);
        let mut client = Peer::client(lab.client_ns(), library, addr, "stay");
        client.wait_until_ready();
        let open = [("protocol", "websocket"), ("state", "open")];
        watch.wait_for_metric("wsmon_connections", &open, 1.0);
        client.process.kill().unwrap();
        watch.wait_for_metric("wsmon_abnormal_closures_total", &[], 1.0);
        assert_eq!(
            watch.metric("wsmon_close_codes_total", &[]),
            0.0,
            "{library:?}"
        );
        assert_eq!(watch.metric("wsmon_connections", &[]), 0.0);
    }
}

/// The implementation of the protocol.
#[derive(Debug, Clone, Copy)]
enum Library {
    Ws,
    Websockets,
}

/// A script of `testdata/peers`, running in a namespace.
pub(crate) struct Peer {
    pub(crate) process: Process,
    stdout: BufReader<ChildStdout>,
}

impl Peer {
    /// Waits until it listens.
    fn server(namespace: &Namespace, library: Library, addr: SocketAddr) -> Self {
        const PING_MILLISECONDS: &str = "200";
        let (ip, port) = (addr.ip().to_string(), addr.port().to_string());
        let mut server = Self::spawn(
            namespace,
            library,
            "server",
            &[&ip, &port, PING_MILLISECONDS],
        );
        server.wait_until_ready();
        server
    }

    /// A client on node's `ws` that answers pings and sends nothing else. Waits until it is
    /// connected.
    pub(crate) fn listener(namespace: &Namespace, url: &str) -> Self {
        let mut client = Self::spawn(namespace, Library::Ws, "listen", &[url]);
        client.wait_until_ready();
        client
    }

    /// The script documents the values of `ending`.
    fn client(namespace: &Namespace, library: Library, addr: SocketAddr, ending: &str) -> Self {
        Self::spawn(
            namespace,
            library,
            "client",
            &[&format!("ws://{addr}/"), ending],
        )
    }

    fn spawn(namespace: &Namespace, library: Library, role: &str, arguments: &[&str]) -> Self {
        let installed = Path::new(PROJECT).join("target/peers");
        let (program, script) = match library {
            Library::Ws => (PathBuf::from("node"), format!("ws_{role}.cjs")),
            Library::Websockets => (
                installed.join("venv/bin/python"),
                format!("websockets_{role}.py"),
            ),
        };
        assert!(
            installed.join("stamp").is_file(),
            "the peers are not installed: cargo xtask setup --tests"
        );
        let mut command = namespace.command(program.to_str().unwrap());
        command
            .arg(Path::new(PROJECT).join("testdata/peers").join(script))
            .args(arguments)
            .env("NODE_PATH", installed.join("node_modules"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command).unwrap();
        let stdout = BufReader::new(process.child_mut().stdout.take().unwrap());
        Self { process, stdout }
    }

    fn wait_until_ready(&mut self) {
        assert_eq!(self.line(), "ready");
    }

    /// The counts that it prints at its end.
    fn frames_sent(&mut self) -> FrameCounts {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}
