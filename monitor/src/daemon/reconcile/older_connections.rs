//! Connections older than the programs: found on their own thread, reported to the core in slices.
//!
//! Each network namespace with connections is dumped once, those first in which something listens on a watched
//! port. The start waits for a limited time; the rest is found while the daemon runs.

use std::{
    collections::HashSet,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{self, Receiver, Sender};

use super::{Reconciler, Seeds, socket_scan::omissions};
use crate::{
    config::listeners::{ListenerConfig, PortRange},
    kernel::{
        bpf::maps::{SnapshotError, Snapshots},
        clock,
        host::netns::NetNsError,
        sock_diag::scan::{
            self, Scan, SurveyedNamespace,
            locations::{Locations, MAX_KEYS_EACH},
        },
    },
};
use monitor_core::{ConnId, Correlator, Event, Facts};

/// The result of the first scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seeded {
    pub connections: usize,
    /// Connections without room in the snapshot map. If they die silently, nothing reports it.
    pub untracked: usize,
    pub namespaces: usize,
    /// Namespaces still to be searched, in the background.
    pub unsearched: usize,
    /// Namespaces that could not be entered. Connections in them are known from their next packet on.
    pub refused: usize,
    /// Processes whose namespace is hidden from wsmon; the same holds for connections in them.
    pub hidden: usize,
    /// Ports of local listeners on which nobody listens.
    pub unserved: Vec<PortRange>,
}

/// Connections in one slice, and slices in the channel, so the search is never far ahead.
const SLICE: usize = 512;
const WAITING: usize = 4;

/// How long the start waits for the search. Only a namespace that was begun may take longer.
const START_LIMIT: Duration = Duration::from_secs(2);

/// A running search for older connections.
#[derive(Debug)]
pub struct Older {
    progress: Receiver<SearchProgress>,
    search: thread::JoinHandle<Result<FoundOlder, NetNsError>>,
}

/// What a search reports before its end.
#[derive(Debug)]
pub enum SearchProgress {
    Connections(Vec<Facts>),
    /// The start need not wait for the rest.
    MayStart {
        unsearched: usize,
    },
}

/// What a search has found, except the connections.
#[derive(Debug)]
struct FoundOlder {
    /// With the time and the namespaces of the survey.
    scan: Scan,
    locations: Locations,
}

/// What is known of the older connections while they are being reported.
#[derive(Debug, Default)]
pub(super) struct Seeding {
    namespaces: usize,
    refused: usize,
    hidden: usize,
    unserved: Vec<PortRange>,
    seeds: HashSet<ConnId>,
    /// Connections that ended since the search began and must not be reported afterwards.
    ended: HashSet<ConnId>,
    /// Connections that were already in the snapshots when their turn came.
    published: HashSet<ConnId>,
    untracked: HashSet<ConnId>,
}

impl Older {
    fn search(
        listeners: Vec<ListenerConfig>,
        surveyed: Vec<SurveyedNamespace>,
        survey: Scan,
        start_limit: Duration,
    ) -> Result<Self, NetNsError> {
        let (sender, progress) = mpsc::channel(WAITING);
        let search = thread::Builder::new()
            .name("older".to_owned())
            .spawn(move || search(&listeners, surveyed, survey, start_limit, &sender))
            .map_err(|source| NetNsError::Thread {
                name: "own".to_owned(),
                source,
            })?;
        Ok(Self { progress, search })
    }

    /// Waits for more; `None` when all were found.
    pub async fn next(&mut self) -> Option<SearchProgress> {
        self.progress.recv().await
    }
}

/// Sends what it finds. A send fails only after the daemon has stopped or its start has failed; the rest is
/// not needed then.
fn search(
    listeners: &[ListenerConfig],
    surveyed: Vec<SurveyedNamespace>,
    survey: Scan,
    start_limit: Duration,
    progress: &Sender<SearchProgress>,
) -> Result<FoundOlder, NetNsError> {
    let begun = Instant::now();
    let mut found = FoundOlder {
        scan: survey,
        locations: Locations::default(),
    };
    let (populated, idle): (Vec<_>, Vec<_>) =
        surveyed.into_iter().partition(|it| it.has_connections);
    found.scan.skipped += idle.len();
    let mut unsearched = populated.len();
    let (served, rest): (Vec<_>, Vec<_>) = populated.into_iter().partition(|it| it.is_served);
    let mut slice = Vec::with_capacity(SLICE);
    let mut may_start = false;
    for it in served.into_iter().chain(rest) {
        if !may_start && begun.elapsed() >= start_limit {
            may_start = true;
            let found = std::mem::replace(&mut slice, Vec::with_capacity(SLICE));
            drop(progress.blocking_send(SearchProgress::Connections(found)));
            drop(progress.blocking_send(SearchProgress::MayStart { unsearched }));
        }
        if progress.is_closed() {
            break;
        }
        let mut keys = Vec::new();
        let scan = scan::connections(listeners, &[&it.netns], |socket| {
            let Some(facts) = socket.facts() else {
                return;
            };
            if keys.len() <= MAX_KEYS_EACH {
                keys.push(socket.key());
            }
            slice.push(facts);
            if slice.len() >= SLICE {
                let full = std::mem::replace(&mut slice, Vec::with_capacity(SLICE));
                drop(progress.blocking_send(SearchProgress::Connections(full)));
            }
        })?;
        found.locations.measure_dump(&scan);
        found.locations.set(it.netns.id(), keys);
        found.scan.add_connections(scan);
        unsearched -= 1;
    }
    drop(progress.blocking_send(SearchProgress::Connections(slice)));
    found.scan.elapsed = begun.elapsed();
    Ok(found)
}

impl Seeding {
    /// Records the end of a connection; returns whether it was seeded.
    pub(super) fn end(&mut self, conn: ConnId) -> bool {
        self.ended.insert(conn);
        self.seeds.remove(&conn)
    }

    /// Whether it is still to be reported. The search may find a socket twice, or one that has ended
    /// meanwhile.
    fn is_new(&self, conn: ConnId) -> bool {
        ![&self.seeds, &self.ended, &self.published, &self.untracked]
            .iter()
            .any(|known| known.contains(&conn))
    }
}

impl Reconciler {
    /// Begins to search for every connection older than the programs, which must be attached; listening
    /// sockets come first. Each slice of [`Older::next`] goes to [`Reconciler::seed`], and the rings
    /// are read in between.
    pub fn find_older(
        &mut self,
        listeners: &[ListenerConfig],
        core: &mut Correlator,
    ) -> Result<Older, NetNsError> {
        let at = clock::now();
        let (surveyed, survey) = scan::survey(listeners)?;
        core.handle_event(Event::ListenSocketsScanned {
            at,
            complete: survey.is_complete(),
            sockets: survey.listening.clone(),
        });
        self.seeding = Some(Seeding {
            namespaces: survey.namespaces,
            refused: survey.refused.len(),
            hidden: survey.hidden,
            unserved: unserved(listeners, &survey),
            ..Seeding::default()
        });
        Older::search(listeners.to_vec(), surveyed, survey, START_LIMIT)
    }

    /// Reports some older connections. Returns for how many the snapshot map had no room.
    pub fn seed(
        &mut self,
        slice: Vec<Facts>,
        snapshots: &mut Snapshots,
        core: &mut Correlator,
    ) -> usize {
        let seeding = self.seeding.get_or_insert_default();
        let before = seeding.untracked.len();
        for facts in slice {
            let conn = facts.conn;
            if !seeding.is_new(conn) {
                continue;
            }
            match snapshots.seed(&facts) {
                Ok(true) => {
                    seeding.seeds.insert(conn);
                    core.handle_event(Event::Seeded(Box::new(facts)));
                }
                // The kernel programs saw it in between and know more.
                Ok(false) => drop(seeding.published.insert(conn)),
                Err(SnapshotError::Full) => drop(seeding.untracked.insert(conn)),
                Err(error) => log::warn!("socket {}: {error}", conn.0),
            }
        }
        seeding.untracked.len() - before
    }

    /// What was found so far, with so many namespaces still to be searched.
    pub fn seeded(&self, unsearched: usize) -> Seeded {
        let Some(seeding) = &self.seeding else {
            return Seeded::default();
        };
        Seeded {
            connections: seeding.seeds.len() + seeding.published.len(),
            untracked: seeding.untracked.len(),
            namespaces: seeding.namespaces - unsearched,
            unsearched,
            refused: seeding.refused,
            hidden: seeding.hidden,
            unserved: seeding.unserved.clone(),
        }
    }

    /// Ends the seeding. A scan must follow: a socket that closed unseen after it was found and before
    /// it was seeded left only the seed.
    pub fn end_seeding(&mut self, older: Older) -> Result<Seeded, NetNsError> {
        let mut seeded = self.seeded(0);
        let seeding = self.seeding.take().unwrap_or_default();
        self.seeds = Seeds::new(seeding.seeds);
        let found = match older.search.join() {
            Ok(found) => found?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        self.warn_omissions(omissions(&found.scan));
        self.locations = found.locations;
        seeded.refused = found.scan.refused.len();
        log::info!(
            "searched {} of {} network namespaces in {} ms: {} older connections, {} listening sockets on \
             watched ports",
            found.scan.dumped,
            found.scan.namespaces,
            found.scan.elapsed.as_millis(),
            seeded.connections,
            found.scan.listening.len()
        );
        Ok(seeded)
    }
}

/// The ports of local listeners on which no socket listens; none if a socket may have been missed.
fn unserved(listeners: &[ListenerConfig], scan: &Scan) -> Vec<PortRange> {
    if !scan.is_complete() {
        return Vec::new();
    }
    let local = listeners.iter().filter(|listener| !listener.remote);
    let is_served = |range: &&PortRange| {
        let mut ports = scan.listening.iter().map(|socket| socket.port);
        ports.any(|port| range.0.contains(&port))
    };
    local
        .flat_map(|listener| &listener.ports)
        .filter(|range| !is_served(range))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::kernel::testing::{Namespace, key_of};
    use monitor_core::ListenerRules;

    #[test]
    #[ignore = "needs root: makes network namespaces"]
    fn the_start_waits_for_a_limited_time_and_everything_is_found() {
        const PORT: u16 = 18_261;
        let namespaces = [Namespace::new(), Namespace::new(), Namespace::new()];
        let address = format!("127.0.0.1:{PORT}");
        let connections = [0, 1].map(|index| namespaces[index].connect(&address, &address));
        // Only the second is served, and the third has nothing but a listening socket.
        let _listening = [1, 2].map(|index| {
            let port = if index == 1 { PORT } else { PORT + 1 };
            namespaces[index].enter(|| TcpListener::bind(("127.0.0.2", port)).unwrap())
        });
        let listeners = [ListenerConfig {
            rules: ListenerRules::new("l", None),
            ports: vec![PortRange(PORT..=PORT)],
            remote: false,
        }];
        let (surveyed, survey) = scan::survey(&listeners).unwrap();
        let populated = surveyed.iter().filter(|it| it.has_connections).count();
        let third = namespaces[2].netns().id();
        let idle = surveyed.iter().find(|it| it.netns.id() == third);
        assert!(!idle.unwrap().has_connections);

        let limit = Duration::ZERO;
        let mut older = Older::search(listeners.to_vec(), surveyed, survey, limit).unwrap();
        let mut found = Vec::new();
        let mut started = None;
        while let Some(progress) = older.progress.blocking_recv() {
            match progress {
                SearchProgress::Connections(facts) => {
                    found.extend(facts.iter().map(|it| it.conn.0));
                }
                SearchProgress::MayStart { unsearched } => {
                    assert_eq!((unsearched, found.len()), (populated, 0));
                    started = Some(());
                }
            }
        }
        assert!(started.is_some());
        let [unserved, served] = connections.map(|it| key_of(&it.server).cookie());
        assert_eq!(found, [served, unserved]);
        let scan = older.search.join().unwrap().unwrap().scan;
        assert_eq!(scan.dumped + scan.refused.len(), populated);
    }

    #[test]
    fn a_connection_that_ended_after_it_was_found_is_not_reported() {
        let mut seeding = Seeding::default();
        assert!(seeding.is_new(ConnId(1)));
        assert!(!seeding.end(ConnId(1)), "it was not seeded yet");
        assert!(!seeding.is_new(ConnId(1)));

        seeding.seeds.insert(ConnId(2));
        assert!(!seeding.is_new(ConnId(2)), "found twice");
        assert!(seeding.end(ConnId(2)), "its seed must be removed");
        assert!(!seeding.is_new(ConnId(2)));
    }
}
