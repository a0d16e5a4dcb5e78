//! The client of the control socket, used by the commands.

use std::{
    io,
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, time::timeout};

use super::exit::Failure;
use crate::{
    diagnostics::error_chain::one_line,
    records::{
        DROPPED_HEADER, TOTAL_ALERTS_HEADER, TOTAL_ENTRIES_HEADER, TOTAL_HEADER, UNSERVED_HEADER,
        printable::printable,
    },
};

/// Half of the time after which a silent daemon is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// The default path of the daemon's control socket.
pub const DEFAULT_CONTROL: &str = "/run/wsmon.sock";

/// The lines of a response, as they arrive.
#[derive(Debug)]
pub struct ResponseLines {
    /// The number of connections the daemon watched when it began the list, if the response has it.
    pub connections: Option<usize>,
    /// The number of groups or clients, whatever the limit, if the response has it.
    pub entries: Option<usize>,
    /// The number of alerts, standing or past, whatever the limit, if the response has it.
    pub alerts: Option<usize>,
    /// The number of past alerts that the daemon dropped, if the response has it.
    pub dropped: Option<usize>,
    /// The watched ports on which nobody listens, if there are any and the response has them.
    pub unserved: Option<String>,
    body: Incoming,
    unread: BytesMut,
    daemon: Daemon,
}

/// A daemon that may have been stopped.
#[derive(Clone, Debug)]
struct Daemon {
    socket: PathBuf,
    /// After so long without a byte it is checked whether the daemon responds at all, and again for so
    /// long. A list of a million connections can need longer for its first line.
    patience: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no wsmon listens on {0}; start `wsmon run`, or name its socket with --control")]
    NoDaemon(PathBuf),
    #[error("this user may not connect to {0}; run as root, or as a member of the socket's group")]
    NoPermission(PathBuf),
    #[error("cannot connect to {path}: {source}; name the daemon's socket with --control")]
    Connect { path: PathBuf, source: io::Error },
    #[error("the daemon does not speak HTTP as expected: {}", one_line(.0))]
    Http(#[from] hyper::Error),
    #[error("the daemon stopped")]
    Stopped,
    #[error(
        "the daemon on {0} does not respond; see its log and the state of its process (ps), or \
         restart it"
    )]
    Silent(PathBuf),
    #[error("the daemon does not know {0}; run the same version of both")]
    UnknownPath(String),
    /// The daemon's message about an invalid request.
    #[error("{0}")]
    Invalid(String),
    /// The daemon's error message.
    #[error("{0}")]
    Refused(String),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NoPermission(_) => Self::prerequisite(error.to_string()),
            ClientError::Invalid(message) => Self::usage(message),
            _ => Self::failed(error.to_string()),
        }
    }
}

/// Appends the encoded `query` to `path`. Unset filters are left out.
pub fn target(path: &str, query: &[(&str, Option<String>)]) -> String {
    let set: Vec<_> = query
        .iter()
        .filter_map(|(name, value)| Some((*name, value.as_deref()?)))
        .collect();
    if set.is_empty() {
        return path.to_owned();
    }
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(set)
        .finish();
    format!("{path}?{query}")
}

/// Requests `target` from the daemon on `socket`.
pub async fn get(socket: &Path, target: &str) -> Result<ResponseLines, ClientError> {
    let daemon = Daemon {
        socket: socket.to_owned(),
        patience: PATIENCE,
    };
    request(daemon, target).await
}

async fn request(daemon: Daemon, target: &str) -> Result<ResponseLines, ClientError> {
    let response = daemon.unless_silent(daemon.send(target)).await??;
    let status = response.status();
    let number = |header: &str| response.headers().get(header)?.to_str().ok()?.parse().ok();
    let connections = number(TOTAL_HEADER);
    let entries = number(TOTAL_ENTRIES_HEADER);
    let alerts = number(TOTAL_ALERTS_HEADER);
    let dropped = number(DROPPED_HEADER);
    let unserved = response.headers().get(UNSERVED_HEADER);
    let unserved = unserved.and_then(|ports| ports.to_str().ok());
    let unserved = unserved.filter(|ports| !ports.is_empty());
    let unserved = unserved.map(str::to_owned);
    let body = response.into_body();
    if status == StatusCode::OK {
        return Ok(ResponseLines {
            connections,
            entries,
            alerts,
            dropped,
            unserved,
            body,
            unread: BytesMut::new(),
            daemon,
        });
    }
    let text = daemon.unless_silent(body.collect()).await??.to_bytes();
    let text = printable(String::from_utf8_lossy(&text).trim());
    Err(match status {
        // The daemon's own 404 has a text.
        StatusCode::NOT_FOUND if text.is_empty() => {
            let path = target.split('?').next().unwrap_or(target);
            ClientError::UnknownPath(path.to_owned())
        }
        StatusCode::BAD_REQUEST => ClientError::Invalid(text),
        _ => ClientError::Refused(text),
    })
}

impl Daemon {
    async fn send(&self, target: &str) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| unreachable(&self.socket, source))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Errors of the connection also reach the response.
        tokio::spawn(connection);
        // The parts are constants of this program and form a valid request.
        let request = Request::get(target)
            .header("Host", "wsmon")
            .body(Empty::<Bytes>::new())
            .map_err(|error| ClientError::Refused(error.to_string()))?;
        Ok(sender.send_request(request).await?)
    }

    /// Waits for a part of a response as long as the daemon responds to other requests.
    async fn unless_silent<T>(&self, part: impl Future<Output = T>) -> Result<T, ClientError> {
        let mut part = pin!(part);
        loop {
            if let Ok(part) = timeout(self.patience, &mut part).await {
                return Ok(part);
            }
            // Any response will do, also that there is no such path.
            if !matches!(timeout(self.patience, self.send("/v1")).await, Ok(Ok(_))) {
                return Err(ClientError::Silent(self.socket.clone()));
            }
        }
    }
}

impl ResponseLines {
    /// The next line of a stream, which may be silent and ends only with the daemon.
    pub async fn next_of_stream(&mut self) -> Result<Bytes, ClientError> {
        self.read_line().await?.ok_or(ClientError::Stopped)
    }

    /// The next line without its newline; `None` at the end of the response.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let daemon = self.daemon.clone();
        daemon.unless_silent(self.read_line()).await?
    }

    /// The only line of a response.
    pub async fn only(&mut self) -> Result<Bytes, ClientError> {
        self.next().await?.ok_or(ClientError::Stopped)
    }

    async fn read_line(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let mut line = self.unread.split_to(end + 1);
                line.truncate(end);
                return Ok(Some(line.freeze()));
            }
            let frame = self.body.frame().await.transpose();
            match frame.map_err(|_| ClientError::Stopped)? {
                Some(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.unread.extend_from_slice(&data);
                    }
                }
                None if self.unread.is_empty() => return Ok(None),
                None => return Ok(Some(self.unread.split().freeze())),
            }
        }
    }
}

/// Parses one line of a response.
pub fn read<T: DeserializeOwned>(line: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(line).map_err(|error| {
        Failure::failed(format!(
            "unexpected response from the daemon ({error}); run the same version of both"
        ))
    })
}

fn unreachable(socket: &Path, source: io::Error) -> ClientError {
    let path = socket.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoDaemon(path),
        io::ErrorKind::PermissionDenied => ClientError::NoPermission(path),
        _ => ClientError::Connect { path, source },
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::UnixListener};

    use super::*;

    #[test]
    fn only_filters_that_are_set_are_sent_and_they_are_encoded() {
        let none = target("/v1/frames", &[("port", None)]);
        assert_eq!(none, "/v1/frames");
        let some = target(
            "/v1/frames",
            &[
                ("peer", Some("fd00::/8".into())),
                ("port", None),
                ("listener", Some("a&b c".into())),
            ],
        );
        assert_eq!(some, "/v1/frames?peer=fd00%3A%3A%2F8&listener=a%26b+c");
    }

    const SHORT: Duration = Duration::from_millis(250);

    /// A socket that accepts connections and is silent, or gives each this response.
    fn daemon(folder: &Path, response: Option<&'static str>) -> Daemon {
        let socket = folder.join("wsmon.sock");
        let listener = UnixListener::bind(&socket).expect("bound");
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                if let Some(response) = response {
                    stream
                        .write_all(response.as_bytes())
                        .await
                        .expect("written");
                }
                open.push(stream);
            }
        });
        Daemon {
            socket,
            patience: SHORT,
        }
    }

    #[tokio::test]
    async fn a_daemon_that_does_not_respond_is_given_up() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let silent = daemon(folder.path(), None);
        let response = timeout(20 * SHORT, request(silent, "/v1/status")).await;
        let error = response.expect("no endless wait").expect_err("no response");
        assert!(error.to_string().contains("does not respond"), "{error}");
    }

    #[tokio::test]
    async fn a_slow_response_is_awaited_if_the_daemon_responds_to_other_requests() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n";
        let slow = daemon(folder.path(), Some(head));
        let mut lines = request(slow, "/v1/groups").await.expect("a response");
        let line = timeout(3 * SHORT, lines.next()).await;
        assert!(line.is_err(), "the daemon lives: {line:?}");
    }

    #[tokio::test]
    async fn a_path_of_a_later_version_gets_a_sentence() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let head = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        let older = daemon(folder.path(), Some(head));
        let error = request(older, "/v1/status?listener=a").await;
        assert_eq!(
            error.expect_err("refused").to_string(),
            "the daemon does not know /v1/status; run the same version of both"
        );
    }
}
