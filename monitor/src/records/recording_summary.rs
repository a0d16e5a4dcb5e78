//! The totals of a recording as a record: the last line of `wsmon replay --json`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::{json, skipped::Skipped};

/// The totals of a whole recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(tag = "type", rename = "recording_summary")]
pub struct RecordingSummary {
    /// The first time stamp.
    #[serde(serialize_with = "json::ts::option::serialize")]
    pub first_packet_at: Option<Timestamp>,
    /// The latest time stamp.
    #[serde(serialize_with = "json::ts::option::serialize")]
    pub last_packet_at: Option<Timestamp>,
    pub packets: u64,
    /// Packets of watched connections.
    pub segments: u64,
    /// Connections that were watched.
    pub connections: u64,
    /// Those that had not ended.
    pub open: u64,
    /// Connections on watched ports that were not WebSockets, by the recording's evidence.
    pub other_connections: u64,
    /// Connections opened from a watched port that were forgotten for newer ones. Their later packets
    /// are attributed to a server.
    pub forgotten_outgoing: u64,
    pub rx: RecordingTraffic,
    pub tx: RecordingTraffic,
    /// Verdicts that were reported.
    pub alerts: u64,
    /// Packets that were skipped, by reason; only those that occurred.
    pub skipped: Skipped,
    /// Of those, the packets of unsupported link layers, by LINKTYPE_ value.
    pub unread_links: BTreeMap<u32, u64>,
    /// Packets with a time stamp earlier than a previous one; they were processed at the latest time
    /// seen.
    pub out_of_order: u64,
    /// Packets without a time stamp, processed in the same way.
    pub untimed: u64,
}

/// What all watched connections of a recording carried in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RecordingTraffic {
    pub frames: u64,
    /// Payload of these frames.
    pub payload_bytes: u64,
    /// Stream bytes that could not be attributed to frames.
    pub unsynced_bytes: u64,
}
