//! One connection as a record: for `wsmon list` and `wsmon inspect`.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{json, owner::OwnerRecord, rates::TrafficRates, tls::TlsSummary};
use monitor_core::{
    ConnId, Handshake,
    facts::{Close, Direction},
};

mod view;

pub use monitor_core::transition::State;
pub use view::ConnectionView;

/// One connection at the moment `ts`. Fields named `…_seconds` are ages at that moment; an event that
/// never happened is `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "connection")]
pub struct ConnectionRecord {
    #[serde(with = "json::ts")]
    pub ts: Timestamp,
    #[serde(with = "json::cookie")]
    pub cookie: ConnId,
    /// The listener's name.
    pub listener: String,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// `server` or `client`: this host's role.
    pub role: String,
    /// `websocket`, `opaque` or `assumed`.
    pub protocol: String,
    pub state: State,
    /// `establishment`, `packet` or `sock_diag`: how wsmon found the connection.
    pub known_from: String,
    /// The cgroup v2 id of its socket, a string like the cookie.
    pub cgroup_id: Option<String>,
    /// Of an open connection as of now, of a closed one as last known.
    pub owner: OwnerRecord,
    /// `null` for a connection older than the monitor.
    pub age_seconds: Option<f64>,
    /// Time since the last known packet.
    pub idle_seconds: Option<f64>,
    /// The shortest idle timeout of the hops on its path.
    pub idle_limit_seconds: Option<f64>,
    /// The name of the hop with that timeout.
    pub hop: Option<String>,
    /// Time since the traffic that restarts the clock of that hop.
    pub hop_idle_seconds: Option<f64>,
    /// Its states, oldest first; those before the monitor's start are unknown.
    pub states: Vec<StateChange>,
    pub verdict: Option<VerdictRecord>,
    /// `null` if neither of its heads was seen.
    pub handshake: Option<HandshakeSummary>,
    pub rx: DirectionRecord,
    pub tx: DirectionRecord,
    /// `null` unless it was read twice.
    pub rates: Option<TrafficRates>,
    /// `null` unless its TLS records are followed.
    pub tls: Option<TlsSummary>,
    pub tcp: TcpRecord,
    pub close: Option<CloseFrame>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateChange {
    pub state: State,
    #[serde(with = "json::ts")]
    pub ts: Timestamp,
    pub reason: String,
}

/// The standing verdict, as last reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerdictRecord {
    pub kind: String,
    pub certainty: String,
    /// The moment of that report.
    #[serde(with = "json::ts")]
    pub ts: Timestamp,
    /// When it became true, such as the moment when the limit was crossed.
    #[serde(with = "json::ts")]
    pub began_at: Timestamp,
    pub limit_seconds: f64,
    pub reason: String,
}

/// How the connection was opened (RFC 6455 §4). A field is `null` if the head was cut off or does not
/// have it. Text is the client's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandshakeSummary {
    /// Without the query.
    pub path: Option<String>,
    pub host: Option<String>,
    pub origin: Option<String>,
    /// As negotiated.
    pub subprotocol: Option<String>,
    /// Whether permessage-deflate was negotiated (RFC 7692).
    pub compressed: bool,
    /// The faults of the handshake, by name.
    pub faults: Vec<String>,
}

impl HandshakeSummary {
    pub fn of(handshake: &Handshake<'_>) -> Self {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Self {
            path: text(handshake.path),
            host: text(handshake.host),
            origin: text(handshake.origin),
            subprotocol: text(handshake.subprotocol),
            compressed: handshake.deflate.is_some(),
            faults: handshake
                .faults
                .iter()
                .map(|f| f.as_str().to_owned())
                .collect(),
        }
    }
}

/// One direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirectionRecord {
    pub last_packet_seconds: Option<f64>,
    pub last_payload_seconds: Option<f64>,
    pub last_frame_seconds: Option<f64>,
    pub last_data_frame_seconds: Option<f64>,
    pub last_ping_seconds: Option<f64>,
    pub frames: u32,
    pub payload_bytes: u64,
    pub pings: u32,
    pub pings_unanswered: u32,
    /// Of the last answered ping in this direction.
    pub ping_rtt_seconds: Option<f64>,
    /// Time between its pings, smoothed.
    pub ping_interval_seconds: Option<f64>,
    /// The deviation from that interval, smoothed.
    pub ping_jitter_seconds: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TcpRecord {
    pub last_ack_seconds: Option<f64>,
    pub unacked_bytes: u32,
    /// Time without progress.
    pub unacked_seconds: Option<f64>,
    /// Since the last progress, as in the evidence of an alert.
    pub retransmits: u32,
    /// All retransmissions, with progress or without.
    pub retransmits_total: u32,
    pub unanswered_transmissions: u32,
    pub unanswered_seconds: Option<f64>,
    /// Written by the application and not acknowledged, at the last scan of the sockets; `null` if none
    /// has covered the connection.
    pub send_queue_bytes: Option<u32>,
}

/// The first close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseFrame {
    #[serde(with = "json::side")]
    pub initiator: Direction,
    pub code: Option<u16>,
}

impl From<Close> for CloseFrame {
    fn from(close: Close) -> Self {
        Self {
            initiator: close.initiator,
            code: close.code,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::records::alert;
    use monitor_core::{
        CloseHow, ConnectionAlert, Detail, Facts, Hop, Ktime, ListenerId, OnExpiry, VerdictKind,
        detail::DirectionTraffic,
        facts::{Closing, ClosingBy, DirectionActivity, Origin, Protocol, Role},
    };

    /// A server's WebSocket, established 10 s after boot and open since, as of 30 s after boot.
    pub(crate) fn detail(conn: u64) -> Detail {
        let second = |n: u64| Ktime(n * 1_000_000_000);
        Detail {
            facts: Facts {
                origin: Origin::Establishment,
                cgroup_id: Some(7),
                established_at: Some(second(10)),
                opened_at: Some(second(11)),
                rx: DirectionActivity {
                    last_packet: Some(second(25)),
                    ..DirectionActivity::default()
                },
                ..Facts::new(
                    second(30),
                    ConnId(conn),
                    ListenerId(0),
                    Role::Server,
                    Protocol::WebSocket,
                    ([10, 77, 2, 10], 8080).into(),
                    ([10, 77, 1, 12], 53_787).into(),
                )
            },
            retransmits: 0,
            tls: None,
            rx: DirectionTraffic {
                frames: 3,
                pings: 2,
                ping_rtt: Some(Duration::from_micros(250)),
                ping_interval: Some(Duration::from_millis(15_017)),
                ping_jitter: Some(Duration::ZERO),
                ..DirectionTraffic::default()
            },
            tx: DirectionTraffic::default(),
        }
    }

    pub(crate) fn record(detail: &Detail, how: Option<CloseHow>) -> ConnectionRecord {
        record_with(detail, how, None)
    }

    fn record_with(
        detail: &Detail,
        how: Option<CloseHow>,
        verdict: Option<&ConnectionAlert>,
    ) -> ConnectionRecord {
        let hop = Hop::new("lb", Duration::from_secs(60), OnExpiry::Silent);
        ConnectionView {
            detail,
            listener: "8080",
            hop: Some(&hop),
            verdict,
            handshake: None,
            send_queue: None,
            requested_at: Some(Ktime(10_500_000_000)),
            owner: OwnerRecord::default(),
            how,
            now: detail.facts.at,
            ts: "2026-11-22T18:37:52.5Z".parse().expect("a time stamp"),
        }
        .record()
    }

    #[test]
    fn a_record_has_ages_and_its_states_with_times() {
        let record = record(&detail(u64::MAX), None);
        assert_eq!(record.age_seconds, Some(20.0));
        assert_eq!(record.idle_seconds, Some(5.0));
        assert_eq!(record.idle_limit_seconds, Some(60.0));
        assert_eq!(record.hop.as_deref(), Some("lb"));
        assert_eq!(record.hop_idle_seconds, Some(5.0));
        assert_eq!(record.tx.last_packet_seconds, None);
        assert_eq!(record.rx.ping_rtt_seconds, Some(0.000_25));
        assert_eq!(record.rx.ping_interval_seconds, Some(15.017));
        assert_eq!(record.rx.ping_jitter_seconds, Some(0.0));
        assert_eq!(record.tx.ping_interval_seconds, None);
        assert_eq!(record.state, State::Open);
        let states: Vec<_> = record
            .states
            .iter()
            .map(|change| (change.state, change.ts.to_string(), change.reason.as_str()))
            .collect();
        assert_eq!(
            states,
            [
                (
                    State::Connecting,
                    "2026-11-22T18:37:33Z".to_owned(),
                    "upgrade requested"
                ),
                (
                    State::Open,
                    "2026-11-22T18:37:33.5Z".to_owned(),
                    "101 after 1000 ms"
                ),
            ]
        );
        let text = serde_json::to_string(&record).expect("JSON");
        assert!(text.starts_with(r#"{"type":"connection","ts":"#), "{text}");
        assert!(
            text.contains(r#""cookie":"18446744073709551615""#),
            "{text}"
        );
        let back: ConnectionRecord = serde_json::from_str(&text).expect("a record");
        assert_eq!(back, record);
    }

    #[test]
    fn a_single_transmission_may_be_answered_and_one_on_a_dead_path_is_not() {
        let mut detail = detail(1);
        let last_passed =
            |detail: &Detail, verdict| record_with(detail, None, verdict).idle_seconds;
        detail.facts.tx.last_packet = Some(Ktime(28_000_000_000));
        let expired = alert::tests::alert();
        assert_eq!(expired.subject.kind, VerdictKind::Expired);
        let mut unread = expired.clone();
        unread.subject.kind = VerdictKind::Stalled;
        for (unanswered, verdict, idle) in [
            (0, None, 2.0),
            (1, None, 2.0),
            (1, Some(&unread), 2.0),
            (2, None, 5.0),
            (1, Some(&expired), 5.0),
        ] {
            detail.facts.unanswered_transmissions = unanswered;
            let kind = verdict.map(|alert| alert.subject.kind);
            assert_eq!(
                last_passed(&detail, verdict),
                Some(idle),
                "{unanswered} {kind:?}"
            );
            // The clock of the hop.
            let record = record_with(&detail, None, verdict);
            assert_eq!(record.hop_idle_seconds, Some(2.0));
        }
    }

    #[test]
    fn the_beginning_and_the_end_of_a_close_are_reported() {
        let mut detail = detail(1);
        detail.facts.closing = Some(Closing {
            at: Ktime(29_000_000_000),
            by: ClosingBy::CloseFrame(Close {
                initiator: Direction::Rx,
                code: Some(1001),
            }),
        });
        assert_eq!(record(&detail, None).state, State::Closing);
        let closed = record(&detail, Some(CloseHow::CloseFrame));
        assert_eq!(closed.state, State::Closed);
        let reasons: Vec<_> = closed.states.iter().map(|c| c.reason.as_str()).collect();
        assert_eq!(reasons[2..], ["close frame 1001 from peer", "close_frame"]);
    }
}
