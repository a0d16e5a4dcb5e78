//! Scans all sockets of the host in the background.

use std::{sync::Arc, time::Duration};

use crate::{
    config::listeners::ListenerConfig,
    kernel::{
        clock,
        host::netns::NetNsError,
        sock_diag::scan::{self, Scan},
    },
};
use monitor_core::{
    ConnId, Ktime,
    event::{ListeningSocket, ReceiveQueue},
};

/// What a scan has to find, each list sorted.
#[derive(Debug)]
pub(super) struct ScanTargets {
    pub(super) seeds: Arc<[ConnId]>,
    pub(super) requests: Arc<[ConnId]>,
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
    pub(super) unread: Vec<ReceiveQueue>,
    pub(super) listening: Vec<ListeningSocket>,
    /// What could not be scanned, and why.
    pub(super) omissions: Vec<String>,
    /// CPU time. Wall time says little on a busy host.
    pub(super) cost: Duration,
}

pub(super) fn scan_host(
    listeners: &[ListenerConfig],
    targets: &ScanTargets,
) -> Result<ScannedSockets, NetNsError> {
    let (at, begun) = (clock::now(), clock::of_thread());
    let mut seeds = TargetSearch::new(&targets.seeds);
    let mut requests = TargetSearch::new(&targets.requests);
    let mut unread = Vec::new();
    let scan = scan::connections(listeners, |found| {
        seeds.mark_found(found.conn());
        requests.mark_found(found.conn());
        unread.extend(found.receive_queue());
    })?;
    Ok(ScannedSockets {
        at,
        complete: scan.is_complete(),
        omissions: omissions(&scan),
        missing_seeds: seeds.missing(),
        missing_requests: requests.missing(),
        unread,
        listening: scan.listening,
        cost: clock::of_thread().saturating_sub(begun),
    })
}

/// What a scan could not read, and why.
pub(super) fn omissions(scan: &Scan) -> Vec<String> {
    let refused = scan
        .refused
        .iter()
        .map(|refused| format!("network namespace {}: {}", refused.name, refused.error));
    let unparsed =
        (scan.unparsed > 0).then(|| format!("{} sockets could not be understood", scan.unparsed));
    refused.chain(unparsed).collect()
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
    use super::*;

    #[test]
    fn a_target_found_twice_or_an_unknown_socket_is_not_missing() {
        let targets = sorted([3, 1, 3, 2].map(ConnId));
        let mut search = TargetSearch::new(&targets);
        for conn in [3, 3, 7] {
            search.mark_found(ConnId(conn));
        }
        assert_eq!(search.missing(), [1, 2].map(ConnId));
    }
}
