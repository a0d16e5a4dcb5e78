//! Scans the host's sockets in the background.

use std::{fmt, sync::Arc, time::Duration};

use super::presence::{Coverage, Presence};
use crate::{
    config::listeners::ListenerConfig,
    kernel::{
        clock,
        host::netns::NetNsError,
        sock_diag::scan::{
            Scan,
            known::{self, Fate, KnownConnections},
            locations::Locations,
        },
    },
};
use monitor_core::{
    ConnId, Facts, Ktime,
    event::{ListeningSocket, ReceiveQueue},
    send_queues::SendQueues,
};

/// Looks up the facts of a connection that has not ended.
pub(super) type Lookup = Box<dyn Fn(ConnId) -> Option<Facts> + Send + Sync>;

/// What a scan has to find.
pub(super) struct ScanTargets {
    /// Sorted, as the requests are.
    pub(super) seeds: Arc<[ConnId]>,
    pub(super) requests: Arc<[ConnId]>,
    /// All connections of the core, in any order.
    pub(super) known: Vec<ConnId>,
    /// `None` if there is none; all namespaces are searched then.
    pub(super) lookup: Option<Lookup>,
    /// As the last scan left them.
    pub(super) locations: Locations,
    /// As the last scan left it.
    pub(super) presence: Presence,
    /// As the last scan left them.
    pub(super) send_queues: SendQueues,
}

/// The sockets on watched ports at one moment.
#[derive(Debug)]
pub struct ScannedSockets {
    /// The time before the first socket was read.
    pub(super) at: Ktime,
    /// Whether every socket was read. Only then is a missing socket gone: a connection must not lose
    /// its verdict because a namespace could not be entered for a moment.
    pub(super) complete: bool,
    pub(super) missing_seeds: Vec<ConnId>,
    pub(super) missing_requests: Vec<ConnId>,
    pub(super) presence: Presence,
    pub(super) locations: Locations,
    /// Connections whose end was not reported.
    pub(super) gone: Vec<ConnId>,
    /// Known connections whose socket was not read, sorted. Their queues are as before.
    pub(super) missed: Vec<ConnId>,
    pub(super) unread: Vec<ReceiveQueue>,
    pub(super) send_queues: SendQueues,
    pub(super) listening: Vec<ListeningSocket>,
    /// What could not be scanned, and why.
    pub(super) omissions: Vec<String>,
    /// CPU time. Wall time says little on a busy host.
    pub(super) cost: Duration,
    pub(super) summary: ScanSummary,
}

pub(super) fn scan_host(
    listeners: &[ListenerConfig],
    targets: ScanTargets,
) -> Result<ScannedSockets, NetNsError> {
    let (at, begun) = (clock::now(), clock::of_thread());
    let (mut presence, mut locations) = (targets.presence, targets.locations);
    let known = sorted(targets.known);
    let mut seeds = TargetSearch::new(&targets.seeds);
    let mut requests = TargetSearch::new(&targets.requests);
    let mut unread = Vec::new();
    let mut unsent = Vec::new();
    // The requests have no snapshots.
    let everywhere = targets.lookup.is_none()
        || !targets.requests.is_empty()
        || presence.must_search_everywhere(&known);
    let sought = KnownConnections {
        conns: &known,
        lookup: &|conn| targets.lookup.as_ref().and_then(|lookup| lookup(conn)),
        everywhere,
    };
    let (scan, fates) = known::known_connections(listeners, &sought, &mut locations, |found| {
        seeds.mark_found(found.conn());
        requests.mark_found(found.conn());
        unread.extend(found.receive_queue());
        unsent.extend(found.send_queue());
    })?;
    let missed = known.iter().zip(&fates);
    let missed = missed.filter(|(_, fate)| **fate != Fate::Found);
    let missed: Vec<_> = missed.map(|(conn, _)| *conn).collect();
    let send_queues = targets.send_queues.next(at, unsent, &known, &missed);
    let coverage = Coverage {
        everywhere,
        complete: scan.is_complete(),
        all_visible: scan.hidden == 0,
    };
    let gone = presence.update(&known, &fates, coverage);
    let mut missing_seeds = seeds.missing();
    missing_seeds.retain(|conn| {
        let index = known.binary_search(conn);
        index.map_or(true, |index| fates[index] == Fate::Absent)
    });
    Ok(ScannedSockets {
        at,
        complete: scan.is_complete(),
        presence,
        locations,
        gone,
        omissions: omissions(&scan),
        missing_seeds,
        missing_requests: requests.missing(),
        missed,
        unread,
        send_queues,
        cost: scan.cost + clock::of_thread().saturating_sub(begun),
        summary: ScanSummary::from(&scan),
        listening: scan.listening,
    })
}

/// How a scan read the network namespaces, in words.
#[derive(Debug)]
pub(super) struct ScanSummary {
    namespaces: usize,
    dumped: usize,
    queried: usize,
    queries: usize,
    skipped: usize,
}

impl From<&Scan> for ScanSummary {
    fn from(scan: &Scan) -> Self {
        Self {
            namespaces: scan.namespaces,
            dumped: scan.dumped,
            queried: scan.queried,
            queries: scan.queries,
            skipped: scan.skipped,
        }
    }
}

impl fmt::Display for ScanSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            namespaces,
            dumped,
            queried,
            queries,
            skipped,
        } = self;
        write!(
            f,
            "{namespaces} network namespaces: {dumped} dumped, {queried} by {queries} queries, {skipped} \
             without a known connection"
        )
    }
}

/// What a scan could not read, and why.
pub(super) fn omissions(scan: &Scan) -> Vec<String> {
    let refused = scan
        .refused
        .iter()
        .map(|refused| format!("network namespace {}: {}", refused.name, refused.error));
    let unparsed =
        (scan.unparsed > 0).then(|| format!("{} sockets could not be understood", scan.unparsed));
    let cut = scan.cut.as_ref().map(ToString::to_string);
    refused.chain(unparsed).chain(cut).collect()
}

/// Sorted, without duplicates.
pub(super) fn sorted(conns: impl IntoIterator<Item = ConnId>) -> Arc<[ConnId]> {
    let mut conns: Vec<ConnId> = conns.into_iter().collect();
    conns.sort_unstable();
    conns.dedup();
    conns.into()
}

/// Searches for targets and returns the missing ones.
struct TargetSearch<'a> {
    targets: &'a [ConnId],
    found: Vec<bool>,
}

impl<'a> TargetSearch<'a> {
    fn new(targets: &'a [ConnId]) -> Self {
        let found = vec![false; targets.len()];
        Self { targets, found }
    }

    fn mark_found(&mut self, conn: ConnId) {
        if let Ok(index) = self.targets.binary_search(&conn) {
            self.found[index] = true;
        }
    }

    fn missing(&self) -> Vec<ConnId> {
        let targets = self.targets.iter().zip(&self.found);
        targets
            .filter(|(_, found)| !**found)
            .map(|(conn, _)| *conn)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::TcpStream, time::Instant};

    use rustix::net::sockopt::{set_socket_linger, socket_cookie};

    use super::*;
    use crate::{
        config::listeners::PortRange,
        kernel::testing::{Connection, Namespace},
    };
    use monitor_core::{
        ListenerId, ListenerRules,
        facts::{Protocol, Role},
    };

    #[test]
    fn a_target_found_twice_or_an_unknown_socket_is_not_missing() {
        let targets = sorted([3, 1, 3, 2].map(ConnId));
        let mut search = TargetSearch::new(&targets);
        for conn in [3, 3, 7] {
            search.mark_found(ConnId(conn));
        }
        assert_eq!(search.missing(), [1, 2].map(ConnId));
    }

    /// Scans in a row, each with what the last one left.
    struct Scanner {
        listeners: [ListenerConfig; 1],
        known: Vec<Facts>,
        locations: Locations,
        presence: Presence,
        send_queues: SendQueues,
    }

    impl Scanner {
        fn new(known: &[&Connection]) -> Self {
            let port = |it: &&Connection| it.server.local_addr().unwrap().port();
            Self {
                listeners: [ListenerConfig {
                    rules: ListenerRules::new("web", None),
                    ports: known
                        .iter()
                        .map(port)
                        .map(|port| PortRange(port..=port))
                        .collect(),
                    remote: false,
                }],
                known: known.iter().map(|it| facts(&it.server)).collect(),
                locations: Locations::default(),
                presence: Presence::default(),
                send_queues: SendQueues::default(),
            }
        }

        /// A scan that searches everywhere, or only if it must.
        fn scan(&mut self, everywhere: bool) -> ScannedSockets {
            let known = self.known.clone();
            let lookup = move |conn| known.iter().find(|facts| facts.conn == conn).cloned();
            let targets = ScanTargets {
                seeds: sorted([]),
                // No socket has this cookie.
                requests: sorted(everywhere.then_some(ConnId(0))),
                known: self.known.iter().map(|facts| facts.conn).collect(),
                lookup: Some(Box::new(lookup)),
                locations: std::mem::take(&mut self.locations),
                presence: std::mem::take(&mut self.presence),
                send_queues: self.send_queues.clone(),
            };
            let mut scanned = scan_host(&self.listeners, targets).unwrap();
            self.locations = std::mem::take(&mut scanned.locations);
            self.presence = std::mem::take(&mut scanned.presence);
            self.send_queues = scanned.send_queues.clone();
            scanned
        }

        /// Scans until a scan is complete: namespaces of other tests come and go.
        fn complete_scan(&mut self, everywhere: bool) -> ScannedSockets {
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                let scanned = self.scan(everywhere);
                if scanned.complete {
                    return scanned;
                }
                assert_eq!(scanned.gone, [], "an incomplete scan proves nothing");
                assert!(Instant::now() < deadline, "{:?}", scanned.omissions);
            }
        }

        /// A complete scan that knows no location and need not search everywhere.
        fn first_scan(&mut self) -> ScannedSockets {
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                self.locations = Locations::default();
                self.presence = Presence::default();
                let scanned = self.scan(false);
                if scanned.complete {
                    return scanned;
                }
                assert!(Instant::now() < deadline, "{:?}", scanned.omissions);
            }
        }

        /// Scans, which search everywhere only if they must, until one gives up connections.
        fn gone(&mut self) -> Vec<ConnId> {
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                let gone = self.scan(false).gone;
                if !gone.is_empty() {
                    return gone;
                }
                assert!(Instant::now() < deadline, "it is never given up");
            }
        }
    }

    fn conn(socket: &TcpStream) -> ConnId {
        ConnId(socket_cookie(socket).unwrap())
    }

    fn facts(server: &TcpStream) -> Facts {
        let [local, peer] = [server.local_addr(), server.peer_addr()].map(Result::unwrap);
        Facts::new(
            Ktime(1),
            conn(server),
            ListenerId(0),
            Role::Server,
            Protocol::WebSocket,
            local,
            peer,
        )
    }

    /// The client's RST closes the server's socket at once.
    fn abort(connection: Connection) {
        set_socket_linger(&connection.client, Some(Duration::ZERO)).unwrap();
        drop(connection);
    }

    #[test]
    #[ignore = "needs root: makes a network namespace"]
    fn a_socket_that_two_searches_miss_is_gone_however_they_search() {
        let namespace = Namespace::new();
        for first in [true, false] {
            let [open, closed] = [(), ()].map(|()| namespace.connect("127.0.0.1:0", "127.0.0.1:0"));
            let mut scanner = Scanner::new(&[&open, &closed]);
            let dead = conn(&closed.server);
            let found = scanner.complete_scan(true);
            assert_eq!((found.gone, found.missed), (vec![], vec![]));
            abort(closed);
            let missed = scanner.complete_scan(first);
            assert_eq!((missed.gone, missed.missed), (vec![], vec![dead]));
            assert_eq!(scanner.gone(), [dead], "first missed everywhere: {first}");
        }
    }

    #[test]
    #[ignore = "needs root: makes a network namespace"]
    fn the_queues_of_a_connection_that_was_not_sought_stay_as_they_were() {
        let namespace = Namespace::new();
        let mut connection = namespace.connect("127.0.0.1:0", "127.0.0.1:0");
        connection.server.set_nonblocking(true).unwrap();
        while connection.server.write(&[0; 4096]).is_ok() {}
        let mut scanner = Scanner::new(&[&connection]);
        let of = conn(&connection.server);
        let unsent = |queues: &SendQueues| queues.unsent(of).map(|unsent| unsent.bytes);
        // Nothing listens on its port, so only a search everywhere finds it.
        let first = scanner.first_scan();
        assert_eq!(first.missed, [of]);
        assert_eq!(unsent(&first.send_queues), None);
        let second = scanner.complete_scan(true);
        assert_eq!(second.missed, []);
        let bytes = unsent(&second.send_queues);
        assert!(bytes > Some(0));
        let third = scanner.first_scan();
        assert_eq!(third.missed, [of]);
        assert_eq!(unsent(&third.send_queues), bytes);
    }
}
