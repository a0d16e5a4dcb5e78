//! Schedules the reports of survived idle gaps and losses to the core.

use std::time::{Duration, Instant};

use monitor_common::stats::ListenerStats;

use crate::{
    config::listeners::{DENSEST_COUNTS, ListenerConfig, counts_interval},
    kernel::{
        bpf::maps::{MapAccessError, Stats},
        clock,
    },
};
use monitor_core::{CloseHow, Correlator, ListenerId, loss::Deliveries, tally::Turnover};

/// Reads the counts of the kernel programs. One read costs some microseconds per listener and CPU.
pub(super) struct StatsPoll {
    stats: Stats,
    interval: Duration,
    read_at: Instant,
    /// An earlier read would cost too much.
    earliest: Instant,
    pub(super) next: Instant,
}

impl StatsPoll {
    pub(super) fn new(stats: Stats, listeners: &[ListenerConfig]) -> Self {
        let interval = counts_interval(listeners);
        let now = Instant::now();
        Self {
            stats,
            interval,
            read_at: now,
            earliest: now,
            next: now + interval,
        }
    }

    /// Polls at the interval of new rules.
    pub(super) fn restart(&mut self, listeners: &[ListenerConfig]) {
        self.interval = counts_interval(listeners);
        self.next = (Instant::now() + self.interval).max(self.earliest);
    }

    /// Reads the counts. `missed_ends` are added, by listener, because the kernel programs did not count
    /// them.
    pub(super) fn read(&self, missed_ends: &[u64]) -> Result<Vec<ListenerStats>, MapAccessError> {
        let mut stats = self.stats.read()?;
        for (stats, missed) in stats.iter_mut().zip(missed_ends) {
            stats.closed[CloseHow::Unknown as usize].add(*missed);
        }
        Ok(stats)
    }

    /// Reads soon, because a verdict depends on it.
    pub(super) fn hurry(&mut self) {
        let soon = (self.read_at + DENSEST_COUNTS).max(self.earliest);
        self.next = self.next.min(soon);
    }

    pub(super) fn poll(&mut self, core: &mut Correlator, missed_ends: &[u64]) {
        self.next = Instant::now() + self.interval;
        // Hundreds of listeners on hundreds of CPUs cost too much to read every second.
        let rest = rest_after(|| match self.read(missed_ends) {
            Ok(stats) => self.report(&stats, core),
            Err(error) => log::warn!("cannot read the counts of the kernel programs: {error}"),
        });
        self.earliest = Instant::now() + rest;
        self.next = self.next.max(self.earliest);
    }

    /// Reports to the core and restarts the interval.
    pub(super) fn report(&mut self, stats: &[ListenerStats], core: &mut Correlator) {
        self.read_at = Instant::now();
        self.next = self.read_at + self.interval;
        let at = clock::now();
        for (listener, stats) in (0..).map(ListenerId).zip(stats) {
            let survived = stats.idle_gaps_survived.map(|count| count.get());
            core.handle_idle_gaps(at, listener, &survived);
            let deliveries = Deliveries::of(stats);
            core.handle_deliveries(at, listener, deliveries);
            core.handle_turnover(at, listener, Turnover::of(stats));
        }
    }
}

/// Reading takes at most 1/100 of the time.
const SHARE: u32 = 100;

/// Does the work, and returns how long to rest for its share of the time. Only its CPU time counts: on a busy machine
/// it also waits for a CPU, and a rest of a hundred times that would delay alerts by minutes.
fn rest_after(work: impl FnOnce()) -> Duration {
    let before = clock::of_thread();
    work();
    clock::of_thread().saturating_sub(before) * SHARE
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn work_requires_a_rest_and_waiting_for_a_cpu_does_not() {
        let took = Duration::from_millis(50);
        let work = || {
            let begun = clock::of_thread();
            while clock::of_thread() < begun + took {}
        };
        assert!(rest_after(work) >= took * SHARE);
        assert!(rest_after(|| thread::sleep(took)) < took * SHARE / 2);
    }
}
