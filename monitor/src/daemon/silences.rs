//! How often the core is told which silences were survived, and what was lost.

use std::time::{Duration, Instant};

use monitor_common::stats::ListenerStats;

use super::Daemon;
use crate::{
    core::{ListenerId, loss::Deliveries},
    kernel::clock,
    listeners::{DENSEST_COUNTS, Listener, counts_interval},
};

/// When the counts are read next. Reading costs some microseconds a listener and CPU.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    read_at: Instant,
    /// Reading too often would cost too much.
    earliest: Instant,
    pub(super) next: Instant,
}

impl Pace {
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
    pub(super) fn read_silences(&mut self) {
        let begun = Instant::now();
        self.silences.next = begun + self.silences.interval;
        match self.stats.read() {
            Ok(stats) => self.tell_silences(&stats),
            Err(error) => log::warn!("cannot read the counts of the kernel programs: {error}"),
        }
        // Hundreds of listeners on hundreds of CPUs are not read every second.
        self.silences.earliest = Instant::now() + begun.elapsed() * SHARE;
        self.silences.next = self.silences.next.max(self.silences.earliest);
    }

    /// Tells the core, and counts the interval anew.
    pub(super) fn tell_silences(&mut self, stats: &[ListenerStats]) {
        self.silences.read_at = Instant::now();
        self.silences.next = self.silences.read_at + self.silences.interval;
        let at = clock::now();
        for (listener, stats) in (0..).map(ListenerId).zip(stats) {
            let survived = stats.gaps_survived.map(|count| count.get());
            self.core.handle_silences(at, listener, &survived);
            let deliveries = Deliveries::of(stats);
            self.core.handle_deliveries(at, listener, deliveries);
        }
    }
}

/// Reading takes at most this part of the time.
const SHARE: u32 = 100;
