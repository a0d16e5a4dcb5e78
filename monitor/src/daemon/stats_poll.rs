//! Schedules the reports of survived idle gaps and losses to the core.

use std::time::{Duration, Instant};

use monitor_common::stats::ListenerStats;

use super::Daemon;
use crate::{
    config::listeners::{DENSEST_COUNTS, Listener, counts_interval},
    kernel::clock,
};
use monitor_core::{ListenerId, loss::Deliveries};

/// The schedule of the reads. One read costs some microseconds per listener and CPU.
#[derive(Debug)]
pub(super) struct StatsPoll {
    interval: Duration,
    read_at: Instant,
    /// An earlier read would cost too much.
    earliest: Instant,
    pub(super) next: Instant,
}

impl StatsPoll {
    pub(super) fn of(listeners: &[Listener]) -> Self {
        let interval = counts_interval(listeners);
        let now = Instant::now();
        Self {
            interval,
            read_at: now,
            earliest: now,
            next: now + interval,
        }
    }

    /// Reads soon, because a verdict depends on it.
    pub(super) fn hurry(&mut self) {
        let soon = (self.read_at + DENSEST_COUNTS).max(self.earliest);
        self.next = self.next.min(soon);
    }
}

impl Daemon {
    pub(super) fn poll_stats(&mut self) {
        let begun = Instant::now();
        self.stats_poll.next = begun + self.stats_poll.interval;
        match self.stats.read() {
            Ok(stats) => self.report_stats(&stats),
            Err(error) => log::warn!("cannot read the counts of the kernel programs: {error}"),
        }
        // Hundreds of listeners on hundreds of CPUs cost too much to read every second.
        self.stats_poll.earliest = Instant::now() + begun.elapsed() * SHARE;
        self.stats_poll.next = self.stats_poll.next.max(self.stats_poll.earliest);
    }

    /// Reports to the core and restarts the interval.
    pub(super) fn report_stats(&mut self, stats: &[ListenerStats]) {
        self.stats_poll.read_at = Instant::now();
        self.stats_poll.next = self.stats_poll.read_at + self.stats_poll.interval;
        let at = clock::now();
        for (listener, stats) in (0..).map(ListenerId).zip(stats) {
            let survived = stats.idle_gaps_survived.map(|count| count.get());
            self.core.handle_idle_gaps(at, listener, &survived);
            let deliveries = Deliveries::of(stats);
            self.core.handle_deliveries(at, listener, deliveries);
        }
    }
}

/// Reading takes at most 1/100 of the time.
const SHARE: u32 = 100;
