//! Reports connections older than the programs to the core.

use std::{collections::HashSet, time::Duration};

use super::{
    Reconciler, Seeds,
    older_search::{FoundLocations, Older},
    socket_scan::omissions,
};
use crate::{
    config::listeners::{ListenerConfig, PortRange},
    kernel::{
        bpf::maps::{SnapshotError, Snapshots},
        clock,
        host::{generations::Generations, netns::NetNsError},
        sock_diag::scan::{self, Scan, locations::Locations},
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

/// How long the start waits for the search. Only a namespace that was begun may take longer.
const START_LIMIT: Duration = Duration::from_secs(2);

/// What is known of the older connections while they are being reported.
#[derive(Debug, Default)]
pub(super) struct Seeding {
    namespaces: usize,
    refused: usize,
    hidden: usize,
    unserved: Vec<PortRange>,
    locations: FoundLocations,
    seeds: HashSet<ConnId>,
    ended: Ended,
    /// Connections that were already in the snapshots when their turn came.
    published: HashSet<ConnId>,
    untracked: HashSet<ConnId>,
}

/// The last connections that ended. One that the search found before must not be reported afterwards. If one
/// is, the next scan drops it.
#[derive(Debug)]
struct Ended(Generations<ConnId, ()>);

/// More than end while what was found is on its way.
const MAX_ENDED: usize = 65_536;

impl Default for Ended {
    fn default() -> Self {
        Self(Generations::new(MAX_ENDED))
    }
}

impl Seeding {
    /// Takes the locations that were found since the last call.
    pub(super) fn take_locations(&self) -> Locations {
        self.locations.take()
    }

    /// Records the end of a connection; returns whether it was seeded.
    pub(super) fn end(&mut self, conn: ConnId) -> bool {
        self.ended.0.insert(conn, ());
        self.seeds.remove(&conn)
    }

    /// Whether it is still to be reported. The search may find a socket twice, or one that has ended
    /// meanwhile.
    fn is_new(&self, conn: ConnId) -> bool {
        let known = [&self.seeds, &self.published, &self.untracked];
        let is_known = known.iter().any(|known| known.contains(&conn));
        !is_known && self.ended.0.get(&conn).is_none()
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
        let locations = FoundLocations::default();
        self.seeding = Some(Seeding {
            locations: locations.clone(),
            namespaces: survey.namespaces,
            refused: survey.refused.len(),
            hidden: survey.hidden,
            unserved: unserved(listeners, &survey),
            ..Seeding::default()
        });
        Older::search(listeners.to_vec(), surveyed, survey, START_LIMIT, locations)
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
        let locations = seeding.locations;
        self.seeds = Seeds::new(seeding.seeds);
        let scan = older.join()?;
        self.locations.merge(locations.take());
        self.warn_omissions(omissions(&scan));
        seeded.refused = scan.refused.len();
        log::info!(
            "searched {} of {} network namespaces in {} ms: {} older connections, {} listening sockets on \
             watched ports",
            scan.dumped,
            scan.namespaces,
            scan.elapsed.as_millis(),
            seeded.connections,
            scan.listening.len()
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
    use super::*;

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

    #[test]
    fn the_ends_that_are_remembered_are_bounded() {
        let mut seeding = Seeding::default();
        let ends = 4 * MAX_ENDED as u64;
        for conn in 1..=ends {
            seeding.end(ConnId(conn));
        }
        assert!(!seeding.is_new(ConnId(ends)));
        assert!(!seeding.is_new(ConnId(ends - MAX_ENDED as u64 + 1)));
        let remembered = (1..=ends).filter(|conn| !seeding.is_new(ConnId(*conn)));
        assert!(remembered.count() <= 2 * MAX_ENDED);
    }
}
