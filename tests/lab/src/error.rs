use std::{io, net::SocketAddr, path::PathBuf, process::ExitStatus, time::Duration};

use rustls::pki_types::pem;
use tokio_tungstenite::tungstenite;

/// Why the lab could not do something. The cause is in `source`.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error("making network namespaces needs root: run this with sudo")]
    NotRoot,

    #[error("`{program}` is not installed: apt-get install {package}")]
    MissingProgram {
        program: &'static str,
        package: &'static str,
    },

    #[error("{} is missing: cargo xtask setup --tests", .0.display())]
    MissingPeer(PathBuf),

    #[error("`{command}` failed: {stderr}")]
    Command { command: String, stderr: String },

    #[error("cargo could not build {name}; its errors are above")]
    Build { name: &'static str },

    #[error("cannot {action}")]
    Io { action: String, source: io::Error },

    #[error("the namespace's runtime ended before the task did: it panicked or was dropped")]
    TaskLost,

    #[error("an idle timeout is a whole number of seconds, at least one: {0:?} is not")]
    IdleTimeout(Duration),

    #[error("{0} is not a ws:// address with a literal ip and a port")]
    Url(String),

    #[error("websocket handshake with {peer} failed")]
    Handshake {
        peer: SocketAddr,
        source: Box<tungstenite::Error>,
    },

    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),

    #[error("cannot read a certificate or its key")]
    Pem(#[from] pem::Error),

    #[error("cannot configure TLS")]
    Tls(#[from] rustls::Error),

    #[error("the server knows no open connection from {0}")]
    UnknownPeer(SocketAddr),

    #[error("the connection with {0} is closed")]
    Closed(SocketAddr),

    #[error("waited {waited:?} for {what}, in vain")]
    Timeout { what: String, waited: Duration },

    #[error("wsmon ended too early ({status}), the end of its log:\n{log}")]
    DaemonEnded { status: ExitStatus, log: String },

    #[error("wsmon was not ready within {waited:?}, its log so far:\n{log}")]
    DaemonNotReady { waited: Duration, log: String },

    #[error("cannot scrape {url}")]
    Scrape {
        url: String,
        source: Box<ureq::Error>,
    },

    #[error("cannot parse the metrics line `{line}`")]
    MetricsLine { line: String },
}

impl LabError {
    /// For `map_err`: names the attempted action, as in "cannot `action`".
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        |source| Self::Io { action, source }
    }
}
