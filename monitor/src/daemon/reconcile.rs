//! Keeps three tables in agreement: the core's connections, the published snapshots, and the sockets
//! that exist.
//!
//! The kernel programs report every connection established after the attach. sock_diag is therefore needed
//! only for older ones, and for those whose socket disappeared unseen. Work on very many connections is
//! done in slices, so that the daemon reads its rings in between.

use std::{collections::HashSet, time::Duration};

use tokio::task::{JoinError, JoinHandle};

use crate::{
    config::listeners::ListenerConfig,
    kernel::{
        bpf::maps::{SnapshotError, Snapshots},
        clock,
        host::netns::NetNsError,
        sock_diag::scan::locations::Locations,
    },
};
use monitor_core::{ConnId, Correlator, Detail, Event};

mod comparison;
mod older_connections;
mod older_search;
mod presence;
mod seeds;
mod socket_scan;

use comparison::Comparison;
pub use older_connections::Seeded;
use older_connections::Seeding;
pub use older_search::{Older, SearchProgress};
use seeds::Seeds;
use socket_scan::{Lookup, ScanMemory, ScanTargets, ScannedSockets};

/// A running scan of the host's sockets.
pub type SocketScan = JoinHandle<ScanResult>;

/// The result of a scan of the sockets, and what it leaves to the next one.
pub type ScanResult = (Result<ScannedSockets, NetNsError>, ScanMemory);

/// Connections handled between two reads of the rings, which takes some milliseconds.
const SLICE: usize = 2048;

/// Tracks the flows that only sock_diag has reported.
#[derive(Debug, Default)]
pub struct Reconciler {
    /// Set while the older connections are being reported.
    seeding: Option<Seeding>,
    /// Seeds that are not known to have ended. A flow stays here after its first packet: from then on
    /// the kernel programs track it too and report its end as usual.
    seeds: Seeds,
    /// Seeds that a scan did not find, to be dropped.
    missing: Vec<ConnId>,
    /// As the last scan left it. A running scan has it.
    scan_memory: ScanMemory,
    /// What the search for older connections has found since the last scan began.
    locations: Locations,
    /// Connections whose end was not reported, to be given up.
    gone: Vec<ConnId>,
    /// How many of them were given up.
    unreported_ends: u64,
    /// Unanswered upgrade requests whose end may have been in a lost record.
    uncertain: HashSet<ConnId>,
    /// Those of them that the running scan may find closed.
    requests_sought: HashSet<ConnId>,
    comparison: Option<Comparison>,
    /// What the last scan could not read; a warning was logged.
    omissions: Vec<String>,
}

impl Reconciler {
    /// Starts a scan for which connections and uncertain requests still have a socket, and for the queues of
    /// the sockets. On a host with a million sockets this takes seconds, so it runs in the background.
    pub fn start_scan(
        &mut self,
        listeners: &[ListenerConfig],
        snapshots: &Snapshots,
        core: &Correlator,
    ) -> SocketScan {
        let reader = snapshots.reader();
        let reader = reader.inspect_err(|error| log::warn!("{error}"));
        let mut memory = std::mem::take(&mut self.scan_memory);
        memory.locations.merge(std::mem::take(&mut self.locations));
        let may_search_everywhere = match &self.seeding {
            // The search for older connections reads all namespaces as it is.
            Some(seeding) => {
                memory.locations.merge(seeding.take_locations());
                false
            }
            None => {
                self.requests_sought = std::mem::take(&mut self.uncertain);
                true
            }
        };
        let targets = ScanTargets {
            seeds: self.seeds.share(),
            requests: socket_scan::sorted(self.requests_sought.iter().copied()),
            known: core.conns(),
            lookup: reader
                .ok()
                .map(|reader| Box::new(move |conn| reader.get(conn)) as Lookup),
            may_search_everywhere,
            send_queues: core.send_queues().clone(),
        };
        let listeners = listeners.to_vec();
        tokio::task::spawn_blocking(move || {
            let scanned = socket_scan::scan_host(&listeners, targets, &mut memory);
            (scanned, memory)
        })
    }

    /// Takes a scan's result. Missing seeds are dropped later, in [`Reconciler::step`]; queues are
    /// reported here. Returns the CPU time of the scan if it completed.
    pub fn finish(
        &mut self,
        result: Result<ScanResult, JoinError>,
        core: &mut Correlator,
    ) -> Option<Duration> {
        let scanned = match result {
            Ok((scanned, memory)) => {
                self.scan_memory = memory;
                let warn = |error: &_| log::warn!("cannot scan the sockets of this host: {error}");
                scanned.inspect_err(warn).ok()
            }
            Err(error) => {
                log::error!("the scan of the sockets ended early: {error}");
                None
            }
        };
        let Some(mut scanned) = scanned else {
            self.drop_unanswered(None, core);
            return None;
        };
        log::debug!(
            "scanned the sockets of this host in {} ms of CPU time: {} listening sockets on watched ports, {}",
            scanned.cost.as_millis(),
            scanned.listening.len(),
            scanned.summary
        );
        self.warn_omissions(std::mem::take(&mut scanned.omissions));
        self.gone.append(&mut scanned.gone);
        if scanned.complete {
            self.missing.append(&mut scanned.missing_seeds);
        } else {
            log::debug!("not every socket could be seen; nothing is given up");
        }
        let requests = scanned.complete.then_some(&scanned.missing_requests);
        self.drop_unanswered(requests.map(Vec::as_slice), core);
        core.handle_event(Event::ListenSocketsScanned {
            at: scanned.at,
            sockets: scanned.listening,
            complete: scanned.complete,
        });
        scanned.unread.retain(|queue| core.knows(queue.conn));
        core.handle_event(Event::RecvQueuesScanned {
            at: scanned.at,
            unread: scanned.unread,
            missed: scanned.missed,
        });
        core.handle_event(Event::SendQueuesScanned(scanned.send_queues));
        Some(scanned.cost)
    }

    /// Warns of what could not be scanned, once while it lasts.
    fn warn_omissions(&mut self, omissions: Vec<String>) {
        for omission in omissions
            .iter()
            .filter(|omission| !self.omissions.contains(omission))
        {
            log::warn!("{omission}");
        }
        self.omissions = omissions;
    }

    /// Starts a comparison after a loss. The kernel's snapshots are right; the core's table may not be.
    /// [`Reconciler::step`] does the work.
    pub fn compare_with_snapshots(&mut self, core: &Correlator) {
        // The part that a running comparison has passed may have been affected since.
        self.comparison = Some(Comparison::begin(core));
        // Only a socket scan can settle these: the kernel publishes no connection before it is open.
        self.uncertain.extend(core.unanswered());
    }

    /// Whether [`Reconciler::step`] has work to do.
    pub fn is_behind(&self) -> bool {
        self.comparison.is_some() || !self.missing.is_empty() || !self.gone.is_empty()
    }

    /// Does one slice of the work. The rings must have been read just before, because they report
    /// whatever has ended since. Passes the last state of each connection that has a snapshot and is given
    /// up to `on_missed`, before the core handles its end. The kernel programs remove the snapshot when
    /// they count an end, so they have not counted these.
    pub fn step(
        &mut self,
        snapshots: &mut Snapshots,
        core: &mut Correlator,
        mut on_missed: impl FnMut(Detail, &Correlator),
    ) {
        let mut before_end = |conn, core: &Correlator| match snapshots.detail(conn) {
            Ok(Some(detail)) => on_missed(detail, core),
            Ok(None) => {}
            Err(error) => log::warn!("socket {}: {error}", conn.0),
        };
        let mut given_up =
            self.give_up_missing(|conn| snapshots.is_seed(conn), &mut before_end, core);
        given_up.append(&mut self.give_up_gone(&mut before_end, core));
        for conn in given_up {
            if let Err(error) = snapshots.remove(conn) {
                log::warn!("socket {}: {error}", conn.0);
            }
        }
        if let Some(comparison) = &mut self.comparison
            && comparison.step(snapshots, core)
        {
            self.comparison = None;
        }
    }

    /// Handles a connection that ended or is not watched. Its seed may have been written after the
    /// kernel removed the snapshot.
    pub fn forget(&mut self, conn: ConnId, snapshots: &mut Snapshots) -> Result<(), SnapshotError> {
        let seeded = match &mut self.seeding {
            Some(seeding) => seeding.end(conn),
            None => self.seeds.remove(conn),
        };
        if seeded {
            snapshots.remove(conn)?;
        }
        Ok(())
    }

    /// Drops the uncertain upgrade requests whose socket is `missing` after a complete scan. After an
    /// incomplete scan they stay uncertain.
    fn drop_unanswered(&mut self, missing: Option<&[ConnId]>, core: &mut Correlator) {
        let requests_sought = std::mem::take(&mut self.requests_sought);
        let Some(missing) = missing else {
            self.uncertain.extend(requests_sought);
            return;
        };
        for conn in missing.iter().copied() {
            if core.is_unanswered(conn) {
                let at = clock::now();
                core.handle_event(Event::Gone { conn, at });
            }
        }
    }

    /// The number of connections that were given up because no program reported their end.
    pub fn unreported_ends(&self) -> u64 {
        self.unreported_ends
    }

    /// Ends a slice of the connections whose end was not reported, and returns those whose snapshot has
    /// to be removed.
    fn give_up_gone(
        &mut self,
        mut before_end: impl FnMut(ConnId, &Correlator),
        core: &mut Correlator,
    ) -> Vec<ConnId> {
        let slice = self.gone.len().saturating_sub(SLICE);
        let mut slice = self.gone.split_off(slice);
        // The end of any other was reported after the scan.
        slice.retain(|conn| core.knows(*conn));
        for conn in slice.iter().copied() {
            log::debug!("socket {}: gone, its end was not reported", conn.0);
            before_end(conn, core);
            let at = clock::now();
            core.handle_event(Event::Gone { conn, at });
        }
        self.unreported_ends += slice.len() as u64;
        slice
    }

    /// Drops a slice of the seeds that a scan did not find, and returns those whose snapshot has to be
    /// removed.
    fn give_up_missing(
        &mut self,
        is_seed: impl Fn(ConnId) -> bool,
        mut before_end: impl FnMut(ConnId, &Correlator),
        core: &mut Correlator,
    ) -> Vec<ConnId> {
        let slice = self.missing.len().saturating_sub(SLICE);
        let mut slice = self.missing.split_off(slice);
        // The end of anything that is no longer a seed was already reported.
        slice.retain(|conn| self.seeds.remove(*conn));
        // A seed that has seen a packet belongs to the kernel programs, which report its end.
        slice.retain(|conn| is_seed(*conn));
        for conn in slice.iter().copied() {
            before_end(conn, core);
            let at = clock::now();
            core.handle_event(Event::Gone { conn, at });
        }
        slice
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::sock_diag::scan::known::Fate;
    use monitor_core::{
        Facts, Ktime, ListenerId, ListenerRules,
        event::HandshakeSocket,
        facts::{Protocol, Role},
        handshake::UpgradeRequest,
    };

    pub(super) fn empty_core() -> Correlator {
        Correlator::new(vec![ListenerRules::new("web", None)], Duration::ZERO)
    }

    pub(super) fn facts(conn: u64) -> Facts {
        Facts::new(
            Ktime(1),
            ConnId(conn),
            ListenerId(0),
            Role::Server,
            Protocol::Assumed,
            ([127, 0, 0, 1], 8080).into(),
            ([127, 0, 0, 1], 40_000).into(),
        )
    }

    pub(super) fn seeded(conn: u64) -> Event {
        Event::Seeded(Box::new(facts(conn)))
    }

    fn request(conn: u64) -> Event {
        Event::UpgradeRequested {
            of: Box::new(HandshakeSocket {
                at: Ktime(1),
                conn: ConnId(conn),
                listener: ListenerId(0),
                role: Role::Server,
                local: ([127, 0, 0, 1], 8080).into(),
                peer: ([127, 0, 0, 1], 40_000).into(),
                established_at: None,
            }),
            request: Box::new(UpgradeRequest::parse(b"GET / HTTP/1.1\r\n\r\n")),
        }
    }

    #[test]
    fn a_scan_that_fails_leaves_what_it_knew_to_the_next() {
        let mut reconciler = Reconciler::default();
        let mut memory = ScanMemory::default();
        let known = [ConnId(1)];
        let coverage = presence::Coverage {
            everywhere: false,
            complete: true,
            all_visible: true,
        };
        memory.presence.update(&known, &[Fate::Unlocated], coverage);
        let failure = NetNsError::Proc(std::io::Error::from_raw_os_error(5));
        let cost = reconciler.finish(Ok((Err(failure), memory)), &mut empty_core());
        assert_eq!(cost, None);
        let presence = &reconciler.scan_memory.presence;
        assert!(presence.must_search_everywhere(&known));
    }

    #[test]
    fn uncertain_requests_end_when_a_complete_scan_does_not_find_their_socket() {
        let mut core = empty_core();
        let mut reconciler = Reconciler::default();
        core.handle_event(request(1));
        core.handle_event(request(2));
        reconciler.requests_sought.extend(core.unanswered());
        // This one came after the scan began.
        core.handle_event(request(3));

        reconciler.drop_unanswered(None, &mut core);
        assert_eq!(core.unanswered().len(), 3);
        assert_eq!(
            reconciler.uncertain.len(),
            2,
            "the next scan covers them too"
        );

        reconciler.requests_sought = std::mem::take(&mut reconciler.uncertain);
        reconciler.drop_unanswered(Some(&[ConnId(2)]), &mut core);
        let mut left = core.unanswered();
        left.sort();
        assert_eq!(left, [ConnId(1), ConnId(3)]);
        assert!(reconciler.uncertain.is_empty());
    }

    #[test]
    fn only_missing_seeds_that_are_still_ours_are_dropped() {
        let mut core = empty_core();
        for conn in 1..=4 {
            core.handle_event(seeded(conn));
        }
        let mut reconciler = Reconciler {
            seeds: Seeds::new((1..=4).map(ConnId)),
            missing: [1, 2, 3].map(ConnId).to_vec(),
            ..Reconciler::default()
        };
        // Its end was reported after the scan and before its turn.
        assert!(reconciler.seeds.remove(ConnId(1)));
        let met_a_packet = ConnId(2);
        let gone = reconciler.give_up_missing(|conn| conn != met_a_packet, |_, _| {}, &mut core);
        assert_eq!(gone, [ConnId(3)], "only this one ends without a record");
        let known = [1, 2, 3, 4].map(|conn| core.knows(ConnId(conn)));
        assert_eq!(known, [true, true, false, true]);
        assert!(!reconciler.is_behind());
        assert!(
            !reconciler.seeds.remove(ConnId(2)),
            "the kernel programs track it"
        );
        assert!(reconciler.seeds.remove(ConnId(4)), "it was found");
    }

    #[test]
    fn connections_whose_end_was_not_reported_are_given_up_in_slices_and_counted() {
        let all = SLICE as u64 + 2;
        let mut core = empty_core();
        for conn in 0..all {
            core.handle_event(seeded(conn));
        }
        let mut reconciler = Reconciler {
            gone: (0..all).map(ConnId).collect(),
            ..Reconciler::default()
        };
        // Its end was reported after the scan.
        let (conn, at) = (ConnId(all - 1), Ktime(2));
        core.handle_event(Event::Gone { conn, at });
        assert_eq!(
            reconciler.give_up_gone(|_, _| {}, &mut core).len(),
            SLICE - 1
        );
        assert!(reconciler.is_behind());
        assert_eq!(reconciler.give_up_gone(|_, _| {}, &mut core).len(), 2);
        assert!(!reconciler.is_behind());
        assert!(core.is_empty());
        assert_eq!(reconciler.unreported_ends(), all - 1);
    }

    #[test]
    fn many_missing_seeds_are_dropped_in_slices() {
        let all = SLICE as u64 * 2 + 1;
        let mut core = empty_core();
        for conn in 0..all {
            core.handle_event(seeded(conn));
        }
        let mut reconciler = Reconciler {
            seeds: Seeds::new((0..all).map(ConnId)),
            missing: (0..all).map(ConnId).collect(),
            ..Reconciler::default()
        };
        let mut slices = Vec::new();
        while reconciler.is_behind() {
            slices.push(
                reconciler
                    .give_up_missing(|_| true, |_, _| {}, &mut core)
                    .len(),
            );
        }
        assert_eq!(slices, [SLICE, SLICE, 1]);
        assert!(core.is_empty());
    }
}
