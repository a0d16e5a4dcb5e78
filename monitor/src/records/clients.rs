//! The clients of a listener, as records: for `wsmon list --by client` and the examples of alerts.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    json,
    numbers::{seconds, thousandths},
};
use monitor_core::{Ktime, storm::ClientRow};

/// One client at the moment `ts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "client")]
pub struct ClientRecord {
    #[serde(with = "json::ts")]
    pub ts: Timestamp,
    /// The listener's name.
    pub listener: String,
    #[serde(flatten)]
    pub figures: ClientFigures,
    /// Time since its last attempt.
    pub last_attempt_seconds: f64,
}

/// Counts of one client since it became one of the heaviest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientFigures {
    pub client: IpAddr,
    /// Never too low, and too high by at most `at_most_over`.
    pub attempts: u64,
    pub at_most_over: u64,
    /// In the minute that ended with its last attempt.
    pub attempts_per_minute: f64,
    pub accepted: u64,
    pub refused: u64,
    /// Connections that lived for less than 5 s.
    pub short_lived: u64,
    /// The interval between its attempts, if it keeps one; `null` if not, or if several clients have
    /// the address.
    pub interval_seconds: Option<f64>,
    /// Connections that are open now. Exact, unlike the counts.
    pub open: u64,
    /// Whether it is the address of a proxy, a NAT or a load balancer: it had 20 or more simultaneous
    /// connections.
    pub shared: bool,
}

impl ClientFigures {
    pub(crate) fn of(row: &ClientRow) -> Self {
        Self {
            client: row.client,
            attempts: row.attempts,
            at_most_over: row.at_most_over,
            attempts_per_minute: thousandths(row.attempts_per_minute),
            accepted: row.accepted,
            refused: row.refused,
            short_lived: row.short_lived,
            interval_seconds: row.interval.map(seconds),
            open: row.open,
            shared: row.is_shared(),
        }
    }
}

impl ClientRecord {
    /// `now` and `ts` are the same moment on two clocks.
    pub fn new(row: &ClientRow, listener: &str, now: Ktime, ts: Timestamp) -> Self {
        Self {
            ts: now.on_wall_clock(now, ts),
            listener: listener.to_owned(),
            figures: ClientFigures::of(row),
            last_attempt_seconds: seconds(now.since(row.last)),
        }
    }
}
