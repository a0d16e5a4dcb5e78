//! The connections that no scan has located, and the namespaces that may have them.

use std::collections::{BTreeSet, HashMap};

use crate::kernel::{host::netns::NetNsId, sock_diag::socket_query::SocketKey};
use monitor_core::facts::Role;

/// The connections without a location.
pub(super) enum UnplacedConnections {
    /// Those whose local address leads to a namespace, and the rest.
    LookedUp {
        by_address: HashMap<NetNsId, Vec<SocketKey>>,
        rest: Rest,
    },
    TooMany,
}

/// Connections whose local address leads to no namespace, by cookie.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Those of a server, by its port. It usually listens in their namespace.
    servers: HashMap<u16, HashMap<u64, SocketKey>>,
    /// Those that this host opened.
    clients: HashMap<u64, SocketKey>,
}

impl Rest {
    pub(super) fn add(&mut self, key: SocketKey, role: Role) {
        let group = match role {
            Role::Server => self.servers.entry(key.local().port()).or_default(),
            Role::Client => &mut self.clients,
        };
        group.insert(key.cookie(), key);
    }

    fn remove(&mut self, key: &SocketKey) {
        self.clients.remove(&key.cookie());
        if let Some(group) = self.servers.get_mut(&key.local().port()) {
            group.remove(&key.cookie());
        }
    }

    /// Those that may be in a namespace where something listens on the watched ports `served`. `has_known` is
    /// whether other known connections were found there.
    fn candidates<'a>(
        &'a self,
        served: &'a BTreeSet<u16>,
        has_known: bool,
    ) -> impl Iterator<Item = &'a HashMap<u64, SocketKey>> {
        let all = has_known.then(|| self.servers.values());
        let of_ports = (!has_known).then(|| served.iter().filter_map(|it| self.servers.get(it)));
        let clients = std::iter::once(&self.clients);
        let servers = all.into_iter().flatten();
        servers.chain(of_ports.into_iter().flatten()).chain(clients)
    }
}

impl UnplacedConnections {
    /// Whether one of them may be in a namespace where something listens on the watched ports `served`.
    /// `has_remote` is whether a listener watches servers on other hosts.
    pub(super) fn may_be_in(
        &self,
        netns: NetNsId,
        served: &BTreeSet<u16>,
        has_remote: bool,
    ) -> bool {
        match self {
            Self::LookedUp { by_address, rest } => {
                let mut candidates = rest.candidates(served, false);
                by_address.contains_key(&netns) || candidates.any(|group| !group.is_empty())
            }
            Self::TooMany => !served.is_empty() || has_remote,
        }
    }

    /// Adds those to be looked up in this namespace to `known`, the connections that were found there. Returns
    /// `None` if they are more than `affords` allows to query.
    pub(super) fn add_to(
        &mut self,
        mut known: Vec<SocketKey>,
        netns: NetNsId,
        served: &BTreeSet<u16>,
        affords: impl Fn(usize) -> bool,
    ) -> Option<Vec<SocketKey>> {
        let Self::LookedUp { by_address, rest } = self else {
            return None;
        };
        let has_known = !known.is_empty();
        known.extend(by_address.remove(&netns).unwrap_or_default());
        let candidates = || rest.candidates(served, has_known);
        let count: usize = candidates().map(HashMap::len).sum();
        affords(known.len() + count).then(|| {
            known.extend(candidates().flat_map(HashMap::values));
            known
        })
    }

    /// Removes those that were found in a namespace. They are in no other.
    pub(super) fn remove(&mut self, found: &[SocketKey]) {
        if let Self::LookedUp { rest, .. } = self {
            for key in found {
                rest.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::kernel::clock;

    const NETNS: NetNsId = NetNsId { dev: 4, inode: 1 };
    const OTHER: NetNsId = NetNsId { dev: 4, inode: 2 };

    fn key(cookie: u64, port: u16) -> SocketKey {
        let peer = ([192, 0, 2, 1], 40_000).into();
        SocketKey::new(cookie, ([127, 0, 0, 1], port).into(), peer).unwrap()
    }

    fn unplaced(rest: Rest) -> UnplacedConnections {
        UnplacedConnections::LookedUp {
            by_address: HashMap::from([(NETNS, vec![key(1, 80)])]),
            rest,
        }
    }

    /// The cookies to be looked up, if at most ten are affordable.
    fn cookies(
        unplaced: &mut UnplacedConnections,
        known: &[SocketKey],
        netns: NetNsId,
        served: &[u16],
    ) -> Option<Vec<u64>> {
        let served = served.iter().copied().collect();
        let keys = unplaced.add_to(known.to_vec(), netns, &served, |count| count <= 10)?;
        let mut cookies: Vec<_> = keys.iter().map(SocketKey::cookie).collect();
        cookies.sort_unstable();
        Some(cookies)
    }

    #[test]
    fn connections_are_sought_by_address_by_port_and_where_others_are() {
        let mut rest = Rest::default();
        for (cookie, port) in [(2, 80), (3, 80), (4, 81)] {
            rest.add(key(cookie, port), Role::Server);
        }
        let mut unplaced = unplaced(rest);
        let ports = |ports: &[u16]| ports.iter().copied().collect::<BTreeSet<_>>();
        for (netns, served, expected) in [
            (NETNS, &[][..], true),
            (OTHER, &[], false),
            (OTHER, &[82], false),
            (OTHER, &[81], true),
        ] {
            assert_eq!(unplaced.may_be_in(netns, &ports(served), true), expected);
        }
        assert_eq!(cookies(&mut unplaced, &[], NETNS, &[82]), Some(vec![1]));
        assert_eq!(cookies(&mut unplaced, &[], NETNS, &[]), Some(vec![]));
        let on_80 = cookies(&mut unplaced, &[], OTHER, &[80, 82]);
        assert_eq!(on_80, Some(vec![2, 3]));
        let with_known = cookies(&mut unplaced, &[key(9, 90)], OTHER, &[]);
        assert_eq!(with_known, Some(vec![2, 3, 4, 9]));
        unplaced.remove(&[key(3, 80), key(4, 81)]);
        assert_eq!(cookies(&mut unplaced, &[], OTHER, &[80, 81]), Some(vec![2]));
        assert!(!unplaced.may_be_in(OTHER, &ports(&[81]), true));
    }

    #[test]
    fn a_connection_that_this_host_opened_may_be_anywhere() {
        let mut rest = Rest::default();
        rest.add(key(2, 50_000), Role::Client);
        let mut unplaced = unplaced(rest);
        assert!(unplaced.may_be_in(OTHER, &BTreeSet::new(), true));
        assert_eq!(cookies(&mut unplaced, &[], OTHER, &[]), Some(vec![2]));
        unplaced.remove(&[key(2, 50_000)]);
        assert_eq!(cookies(&mut unplaced, &[], OTHER, &[]), Some(vec![]));
    }

    #[test]
    fn too_many_are_counted_and_not_gone_through_in_each_namespace() {
        let mut rest = Rest::default();
        for cookie in 2..32_000 {
            rest.add(key(cookie, 80), Role::Server);
        }
        let mut unplaced = unplaced(rest);
        let begun = clock::of_thread();
        for _ in 0..2_000 {
            assert_eq!(cookies(&mut unplaced, &[], OTHER, &[80]), None);
        }
        let cost = clock::of_thread().saturating_sub(begun);
        assert!(cost < Duration::from_millis(500), "{cost:?}");
    }
}
