//! The clients of a listener as people and programs see them: `wsmon list --by client`, and the examples
//! of alerts.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::sink::alert_line::{seconds, thousandths};
use monitor_core::{Ktime, storm::ClientRow};

/// One client at the moment `ts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "client")]
pub struct ClientRecord {
    pub ts: Timestamp,
    /// The listener's name.
    pub listener: String,
    #[serde(flatten)]
    pub figures: ClientFigures,
    /// Since its last attempt.
    pub last_seconds: f64,
}

/// What is counted of one client since it is among the heaviest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientFigures {
    pub client: IpAddr,
    /// Never too few; the true number is at most `at_most_over` less.
    pub attempts: u64,
    pub at_most_over: u64,
    /// In the minute that its last attempt ended.
    pub attempts_per_minute: f64,
    pub accepted: u64,
    pub refused: u64,
    /// Connections that lived for less than 5 s.
    pub short_lived: u64,
    /// The interval at which it tries, if it keeps one; `null` if not, or if several clients have the
    /// address.
    pub interval_seconds: Option<f64>,
    /// Connections that are open now. Exact, unlike the counts.
    pub open: u64,
    /// Whether it is the address of a proxy, a NAT or a load balancer: it had 20 connections or more at
    /// once.
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
    /// `now` and `ts` are the same moment by two clocks.
    pub(crate) fn new(row: &ClientRow, listener: &str, now: Ktime, ts: Timestamp) -> Self {
        Self {
            ts: now.on_wall_clock(now, ts),
            listener: listener.to_owned(),
            figures: ClientFigures::of(row),
            last_seconds: seconds(now.since(row.last)),
        }
    }
}
