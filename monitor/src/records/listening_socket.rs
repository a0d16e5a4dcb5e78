//! A listening socket of this host and its owner, as a record: for `wsmon ports`.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::Serialize;

use super::json;
use monitor_core::background::Owner;

/// One listening TCP socket at the moment `ts`. What could not be found out is `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "listening_socket")]
pub struct ListeningSocketRecord {
    #[serde(with = "json::ts")]
    pub ts: Timestamp,
    /// The port of `local`.
    pub port: u16,
    pub local: SocketAddr,
    /// The cgroup in which the socket was created.
    pub cgroup: Option<String>,
    pub unit: Option<String>,
    pub container: Option<String>,
    pub pod: Option<String>,
    /// A process that holds the socket; there may be others.
    pub pid: Option<u32>,
    pub comm: Option<String>,
    /// The inode of its network namespace.
    pub netns: Option<u64>,
}

impl ListeningSocketRecord {
    pub fn new(ts: Timestamp, local: SocketAddr, owner: Owner) -> Self {
        let Owner {
            cgroup,
            unit,
            container,
            pod,
            pid,
            comm,
            netns,
        } = owner;
        Self {
            ts,
            port: local.port(),
            local,
            cgroup,
            unit,
            container,
            pod,
            pid,
            comm,
            netns,
        }
    }
}
