//! For tests: an HTTP receiver on loopback that responds as the test wants.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::config::endpoint::Endpoint;

const SOON: Duration = Duration::from_secs(10);

/// The response to a request.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// A status, with further headers, each with its line end.
    Status(u16, &'static str),
    /// No response: the connection is closed.
    HangUp,
}

impl Answer {
    pub(super) fn status(status: u16) -> Self {
        Self::Status(status, "")
    }
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) at: Instant,
    pub(super) path: String,
    pub(super) content_type: String,
    pub(super) body: String,
}

/// Gives the listed answers, then 200.
pub(super) struct Receiver {
    addr: SocketAddr,
    requests: mpsc::Receiver<Request>,
}

impl Receiver {
    pub(super) fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Self::on(listener, answers)
    }

    /// Begins to respond on a port that was bound before.
    pub(super) fn on(listener: TcpListener, answers: impl IntoIterator<Item = Answer>) -> Self {
        let addr = listener.local_addr().expect("bound");
        let mut answers: VecDeque<_> = answers.into_iter().collect();
        let (reported, requests) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // An error means that the client is gone, or the test is.
                let _ = converse(stream, &mut answers, &reported);
            }
        });
        Self { addr, requests }
    }

    pub(super) fn endpoint(&self, path: &str) -> Endpoint {
        endpoint(self.addr, path)
    }

    /// The next requests, which must come soon.
    pub(super) fn requests(&self, count: usize) -> Vec<Request> {
        let next = || self.requests.recv_timeout(SOON).expect("a request");
        std::iter::repeat_with(next).take(count).collect()
    }
}

pub(super) fn endpoint(addr: SocketAddr, path: &str) -> Endpoint {
    format!("http://{addr}{path}").parse().expect("a URL")
}

/// Serves one connection until it is closed.
fn converse(
    stream: TcpStream,
    answers: &mut VecDeque<Answer>,
    reported: &mpsc::Sender<Request>,
) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader)? {
        if reported.send(request).is_err() {
            return Ok(());
        }
        match answers.pop_front().unwrap_or(Answer::status(200)) {
            Answer::HangUp => return Ok(()),
            Answer::Status(status, headers) => {
                let text = "so be it";
                let length = text.len();
                write!(
                    reader.get_mut(),
                    "HTTP/1.1 {status} Said\r\nContent-Length: {length}\r\n{headers}\r\n{text}"
                )?;
            }
        }
    }
    Ok(())
}

fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let Some(path) = line.split(' ').nth(1).map(str::to_owned) else {
        return Ok(None);
    };
    let (mut length, mut content_type) = (0, String::new());
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().expect("a length"),
            "content-type" => content_type = value.to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Request {
        at: Instant::now(),
        path,
        content_type,
        body: String::from_utf8(body).expect("UTF-8"),
    }))
}
