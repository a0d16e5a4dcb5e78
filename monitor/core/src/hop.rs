//! Middleboxes on the path, their expiry rules, and the rules of a listener.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use super::{facts::Facts, time::Ktime};

/// One middlebox (load balancer, NAT, firewall) and its expiry rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The name in metrics and alerts.
    pub name: String,
    /// It drops a connection that was idle for longer than this; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// It ends a connection that is older than this, even a busy one; `None`: never.
    pub max_lifetime: Option<Duration>,
    /// The traffic that restarts its idle clock.
    pub activity: Activity,
    /// Whether both directions share one idle clock.
    pub direction: Directions,
    pub on_expiry: OnExpiry,
}

/// The traffic that restarts a hop's idle clock.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Activity {
    /// Any TCP segment, including keepalive probes and bare acknowledgements.
    #[default]
    Packet,
    /// Data bytes only, as seen by a proxy that terminates TCP.
    Payload,
}

impl Activity {
    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The directions that must be idle for a hop to drop a connection.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Directions {
    /// Activity in either direction keeps the connection.
    #[default]
    Either,
    /// Each direction has a separate clock; the first that expires ends the connection.
    Each,
}

impl Directions {
    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What this host's socket sees when the hop drops a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum OnExpiry {
    /// Nothing, ever: packets vanish.
    Silent,
    /// Nothing until the next packet, which is answered with a RST.
    RstOnNextPacket,
    Rst,
    Fin,
}

impl OnExpiry {
    /// True if an expired connection looks alive from this host: the condition for a zombie.
    pub fn leaves_a_zombie(self) -> bool {
        matches!(self, Self::Silent | Self::RstOnNextPacket)
    }

    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Hop {
    /// A hop with an idle timeout that any packet in either direction restarts.
    pub fn new(name: impl Into<String>, idle_timeout: Duration, on_expiry: OnExpiry) -> Self {
        Self {
            name: name.into(),
            idle_timeout: Some(idle_timeout),
            max_lifetime: None,
            activity: Activity::Packet,
            direction: Directions::Either,
            on_expiry,
        }
    }

    /// True if every packet restarts its clock. Then an event marks the end of an idle gap longer
    /// than the limit; otherwise it may go unnoticed.
    pub fn counts_every_packet(&self) -> bool {
        self.activity == Activity::Packet && self.direction == Directions::Either
    }

    /// When this hop's clock was last restarted, as known to this host; `None` if not even the
    /// establishment was seen.
    pub fn quiet_since(&self, facts: &Facts) -> Option<Ktime> {
        let (rx, tx) = match self.activity {
            Activity::Packet => (facts.rx.last_packet, facts.tx.last_packet),
            Activity::Payload => (facts.rx.last_payload, facts.tx.last_payload),
        };
        let established_at = facts.established_at;
        match self.direction {
            Directions::Either => rx.max(tx).max(established_at),
            Directions::Each => match (rx.max(established_at), tx.max(established_at)) {
                (Some(rx), Some(tx)) => Some(rx.min(tx)),
                (rx, tx) => rx.or(tx),
            },
        }
    }
}

/// The hops between this host and a peer, nearest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    pub hops: Vec<Hop>,
}

impl Path {
    /// The hop with the shortest idle timeout; `None` if no timeout is known.
    pub fn tightest(&self) -> Option<&Hop> {
        self.hops
            .iter()
            .filter(|hop| hop.idle_timeout.is_some())
            .min_by_key(|hop| hop.idle_timeout)
    }

    /// The shortest idle timeout of its hops.
    pub fn idle_timeout(&self) -> Option<Duration> {
        self.tightest().and_then(|hop| hop.idle_timeout)
    }
}

impl From<Option<Hop>> for Path {
    fn from(hop: Option<Hop>) -> Self {
        let hops = hop.into_iter().collect();
        Self { hops }
    }
}

/// The path to the peers in one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub network: IpNet,
    pub path: Path,
}

/// The rules for the flows of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerRules {
    /// The name in metrics and alerts.
    pub name: String,
    /// The path to peers that match no route.
    pub path: Path,
    /// Other paths by the peer's network; the longest matching prefix wins.
    pub routes: Vec<Route>,
    /// How long a single ping from this host may remain unanswered.
    pub ping_timeout: Duration,
    /// The minimum time without an answer before `unresponsive` is confirmed. Reaping waits for the
    /// same time again.
    pub unresponsive_floor: Duration,
    /// A connection without a message from the peer for this long is reported as quiet; `None`:
    /// never.
    pub message_gap: Option<Duration>,
}

impl ListenerRules {
    /// The ping timeout of Python `websockets` and uvicorn (20 s), and half more.
    pub const DEFAULT_PING_TIMEOUT: Duration = Duration::from_secs(30);

    /// Longer than most garbage collections, blocking calls and pauses of a background page.
    pub const DEFAULT_UNRESPONSIVE_FLOOR: Duration = Duration::from_secs(10);

    /// The default rules, with a path of at most one hop.
    pub fn new(name: impl Into<String>, hop: Option<Hop>) -> Self {
        Self {
            name: name.into(),
            path: hop.into(),
            routes: Vec::new(),
            ping_timeout: Self::DEFAULT_PING_TIMEOUT,
            unresponsive_floor: Self::DEFAULT_UNRESPONSIVE_FLOOR,
            message_gap: None,
        }
    }

    /// The path between this host and a peer. An IPv4-mapped IPv6 address is looked up as IPv4.
    pub fn path_to(&self, peer: IpAddr) -> &Path {
        let peer = peer.to_canonical();
        self.routes
            .iter()
            .filter(|route| route.network.contains(&peer))
            .max_by_key(|route| route.network.prefix_len())
            .map_or(&self.path, |route| &route.path)
    }

    /// Every path of this listener.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.path]
            .into_iter()
            .chain(self.routes.iter().map(|route| &route.path))
    }

    /// The shortest idle timeout on any of its paths.
    pub fn shortest_idle_timeout(&self) -> Option<Duration> {
        self.paths().filter_map(Path::idle_timeout).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(name: &str, seconds: u64) -> Hop {
        Hop::new(name, Duration::from_secs(seconds), OnExpiry::Silent)
    }

    #[test]
    fn the_longest_matching_prefix_decides_the_path_of_a_peer() {
        let route = |network: &str, name| Route {
            network: network.parse().expect("a network"),
            path: Some(hop(name, 10)).into(),
        };
        let rules = ListenerRules {
            routes: vec![route("10.0.0.0/8", "wide"), route("10.1.0.0/16", "narrow")],
            ..ListenerRules::new("web", Some(hop("default", 60)))
        };
        let name = |peer: &str| {
            let path = rules.path_to(peer.parse().expect("an address"));
            path.hops[0].name.clone()
        };
        assert_eq!(name("10.1.2.3"), "narrow");
        assert_eq!(name("::ffff:10.2.0.1"), "wide");
        assert_eq!(name("192.0.2.1"), "default");
        assert_eq!(name("2001:db8::1"), "default");
        assert_eq!(rules.shortest_idle_timeout(), Some(Duration::from_secs(10)));
    }

    #[test]
    fn activity_and_direction_select_the_clocks_of_a_hop() {
        let mut facts = Facts::just_opened(1, Ktime(1));
        facts.rx.last_packet = Some(Ktime(40));
        facts.rx.last_payload = Some(Ktime(20));
        facts.tx.last_packet = Some(Ktime(30));
        let since = |activity, direction| {
            Hop {
                activity,
                direction,
                ..hop("lb", 1)
            }
            .quiet_since(&facts)
        };
        use Activity::*;
        use Directions::*;
        assert_eq!(since(Packet, Either), Some(Ktime(40)));
        assert_eq!(since(Packet, Each), Some(Ktime(30)));
        assert_eq!(since(Payload, Either), Some(Ktime(20)));
        assert_eq!(
            since(Payload, Each),
            Some(Ktime(1)),
            "nothing was ever sent"
        );
    }

    #[test]
    fn the_tightest_hop_is_the_one_with_the_shortest_timeout() {
        let mut lasting = hop("lifetime only", 1);
        lasting.idle_timeout = None;
        let path = Path {
            hops: vec![lasting, hop("b", 20), hop("a", 10)],
        };
        assert_eq!(path.tightest().map(|hop| hop.name.as_str()), Some("a"));
        assert_eq!(Path::default().tightest(), None);
    }
}
