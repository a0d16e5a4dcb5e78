//! One connection from its beginning to its end as a record: in the access log, and in the output of
//! `wsmon replay`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use jiff::Timestamp;
use monitor_common::{
    Direction,
    connection_totals::{ConnectionTotals, OPCODES},
    frame::opcode,
    stats::{IDLE_GAP_FLOOR, ProtocolError},
};
use serde::Serialize;

use super::{
    connections::{CloseFrame, HandshakeSummary},
    json,
    numbers::seconds,
    owner::OwnerRecord,
    tls::TlsSummary,
};
use monitor_core::{
    AlertResolution, CloseHow, ConnId, Detail, Facts, Ktime, PastVerdict, detail::DirectionTraffic,
    facts::Protocol,
};

/// One connection that ended, or was open at the end of the recording. What is not known is `None`.
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
    pub local: Option<SocketAddr>,
    pub peer: Option<SocketAddr>,
    /// `server` or `client`: this host's role.
    pub role: Option<&'static str>,
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
    pub retransmits_total: Option<u32>,
    /// At least a second; the one before the end counts too.
    pub longest_idle_gap_seconds: Option<f64>,
    /// By kind; only those that occurred.
    pub protocol_errors: Option<BTreeMap<&'static str, u64>>,
    /// `None` unless its TLS records are followed.
    pub tls: Option<TlsSummary>,
    /// In the order of their first end.
    pub verdicts: Vec<VerdictSummary>,
    /// `None` in a recording.
    pub owner: Option<OwnerRecord>,
    /// Only in an access log that may have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake: Option<HandshakeSummary>,
    /// The client's address as a proxy forwarded it. Only in an access log that may have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
}

/// What a connection carried in one direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DirectionSummary {
    pub frames: Option<u64>,
    /// Only opcodes that occurred.
    pub frames_by_opcode: Option<BTreeMap<&'static str, u64>>,
    /// Finished data messages.
    pub messages: Option<u64>,
    /// Payload of frames.
    pub payload_bytes: Option<u64>,
    /// Stream bytes that could not be attributed to frames.
    pub unsynced_bytes: Option<u64>,
    /// Pings sent in this direction; under TLS, those of an inferred heartbeat.
    pub pings: Option<u32>,
    pub pings_unanswered: Option<u32>,
    /// Of the last answered ping in this direction.
    pub ping_rtt_seconds: Option<f64>,
    pub ping_rtt_min_seconds: Option<f64>,
    pub ping_rtt_median_seconds: Option<f64>,
    pub ping_rtt_max_seconds: Option<f64>,
}

/// Equal verdicts on a connection that ended in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerdictSummary {
    pub kind: &'static str,
    /// The highest that it reached.
    pub certainty: &'static str,
    /// How it ended, as in an alert; `None` if it stands.
    pub resolution: Option<&'static str>,
    pub count: u32,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// It is still open when the recording ends.
    Open,
    Closed(CloseHow),
    /// Its end was not seen.
    Missed,
}

/// What a summary is made of.
#[derive(Clone, Copy, Debug)]
pub struct SummarySource<'a> {
    pub conn: ConnId,
    pub listener: &'a str,
    pub protocol: Protocol,
    pub end: ConnectionEnd,
    /// When it ended, was found to be gone, or the recording ended.
    pub at: Ktime,
    /// As of its end; `None` if its last record was lost.
    pub detail: Option<&'a Detail>,
    /// `None` if the kernel programs did not account for it.
    pub totals: Option<&'a ConnectionTotals>,
    pub verdicts: &'a [PastVerdict],
}

impl ConnectionSummary {
    /// `wall_clock` converts moments of the source's clock.
    pub fn new(source: &SummarySource<'_>, wall_clock: impl Fn(Ktime) -> Timestamp) -> Self {
        let &SummarySource {
            at, detail, totals, ..
        } = source;
        let (closed_at, how) = match source.end {
            ConnectionEnd::Open => (None, None),
            ConnectionEnd::Closed(how) => (Some(at), Some(how)),
            ConnectionEnd::Missed => (None, Some(CloseHow::Unknown)),
        };
        let facts = detail.map(|detail| &detail.facts);
        let established_at = facts.and_then(|facts| facts.established_at);
        let lifetime = closed_at.zip(established_at);
        let direction = |direction, traffic: fn(&Detail) -> &DirectionTraffic| {
            DirectionSummary::new(direction, detail.map(traffic), totals)
        };
        let longest_gap = totals.and_then(|totals| {
            let before_end = closed_at
                .zip(facts)
                .map_or(0, |(at, facts)| gap_before(at, facts));
            let longest = totals.longest_idle_gap().max(before_end);
            (longest > 0).then(|| Duration::from_nanos(longest))
        });
        Self {
            ts: wall_clock(at),
            cookie: source.conn,
            listener: source.listener.to_owned(),
            local: facts.map(|facts| facts.local),
            peer: facts.map(|facts| facts.peer),
            role: facts.map(|facts| facts.role.as_str()),
            protocol: source.protocol.as_str(),
            established_at: established_at.map(&wall_clock),
            opened_at: facts.and_then(|facts| facts.opened_at).map(&wall_clock),
            closed_at: closed_at.map(&wall_clock),
            duration_seconds: lifetime.map(|(to, from)| seconds(to.since(from))),
            how: how.map(CloseHow::as_str),
            close: facts.and_then(|facts| facts.close).map(CloseFrame::from),
            rx: direction(Direction::Rx, |detail| &detail.rx),
            tx: direction(Direction::Tx, |detail| &detail.tx),
            retransmits_total: detail.map(|detail| detail.retransmits),
            longest_idle_gap_seconds: longest_gap.map(seconds),
            protocol_errors: totals.map(|totals| {
                let counts = ProtocolError::ALL
                    .iter()
                    .map(|error| (error.as_str(), totals.protocol_errors(*error)));
                counts.filter(|(_, count)| *count > 0).collect()
            }),
            tls: detail.and_then(TlsSummary::new),
            verdicts: source.verdicts.iter().map(VerdictSummary::from).collect(),
            owner: None,
            handshake: None,
            client: None,
        }
    }
}

impl DirectionSummary {
    fn new(
        direction: Direction,
        traffic: Option<&DirectionTraffic>,
        totals: Option<&ConnectionTotals>,
    ) -> Self {
        let frames = totals.map(|totals| totals.frames(direction));
        let i = direction.index();
        let rtts = totals.and_then(|totals| totals.ping_rtts[i].min_median_max());
        let [min, median, max] = [0, 1, 2]
            .map(|which| rtts.map(|rtts| Duration::from_micros(rtts[which].into()).as_secs_f64()));
        Self {
            frames: match frames {
                Some(frames) => Some(frames.iter().fold(0, |sum: u64, n| sum.wrapping_add(*n))),
                None => traffic.map(|traffic| traffic.frames.into()),
            },
            frames_by_opcode: frames.map(|frames| {
                let named = OPCODES.map(opcode::name).into_iter().zip(*frames);
                named.filter(|(_, count)| *count > 0).collect()
            }),
            messages: totals.map(|totals| totals.messages[i]),
            payload_bytes: traffic.map(|traffic| traffic.payload_bytes),
            unsynced_bytes: totals.map(|totals| totals.unsynced_bytes[i].get()),
            pings: traffic.map(|traffic| traffic.pings),
            pings_unanswered: traffic.map(|traffic| traffic.pings_unanswered),
            ping_rtt_seconds: traffic
                .and_then(|traffic| traffic.ping_rtt)
                .map(|rtt| rtt.as_secs_f64()),
            ping_rtt_min_seconds: min,
            ping_rtt_median_seconds: median,
            ping_rtt_max_seconds: max,
        }
    }
}

impl From<&PastVerdict> for VerdictSummary {
    fn from(verdict: &PastVerdict) -> Self {
        Self {
            kind: verdict.kind.as_str(),
            certainty: verdict.certainty.as_str(),
            resolution: verdict.resolution.map(AlertResolution::as_str),
            count: verdict.count,
        }
    }
}

/// The idle gap that the end at `at` ended, nanoseconds; 0 if it is none. With bytes outstanding it isn't
/// an idle gap but a loss.
fn gap_before(at: Ktime, facts: &Facts) -> u64 {
    let last = facts.rx.last_packet.max(facts.tx.last_packet);
    match last {
        Some(last) if facts.unacked_bytes == 0 => {
            let gap = at.0.saturating_sub(last.0);
            if gap >= IDLE_GAP_FLOOR { gap } else { 0 }
        }
        _ => 0,
    }
}
