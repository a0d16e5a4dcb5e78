//! How often the idle gaps that were survived, and the losses, are reported to the core.

use std::time::{Duration, Instant};

use monitor_common::stats::ListenerStats;

use super::Daemon;
use crate::{
    config::listeners::{DENSEST_COUNTS, Listener, counts_interval},
    kernel::clock,
};
use monitor_core::{ListenerId, loss::Deliveries};

/// When the counts are read next. Reading costs some microseconds a listener and CPU.
#[derive(Debug)]
pub(super) struct StatsPoll {
    interval: Duration,
    read_at: Instant,
    /// Reading too often would cost too much.
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

    /// The next reading is soon: a verdict depends on it.
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
        // Hundreds of listeners on hundreds of CPUs are not read every second.
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

/// Reading takes at most this part of the time.
const SHARE: u32 = 100;
