//! In which network namespace each connection was found, for the next scan.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    time::Duration,
};

use super::Scan;
use crate::kernel::{host::netns::NetNsId, sock_diag::socket_query::SocketKey};

/// Maximum number of keys that are kept, 80 bytes each, and of one namespace.
const MAX_KEYS: usize = 131_072;
pub const MAX_KEYS_EACH: usize = 16_384;

/// The CPU time of a query until it was measured.
const USUAL_QUERY: Duration = Duration::from_micros(5);

/// A measurement of fewer queries says little.
const ENOUGH_QUERIES: usize = 64;

/// Where the connections are, as of the last scan.
#[derive(Debug)]
pub struct Locations {
    pub(super) namespaces: HashMap<NetNsId, Located>,
    keys: usize,
    /// The CPU time of one dump of a namespace without connections; zero until it was measured.
    pub(super) dump: Duration,
    query: Duration,
}

/// The connections of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Located {
    /// So few that querying each is cheaper than a dump.
    Few(Vec<SocketKey>),
    Many,
}

impl Default for Locations {
    fn default() -> Self {
        Self {
            namespaces: HashMap::new(),
            keys: 0,
            dump: Duration::ZERO,
            query: USUAL_QUERY,
        }
    }
}

impl Locations {
    /// Whether so many queries cost less than a dump.
    pub(super) fn affords(&self, queries: usize) -> bool {
        let queries = u32::try_from(queries).unwrap_or(u32::MAX);
        self.query.saturating_mul(queries) <= self.dump
    }

    /// Takes what the scan measured. `queries` is the CPU time of its queries.
    pub(super) fn measure(&mut self, scan: &Scan, queries: Duration) {
        self.dump = scan.shortest_dump.unwrap_or(self.dump);
        if let Ok(count @ 1..) = u32::try_from(scan.queries)
            && scan.queries >= ENOUGH_QUERIES
        {
            self.query = queries / count;
        }
    }

    /// Takes what one dump measured.
    pub fn measure_dump(&mut self, scan: &Scan) {
        let dumps = scan.shortest_dump.into_iter();
        let measured = Some(self.dump).filter(|dump| !dump.is_zero());
        self.dump = dumps.chain(measured).min().unwrap_or_default();
    }

    /// Sets the connections that were found in a namespace. One may be in `keys` twice. More than
    /// [`MAX_KEYS_EACH`] stand for any number.
    pub fn set(&mut self, netns: NetNsId, mut keys: Vec<SocketKey>) {
        keys.sort_unstable_by_key(SocketKey::cookie);
        keys.dedup_by_key(|key| key.cookie());
        keys.shrink_to_fit();
        if keys.is_empty() {
            return;
        }
        let fits = keys.len() <= MAX_KEYS_EACH && self.keys + keys.len() <= MAX_KEYS;
        let located = if fits && self.affords(keys.len()) {
            self.keys += keys.len();
            Located::Few(keys)
        } else {
            Located::Many
        };
        self.namespaces.insert(netns, located);
    }

    /// Adds the connections of namespaces that only `other` has.
    pub fn merge(&mut self, mut other: Self) {
        let measured = [self.dump, other.dump].into_iter();
        self.dump = measured
            .filter(|dump| !dump.is_zero())
            .min()
            .unwrap_or_default();
        for (netns, located) in other.take() {
            if !self.namespaces.contains_key(&netns) {
                self.keep(netns, located);
            }
        }
    }

    /// Splits off all connections; what was measured stays, too.
    pub fn split_off(&mut self) -> Self {
        Self {
            keys: self.keys,
            namespaces: self.take(),
            ..*self
        }
    }

    /// Takes all connections, to be set anew.
    pub(super) fn take(&mut self) -> HashMap<NetNsId, Located> {
        self.keys = 0;
        std::mem::take(&mut self.namespaces)
    }

    /// Keeps the connections of a namespace that could not be read.
    pub(super) fn keep(&mut self, netns: NetNsId, located: Located) {
        match located {
            Located::Few(keys) => self.set(netns, keys),
            Located::Many => drop(self.namespaces.insert(netns, located)),
        }
    }
}

/// The namespace of each local address that only one namespace has.
#[derive(Debug, Default)]
pub(super) struct LocalAddresses(HashMap<IpAddr, Option<NetNsId>>);

impl LocalAddresses {
    pub(super) fn add(&mut self, netns: NetNsId, keys: &[SocketKey]) {
        for address in keys.iter().map(|key| key.local().ip()) {
            match self.0.entry(address) {
                Entry::Vacant(entry) => drop(entry.insert(Some(netns))),
                Entry::Occupied(mut entry) => {
                    if *entry.get() != Some(netns) {
                        entry.insert(None);
                    }
                }
            }
        }
    }

    /// `None` for an address of several namespaces, or of none that is known.
    pub(super) fn netns_of(&self, address: IpAddr) -> Option<NetNsId> {
        // Each namespace has these.
        let is_shared = address.is_loopback();
        self.0
            .get(&address)
            .copied()
            .flatten()
            .filter(|_| !is_shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn netns(inode: u64) -> NetNsId {
        NetNsId { dev: 4, inode }
    }

    fn keys(local: &str, cookies: impl IntoIterator<Item = u64>) -> Vec<SocketKey> {
        let key = |cookie| {
            let (local, peer) = (format!("{local}:80"), "192.0.2.1:40000");
            SocketKey::new(cookie, local.parse().unwrap(), peer.parse().unwrap()).unwrap()
        };
        cookies.into_iter().map(key).collect()
    }

    /// A dump costs as much as this many queries.
    fn locations(queries: u32) -> Locations {
        Locations {
            dump: USUAL_QUERY * queries,
            ..Locations::default()
        }
    }

    #[test]
    fn connections_are_queried_while_that_is_cheaper_than_a_dump() {
        let mut locations = locations(3);
        locations.set(netns(1), keys("192.0.2.7", [3, 1, 2, 2]));
        locations.set(netns(2), keys("192.0.2.8", 1..=4));
        locations.set(netns(3), Vec::new());
        let few = Located::Few(keys("192.0.2.7", 1..=3));
        assert_eq!(locations.namespaces.get(&netns(1)), Some(&few));
        assert_eq!(locations.namespaces.get(&netns(2)), Some(&Located::Many));
        assert_eq!(locations.namespaces.len(), 2);
        assert!(
            !Locations::default().affords(1),
            "until a dump was measured"
        );
    }

    #[test]
    fn the_number_of_keys_is_bounded_over_all_namespaces() {
        let mut locations = locations(u32::MAX / 8);
        let all = (MAX_KEYS / MAX_KEYS_EACH) as u64;
        for number in 1..=all + 1 {
            locations.set(netns(number), keys("192.0.2.7", 1..=MAX_KEYS_EACH as u64));
        }
        let is_many = |number| locations.namespaces[&netns(number)] == Located::Many;
        let many: Vec<_> = (1..=all + 1).filter(|number| is_many(*number)).collect();
        assert_eq!(many, [all + 1]);
        locations.take();
        locations.set(netns(1), keys("192.0.2.7", [1]));
        locations.set(netns(2), keys("192.0.2.7", 1..=MAX_KEYS_EACH as u64 + 1));
        assert_ne!(locations.namespaces[&netns(1)], Located::Many);
        assert_eq!(locations.namespaces[&netns(2)], Located::Many);
    }

    #[test]
    fn connections_that_were_found_meanwhile_are_added() {
        let mut ours = locations(9);
        ours.set(netns(1), keys("192.0.2.7", [1]));
        let mut others = locations(7);
        others.set(netns(1), keys("192.0.2.7", [2]));
        others.set(netns(2), keys("192.0.2.8", [3, 4]));
        ours.merge(others.split_off());
        let few = |local, cookies: &[u64]| Located::Few(keys(local, cookies.iter().copied()));
        assert_eq!(ours.namespaces[&netns(1)], few("192.0.2.7", &[1]));
        assert_eq!(ours.namespaces[&netns(2)], few("192.0.2.8", &[3, 4]));
        assert_eq!((ours.keys, ours.dump), (3, USUAL_QUERY * 7));
        assert_eq!((others.keys, others.namespaces.len()), (0, 0));
        assert!(others.affords(7), "its measurements stay");
    }

    #[test]
    fn only_an_address_of_one_namespace_leads_to_it() {
        let mut addresses = LocalAddresses::default();
        for (number, local) in [
            (1, "192.0.2.7"),
            (1, "192.0.2.7"),
            (1, "192.0.2.8"),
            (2, "192.0.2.8"),
        ] {
            addresses.add(netns(number), &keys(local, [1]));
        }
        addresses.add(netns(1), &keys("127.0.0.1", [2]));
        let of = |address: &str| addresses.netns_of(address.parse().unwrap());
        assert_eq!(of("192.0.2.7"), Some(netns(1)));
        for address in ["192.0.2.8", "192.0.2.9", "127.0.0.1"] {
            assert_eq!(of(address), None);
        }
    }
}
