//! Connections older than the programs: found on their own thread, reported to the core in slices.

use std::{
    collections::HashSet,
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
};

use super::{Reconciler, Seeds, socket_scan::omissions};
use crate::{
    config::listeners::{ListenerConfig, PortRange},
    kernel::{
        bpf::maps::{SnapshotError, Snapshots},
        clock,
        host::netns::NetNsError,
        sock_diag::scan::{self, Scan},
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

/// A running search for older connections.
#[derive(Debug)]
pub struct Older {
    slices: Receiver<Vec<Facts>>,
    search: thread::JoinHandle<Result<Scan, NetNsError>>,
}

/// What is known of the older connections while they are being reported.
#[derive(Debug, Default)]
pub(super) struct Seeding {
    unserved: Vec<PortRange>,
    seeds: HashSet<ConnId>,
    /// Connections that ended since the search began and must not be reported afterwards.
    ended: HashSet<ConnId>,
    /// Connections that were already in the snapshots when their turn came.
    published: HashSet<ConnId>,
    untracked: HashSet<ConnId>,
}

impl Older {
    fn search(listeners: Vec<ListenerConfig>) -> Result<Self, NetNsError> {
        let (sender, slices) = mpsc::sync_channel(WAITING);
        let search = thread::Builder::new()
            .name("older".to_owned())
            .spawn(move || search(&listeners, &sender))
            .map_err(|source| NetNsError::Thread {
                name: "own".to_owned(),
                source,
            })?;
        Ok(Self { slices, search })
    }

    /// Waits for the next connections; `None` when all were found.
    pub fn next(&self) -> Option<Vec<Facts>> {
        self.slices.recv().ok()
    }
}

/// Sends what it finds. A send fails only after the daemon's start has failed; the slice is not needed
/// then.
fn search(
    listeners: &[ListenerConfig],
    slices: &SyncSender<Vec<Facts>>,
) -> Result<Scan, NetNsError> {
    let mut slice = Vec::with_capacity(SLICE);
    let scan = scan::connections(listeners, |found| {
        slice.extend(found.facts());
        if slice.len() == SLICE {
            let full = std::mem::replace(&mut slice, Vec::with_capacity(SLICE));
            drop(slices.send(full));
        }
    })?;
    drop(slices.send(slice));
    Ok(scan)
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
        let scan = scan::listening(listeners)?;
        let unserved = unserved(listeners, &scan);
        core.handle_event(Event::ListenSocketsScanned {
            at,
            complete: scan.is_complete(),
            sockets: scan.listening,
        });
        self.seeding = Some(Seeding {
            unserved,
            ..Seeding::default()
        });
        Older::search(listeners.to_vec())
    }

    /// Reports some older connections.
    pub fn seed(&mut self, slice: Vec<Facts>, snapshots: &mut Snapshots, core: &mut Correlator) {
        let seeding = self.seeding.get_or_insert_default();
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
    }

    /// Ends the seeding. A scan must follow: a socket that closed unseen after it was found and before
    /// it was seeded left only the seed.
    pub fn end_seeding(&mut self, older: Older) -> Result<Seeded, NetNsError> {
        let seeding = self.seeding.take().unwrap_or_default();
        let scan = match older.search.join() {
            Ok(scan) => scan?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        self.warn_omissions(omissions(&scan));
        let seeded = Seeded {
            connections: seeding.seeds.len() + seeding.published.len(),
            untracked: seeding.untracked.len(),
            namespaces: scan.namespaces,
            refused: scan.refused.len(),
            hidden: scan.hidden,
            unserved: seeding.unserved,
        };
        log::info!(
            "scanned {} network namespaces in {} ms: {} older connections, {} listening sockets on \
             watched ports",
            seeded.namespaces,
            scan.elapsed.as_millis(),
            seeded.connections,
            scan.listening.len()
        );
        self.seeds = Seeds::new(seeding.seeds);
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
}
