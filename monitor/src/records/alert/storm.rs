//! The fields of a reconnect storm, and the clients it names.

use std::{net::IpAddr, time::Duration};

use serde::Serialize;

use crate::records::numbers::{seconds, thousandths};
use monitor_core::storm::{Cause, ReconnectStorm};

#[derive(Serialize)]
pub(super) struct Fields {
    phase: &'static str,
    pattern: &'static str,
    period_seconds: Option<f64>,
    rate: f64,
    peak_rate: f64,
    baseline_rate: f64,
    attempts: u64,
    successes: u64,
    attempts_per_success: Option<f64>,
    returning_share: Option<f64>,
    refused: Vec<RefusedStatus>,
    closes: u64,
    cause: Option<&'static str>,
    cause_seconds: Option<f64>,
    cause_peer: Option<IpAddr>,
    lasted_seconds: f64,
}

/// Attempts that failed in one way.
#[derive(Serialize)]
struct RefusedStatus {
    /// `null` for a response without a status, or no response.
    status: Option<u16>,
    count: u64,
}

impl Fields {
    pub(super) fn of(storm: &ReconnectStorm, lasted: Duration) -> Self {
        let refused = |&(status, count): &_| RefusedStatus { status, count };
        Self {
            phase: storm.phase.as_str(),
            pattern: storm.pattern.as_str(),
            period_seconds: storm.period.map(seconds),
            rate: thousandths(storm.rate),
            peak_rate: thousandths(storm.peak_rate),
            baseline_rate: thousandths(storm.baseline_rate),
            attempts: storm.attempts,
            successes: storm.successes,
            attempts_per_success: storm.attempts_per_success.map(thousandths),
            returning_share: storm.returning_share.map(thousandths),
            refused: storm.refused.iter().map(refused).collect(),
            closes: storm.closes,
            cause: storm.cause.map(Cause::as_str),
            cause_seconds: match storm.cause {
                Some(Cause::IdleTimeout(limit) | Cause::Lifetime(limit)) => Some(seconds(limit)),
                Some(Cause::ServerRestart | Cause::PeerNetwork | Cause::ProxyDeploy(_)) | None => {
                    None
                }
            },
            cause_peer: match storm.cause {
                Some(Cause::ProxyDeploy(peer)) => Some(peer),
                _ => None,
            },
            lasted_seconds: seconds(lasted),
        }
    }
}
