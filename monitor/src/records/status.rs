//! The state of the daemon as a record: for `wsmon status`, and for a live view.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    json,
    numbers::{seconds, thousandths},
};
use crate::config::listeners::ListenerConfig;
use monitor_core::{Tally, VerdictKind, storm::StormPhase, tally::Turnover};

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

/// What was lost in one ring for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossCount {
    /// The label `ring` of `wsmon_events_lost_total`, or `connections` for
    /// `wsmon_untracked_connections_total`.
    pub ring: String,
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
    /// The longest silence that a connection survived: the lower bound of the path's real timeout.
    pub learned_lower_seconds: Option<f64>,
    /// The shortest longer silence that killed one: its upper bound.
    pub learned_upper_seconds: Option<f64>,
    /// The phase of the current reconnect storm, `mass_close` or `storm`.
    pub storm: Option<String>,
}

impl StatusRecord {
    /// The state of this process. `losses` are those that occurred.
    pub fn new(
        ts: Timestamp,
        kernel: String,
        uptime: Duration,
        listeners: Vec<ListenerStatus>,
        losses: Vec<LossCount>,
    ) -> Self {
        let problems = problems(&listeners, &losses);
        let sum = |of: fn(&ListenerStatus) -> u64| listeners.iter().map(of).sum::<u64>();
        Self {
            ts,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel,
            pid: std::process::id(),
            uptime_seconds: seconds(uptime),
            healthy: problems.is_empty(),
            problems,
            open: sum(|listener| listener.open),
            closing: sum(|listener| listener.closing),
            zombies: ZombieCounts {
                confirmed: sum(|listener| listener.zombies.confirmed),
                suspected: sum(|listener| listener.zombies.suspected),
            },
            at_risk: sum(|listener| listener.at_risk),
            losses,
            listeners,
        }
    }
}

impl ListenerStatus {
    /// `turnover` is as the kernel programs counted.
    pub fn new(
        listener: &ListenerConfig,
        tally: &Tally,
        turnover: &Turnover,
        storm: Option<StormPhase>,
    ) -> Self {
        let paths = listener.rules.paths();
        let hops = paths.filter_map(|path| path.tightest());
        let hop = hops.min_by_key(|hop| hop.idle_timeout);
        let limit = hop.and_then(|hop| hop.idle_timeout);
        let phases = tally.counts.phases();
        let zombies = VerdictKind::zombies().map(|kind| tally.counts.zombies[kind as usize]);
        let learned = &tally.learned;
        Self {
            listener: listener.rules.name.clone(),
            ports: listener.ports_text(),
            remote: listener.remote,
            listening_sockets: (!listener.remote).then_some(tally.listen_sockets),
            open: phases.open,
            closing: phases.closing,
            zombies: ZombieCounts {
                confirmed: tally.confirmed_zombies,
                suspected: zombies.sum::<u64>() - tally.confirmed_zombies,
            },
            at_risk: tally.at_risk,
            opened_total: turnover.opened,
            closed_total: turnover.closed_total(),
            idle_limit_seconds: limit.map(seconds),
            hop: hop.map(|hop| hop.name.clone()),
            idle_gap_p99_seconds: learned.gap_p99.map(seconds),
            heartbeat_margin_seconds: learned.heartbeat_margin(limit).map(thousandths),
            learned_lower_seconds: learned.survived.map(seconds),
            learned_upper_seconds: learned.killed.map(seconds),
            storm: storm.map(|phase| phase.as_str().to_owned()),
        }
    }
}

impl ZombieCounts {
    pub fn total(self) -> u64 {
        self.confirmed + self.suspected
    }
}

/// What is wrong, as docs/status.md defines it.
fn problems(listeners: &[ListenerStatus], losses: &[LossCount]) -> Vec<String> {
    let listeners = listeners.iter().flat_map(ListenerStatus::problems);
    listeners
        .chain(losses.iter().filter_map(LossCount::problem))
        .collect()
}

impl ListenerStatus {
    fn problems(&self) -> impl Iterator<Item = String> {
        let name = &self.listener;
        let unserved = (self.listening_sockets == Some(0)).then(|| {
            let unserved = unserved_text(name, &self.ports);
            format!("{unserved}: start the server, or find its port with wsmon ports")
        });
        let confirmed = self.zombies.confirmed;
        let noun = if confirmed == 1 { "zombie" } else { "zombies" };
        let zombies = (confirmed > 0)
            .then(|| format!("listener {name} has {confirmed} confirmed {noun}: see wsmon alerts"));
        let storm = self.storm.as_deref().map(|phase| {
            let what = match phase {
                "mass_close" => "lost their connections all at once",
                _ => "reconnect all at once",
            };
            format!("clients of listener {name} {what}: see wsmon alerts")
        });
        [unserved, zombies, storm].into_iter().flatten()
    }
}

impl LossCount {
    fn problem(&self) -> Option<String> {
        let (ring, reason) = (self.ring.as_str(), self.reason.as_str());
        let (one, many) = match ring {
            "connections" => ("connection was", "connections were"),
            "vitals" => ("connection event was", "connection events were"),
            "handshakes" => ("head of a handshake was", "heads of handshakes were"),
            "packets" => ("packet was", "packets were"),
            "alerts" => ("line of the alert log was", "lines of the alert log were"),
            "access_log" => ("line of the access log was", "lines of the access log were"),
            "alertmanager" => ("alert for Alertmanager was", "alerts for Alertmanager were"),
            "webhook" => ("alert for a webhook was", "alerts for webhooks were"),
            _ => ("record was", "records were"),
        };
        let verb = match ring {
            "connections" => "not watched",
            "packets" => "not read in full",
            _ => "lost",
        };
        let remedy = match (ring, reason) {
            ("connections", "snapshots_full" | "no_room_at_start") => "raise --max-connections",
            ("connections", _) => "free memory on this host",
            ("vitals" | "handshakes", "full") => "give wsmon more CPU time",
            ("alerts" | "access_log", "full") => "use a faster reader or disk",
            ("alerts" | "access_log" | "alertmanager" | "webhook", _) => {
                "the log of wsmon run says why"
            }
            _ => "docs/metrics.md explains the reason",
        };
        let n = self.last_five_minutes;
        let what = if n == 1 { one } else { many };
        (n > 0).then(|| {
            format!("{n} {what} {verb} in the last five minutes ({ring}, {reason}): {remedy}")
        })
    }
}

/// Says that a listener has no server: `nobody listens on 8080 (listener chat)`. `ports` are as in
/// [`ListenerStatus::ports`].
pub fn unserved_text(listener: &str, ports: &str) -> String {
    match listener == ports {
        true => format!("nobody listens on {ports}"),
        false => format!("nobody listens on {ports} (listener {listener})"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::listeners::PortRange;
    use monitor_core::{Hop, Learned, ListenerRules, OnExpiry};

    /// A listener behind a hop of 60 s.
    pub(crate) fn listener(name: &str, tally: &Tally, storm: Option<StormPhase>) -> ListenerStatus {
        let hop = Hop::new("lb", Duration::from_secs(60), OnExpiry::Silent);
        let config = ListenerConfig {
            rules: ListenerRules::new(name, Some(hop)),
            ports: vec![PortRange(8080..=8080)],
            remote: false,
        };
        ListenerStatus::new(&config, tally, &Turnover::default(), storm)
    }

    /// A tally of a listener with a server and three open connections.
    pub(crate) fn healthy() -> Tally {
        let mut tally = Tally {
            listen_sockets: 1,
            ..Tally::default()
        };
        tally.counts.connections[0].open = 2;
        tally.counts.connections[1].open = 1;
        tally
    }

    pub(crate) fn status(listeners: Vec<ListenerStatus>, losses: Vec<LossCount>) -> StatusRecord {
        let uptime = Duration::from_millis(3_661_250);
        StatusRecord::new(
            Timestamp::UNIX_EPOCH,
            "6.1.0".to_owned(),
            uptime,
            listeners,
            losses,
        )
    }

    fn loss(ring: &str, reason: &str, last_five_minutes: u64) -> LossCount {
        LossCount {
            ring: ring.to_owned(),
            reason: reason.to_owned(),
            total: 9,
            last_five_minutes,
        }
    }

    #[test]
    fn a_listener_has_the_figures_of_its_tally_and_the_status_their_sums() {
        let mut tally = healthy();
        tally.counts.zombies[VerdictKind::Expired as usize] = 3;
        tally.counts.zombies[VerdictKind::Quiet as usize] = 5;
        tally.confirmed_zombies = 1;
        tally.learned = Learned {
            gap_p99: Some(Duration::from_millis(61_500)),
            survived: Some(Duration::from_secs(61)),
            killed: None,
        };
        let listener = listener("chat", &tally, None);
        assert_eq!(listener.open, 3);
        let zombies = ZombieCounts {
            confirmed: 1,
            suspected: 2,
        };
        assert_eq!(listener.zombies, zombies);
        assert_eq!(listener.hop.as_deref(), Some("lb"));
        assert_eq!(listener.heartbeat_margin_seconds, Some(-1.5));
        assert_eq!(listener.learned_lower_seconds, Some(61.0));
        let status = status(vec![listener.clone(), listener], Vec::new());
        assert_eq!((status.open, status.zombies.total()), (6, 6));
        assert_eq!(status.uptime_seconds, 3_661.25);
        let read: StatusRecord =
            serde_json::from_value(serde_json::json!(status)).expect("a status");
        assert_eq!(read, status);
    }

    #[test]
    fn suspicions_warnings_and_old_losses_are_no_problem() {
        let mut tally = healthy();
        tally.counts.zombies[VerdictKind::Expired as usize] = 1;
        tally.counts.zombies[VerdictKind::Expiring as usize] = 1;
        tally.at_risk = 1;
        let listeners = vec![listener("8080", &tally, None)];
        let status = status(listeners, vec![loss("vitals", "full", 0)]);
        assert!(status.healthy, "{:?}", status.problems);
    }

    #[test]
    fn each_problem_is_a_sentence_with_a_remedy() {
        let mut dead = healthy();
        dead.counts.zombies[VerdictKind::Expired as usize] = 1;
        dead.confirmed_zombies = 1;
        let (server, unserved) = (healthy(), Tally::default());
        let listeners = vec![
            listener("chat", &unserved, None),
            listener("8080", &dead, Some(StormPhase::Storm)),
            listener("api", &server, Some(StormPhase::MassClose)),
        ];
        let losses = vec![
            loss("connections", "snapshots_full", 2),
            loss("vitals", "full", 1),
        ];
        let status = status(listeners, losses);
        assert!(!status.healthy);
        assert_eq!(
            status.problems,
            [
                "nobody listens on 8080 (listener chat): start the server, or find its port with wsmon ports",
                "listener 8080 has 1 confirmed zombie: see wsmon alerts",
                "clients of listener 8080 reconnect all at once: see wsmon alerts",
                "clients of listener api lost their connections all at once: see wsmon alerts",
                "2 connections were not watched in the last five minutes (connections, snapshots_full): \
                 raise --max-connections",
                "1 connection event was lost in the last five minutes (vitals, full): give wsmon more CPU time",
            ]
        );
    }

    #[test]
    fn a_remote_service_needs_no_listening_socket() {
        let config = ListenerConfig {
            rules: ListenerRules::new("443", None),
            ports: vec![PortRange(443..=443)],
            remote: true,
        };
        let tally = Tally::default();
        let remote = ListenerStatus::new(&config, &tally, &Turnover::default(), None);
        assert_eq!(remote.listening_sockets, None);
        assert!(status(vec![remote], Vec::new()).healthy);
    }
}
