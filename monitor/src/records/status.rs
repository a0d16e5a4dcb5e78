//! The state of the daemon as a record: for `wsmon status`, and for a live view.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::json;

/// What the daemon watches, and what is wrong, at the moment `ts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "status")]
pub struct StatusRecord {
    #[serde(with = "json::ts")]
    pub ts: Timestamp,
    /// The version of the daemon.
    pub version: String,
    /// The release of the kernel.
    pub kernel: String,
    /// The process id of the daemon.
    pub pid: u32,
    /// Since the daemon started.
    pub uptime_seconds: f64,
    /// Whether there are no problems.
    pub healthy: bool,
    /// One sentence each, with the remedy.
    pub problems: Vec<String>,
    /// The sum of the listeners, as are the next three.
    pub open: u64,
    pub closing: u64,
    pub zombies: ZombieCounts,
    pub at_risk: u64,
    /// Only losses that occurred.
    pub losses: Vec<LossCount>,
    /// In the order of the configuration.
    pub listeners: Vec<ListenerStatus>,
}

/// Connections that look open and are dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZombieCounts {
    pub confirmed: u64,
    pub suspected: u64,
}

/// What was lost at one place for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossCount {
    /// The label `ring` of `wsmon_events_lost_total`, or `connections` for
    /// `wsmon_untracked_connections_total`.
    pub place: String,
    /// As in the metric.
    pub reason: String,
    /// Since the daemon started.
    pub total: u64,
    pub last_five_minutes: u64,
}

/// One listener, with the figures of its metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListenerStatus {
    pub listener: String,
    /// Such as `8080,9000-9010`.
    pub ports: String,
    /// Whether they are ports of remote services, to which this host connects.
    pub remote: bool,
    /// Sockets that listen on its ports; `None` for a remote service.
    pub listening_sockets: Option<u64>,
    pub open: u64,
    /// A FIN, a RST or a close frame passed.
    pub closing: u64,
    pub zombies: ZombieCounts,
    /// Idle for at least 0.8 of the limit, but not past it.
    pub at_risk: u64,
    /// Since the daemon started, as is the next one.
    pub opened_total: u64,
    pub closed_total: u64,
    /// The shortest idle timeout on its paths; `None` if none is configured.
    pub idle_limit_seconds: Option<f64>,
    /// The hop with that timeout.
    pub hop: Option<String>,
    /// The 99th percentile of recent silences.
    pub idle_gap_p99_seconds: Option<f64>,
    /// The limit minus that silence. Negative if it will drop connections.
    pub heartbeat_margin_seconds: Option<f64>,
    /// The longest silence that a connection survived.
    pub learned_survived_seconds: Option<f64>,
    /// The shortest longer silence that killed one.
    pub learned_killed_seconds: Option<f64>,
    /// The phase of the current reconnect storm, `mass_close` or `storm`.
    pub storm: Option<String>,
}

impl ZombieCounts {
    pub fn total(self) -> u64 {
        self.confirmed + self.suspected
    }
}
