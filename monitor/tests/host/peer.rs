//! A WebSocket server in a separate cgroup: this test program, started once more. Its client is the
//! test, which stays in its cgroup.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write, stdin},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{ChildStdout, Command, Stdio},
    time::Duration,
};

use lab::Process;
use wire::{REQUEST, RESPONSE};

use crate::group::Group;

/// Set in the server's process.
const ORDER: &str = "WSMON_HOST_PEER";
/// The test that acts as the server if [`ORDER`] is set.
const SELF: &str = "peer::a_connection_carries_frames_both_ways_and_shows_what_is_missing";
const LIMIT: Duration = Duration::from_secs(20);

/// An open WebSocket connection to a server in a cgroup.
pub(crate) struct Peer {
    process: Process,
    answers: BufReader<ChildStdout>,
    client: TcpStream,
}

impl Peer {
    /// Starts a server in the cgroup and connects to it once `before_connect` has returned.
    pub(crate) fn connect(group: &Group, before_connect: impl FnOnce(u16)) -> Self {
        let script = format!("{} && exec \"$0\" \"$@\"", group.enter());
        let mut command = Command::new("sh");
        command
            .args(["-c", &script])
            .arg(env::current_exe().unwrap());
        Self::start(command, before_connect)
    }

    fn start(mut command: Command, before_connect: impl FnOnce(u16)) -> Self {
        command
            .args(["--exact", SELF, "--nocapture"])
            .env(ORDER, "serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command).unwrap();
        let mut answers = BufReader::new(process.child_mut().stdout.take().unwrap());
        let port = response(&mut answers, "listens ").parse().unwrap();
        before_connect(port);
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.set_nodelay(true).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client.write_all(REQUEST).unwrap();
        let mut response = [0; RESPONSE.len()];
        client.read_exact(&mut response).unwrap();
        assert_eq!(response, RESPONSE);
        Self {
            process,
            answers,
            client,
        }
    }

    /// Sends one frame each way and waits for both.
    pub(crate) fn exchange(&mut self) {
        const PAYLOAD: usize = 10;
        self.client_sends(PAYLOAD);
        self.order(&format!("read {}", client_frame(PAYLOAD).len()));
        self.server_sends(PAYLOAD);
        let mut received = vec![0; server_frame(PAYLOAD).len()];
        self.client.read_exact(&mut received).unwrap();
        assert_eq!(received, server_frame(PAYLOAD));
    }

    pub(crate) fn client_sends(&mut self, payload: usize) {
        self.client.write_all(&client_frame(payload)).unwrap();
    }

    pub(crate) fn server_sends(&mut self, payload: usize) {
        self.order(&format!("send {payload}"));
    }

    /// Whether unread bytes wait at the server and at the client.
    pub(crate) fn has_unread(&mut self) -> [bool; 2] {
        let server = self.order("unread") == "true";
        [server, is_unread(&self.client)]
    }

    fn order(&mut self, order: &str) -> String {
        let stdin = self.process.child_mut().stdin.as_mut().unwrap();
        writeln!(stdin, "{order}").unwrap();
        response(&mut self.answers, "done ")
    }
}

/// The rest of the next line that starts with `beginning`.
fn response(answers: &mut impl BufRead, beginning: &str) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(answers.read_line(&mut line).unwrap(), 0, "the server ended");
        if let Some((_, rest)) = line.split_once(beginning) {
            return rest.trim().to_owned();
        }
    }
}

fn is_unread(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    matches!(peeked, Ok(1))
}

/// A text frame, masked with zeros.
fn client_frame(payload: usize) -> Vec<u8> {
    frame_of(payload, 0x80, &[0; 4])
}

fn server_frame(payload: usize) -> Vec<u8> {
    frame_of(payload, 0, &[])
}

/// RFC 6455 §5.2.
fn frame_of(payload: usize, mask_bit: u8, mask: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u8::try_from(payload) {
        Ok(short) if short < 126 => frame.push(mask_bit | short),
        _ => {
            frame.push(mask_bit | 126);
            frame.extend(u16::try_from(payload).unwrap().to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.resize(frame.len() + payload, b'a');
    frame
}

/// Serves one connection, then executes orders until stdin ends.
fn serve() {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    println!("listens {}", listener.local_addr().unwrap().port());
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut request = [0; REQUEST.len()];
    stream.read_exact(&mut request).unwrap();
    stream.write_all(RESPONSE).unwrap();
    for line in stdin().lines().map_while(Result::ok) {
        let done = match line.split_once(' ') {
            Some(("send", payload)) => {
                let frame = server_frame(payload.parse().unwrap());
                stream.write_all(&frame).unwrap();
                true
            }
            Some(("read", bytes)) => {
                stream
                    .read_exact(&mut vec![0; bytes.parse().unwrap()])
                    .unwrap();
                true
            }
            _ => is_unread(&stream),
        };
        println!("done {done}");
    }
}

#[test]
fn a_connection_carries_frames_both_ways_and_shows_what_is_missing() {
    if env::var_os(ORDER).is_some() {
        serve();
        return;
    }
    let mut peer = Peer::start(Command::new(env::current_exe().unwrap()), |_| {});
    peer.exchange();
    assert_eq!(peer.has_unread(), [false, false]);
    peer.server_sends(2000);
    peer.client_sends(2000);
    lab::wait_until("both frames", LIMIT, || peer.has_unread() == [true, true]).unwrap();
}
