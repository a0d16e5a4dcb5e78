//! Scans the sockets of the connections that the daemon knows.
//!
//! Each is looked up in the namespace where the last scan found it. A new one is looked up in the namespaces
//! where something listens on its port, if this host's end is the server, and else in every namespace with
//! connections. In each namespace the connections are dumped or queried one by one, whichever costs less.
//! If this misses some, the caller sets `everywhere`, and the next scan searches all namespaces for them.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use super::{
    Scan, ScannedSocket,
    locations::{LocalAddresses, Located, Locations, MAX_KEYS_EACH},
    unplaced::{Rest, UnplacedConnections},
    watched_ports::{Listening, WatchedPorts},
};
use crate::{
    config::listeners::ListenerConfig,
    kernel::{
        clock,
        host::{
            netns::{self, NetNs, NetNsError, NetNsId},
            sockstat::tcp_sockets,
        },
        sock_diag::{SockDiag, SockDiagError, socket_query::SocketKey},
    },
};
use monitor_core::facts::{ConnId, Facts};

#[cfg(test)]
mod tests;

/// Maximum number of connections without a location that are looked up, about 1 µs each. If there are more,
/// the namespaces that may have them are dumped.
const MAX_LOOKUPS: usize = 32_768;

/// What is known of a connection's socket after a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Found,
    /// It was searched for wherever it can be: where the last scan found it, or everywhere. This proves something
    /// only if the scan is complete.
    Absent,
    /// It may be where the scan did not search.
    Unlocated,
}

/// The connections to be found.
pub struct KnownConnections<'a> {
    /// Sorted.
    pub conns: &'a [ConnId],
    /// The facts of a connection; `None` if it has ended.
    pub lookup: &'a (dyn Fn(ConnId) -> Option<Facts> + Sync),
    /// Whether to dump all namespaces.
    pub everywhere: bool,
}

/// Finds the listening sockets, and calls `visit` with the sockets of known connections and perhaps of
/// others. Returns the fate of each known connection, in their order.
///
/// Fails only if the namespaces cannot be listed or no thread can be started. The locations that were not read
/// again stay as they were.
pub fn known_connections(
    listeners: &[ListenerConfig],
    known: &KnownConnections<'_>,
    locations: &mut Locations,
    visit: impl FnMut(&ScannedSocket<'_>) + Send,
) -> Result<(Scan, Vec<Fate>), NetNsError> {
    let (mut scan, found) = Scan::of(netns::enumerate()?);
    let mut search = Search {
        ports: WatchedPorts::new(listeners),
        fates: vec![Fate::Unlocated; known.conns.len()],
        last: locations.take(),
        found: HashMap::new(),
        query_cost: Duration::ZERO,
        known: known.conns,
        visit,
    };
    // A connection of a namespace that is gone has no location.
    let exists: HashSet<_> = found.iter().map(NetNs::id).collect();
    search.last.retain(|netns, _| exists.contains(netns));
    let walked = search.read(&found, known, locations, &mut scan);
    if walked.is_ok() {
        locations.measure(&scan, search.query_cost);
    }
    for (netns, keys) in search.found {
        locations.set(netns, keys);
    }
    // What is left could not be read.
    for (netns, located) in search.last {
        locations.keep(netns, located);
    }
    walked.map(|()| (scan, search.fates))
}

/// A namespace whose connections were not read by the first walk.
struct DeferredNamespace<'a> {
    netns: &'a NetNs,
    listening: Listening,
}

struct Search<'a, V> {
    ports: WatchedPorts<'a>,
    known: &'a [ConnId],
    fates: Vec<Fate>,
    /// The locations of the last scan, without the namespaces that this one has read.
    last: HashMap<NetNsId, Located>,
    /// Those of this one.
    found: HashMap<NetNsId, Vec<SocketKey>>,
    query_cost: Duration,
    visit: V,
}

impl<V: FnMut(&ScannedSocket<'_>) + Send> Search<'_, V> {
    /// Reads the listening sockets of all namespaces, and the connections where a known one may be.
    fn read(
        &mut self,
        namespaces: &[NetNs],
        known: &KnownConnections<'_>,
        locations: &Locations,
        scan: &mut Scan,
    ) -> Result<(), NetNsError> {
        let deferred = self.first_walk(namespaces, known.everywhere, scan)?;
        if known.everywhere {
            self.settle_all();
            return Ok(());
        }
        let unplaced = self.unplaced(known.lookup);
        self.second_walk(&deferred, unplaced, locations, scan)
    }

    /// Reads the listening sockets of all namespaces, and dumps those with many connections, or all.
    fn first_walk<'n>(
        &mut self,
        namespaces: &'n [NetNs],
        everywhere: bool,
        scan: &mut Scan,
    ) -> Result<Vec<DeferredNamespace<'n>>, NetNsError> {
        let mut deferred = Vec::new();
        let all: Vec<_> = namespaces.iter().collect();
        scan.walk(&all, |scan, netns, sock_diag| {
            let is_needed = everywhere || self.last.get(&netns.id()) == Some(&Located::Many);
            let before = is_needed.then(tcp_sockets).flatten();
            let listening = self.ports.listening(scan, netns, sock_diag)?;
            if !is_needed {
                deferred.push(DeferredNamespace { netns, listening });
            } else if listening.are_all(before) && listening.are_all(tcp_sockets()) {
                self.last.remove(&netns.id());
                scan.skipped += 1;
            } else {
                self.dump(scan, netns, &listening, sock_diag)?;
            }
            Ok(())
        })?;
        Ok(deferred)
    }

    /// Reads the other namespaces that may have a known connection.
    fn second_walk(
        &mut self,
        deferred: &[DeferredNamespace<'_>],
        mut unplaced: UnplacedConnections,
        locations: &Locations,
        scan: &mut Scan,
    ) -> Result<(), NetNsError> {
        let mut listeners = self.ports.listeners.iter();
        let has_remote = listeners.any(|listener| listener.remote);
        let is_relevant = |it: &&DeferredNamespace<'_>| {
            let netns = it.netns.id();
            self.last.contains_key(&netns)
                || unplaced.may_be_in(netns, &it.listening.ports, has_remote)
        };
        let relevant: Vec<_> = deferred.iter().filter(is_relevant).collect();
        scan.skipped += deferred.len() - relevant.len();
        let mut relevant_in_order = relevant.iter();
        let namespaces: Vec<_> = relevant.iter().map(|it| it.netns).collect();
        scan.walk(&namespaces, |scan, netns, sock_diag| {
            // A namespace that cannot be entered is left out.
            let Some(it) = relevant_in_order.find(|it| it.netns.id() == netns.id()) else {
                return Ok(());
            };
            let placed = match self.last.get(&netns.id()) {
                Some(Located::Few(keys)) => keys.clone(),
                _ => Vec::new(),
            };
            let is_served = !it.listening.ports.is_empty();
            if placed.is_empty() && !is_served && it.listening.are_all(tcp_sockets()) {
                scan.skipped += 1;
                return Ok(());
            }
            let placed = placed.into_iter();
            let known = placed.filter(|key| self.index_of(key).is_some()).collect();
            let (id, served) = (netns.id(), &it.listening.ports);
            let affords = |queries| locations.affords(queries);
            match unplaced.add_to(known, id, served, affords) {
                Some(keys) if keys.is_empty() => {
                    self.last.remove(&id);
                    scan.skipped += 1;
                }
                Some(keys) => self.query(scan, netns, served, &keys, sock_diag)?,
                None => self.dump(scan, netns, &it.listening, sock_diag)?,
            }
            let found = self.found.get(&id);
            unplaced.remove(found.map_or(&[], Vec::as_slice));
            Ok(())
        })
    }

    fn dump(
        &mut self,
        scan: &mut Scan,
        netns: &NetNs,
        listening: &Listening,
        sock_diag: &mut SockDiag,
    ) -> Result<(), SockDiagError> {
        let mut found = Vec::new();
        let (known, fates, visit) = (self.known, &mut self.fates, &mut self.visit);
        self.ports
            .connections(scan, listening, sock_diag, |socket| {
                if let Ok(index) = known.binary_search(&socket.conn()) {
                    fates[index] = Fate::Found;
                    if found.len() <= MAX_KEYS_EACH {
                        found.push(socket.key());
                    }
                }
                visit(socket);
            })?;
        self.settle(netns, found);
        Ok(())
    }

    fn query(
        &mut self,
        scan: &mut Scan,
        netns: &NetNs,
        served: &BTreeSet<u16>,
        keys: &[SocketKey],
        sock_diag: &mut SockDiag,
    ) -> Result<(), SockDiagError> {
        let begun = clock::of_thread();
        let mut found = Vec::new();
        for key in keys {
            let socket = match sock_diag.find(key) {
                Ok(Some(socket)) => socket,
                Ok(None) => continue,
                Err(SockDiagError::MalformedSocket) => {
                    scan.unparsed += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Some(index) = self.index_of(key) {
                self.fates[index] = Fate::Found;
            }
            found.push(*key);
            (self.visit)(&self.ports.classify(&socket, served));
        }
        self.query_cost += clock::of_thread().saturating_sub(begun);
        scan.queried += 1;
        scan.queries += keys.len();
        self.settle(netns, found);
        Ok(())
    }

    /// Ends the reading of a namespace. Connections that were there and were not found do not exist.
    fn settle(&mut self, netns: &NetNs, found: Vec<SocketKey>) {
        if let Some(Located::Few(keys)) = self.last.remove(&netns.id()) {
            for key in &keys {
                if let Some(index) = self.index_of(key)
                    && self.fates[index] == Fate::Unlocated
                {
                    self.fates[index] = Fate::Absent;
                }
            }
        }
        self.found.insert(netns.id(), found);
    }

    /// Ends a search in all namespaces.
    fn settle_all(&mut self) {
        for fate in &mut self.fates {
            if *fate == Fate::Unlocated {
                *fate = Fate::Absent;
            }
        }
    }

    fn index_of(&self, key: &SocketKey) -> Option<usize> {
        self.known.binary_search(&ConnId(key.cookie())).ok()
    }

    /// The known connections that were not found yet and that the last scan did not locate.
    fn unplaced(&self, lookup: &dyn Fn(ConnId) -> Option<Facts>) -> UnplacedConnections {
        let mut is_placed = vec![false; self.known.len()];
        let mut addresses = LocalAddresses::default();
        for (netns, located) in &self.last {
            if let Located::Few(keys) = located {
                addresses.add(*netns, keys);
                for index in keys.iter().filter_map(|key| self.index_of(key)) {
                    is_placed[index] = true;
                }
            }
        }
        let states = self.fates.iter().zip(&is_placed);
        let unplaced = self.known.iter().zip(states);
        let unplaced = unplaced
            .filter(|(_, (fate, is_placed))| **fate != Fate::Found && !**is_placed)
            .map(|(conn, _)| *conn);
        if unplaced.clone().nth(MAX_LOOKUPS).is_some() {
            return UnplacedConnections::TooMany;
        }
        let (mut by_address, mut rest) = (HashMap::<_, Vec<_>>::new(), Rest::default());
        for facts in unplaced.filter_map(lookup) {
            let Some(key) = SocketKey::new(facts.conn.0, facts.local, facts.peer) else {
                continue;
            };
            match addresses.netns_of(facts.local.ip()) {
                Some(netns) => by_address.entry(netns).or_default().push(key),
                None => rest.add(key, facts.role),
            }
        }
        UnplacedConnections::LookedUp { by_address, rest }
    }
}
