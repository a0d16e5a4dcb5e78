//! What a replay reports of a connection, besides frames and alerts.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use monitor_common::{frame::opcode, stats::ProtocolError};

use super::connection::ReplayedConnection;
use crate::records::{
    connection_summary::{ConnectionSummary, DirectionSummary},
    connections::CloseFrame,
    frames::FrameRecord,
    numbers::seconds,
};
use monitor_core::{Alert, CloseHow, Detail, Ktime, Transition, detail::DirectionTraffic};

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

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionEnd {
    /// It is still open when the recording ends.
    Open,
    Closed(CloseHow),
    /// Its end was missed: another connection has its addresses and ports.
    Missed,
}

/// Everything about a connection as of `at`. `detail` is the connection's own.
pub(super) fn connection_summary(
    detail: &Detail,
    listener: &str,
    connection: &ReplayedConnection,
    end: ConnectionEnd,
    at: Ktime,
) -> ConnectionSummary {
    let (facts, counts) = (&detail.facts, &connection.counts);
    let (closed_at, how) = match end {
        ConnectionEnd::Open => (None, None),
        ConnectionEnd::Closed(how) => (Some(at), Some(how)),
        ConnectionEnd::Missed => (None, Some(CloseHow::Unknown)),
    };
    let lifetime = closed_at.zip(facts.established_at);
    let [rx, tx] = [(&detail.rx, 0), (&detail.tx, 1)].map(|(traffic, direction)| {
        let frames = &counts.frames[direction];
        direction_summary(traffic, frames, counts.unsynced_bytes[direction])
    });
    ConnectionSummary {
        ts: wall_clock(at),
        cookie: facts.conn,
        listener: listener.to_owned(),
        local: facts.local,
        peer: facts.peer,
        role: facts.role.as_str(),
        protocol: facts.protocol.as_str(),
        established_at: facts.established_at.map(wall_clock),
        opened_at: facts.opened_at.map(wall_clock),
        closed_at: closed_at.map(wall_clock),
        duration_seconds: lifetime.map(|(to, from)| seconds(to.since(from))),
        how: how.map(CloseHow::as_str),
        close: facts.close.map(CloseFrame::from),
        rx,
        tx,
        retransmits_total: counts.retransmits,
        protocol_errors: ProtocolError::ALL
            .iter()
            .zip(counts.protocol_errors)
            .filter(|(_, count)| *count > 0)
            .map(|(error, count)| (error.as_str(), count))
            .collect(),
    }
}

fn direction_summary(
    traffic: &DirectionTraffic,
    frames: &[u64; 16],
    unsynced_bytes: u64,
) -> DirectionSummary {
    DirectionSummary {
        frames: frames.iter().sum(),
        frames_by_opcode: by_opcode(frames),
        payload_bytes: traffic.payload_bytes,
        unsynced_bytes,
        pings: traffic.pings,
        pings_unanswered: traffic.pings_unanswered,
        ping_rtt_seconds: traffic.ping_rtt.as_ref().map(Duration::as_secs_f64),
    }
}

/// Nanoseconds since the epoch, the clock of a replay.
pub(super) fn wall_clock(at: Ktime) -> Timestamp {
    Timestamp::from_nanosecond(at.0.into()).unwrap_or(Timestamp::MAX)
}

fn by_opcode(counts: &[u64; 16]) -> BTreeMap<&'static str, u64> {
    let mut named = BTreeMap::new();
    for (raw, count) in (0_u8..).zip(counts).filter(|(_, count)| **count > 0) {
        *named.entry(opcode::name(raw)).or_default() += count;
    }
    named
}
