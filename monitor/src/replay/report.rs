//! What a replay reports, besides frames and alerts.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use jiff::Timestamp;
use monitor_common::{frame::opcode, stats::ProtocolError};
use serde::Serialize;

use super::{connection::Connection, skip::Skipped};
use crate::records::frames::FrameRecord;
use monitor_core::{Alert, CloseHow, Facts, Ktime, Transition, facts::Direction};

/// One item of a replay's output, in order.
#[derive(Clone, Debug)]
pub enum ReplayRecord {
    Frame(FrameRecord),
    /// A connection's change of state.
    State(Box<Transition>),
    Alert(Alert),
    /// A connection ended, or the recording did.
    Connection(Box<ConnectionSummary>),
}

/// A value for each direction, seen from the watched socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PerDirection<T> {
    pub rx: T,
    pub tx: T,
}

/// One connection from its beginning, or the recording's, to its end.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename = "connection")]
pub struct ConnectionSummary {
    /// Counts up in a recording; a string like the cookies of live connections.
    pub conn: String,
    /// The listener's name.
    pub listener: String,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub role: &'static str,
    pub protocol: &'static str,
    /// When TCP was established; `None` if that was before the recording.
    pub established: Option<Timestamp>,
    /// When the 101 was seen, TLS began, or frames were recognised.
    pub opened: Option<Timestamp>,
    /// `None` if the end was not seen.
    pub closed: Option<Timestamp>,
    /// As in the metrics; `None` while the connection is open.
    pub how: Option<&'static str>,
    /// The first close frame.
    pub close: Option<CloseFrameSummary>,
    /// By opcode; only those that occurred.
    pub frames: PerDirection<BTreeMap<&'static str, u64>>,
    pub payload_bytes: PerDirection<u64>,
    pub unsynced_bytes: PerDirection<u64>,
    pub retransmits: u64,
    /// Of the last answered ping from here.
    pub ping_rtt_seconds: Option<f64>,
    pub pings_unanswered: u32,
    /// By kind; only those that occurred.
    pub protocol_errors: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CloseFrameSummary {
    /// `peer` or `local`.
    pub initiator: &'static str,
    /// `None` without a body.
    pub code: Option<u16>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionEnd {
    /// It is still open when the recording ends.
    Open,
    Closed {
        how: CloseHow,
        at: Ktime,
    },
    /// Its end was missed: another connection has its addresses and ports.
    Missed,
}

impl ConnectionSummary {
    /// `facts` are the connection's own.
    pub(super) fn new(
        facts: &Facts,
        listener: &str,
        connection: &Connection,
        end: ConnectionEnd,
    ) -> Self {
        let (s, counts) = (&connection.stream.flow.snapshot, &connection.counts);
        let (closed, how) = match end {
            ConnectionEnd::Open => (None, None),
            ConnectionEnd::Closed { how, at } => (Some(at), Some(how)),
            ConnectionEnd::Missed => (None, Some(CloseHow::Unknown)),
        };
        let [rx, tx] = counts.frames.map(by_opcode);
        Self {
            conn: facts.conn.0.to_string(),
            listener: listener.to_owned(),
            local: facts.local,
            peer: facts.peer,
            role: facts.role.as_str(),
            protocol: facts.protocol.as_str(),
            established: facts.established_at.map(wall_clock),
            opened: facts.opened_at.map(wall_clock),
            closed: closed.map(wall_clock),
            how: how.map(CloseHow::as_str),
            close: facts.close.map(|close| CloseFrameSummary {
                initiator: match close.initiator {
                    Direction::Rx => "peer",
                    Direction::Tx => "local",
                },
                code: close.code,
            }),
            frames: PerDirection { rx, tx },
            payload_bytes: PerDirection {
                rx: s.rx.payload_bytes,
                tx: s.tx.payload_bytes,
            },
            unsynced_bytes: PerDirection {
                rx: counts.unsynced_bytes[0],
                tx: counts.unsynced_bytes[1],
            },
            retransmits: counts.retransmits,
            ping_rtt_seconds: facts.ping_rtt.as_ref().map(Duration::as_secs_f64),
            pings_unanswered: facts.pings_unanswered,
            protocol_errors: ProtocolError::ALL
                .into_iter()
                .zip(counts.protocol_errors)
                .filter(|(_, count)| *count > 0)
                .map(|(error, count)| (error.as_str(), count))
                .collect(),
        }
    }
}

/// The numbers of the whole recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(tag = "type", rename = "summary")]
pub struct Summary {
    /// The first and the latest time stamp.
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
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
    #[serde(skip_serializing_if = "is_zero")]
    pub forgotten_outgoing: u64,
    pub frames: PerDirection<u64>,
    pub payload_bytes: PerDirection<u64>,
    pub unsynced_bytes: PerDirection<u64>,
    /// Verdicts that were reported.
    pub alerts: u64,
    /// Packets that were skipped, by reason.
    pub skipped: Skipped,
    /// Of those, the packets of unsupported link layers, by LINKTYPE_ value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unread_links: BTreeMap<u32, u64>,
    /// Packets with a time stamp earlier than a previous one; they were processed at the latest time
    /// seen.
    pub out_of_order: u64,
    /// Packets without a time stamp, processed in the same way.
    pub untimed: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Nanoseconds since the epoch, the clock of a replay.
pub(super) fn wall_clock(at: Ktime) -> Timestamp {
    Timestamp::from_nanosecond(at.0.into()).unwrap_or(Timestamp::MAX)
}

fn by_opcode(counts: [u64; 16]) -> BTreeMap<&'static str, u64> {
    let mut named = BTreeMap::new();
    for (raw, count) in (0_u8..).zip(counts).filter(|(_, count)| *count > 0) {
        *named.entry(opcode::name(raw)).or_default() += count;
    }
    named
}
