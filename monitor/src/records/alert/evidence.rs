//! The evidence for an alert.

use serde::Serialize;

use crate::records::numbers::seconds;
use monitor_core::{ConnectionVerdict, Facts, Ktime, ListenerFinding, background::TcpAccount};

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Evidence {
    Connection {
        idle_seconds: Option<f64>,
        last_rx_seconds: Option<f64>,
        last_tx_seconds: Option<f64>,
        last_ack_seconds: Option<f64>,
        unacked_bytes: u32,
        send_queue_bytes: Option<u32>,
        retransmits: u32,
        pings_unanswered: u32,
        limit_seconds: f64,
        tcp: Option<TcpEvidence>,
    },
    AtRisk {
        limit_seconds: f64,
        gap_p99_seconds: f64,
        /// Negative if heartbeats arrive later than the limit.
        margin_seconds: f64,
    },
    LimitMismatch {
        limit_seconds: Option<f64>,
        survived_seconds: Option<f64>,
        killed_seconds: Option<f64>,
    },
    LifetimeMismatch {
        limit_seconds: Option<f64>,
        age_seconds: f64,
        deaths: usize,
    },
}

/// TCP's state, read when the alert was reported.
#[derive(Serialize)]
pub(super) struct TcpEvidence {
    backoff: u8,
    probes: u8,
    rto_seconds: f64,
    last_ack_received_seconds: f64,
    unread_bytes: u32,
    unsent_bytes: u32,
}

impl TcpEvidence {
    fn of(account: TcpAccount) -> Self {
        Self {
            backoff: account.backoff,
            probes: account.probes,
            rto_seconds: seconds(account.retransmission_timeout),
            last_ack_received_seconds: seconds(account.last_ack),
            unread_bytes: account.unread_bytes,
            unsent_bytes: account.unsent_bytes,
        }
    }
}

impl Evidence {
    /// `at` is the moment of the alert.
    pub(super) fn of(verdict: &ConnectionVerdict, at: Ktime) -> Self {
        let facts = &verdict.facts;
        let ago = |moment| ago(facts, at, moment);
        let background = verdict.background.as_ref();
        let tcp = background.and_then(|background| background.tcp);
        Self::Connection {
            idle_seconds: ago(facts.last_passed()),
            last_rx_seconds: ago(facts.rx.last_packet),
            last_tx_seconds: ago(facts.tx.last_packet),
            last_ack_seconds: ago(facts.ack_progress_at),
            unacked_bytes: facts.unacked_bytes,
            send_queue_bytes: tcp.map(|tcp| tcp.send_queue_bytes).or(verdict.send_queue),
            retransmits: facts.retransmits,
            pings_unanswered: facts.pings_unanswered,
            limit_seconds: seconds(verdict.limit),
            tcp: tcp.map(TcpEvidence::of),
        }
    }

    pub(super) fn of_listener(finding: &ListenerFinding) -> Self {
        match *finding {
            ListenerFinding::AtRisk { gap, limit } => Self::AtRisk {
                limit_seconds: seconds(limit),
                gap_p99_seconds: seconds(gap),
                margin_seconds: if gap > limit {
                    -seconds(gap - limit)
                } else {
                    seconds(limit - gap)
                },
            },
            ListenerFinding::LimitMismatch {
                limit,
                survived,
                killed,
            } => Self::LimitMismatch {
                limit_seconds: limit.map(seconds),
                survived_seconds: survived.map(seconds),
                killed_seconds: killed.map(seconds),
            },
            ListenerFinding::LifetimeMismatch { limit, age, deaths } => Self::LifetimeMismatch {
                limit_seconds: limit.map(seconds),
                age_seconds: seconds(age),
                deaths,
            },
        }
    }
}

/// Seconds from `moment` to the alert at `at`, or to its evidence, which may be newer than the last
/// report of a standing verdict.
pub(super) fn ago(facts: &Facts, at: Ktime, moment: Option<Ktime>) -> Option<f64> {
    moment.map(|moment| seconds(at.max(facts.at).since(moment)))
}
