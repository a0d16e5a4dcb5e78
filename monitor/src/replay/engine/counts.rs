//! Schedules when the core gets the counts of the listeners: the survived idle gaps, and the losses.

use super::Replay;
use crate::config::listeners::{ListenerConfig, counts_interval};
use monitor_core::{Ktime, ListenerId, loss::Deliveries};

/// As often as the daemon reads them, while anything happens: a recording may have years without a
/// packet.
#[derive(Debug)]
pub(super) struct CountsTimer {
    interval: u64,
    next: Option<u64>,
}

impl CountsTimer {
    pub(super) fn new(listeners: &[ListenerConfig]) -> Self {
        let interval = counts_interval(listeners).as_nanos();
        Self {
            interval: u64::try_from(interval).unwrap_or(u64::MAX),
            next: None,
        }
    }

    /// Something happened that may change the counts.
    pub(super) fn arm(&mut self, at: u64) {
        self.next.get_or_insert(at.saturating_add(self.interval));
    }

    pub(super) fn deadline(&self) -> Option<Ktime> {
        self.next.map(Ktime)
    }
}

impl Replay {
    /// Passes the losses, which every verdict needs, and the idle gaps when they are due.
    pub(super) fn show_counts(&mut self, at: Ktime) {
        let is_due = self.counts_timer.next.is_some_and(|next| next <= at.0);
        if is_due {
            self.counts_timer.next = None;
        }
        for (listener, stats) in (0..).map(ListenerId).zip(&self.stats) {
            if is_due {
                let survived = stats.idle_gaps_survived.map(|count| count.get());
                self.core.handle_idle_gaps(at, listener, &survived);
            }
            let deliveries = Deliveries::of(stats);
            self.core.handle_deliveries(at, listener, deliveries);
        }
    }
}
