//! The connections of one measurement, and the processes that hold them.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{ChildStdin, ChildStdout, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lab::{Namespace, Process};
use rustix::process::Signal;

use super::worker::MOST;
use crate::progress::Progress;

/// Many connections on loopback, in their own network. Dropping this value ends them.
#[derive(Debug)]
pub(super) struct Crowd {
    workers: Vec<Worker>,
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
            .map(|index| Worker::start(&namespace, index))
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
                deaths.push(death(&line).with_context(|| format!("a worker says `{line}`"))?);
            }
        }
        Ok(deaths)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Notifies all of them first, because each takes a while to close its sockets, and then
        // waits for each. A worker that can't be notified has already ended.
        for worker in &mut self.workers {
            let _ = worker.process.signal(Signal::KILL);
        }
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
fn split(total: usize, parts: usize) -> impl Iterator<Item = usize> {
    (0..parts).map(move |part| total / parts + usize::from(part < total % parts))
}

/// A process that runs `worker.rs`.
#[derive(Debug)]
struct Worker {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    process: Process,
}

impl Worker {
    fn start(namespace: &Namespace, index: usize) -> Result<Self> {
        let this = env::current_exe().context("cannot find this program")?;
        let mut command = namespace.command(&this.to_string_lossy());
        command
            .args(["scale-worker", &index.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command)?;
        let child = process.child_mut();
        let (input, output) = (child.stdin.take(), child.stdout.take());
        Ok(Self {
            input: input.context("a worker without input")?,
            output: BufReader::new(output.context("a worker without output")?),
            process,
        })
    }

    fn send(&mut self, line: &str) -> Result<()> {
        writeln!(self.input, "{line}").context("a worker has ended")
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("a worker has ended");
        }
        Ok(line.trim_end().to_owned())
    }

    fn expect(&mut self, line: &str) -> Result<()> {
        let said = self.line()?;
        if said != line {
            bail!("a worker says `{said}` instead of `{line}`");
        }
        Ok(())
    }
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
