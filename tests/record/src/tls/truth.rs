use std::{fs, net::SocketAddr, path::Path};

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// What happened in a recording, in a file next to it. Times are microseconds since 1970, as in the
/// recording.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Truth {
    /// The server: see [`WssStack`](lab::WssStack).
    pub(super) server: String,
    /// See [`TlsCipher`](lab::TlsCipher).
    pub(super) cipher: String,
    /// The server's address.
    pub(super) addr: SocketAddr,
    /// `None` if the server sends no pings.
    pub(super) ping_every_ms: Option<u64>,
    pub(super) connections: Vec<Connection>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Connection {
    /// The client's address.
    pub(super) client: SocketAddr,
    /// See [`Traffic`](lab::Traffic).
    pub(super) traffic: String,
    /// When its process had been stopped with SIGSTOP; `None` if it lived to the end.
    pub(super) stopped_at: Option<u64>,
    /// How many pings the client says it received.
    pub(super) pings_received: usize,
    /// The server's pings as decrypted by tshark: when each passed, and when its pong did.
    pub(super) pings: Vec<(u64, Option<u64>)>,
}

impl Truth {
    /// # Errors
    /// If it cannot be read.
    #[cfg(test)]
    pub(super) fn read(file: &Path) -> Result<Self> {
        Ok(serde_json::from_slice(&fs::read(file)?)?)
    }

    /// Writes it with one connection per line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let lines = serde_json::to_string(self)?
            .replace("\"connections\":[{", "\"connections\":[\n{")
            .replace("},{\"client\"", "},\n{\"client\"");
        fs::write(file, format!("{lines}\n"))?;
        Ok(())
    }
}
