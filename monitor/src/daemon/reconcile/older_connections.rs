//! The connections that are older than the programs: found on a thread of their own, told to the core
//! in slices.

use std::{
    collections::HashSet,
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
};

use super::{Reconciler, Seeds, socket_scan::omissions};
use crate::{
    config::listeners::Listener,
    kernel::{
        clock,
        maps::{SnapshotError, Snapshots},
        netns::NetNsError,
        scan::{self, Scan},
    },
};
use monitor_core::{ConnId, Correlator, Event, Facts};

/// What the first look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seeded {
    pub connections: usize,
    /// Connections that found no room in the snapshots: nobody tells if they die in silence.
    pub untracked: usize,
    pub namespaces: usize,
    /// Namespaces that could not be entered: connections there are known from their next packet.
    pub refused: usize,
    /// Processes whose namespace is hidden from us; the same holds for what is in there.
    pub hidden: usize,
}

/// Connections in one slice, and slices that wait: the search is never far ahead.
const SLICE: usize = 512;
const WAITING: usize = 4;

/// The search for older connections, under way.
#[derive(Debug)]
pub struct Older {
    slices: Receiver<Vec<Facts>>,
    search: thread::JoinHandle<Result<Scan, NetNsError>>,
}

/// What is known of the older connections while they are being reported.
#[derive(Debug, Default)]
pub(super) struct Seeding {
    seeds: HashSet<ConnId>,
    /// Ended since it began: what the search found before must not be reported after.
    ended: HashSet<ConnId>,
    /// Already in the snapshots when their turn came.
    met: HashSet<ConnId>,
    untracked: HashSet<ConnId>,
}

impl Older {
    fn search(listeners: Vec<Listener>) -> Result<Self, NetNsError> {
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

    /// Waits for the next ones; `None` when all were found.
    pub fn next(&self) -> Option<Vec<Facts>> {
        self.slices.recv().ok()
    }
}

/// Sends what it finds. Whoever does not listen any more ends the daemon's start; what is sent then
/// is nobody's.
fn search(listeners: &[Listener], slices: &SyncSender<Vec<Facts>>) -> Result<Scan, NetNsError> {
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
    /// A connection ended; whether it was seeded.
    pub(super) fn end(&mut self, conn: ConnId) -> bool {
        self.ended.insert(conn);
        self.seeds.remove(&conn)
    }

    /// Whether it is still to be reported: the search may find a socket twice, and find one that has
    /// ended meanwhile.
    fn is_new(&self, conn: ConnId) -> bool {
        ![&self.seeds, &self.ended, &self.met, &self.untracked]
            .iter()
            .any(|known| known.contains(&conn))
    }
}

impl Reconciler {
    /// Begins to tell of every connection older than the programs, once they are attached: first of
    /// what listens. Each slice of [`Older::next`] goes to [`Reconciler::seed`], and the rings are read
    /// between them.
    pub fn find_older(
        &mut self,
        listeners: &[Listener],
        core: &mut Correlator,
    ) -> Result<Older, NetNsError> {
        let at = clock::now();
        let scan = scan::listening(listeners)?;
        core.handle_event(Event::ListenSocketsScanned {
            at,
            complete: scan.is_complete(),
            sockets: scan.listening,
        });
        self.seeding = Some(Seeding::default());
        Older::search(listeners.to_vec())
    }

    /// Tells of some older connections.
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
                // The kernel met it in between and knows more.
                Ok(false) => drop(seeding.met.insert(conn)),
                Err(SnapshotError::Full) => drop(seeding.untracked.insert(conn)),
                Err(error) => log::warn!("socket {}: {error}", conn.0),
            }
        }
    }

    /// All slices were reported. A socket that closed unseen between its picture and its seed left no trace
    /// but the seed: a scan has to follow.
    pub fn end_seeding(&mut self, older: Older) -> Result<Seeded, NetNsError> {
        let seeding = self.seeding.take().unwrap_or_default();
        let scan = match older.search.join() {
            Ok(scan) => scan?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        self.warn_omissions(omissions(&scan));
        let seeded = Seeded {
            connections: seeding.seeds.len() + seeding.met.len(),
            untracked: seeding.untracked.len(),
            namespaces: scan.namespaces,
            refused: scan.refused.len(),
            hidden: scan.hidden,
        };
        self.seeds = Seeds::new(seeding.seeds);
        Ok(seeded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_after_it_was_found_is_not_told_of_any_more() {
        let mut seeding = Seeding::default();
        assert!(seeding.is_new(ConnId(1)));
        assert!(!seeding.end(ConnId(1)), "it was not seeded yet");
        assert!(!seeding.is_new(ConnId(1)));

        seeding.seeds.insert(ConnId(2));
        assert!(!seeding.is_new(ConnId(2)), "found twice");
        assert!(seeding.end(ConnId(2)), "its seed has to go");
        assert!(!seeding.is_new(ConnId(2)));
    }
}
