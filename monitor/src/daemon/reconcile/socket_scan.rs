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

#[cfg(test)]
mod tests;

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
    /// Whether it may search all namespaces if there is a lookup.
    pub(super) may_search_everywhere: bool,
    /// As the last scan left them.
    pub(super) send_queues: SendQueues,
}

/// What one scan leaves to the next, also if it fails.
#[derive(Debug, Default)]
pub struct ScanMemory {
    pub(super) presence: Presence,
    pub(super) locations: Locations,
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

/// Fails as [`known::known_connections`] does. `memory` then keeps which connections were missed, and the
/// locations that were not read again.
pub(super) fn scan_host(
    listeners: &[ListenerConfig],
    targets: ScanTargets,
    memory: &mut ScanMemory,
) -> Result<ScannedSockets, NetNsError> {
    let (at, begun) = (clock::now(), clock::of_thread());
    let ScanMemory {
        presence,
        locations,
    } = memory;
    let known = sorted(targets.known);
    let mut seeds = TargetSearch::new(&targets.seeds);
    let mut requests = TargetSearch::new(&targets.requests);
    let mut unread = Vec::new();
    let mut unsent = Vec::new();
    // The requests have no snapshots.
    let must_search_everywhere =
        !targets.requests.is_empty() || presence.must_search_everywhere(&known);
    let everywhere =
        targets.lookup.is_none() || targets.may_search_everywhere && must_search_everywhere;
    let sought = KnownConnections {
        conns: &known,
        lookup: &|conn| targets.lookup.as_ref().and_then(|lookup| lookup(conn)),
        everywhere,
    };
    let (scan, fates) = known::known_connections(listeners, &sought, locations, |found| {
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
