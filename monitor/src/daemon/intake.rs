//! Everything that the core learns: records, snapshots, and scans of the sockets.

use std::{
    io,
    time::{Duration, Instant},
};

use tokio::{io::unix::AsyncFd, task::JoinError, time};

use super::{
    DaemonError, finished,
    reconcile::{Older, Reconciler, ScanResult, SearchProgress, SocketScan},
    sleep_until,
    sweep::Sweeps,
};
use crate::{
    config::listeners::ListenerConfig,
    decode::{self, ClosedConnection, DecodeError},
    kernel::bpf::{
        loader::Loaded,
        maps::{Ring, Snapshots},
    },
};
use monitor_core::{Correlator, Detail, Event};

/// Maximum number of vitals held in memory while handshakes are drained.
const VITALS_AT_ONCE: usize = 1024;

/// A drain of more records than this suggests that the ring was full.
const BIG_DRAIN: usize = 4096;

/// Minimum time between two drains. The ring holds about 21,000 records.
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);

/// Maximum number of connections to inspect in one tick, which takes some milliseconds.
const INSPECTIONS_AT_ONCE: usize = 4096;

/// A scan of all sockets costs more than 1 µs per socket. The interval between scans keeps their cost
/// at 1/66 of a CPU, within these bounds.
const SCAN_SHARE: u32 = 66;
const MIN_SCAN_INTERVAL: Duration = Duration::from_secs(10);
const MAX_SCAN_INTERVAL: Duration = Duration::from_secs(240);

/// A decoded record of the vitals ring, and the final figures of a connection if it holds them.
type Vital = (Result<Event, DecodeError>, Option<Box<ClosedConnection>>);

/// The sources of the core's knowledge.
pub(super) struct Intake {
    pub(super) vitals: AsyncFd<Ring>,
    pub(super) handshakes: AsyncFd<Ring>,
    /// Vitals that were read and not yet reported. Empty between drains; kept for its capacity.
    waiting: Vec<Vital>,
    drained: Instant,
    /// Whether the last drain left records in the rings. Nothing wakes the daemon for them.
    is_behind: bool,
    pub(super) snapshots: Snapshots,
    pub(super) sweeps: Sweeps,
    pub(super) reconciler: Reconciler,
    /// The search for older connections, while it goes on.
    pub(super) older: Option<Older>,
    scan: Option<SocketScan>,
    scan_at: Instant,
    /// Records and snapshots that could not be decoded.
    pub(super) undecodable: u64,
    pub(super) undecodable_handshakes: u64,
    /// By listener: connections whose end the kernel programs neither reported nor counted.
    pub(super) missed_ends: Vec<u64>,
    /// Connections older than the programs for which the snapshot map had no room.
    pub(super) untracked_at_start: u64,
}

/// Why the intake wakes the daemon.
pub(super) enum Arrival {
    /// The rings have records, or a part of a sweep is due. The next tick reads them.
    Records,
    SweepDue,
    ScanDue,
    /// Some of the older connections; `None` at the end of the search.
    Older(Option<SearchProgress>),
    Scanned(Box<Result<ScanResult, JoinError>>),
}

impl Intake {
    /// Must be called within a tokio runtime.
    pub(super) fn take(
        loaded: &mut Loaded,
        listeners: &[ListenerConfig],
    ) -> Result<Self, DaemonError> {
        let now = Instant::now();
        Ok(Self {
            vitals: watched(Ring::vitals(loaded)?)?,
            handshakes: watched(Ring::handshakes(loaded)?)?,
            waiting: Vec::new(),
            drained: now,
            is_behind: false,
            snapshots: Snapshots::take(loaded)?,
            sweeps: Sweeps::of(listeners),
            reconciler: Reconciler::default(),
            older: None,
            scan: None,
            // Scan immediately: some of the seeded connections may have closed meanwhile.
            scan_at: now,
            undecodable: 0,
            undecodable_handshakes: 0,
            missed_ends: vec![0; listeners.len()],
            untracked_at_start: 0,
        })
    }

    /// Waits for the next arrival. Readiness is cleared before the drain, so a record committed after
    /// it wakes the daemon again.
    pub(super) async fn next(&mut self) -> io::Result<Arrival> {
        let may_scan = self.scan.is_none();
        tokio::select! {
            ready = self.vitals.readable_mut() => ready?.clear_ready(),
            ready = self.handshakes.readable_mut() => ready?.clear_ready(),
            () = sleep_until(self.sweeps.due()) => return Ok(Arrival::SweepDue),
            () = time::sleep_until(self.scan_at.into()), if may_scan => {
                return Ok(Arrival::ScanDue);
            }
            found = next_older(&mut self.older) => return Ok(Arrival::Older(found)),
            result = finished(&mut self.scan) => return Ok(Arrival::Scanned(Box::new(result))),
        }
        Ok(Arrival::Records)
    }

    /// Waits until a drain is due, so that in a burst one drain serves many records. A single record
    /// is not delayed.
    pub(super) async fn space_drains(&mut self) {
        time::sleep_until((self.drained + DRAIN_INTERVAL).into()).await;
        self.drained = Instant::now();
    }

    /// Reads every record that both rings have when it begins, so that a flood of records can't keep
    /// it. An invalid record is counted and never stops the loop. Passes the final state of each
    /// closed connection to `on_closed` before the core handles its end. Returns whether the ring may
    /// have been full.
    pub(super) fn drain(
        &mut self,
        core: &mut Correlator,
        mut on_closed: impl FnMut(ClosedConnection, &Correlator),
    ) -> bool {
        let mut records = 0;
        let mut limit = DrainLimit::of(self.vitals.get_ref());
        loop {
            // Vitals are read before the handshakes and reported after them, so that the end of a
            // handshake is never reported before its beginning.
            self.read_vitals(&mut limit);
            let are_handshakes_left = self.drain_handshakes(core);
            let is_empty = self.waiting.len() < VITALS_AT_ONCE && !limit.is_reached();
            records += self.waiting.len();
            let mut waiting = std::mem::take(&mut self.waiting);
            for (event, closed) in waiting.drain(..) {
                if let Some(closed) = closed {
                    on_closed(*closed, core);
                }
                self.handle_vital(event, core);
            }
            self.waiting = waiting;
            if is_empty || limit.is_reached() {
                self.is_behind = !is_empty || are_handshakes_left;
                return records >= BIG_DRAIN;
            }
        }
    }

    /// Whether the last drain left records in the rings.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Inspects the connections whose facts the core requests.
    pub(super) fn inspect(&mut self, core: &mut Correlator) {
        for _ in 0..INSPECTIONS_AT_ONCE {
            let Some(conn) = core.poll_inspect() else {
                break;
            };
            match self.snapshots.get(conn) {
                Ok(facts) => core.handle_snapshot(conn, facts.map(Box::new)),
                Err(error) => {
                    self.undecodable += 1;
                    log::warn!("socket {}: {error}", conn.0);
                    core.handle_snapshot(conn, None);
                }
            }
        }
    }

    /// Reports some connections that are older than the programs.
    pub(super) fn seed(&mut self, slice: Vec<monitor_core::Facts>, core: &mut Correlator) {
        let untracked = self.reconciler.seed(slice, &mut self.snapshots, core);
        self.untracked_at_start += untracked as u64;
    }

    /// Handles an arrival from the search that goes on in the background.
    pub(super) fn handle_older(&mut self, found: Option<SearchProgress>, core: &mut Correlator) {
        match found {
            Some(SearchProgress::Connections(slice)) => self.seed(slice, core),
            Some(SearchProgress::MayStart { .. }) => {}
            None => {
                let ended = self.older.take();
                // A scan must follow.
                self.scan_at = Instant::now();
                if let Some(Err(error)) = ended.map(|it| self.reconciler.end_seeding(it)) {
                    log::warn!("the search for older connections ended early: {error}");
                }
            }
        }
    }

    /// Does one slice of the work on very many connections. Passes the last state of each whose end no
    /// kernel program reported to `on_missed` before the core handles its end.
    pub(super) fn reconcile(
        &mut self,
        core: &mut Correlator,
        mut on_missed: impl FnMut(Detail, &Correlator),
    ) {
        let missed_ends = &mut self.missed_ends;
        self.reconciler
            .step(&mut self.snapshots, core, |detail, core| {
                if let Some(count) = missed_ends.get_mut(detail.facts.listener.index()) {
                    *count += 1;
                }
                on_missed(detail, core);
            });
    }

    pub(super) fn start_scan(&mut self, listeners: &[ListenerConfig], core: &Correlator) {
        self.scan = Some(self.reconciler.start_scan(listeners, &self.snapshots, core));
    }

    pub(super) fn finish_scan(
        &mut self,
        result: Result<ScanResult, JoinError>,
        core: &mut Correlator,
    ) {
        self.scan = None;
        let cost = self.reconciler.finish(result, core);
        let interval = cost.unwrap_or_default() * SCAN_SHARE;
        self.scan_at = Instant::now() + interval.clamp(MIN_SCAN_INTERVAL, MAX_SCAN_INTERVAL);
    }

    /// Sweeps at the intervals of new rules.
    pub(super) fn restart_sweeps(&mut self, listeners: &[ListenerConfig]) {
        self.sweeps = Sweeps::of(listeners);
        self.snapshots.restart_sweep();
    }

    fn read_vitals(&mut self, limit: &mut DrainLimit) {
        let ring = self.vitals.get_mut();
        let read = limit.records(|| {
            ring.next(|record| {
                let vital = (decode::vital(record), decode::closed(record));
                (record.len(), vital)
            })
        });
        self.waiting.extend(read.take(VITALS_AT_ONCE));
    }

    /// Returns whether the ring may still have records.
    fn drain_handshakes(&mut self, core: &mut Correlator) -> bool {
        let mut limit = DrainLimit::of(self.handshakes.get_ref());
        let ring = self.handshakes.get_mut();
        let read = limit.records(|| ring.next(|record| (record.len(), decode::handshake(record))));
        for event in read {
            match event {
                Ok(event) => core.handle_event(event),
                Err(error) => {
                    self.undecodable_handshakes += 1;
                    log::warn!("invalid record in the handshakes ring: {error}");
                }
            }
        }
        limit.is_reached()
    }

    fn handle_vital(&mut self, event: Result<Event, DecodeError>, core: &mut Correlator) {
        match event {
            Ok(event) => {
                // The kernel removed the snapshot too, unless it was seeded a moment ago.
                if let Some(conn) = event.ends()
                    && let Err(error) = self.reconciler.forget(conn, &mut self.snapshots)
                {
                    log::warn!("socket {}: {error}", conn.0);
                }
                core.handle_event(event);
            }
            Err(error) => {
                self.undecodable += 1;
                log::warn!("invalid record in the vitals ring: {error}");
            }
        }
    }
}

/// How much of a ring one drain reads: as many bytes as the ring can hold. That is everything that was there
/// when the drain began, but not everything that arrives meanwhile.
struct DrainLimit {
    /// Bytes.
    left: u64,
}

impl DrainLimit {
    fn of(ring: &Ring) -> Self {
        let left = ring.usage().size;
        Self { left }
    }

    /// The records of `next`, which returns each with its length in bytes, until there is none or the
    /// limit is reached.
    fn records<T>(
        &mut self,
        mut next: impl FnMut() -> Option<(usize, T)>,
    ) -> impl Iterator<Item = T> {
        std::iter::from_fn(move || {
            if self.is_reached() {
                return None;
            }
            let (bytes, record) = next()?;
            self.left = self.left.saturating_sub(bytes as u64);
            Some(record)
        })
    }

    fn is_reached(&self) -> bool {
        self.left == 0
    }
}

/// Waits for the search for older connections; pends forever if there is none.
async fn next_older(older: &mut Option<Older>) -> Option<SearchProgress> {
    match older {
        Some(older) => older.next().await,
        None => std::future::pending().await,
    }
}

/// Registers a ring with the runtime.
fn watched(ring: Ring) -> Result<AsyncFd<Ring>, DaemonError> {
    ring.watched().map_err(DaemonError::Runtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_reads_what_a_full_ring_holds_and_leaves_an_endless_one() {
        let mut limit = DrainLimit { left: 1000 };
        let mut ring = (0..).map(|number| (100, number));
        // In several parts.
        let first: Vec<_> = limit.records(|| ring.next()).take(4).collect();
        assert_eq!(first, [0, 1, 2, 3]);
        assert!(!limit.is_reached());
        assert_eq!(limit.records(|| ring.next()).count(), 6);
        assert!(limit.is_reached());
        assert_eq!(limit.records(|| ring.next()).count(), 0);
    }

    #[test]
    fn an_empty_ring_ends_a_drain_before_its_limit() {
        let mut limit = DrainLimit { left: 1000 };
        let mut ring = (0..3).map(|number| (100, number));
        assert_eq!(limit.records(|| ring.next()).count(), 3);
        assert!(!limit.is_reached());
    }
}
