//! The network namespaces of a scene with their sockets, and the processes that hold them.

use std::{net::SocketAddr, process::Command};

use anyhow::{Context, Result, ensure};
use lab::{Namespace, fresh_port};

use super::{
    super::{
        crowd::split,
        worker_process::{WorkerProcess, this_program},
    },
    scan_log::ScanCounts,
    worker::{MOST_EACH, MOST_SOCKETS},
};
use crate::progress::Progress;

/// Sockets that a namespace has in any case: one that listens.
const LISTENING: usize = 1;

/// Connections of the namespace that begins to listen while wsmon runs.
pub(super) const LATE_CONNECTIONS: usize = 10;

/// How many namespaces and connections there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Each with a listening socket, besides one that has no socket yet.
    pub(super) namespaces: usize,
    /// Those that listen on the watched port. The others listen on another one.
    pub(super) served: usize,
    /// Spread evenly over all of them, with both ends there.
    pub(super) connections: usize,
}

impl Layout {
    /// Whether the namespace listens on the watched port: those that do are spread over all.
    fn is_served(self, index: usize) -> bool {
        let so_far = |count| count * self.served / self.namespaces;
        so_far(index + 1) > so_far(index)
    }

    fn shares(self) -> impl Iterator<Item = usize> {
        split(self.connections, self.namespaces)
    }

    /// Connections to the watched port.
    pub(super) fn served_connections(self) -> usize {
        let shares = self.shares().enumerate();
        let served = shares.filter(|(index, _)| self.is_served(*index));
        served.map(|(_, share)| share).sum()
    }

    /// Whether a scan has read no connections in as many namespaces as are not served.
    pub(super) fn has_skipped(self, scan: &ScanCounts) -> bool {
        scan.skipped >= (self.namespaces - self.served) as u64
    }

    /// The number of processes that hold all sockets.
    fn workers(self) -> usize {
        let each = LISTENING + 2 * self.connections.div_ceil(self.namespaces);
        let sockets = (self.namespaces + 1) * each + 2 * LATE_CONNECTIONS;
        // They take the namespaces in turn, so one may have one namespace more than another.
        sockets.div_ceil(MOST_SOCKETS.saturating_sub(each).max(each))
    }
}

/// The namespaces and their sockets. Dropping this value removes all of them.
#[derive(Debug)]
pub(super) struct Population {
    layout: Layout,
    port: u16,
    other_port: u16,
    workers: Vec<WorkerProcess>,
    /// Dropped after the processes with sockets in them. The last one has none at first.
    namespaces: Vec<Namespace>,
}

impl Population {
    /// Makes the namespaces and opens all connections.
    pub(super) fn open(layout: Layout, progress: &mut Progress<'_>) -> Result<Self> {
        ensure!(
            layout.connections.div_ceil(layout.namespaces) <= MOST_EACH,
            "a namespace has at most {MOST_EACH} connections"
        );
        let mut population = Self {
            layout,
            port: fresh_port(),
            other_port: fresh_port(),
            workers: Vec::new(),
            namespaces: Vec::new(),
        };
        for namespace in Namespace::loopbacks()?.take(layout.namespaces + 1) {
            progress.check()?;
            let so_far = population.namespaces.len();
            progress.at(&format!(
                "{} network namespaces: made {so_far}",
                layout.namespaces
            ));
            population.namespaces.push(namespace?);
        }
        for _ in 0..layout.workers() {
            let mut command = Command::new(this_program()?);
            let worker = WorkerProcess::start(command.arg("scale-namespace-worker"))?;
            population.workers.push(worker);
        }
        for (index, share) in layout.shares().enumerate() {
            progress.check()?;
            progress.at(&format!(
                "{} network namespaces: opened the connections of {index}",
                layout.namespaces
            ));
            let port = match layout.is_served(index) {
                true => population.port,
                false => population.other_port,
            };
            population.open_in(index, port, share)?;
        }
        Ok(population)
    }

    /// The watched port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// From now on, the last namespace listens on the watched port, and has connections.
    pub(super) fn open_late(&mut self) -> Result<()> {
        self.open_in(self.layout.namespaces, self.port, LATE_CONNECTIONS)
    }

    /// Makes one connection stall in each of `count` served namespaces and in the last one: its server does
    /// not read. Returns their clients' addresses.
    pub(super) fn stall(&mut self, count: usize) -> Result<Vec<SocketAddr>> {
        let layout = self.layout;
        let shares = layout.shares().enumerate();
        let served = shares.filter(|(index, share)| layout.is_served(*index) && *share > 0);
        let served = served.map(|(index, _)| index).take(count);
        let late = (count > 0).then_some(layout.namespaces);
        served
            .chain(late)
            .map(|index| {
                let worker = self.worker(index);
                worker.send(&format!("stall {index}"))?;
                let line = worker.line()?;
                let peer = line.strip_prefix("stalled ");
                let peer = peer.and_then(|peer| peer.parse().ok());
                peer.with_context(|| format!("a worker answered `{line}`"))
            })
            .collect()
    }

    fn open_in(&mut self, index: usize, port: u16, count: usize) -> Result<()> {
        let name = self.namespaces[index].name().to_owned();
        let worker = self.worker(index);
        worker.send(&format!("open {name} {index} {port} {count}"))?;
        worker.expect(&format!("opened {count}"))
    }

    /// The process that holds the sockets of a namespace.
    fn worker(&mut self, index: usize) -> &mut WorkerProcess {
        let count = self.workers.len();
        &mut self.workers[index % count]
    }
}

impl Drop for Population {
    fn drop(&mut self) {
        WorkerProcess::end_all(&mut self.workers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(namespaces: usize, served: usize, connections: usize) -> Layout {
        Layout {
            namespaces,
            served,
            connections,
        }
    }

    #[test]
    fn the_served_namespaces_are_spread_over_all() {
        let served = |layout: Layout| {
            let all = 0..layout.namespaces;
            all.filter(|index| layout.is_served(*index))
                .collect::<Vec<_>>()
        };
        assert_eq!(served(layout(10, 2, 0)), [4, 9]);
        assert_eq!(served(layout(3, 3, 0)), [0, 1, 2]);
        assert_eq!(served(layout(200, 20, 0)).len(), 20);
    }

    #[test]
    fn the_connections_of_served_namespaces_are_counted() {
        assert_eq!(layout(10, 2, 100).served_connections(), 20);
        assert_eq!(layout(200, 200, 100_000).served_connections(), 100_000);
    }

    #[test]
    fn no_process_holds_more_sockets_than_it_may_open() {
        for layout in [
            layout(200, 20, 100_000),
            layout(200, 200, 50_000),
            layout(10_000, 1_000, 10_000),
            layout(2, 1, 18_000),
            layout(6, 2, 60),
        ] {
            let each = LISTENING + 2 * layout.connections.div_ceil(layout.namespaces);
            let most = (layout.namespaces + 1).div_ceil(layout.workers()) * each;
            assert!(
                most + 2 * LATE_CONNECTIONS <= MOST_SOCKETS,
                "{layout:?}: {most}"
            );
        }
    }
}
