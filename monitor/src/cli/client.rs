//! The client of the control socket, used by the commands.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::exit::Failure;
use crate::{
    diagnostics::error_chain::one_line,
    records::{DROPPED_HEADER, TOTAL_ALERTS_HEADER, TOTAL_HEADER, UNSERVED_HEADER},
};

/// The default path of the daemon's control socket.
pub const DEFAULT_CONTROL: &str = "/run/wsmon.sock";

/// The lines of a response, as they arrive.
#[derive(Debug)]
pub struct ResponseLines {
    /// The number of connections the daemon watched when it began the list, if the response has it.
    pub connections: Option<usize>,
    /// The number of alerts that stood when the daemon began the list, if the response has it.
    pub alerts: Option<usize>,
    /// The number of past alerts that the daemon dropped, if the response has it.
    pub dropped: Option<usize>,
    /// The watched ports on which nobody listens, if there are any and the response has them.
    pub unserved: Option<String>,
    body: Incoming,
    unread: BytesMut,
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
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| unreachable(socket, source))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Errors of the connection also reach the response.
    tokio::spawn(connection);
    // The parts are constants of this program and form a valid request.
    let request = Request::get(target)
        .header("Host", "wsmon")
        .body(Empty::<Bytes>::new())
        .map_err(|error| ClientError::Refused(error.to_string()))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let number = |header: &str| response.headers().get(header)?.to_str().ok()?.parse().ok();
    let connections = number(TOTAL_HEADER);
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
            alerts,
            dropped,
            unserved,
            body,
            unread: BytesMut::new(),
        });
    }
    let text = body.collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    Err(match status {
        StatusCode::BAD_REQUEST => ClientError::Invalid(text),
        _ => ClientError::Refused(text),
    })
}

impl ResponseLines {
    /// The next line of a response that ends only with the daemon.
    pub async fn next_of_stream(&mut self) -> Result<Bytes, ClientError> {
        self.next().await?.ok_or(ClientError::Stopped)
    }

    /// The next line without its newline; `None` at the end of the response.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
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
}
