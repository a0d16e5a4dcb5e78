//! The network of the pod: a namespace with a resolver and a host that receives alerts.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Mutex},
    thread,
};

use lab::{HttpClient, Namespace};
use serde_json::Value;

const HOST: &str = "alerts.wsmon.test";
const METRICS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 6455));

/// Its servers live as long as the test program.
pub(crate) struct PodNetwork {
    namespace: Namespace,
    receiver: SocketAddr,
    received: Arc<Mutex<Received>>,
}

#[derive(Default)]
struct Received {
    /// Names that the resolver was queried for.
    names: Vec<String>,
    posted: Vec<Value>,
}

impl PodNetwork {
    pub(crate) fn new() -> Self {
        let namespace = Namespace::loopback().unwrap();
        let (resolver, listener) = namespace
            .run(|| {
                let resolver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).unwrap();
                (
                    resolver,
                    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
                )
            })
            .unwrap();
        let receiver = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Received::default()));
        let of_resolver = Arc::clone(&received);
        thread::spawn(move || resolve(&resolver, &of_resolver));
        let of_receiver = Arc::clone(&received);
        thread::spawn(move || {
            for stream in listener.incoming() {
                receive(stream.unwrap(), &of_receiver);
            }
        });
        Self {
            namespace,
            receiver,
            received,
        }
    }

    /// The path of the namespace.
    pub(crate) fn path(&self) -> String {
        format!("/run/netns/{}", self.namespace.name())
    }

    /// A URL that leads to the receiver by its name.
    pub(crate) fn webhook(&self) -> String {
        format!("http://{HOST}:{}/", self.receiver.port())
    }

    /// What was posted to the webhook so far.
    pub(crate) fn posted(&self) -> Vec<Value> {
        self.received.lock().unwrap().posted.clone()
    }

    pub(crate) fn has_resolved_the_webhook(&self) -> bool {
        let received = self.received.lock().unwrap();
        received.names.iter().any(|name| name == HOST)
    }

    /// Whether the pod's metrics server reports that wsmon is ready.
    pub(crate) fn is_ready(&self) -> bool {
        let request = || HttpClient::default().get(METRICS, "/readyz").is_ok();
        self.namespace.run(request).unwrap()
    }
}

/// Answers every question for an IPv4 address with loopback, and others with no record (RFC 1035).
fn resolve(socket: &UdpSocket, received: &Mutex<Received>) {
    const HEADER: usize = 12;
    const A: [u8; 2] = [0, 1];
    let mut query = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut query) {
        let (name, rest) = labels(&query[HEADER..length]);
        let question = &query[HEADER..length - rest.len() + 4];
        let is_for_address = rest.starts_with(&A);
        received.lock().unwrap().names.push(name);
        let mut answer = query[..2].to_vec();
        // A response, recursion available, no error; one question.
        answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_for_address), 0, 0, 0, 0]);
        answer.extend(question);
        if is_for_address {
            // The name of the question, A, IN, 60 s, four bytes.
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(Ipv4Addr::LOCALHOST.octets());
        }
        socket.send_to(&answer, from).unwrap();
    }
}

/// A name, and what follows it.
fn labels(mut bytes: &[u8]) -> (String, &[u8]) {
    let mut labels = Vec::new();
    loop {
        let (length, rest) = bytes.split_first().unwrap();
        let (label, rest) = rest.split_at(usize::from(*length));
        bytes = rest;
        if label.is_empty() {
            return (labels.join("."), bytes);
        }
        labels.push(String::from_utf8_lossy(label).into_owned());
    }
}

/// Reads one request and accepts it.
fn receive(mut stream: TcpStream, received: &Mutex<Received>) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    let body = loop {
        let read = stream.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "half a request");
        request.extend(&buffer[..read]);
        if let Some(body) = complete_body(&String::from_utf8_lossy(&request)) {
            break body;
        }
    };
    received.lock().unwrap().posted.push(body);
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .unwrap();
}

/// The JSON of a request that has arrived as a whole.
fn complete_body(request: &str) -> Option<Value> {
    let (head, body) = request.split_once("\r\n\r\n")?;
    let head = head.to_lowercase();
    let mut lines = head.lines();
    let length = lines.find_map(|line| line.strip_prefix("content-length: "))?;
    (body.len() >= length.parse().unwrap()).then(|| serde_json::from_str(body).unwrap())
}
