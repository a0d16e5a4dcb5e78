//! A listening socket of this host and its owner, as a record: for `wsmon ports`.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::Serialize;

use super::{json, owner::OwnerRecord};

/// One listening TCP socket at the moment `ts`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename = "listening_socket")]
pub struct ListeningSocketRecord {
    #[serde(with = "json::ts")]
    pub ts: Timestamp,
    /// The port of `local`.
    pub port: u16,
    pub local: SocketAddr,
    #[serde(flatten)]
    pub owner: OwnerRecord,
    /// `None` if no rules could be read.
    pub published: Option<Vec<PublicationRecord>>,
    /// How long its port was watched; `None` if it was not.
    pub watched_seconds: Option<f64>,
    /// `websocket`, or `opaque` for TLS, if seen meanwhile.
    pub protocol: Option<&'static str>,
}

/// A NAT rule that forwards connections to a listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublicationRecord {
    /// The ports to which clients connect, such as `80` or `8000-8010`.
    pub ports: String,
    /// The address or network to which clients connect; `None` for any.
    pub address: Option<String>,
    /// The address in the rule; `None` for one of the namespace itself.
    pub to_address: Option<IpAddr>,
    /// `nftables` or `iptables`.
    pub by: &'static str,
    /// The inode of the network namespace of the rule.
    pub netns: u64,
}

impl ListeningSocketRecord {
    pub fn new(ts: Timestamp, local: SocketAddr, owner: OwnerRecord) -> Self {
        Self {
            ts,
            port: local.port(),
            local,
            owner,
            published: None,
            watched_seconds: None,
            protocol: None,
        }
    }
}
