//! One frame as people and programs see it: the line of `wsmon frames` and of `wsmon replay`.

use std::{net::SocketAddr, time::Duration};

use jiff::Timestamp;
use monitor_common::frame::opcode;
use serde::{Serialize, Serializer};

use crate::core::{ConnId, facts::Direction};

/// One WebSocket frame header (RFC 6455 §5.2) and where it passed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename = "frame")]
pub struct FrameRecord {
    pub ts: Timestamp,
    #[serde(serialize_with = "conn_id")]
    pub conn: ConnId,
    /// The listener's name.
    pub listener: String,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// Seen from this host.
    #[serde(serialize_with = "direction")]
    pub direction: Direction,
    pub fin: bool,
    /// RSV1, RSV2, RSV3 as bits 2, 1, 0.
    pub rsv: u8,
    /// The raw four bits; see [`opcode`].
    #[serde(serialize_with = "opcode_name")]
    pub opcode: u8,
    pub masked: bool,
    /// Payload, bytes.
    pub length: u64,
    /// Of a pong that answers a ping.
    #[serde(
        rename = "ping_rtt_seconds",
        skip_serializing_if = "Option::is_none",
        serialize_with = "seconds"
    )]
    pub ping_rtt: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_code: Option<u16>,
}

/// A cookie does not fit into every JSON reader's numbers.
fn conn_id<S: Serializer>(conn: &ConnId, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&conn.0)
}

fn direction<S: Serializer>(direction: &Direction, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(direction.as_str())
}

fn opcode_name<S: Serializer>(raw: &u8, to: S) -> Result<S::Ok, S::Error> {
    match opcode::name(*raw) {
        "reserved" => to.collect_str(&format_args!("reserved-{raw}")),
        name => to.serialize_str(name),
    }
}

fn seconds<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => to.serialize_f64(duration.as_secs_f64()),
        None => to.serialize_none(),
    }
}
