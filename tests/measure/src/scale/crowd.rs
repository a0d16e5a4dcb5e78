//! The connections of one measurement, and the processes that hold them.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lab::Namespace;

use super::{
    worker::MOST,
    worker_process::{WorkerProcess, this_program},
};
use crate::progress::Progress;

/// Many connections on loopback, in their own network. Dropping this value ends them.
#[derive(Debug)]
pub(super) struct Crowd {
    workers: Vec<WorkerProcess>,
    connections: usize,
    /// Dropped after the processes with sockets in it.
    _namespace: Namespace,
}

/// The last ping of a connection that silently died.
#[derive(Clone, Copy, Debug)]
pub(super) struct Death {
    /// The client's address, which wsmon reports as the peer.
    pub(super) peer: SocketAddr,
    /// On the monotonic clock.
    pub(super) last_packet: Duration,
}

impl Crowd {
    /// Starts the processes, without connections yet.
    pub(super) fn new(connections: usize) -> Result<Self> {
        let namespace = Namespace::loopback()?;
        let workers = (0..connections.div_ceil(MOST))
            .map(|index| {
                let mut command = namespace.command(&this_program()?.to_string_lossy());
                WorkerProcess::start(command.args(["scale-worker", &index.to_string()]))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            workers,
            connections,
            _namespace: namespace,
        })
    }

    /// Opens all connections, with one process per CPU at a time, and returns how long it took.
    pub(super) fn open(
        &mut self,
        ping_every: Duration,
        progress: &mut Progress<'_>,
    ) -> Result<Duration> {
        let begin = Instant::now();
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let mut shares = split(self.connections, self.workers.len());
        let mut opened = 0;
        for workers in self.workers.chunks_mut(cpus) {
            progress.check()?;
            progress.at(&format!(
                "{} connections: opening, {opened} so far",
                self.connections
            ));
            let shares: Vec<usize> = shares.by_ref().take(workers.len()).collect();
            for (worker, share) in workers.iter_mut().zip(&shares) {
                worker.send(&format!("open {share} {}", ping_every.as_nanos()))?;
            }
            for (worker, share) in workers.iter_mut().zip(&shares) {
                worker.expect(&format!("opened {share}"))?;
            }
            opened += shares.iter().sum::<usize>();
        }
        Ok(begin.elapsed())
    }

    /// Makes `count` more connections die, each at its next ping, within `ping_every`.
    pub(super) fn fade(
        &mut self,
        count: usize,
        ping_every: Duration,
        progress: &mut Progress<'_>,
    ) -> Result<Vec<Death>> {
        self.tell_shares("fade", count)?;
        progress.sleep(ping_every)?;
        self.deaths(count)
    }

    /// Makes `count` more connections die, all at once.
    pub(super) fn die(&mut self, count: usize) -> Result<Vec<Death>> {
        self.tell_shares("die", count)?;
        self.deaths(count)
    }

    /// The largest delay of a ping so far.
    pub(super) fn most_late(&mut self) -> Result<Duration> {
        let mut most = Duration::ZERO;
        for worker in &mut self.workers {
            worker.send("late")?;
            let line = worker.line()?;
            let nanos = line.strip_prefix("late ").and_then(|n| n.parse().ok());
            most = most.max(Duration::from_nanos(nanos.context(line)?));
        }
        Ok(most)
    }

    fn tell_shares(&mut self, what: &str, count: usize) -> Result<()> {
        let shares = split(count, self.workers.len());
        for (worker, share) in self.workers.iter_mut().zip(shares) {
            worker.send(&format!("{what} {share}"))?;
        }
        Ok(())
    }

    fn deaths(&mut self, count: usize) -> Result<Vec<Death>> {
        let shares = split(count, self.workers.len());
        let mut deaths = Vec::with_capacity(count);
        for (worker, share) in self.workers.iter_mut().zip(shares) {
            for _ in 0..share {
                let line = worker.line()?;
                deaths.push(death(&line).with_context(|| format!("a worker answered `{line}`"))?);
            }
        }
        Ok(deaths)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        WorkerProcess::end_all(&mut self.workers);
    }
}

fn death(line: &str) -> Option<Death> {
    let (peer, nanos) = line.strip_prefix("dead ")?.split_once(' ')?;
    Some(Death {
        peer: peer.parse().ok()?,
        last_packet: Duration::from_nanos(nanos.parse().ok()?),
    })
}

/// `total` in `parts` that differ by at most one.
pub(super) fn split(total: usize, parts: usize) -> impl Iterator<Item = usize> {
    (0..parts).map(move |part| total / parts + usize::from(part < total % parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_equal_and_complete() {
        assert_eq!(split(10, 3).collect::<Vec<_>>(), [4, 3, 3]);
        assert_eq!(split(1_000_000, 102).sum::<usize>(), 1_000_000);
        assert!(split(1_000_000, 1_000_000_usize.div_ceil(MOST)).all(|share| share <= MOST));
    }

    #[test]
    fn a_death_is_read_from_its_line() {
        let dead = death("dead 127.2.0.1:10000 17").unwrap();
        assert_eq!(dead.peer.to_string(), "127.2.0.1:10000");
        assert_eq!(dead.last_packet, Duration::from_nanos(17));
        assert!(death("dead 127.2.0.1:10000").is_none());
    }
}
