//! One connection from its beginning to its end as a record: in the output of `wsmon replay`.

use std::{collections::BTreeMap, net::SocketAddr};

use jiff::Timestamp;
use serde::Serialize;

use super::{connections::CloseFrame, json};
use monitor_core::ConnId;

/// One connection that ended, or was open at the end of the recording.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename = "connection_summary")]
pub struct ConnectionSummary {
    /// When it ended, was found to be gone, or the recording ended.
    #[serde(serialize_with = "json::ts::serialize")]
    pub ts: Timestamp,
    /// In a recording, a number that counts up.
    #[serde(serialize_with = "json::cookie::serialize")]
    pub cookie: ConnId,
    /// The listener's name.
    pub listener: String,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// `server` or `client`: this host's role.
    pub role: &'static str,
    /// `websocket`, `opaque` or `assumed`.
    pub protocol: &'static str,
    /// When TCP was established; `None` if that was not seen.
    #[serde(serialize_with = "json::ts::option::serialize")]
    pub established_at: Option<Timestamp>,
    /// When the 101 was seen, TLS began, or frames were recognised.
    #[serde(serialize_with = "json::ts::option::serialize")]
    pub opened_at: Option<Timestamp>,
    /// `None` if it is open, or the end was not seen.
    #[serde(serialize_with = "json::ts::option::serialize")]
    pub closed_at: Option<Timestamp>,
    /// From `established_at` to `closed_at`.
    pub duration_seconds: Option<f64>,
    /// How it ended, as in the metrics; `None` while it is open.
    pub how: Option<&'static str>,
    /// The first close frame.
    pub close: Option<CloseFrame>,
    pub rx: DirectionSummary,
    pub tx: DirectionSummary,
    /// All retransmissions, with progress or without.
    pub retransmits_total: u64,
    /// By kind; only those that occurred.
    pub protocol_errors: BTreeMap<&'static str, u64>,
}

/// What a connection carried in one direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DirectionSummary {
    pub frames: u64,
    /// Only opcodes that occurred.
    pub frames_by_opcode: BTreeMap<&'static str, u64>,
    /// Payload of frames.
    pub payload_bytes: u64,
    /// Stream bytes that could not be attributed to frames.
    pub unsynced_bytes: u64,
    /// Pings sent in this direction.
    pub pings: u32,
    pub pings_unanswered: u32,
    /// Of the last answered ping in this direction.
    pub ping_rtt_seconds: Option<f64>,
}
