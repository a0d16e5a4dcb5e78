//! Listeners: groups of ports, each with its rules.

use std::{fmt, ops::RangeInclusive, str::FromStr, time::Duration};

use monitor_common::listener::ListenerLimits;

use monitor_core::{
    ListenerRules,
    facts::{ListenerId, Role},
};

/// A configured group of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    pub rules: ListenerRules,
    /// Disjoint, within this listener and among listeners of the same kind.
    pub ports: Vec<PortRange>,
    /// The ports belong to a remote service this host connects to, not to this host.
    pub remote: bool,
}

impl ListenerConfig {
    /// The part of the rules that the kernel programs need.
    pub fn limits(&self) -> ListenerLimits {
        let limit = self.rules.shortest_idle_timeout();
        ListenerLimits {
            idle_limit_ns: limit.map_or(0, |limit| {
                u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX)
            }),
        }
    }

    /// Its ports, such as `8080,9000-9010`.
    pub fn ports_text(&self) -> String {
        let ports: Vec<_> = self.ports.iter().map(PortRange::to_string).collect();
        ports.join(",")
    }

    /// The name of a listener without a configured one: its ports, with a suffix if one of `others` has
    /// that name.
    pub fn default_name(&self, others: &[Self]) -> String {
        let mut name = self.ports_text();
        if others.iter().any(|other| other.rules.name == name) {
            name.push_str("-remote");
        }
        name
    }

    /// Whether it watches this port.
    pub fn has(&self, port: u16) -> bool {
        self.ports.iter().any(|range| range.0.contains(&port))
    }

    /// The listener that watches a socket with these ports, and the socket's role. Local ports take
    /// precedence, as in the kernel programs.
    pub fn watching(listeners: &[Self], local: u16, remote: u16) -> Option<(ListenerId, Role)> {
        Self::position(listeners, false, local)
            .map(|id| (id, Role::Server))
            .or_else(|| Self::watching_outgoing(listeners, remote))
    }

    /// The same for a socket opened by this host: its role is client even if its own port is watched.
    pub fn watching_outgoing(listeners: &[Self], remote: u16) -> Option<(ListenerId, Role)> {
        Self::position(listeners, true, remote).map(|id| (id, Role::Client))
    }

    fn position(listeners: &[Self], is_remote: bool, port: u16) -> Option<ListenerId> {
        let position = listeners
            .iter()
            .position(|l| l.remote == is_remote && l.has(port))?;
        u16::try_from(position).ok().map(ListenerId)
    }
}

/// How often the core needs the counts of these listeners. A warning is due before the next heartbeat,
/// so the interval follows the limits.
pub fn counts_interval(listeners: &[ListenerConfig]) -> Duration {
    let limits = listeners
        .iter()
        .filter_map(|listener| listener.rules.shortest_idle_timeout());
    limits
        .min()
        .map_or(RAREST_COUNTS, |limit| limit / 10)
        .clamp(DENSEST_COUNTS, RAREST_COUNTS)
}

/// The bounds of [`counts_interval`].
pub const DENSEST_COUNTS: Duration = Duration::from_secs(1);
const RAREST_COUNTS: Duration = Duration::from_secs(30);

/// The listener that already watches some of these ports, and its overlapping range.
pub fn overlapping<'a>(
    listeners: &'a [ListenerConfig],
    range: &PortRange,
    remote: bool,
) -> Option<(&'a ListenerConfig, &'a PortRange)> {
    let of_kind = listeners.iter().filter(|other| other.remote == remote);
    of_kind
        .flat_map(|other| other.ports.iter().map(move |ports| (other, ports)))
        .find(|(_, ports)| ports.overlaps(range))
}

/// `8080` or `9000-9010`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortRange(pub RangeInclusive<u16>);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortRangeError {
    #[error("invalid port {0:?}, expected 1 to 65535 or a range like 9000-9010")]
    NotAPort(String),
    #[error("the range {0}-{1} is empty; write the lower port first")]
    Backwards(u16, u16),
}

impl PortRange {
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.start() <= other.0.end() && other.0.start() <= self.0.end()
    }
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let port = |part: &str| match part.trim().parse::<u16>() {
            Ok(port) if port != 0 => Ok(port),
            _ => Err(PortRangeError::NotAPort(part.to_owned())),
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        if first > last {
            return Err(PortRangeError::Backwards(first, last));
        }
        Ok(Self(first..=last))
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.0.start(), self.0.end());
        if first == last {
            write!(f, "{first}")
        } else {
            write!(f, "{first}-{last}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges_are_read_and_shown_alike() {
        for text in ["8080", "9000-9010", "1", "65535"] {
            assert_eq!(text.parse::<PortRange>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn an_invalid_port_is_refused_with_its_text() {
        for text in ["0", "65536", "http", "", "80-", "-80", "80-90-100"] {
            assert!(
                matches!(text.parse::<PortRange>(), Err(PortRangeError::NotAPort(_))),
                "{text}"
            );
        }
        assert_eq!(
            "90-80".parse::<PortRange>(),
            Err(PortRangeError::Backwards(90, 80))
        );
    }

    #[test]
    fn a_local_port_takes_precedence_over_a_remote_one() {
        let listener = |ports, remote| ListenerConfig {
            rules: ListenerRules::new("l", None),
            ports: vec![PortRange(ports)],
            remote,
        };
        let listeners = [listener(443..=443, true), listener(8080..=8080, false)];
        let watching = |local, remote| ListenerConfig::watching(&listeners, local, remote);
        assert_eq!(watching(8080, 443), Some((ListenerId(1), Role::Server)));
        assert_eq!(watching(50_000, 443), Some((ListenerId(0), Role::Client)));
        assert_eq!(watching(50_000, 8080), None);
    }
}
