//! A listening socket of this host and its owner, as a record: for `wsmon ports`.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::Serialize;

use super::{json, owner::OwnerRecord};

/// One listening TCP socket at the moment `ts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "listening_socket")]
pub struct ListeningSocketRecord {
    #[serde(with = "json::ts")]
    pub ts: Timestamp,
    /// The port of `local`.
    pub port: u16,
    pub local: SocketAddr,
    #[serde(flatten)]
    pub owner: OwnerRecord,
}

impl ListeningSocketRecord {
    pub fn new(ts: Timestamp, local: SocketAddr, owner: OwnerRecord) -> Self {
        Self {
            ts,
            port: local.port(),
            local,
            owner,
        }
    }
}
