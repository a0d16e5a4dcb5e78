//! When the snapshots are swept: a part at a time, so that each comes at the same distance.

use std::time::{Duration, Instant};

use super::Daemon;
use crate::listeners::Listener;

/// The pace of the sweeps.
#[derive(Debug)]
pub(super) struct Sweeps {
    /// How long one takes.
    length: Duration,
    /// The one that is under way.
    begun: Instant,
    /// When its next part is due.
    pub(super) next: Instant,
}

impl Sweeps {
    /// As long as they can be while no deadline of a connection with a heartbeat at half of the limit
    /// comes before the next: a lone ping has to be seen within the ping timeout.
    pub(super) fn of(listeners: &[Listener]) -> Self {
        let rules = listeners.iter().map(|listener| &listener.rules);
        let limits = rules.clone().filter_map(|it| it.shortest_idle_timeout());
        let pings = rules.map(|it| it.ping_timeout / 4 * 3);
        let length = limits.map(|limit| limit / 8 * 3).chain(pings).min();
        let now = Instant::now();
        Self {
            length: length.map_or(SLOWEST, |length| length.clamp(FASTEST, SLOWEST)),
            begun: now,
            next: now,
        }
    }

    /// How far two looks at a snapshot may lie apart: a sweep, two of its parts, and some delay.
    pub(super) fn at_least_every(&self) -> Duration {
        self.length + DELAY
    }
}

impl Daemon {
    /// Shows the core the next snapshots, if it is time.
    pub(super) fn sweep(&mut self) {
        let now = Instant::now();
        if now < self.sweeps.next || self.core.is_empty() {
            return;
        }
        self.sweeps.next = now + PART;
        let elapsed = now.duration_since(self.sweeps.begun);
        let share = elapsed.div_duration_f64(self.sweeps.length);
        let shown = self.snapshots.sweep(share, |facts| match facts {
            Ok(facts) => self.core.handle_swept(&facts),
            Err(error) => {
                self.undecodable += 1;
                log::warn!("a snapshot: {error}");
            }
        });
        match shown {
            Ok(()) if share >= 1.0 => {
                self.sweeps.begun = now;
                self.snapshots.restart_sweep();
            }
            Ok(()) => {}
            Err(error) => log::warn!("cannot sweep the snapshots, will try again: {error}"),
        }
    }
}

/// Under short limits every connection has a deadline of its own.
const FASTEST: Duration = Duration::from_secs(5);
const SLOWEST: Duration = Duration::from_secs(60);
/// How often a part of a sweep is shown: of a million connections some 12,000 then, in 10 ms.
const PART: Duration = Duration::from_millis(250);
const DELAY: Duration = Duration::from_millis(1_250);
