//! A server in a process of its own, which can be killed and whose TCP gives up soon.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::Stdio,
};

use lab::{Namespace, Process};

/// It reads everything, and answers a close frame of two bytes with one. On `/deaf` it does not read after
/// the handshake. On `/stream` it sends a message ten times a second, and TCP gives up after a second
/// without an acknowledgement.
const SCRIPT: &str = r#"
import base64, hashlib, re, resource, selectors, socket, sys
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=4096)
listener.setblocking(False)
ready = selectors.DefaultSelector()
ready.register(listener, selectors.EVENT_READ)
upgraded, deaf, streams = set(), [], []

def accept_of(head):
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", head, re.I)[1]
    magic = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1(key + magic).digest())

def leave(stream):
    ready.unregister(stream)
    upgraded.discard(stream)
    stream.close()

def answer(stream):
    try:
        data = stream.recv(65536)
    except OSError:
        return leave(stream)
    if not data:
        return leave(stream)
    if stream in upgraded:
        if data[-8:-6] == b"\x88\x82":
            stream.sendall(b"\x88\x02" + data[-2:])
            leave(stream)
        return
    upgraded.add(stream)
    stream.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_of(data) + b"\r\n\r\n"
    )
    if data.startswith(b"GET /deaf"):
        ready.unregister(stream)
        deaf.append(stream)
    if data.startswith(b"GET /stream"):
        ready.unregister(stream)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000)
        streams.append(stream)

print("ready", flush=True)
while True:
    for key, _ in ready.select(0.1):
        if key.fileobj is not listener:
            answer(key.fileobj)
            continue
        try:
            while True:
                stream, _ = listener.accept()
                ready.register(stream, selectors.EVENT_READ)
        except BlockingIOError:
            pass
    for stream in list(streams):
        try:
            stream.send(b"\x81\x05hello")
        except OSError:
            streams.remove(stream)
            stream.close()
"#;

/// The running server, killed at the latest when it is dropped.
pub(crate) struct Killable {
    process: Process,
    pub(crate) addr: SocketAddr,
}

impl Killable {
    /// Waits until it listens.
    pub(crate) fn start(namespace: &Namespace, addr: SocketAddr) -> Self {
        let mut command = namespace.command("python3");
        command
            .args([
                "-c",
                SCRIPT,
                &addr.ip().to_string(),
                &addr.port().to_string(),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command).unwrap();
        let mut line = String::new();
        let stdout = process.child_mut().stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { process, addr }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.addr)
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
    }
}
