//! When the snapshots are swept: a part at a time, so that each comes at the same distance.

use std::time::{Duration, Instant};

use super::Daemon;
use crate::config::listeners::Listener;

/// The pace of the sweeps. There are none while there are few connections: they have deadlines of their
/// own, and the daemon sleeps until the first of them.
#[derive(Debug)]
pub(super) struct Sweeps {
    /// How long one takes.
    length: Duration,
    /// The one that is under way.
    begun: Instant,
    /// When its next part is due.
    next: Instant,
    phase: SweepPhase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SweepPhase {
    Resting,
    Sweeping,
    /// The last sweep, which gives every connection its own deadline.
    Ending,
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
            phase: SweepPhase::Resting,
        }
    }

    /// What the core may expect: how far apart two readings of a snapshot may be, which is a sweep, two of
    /// its parts, and some delay.
    fn at_least_every(&self) -> Option<Duration> {
        (self.phase == SweepPhase::Sweeping).then(|| self.length + DELAY)
    }

    /// When the next part is due.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.phase != SweepPhase::Resting).then_some(self.next)
    }

    /// Which share of the snapshots, from 0 to 1, is to be shown by now. Begins a sweep where there are
    /// many connections.
    fn share(&mut self, now: Instant, connections: usize) -> Option<f64> {
        if self.phase == SweepPhase::Resting {
            if connections > MANY {
                (self.begun, self.next) = (now, now + PART);
                self.phase = SweepPhase::Sweeping;
            }
            return None;
        }
        if now < self.next {
            return None;
        }
        self.next = now + PART;
        let elapsed = now.duration_since(self.begun);
        Some(elapsed.div_duration_f64(self.length))
    }

    /// All were shown.
    fn complete(&mut self, now: Instant, connections: usize) {
        self.begun = now;
        self.phase = match self.phase {
            _ if connections >= FEW => SweepPhase::Sweeping,
            SweepPhase::Sweeping => SweepPhase::Ending,
            SweepPhase::Ending | SweepPhase::Resting => SweepPhase::Resting,
        };
    }
}

impl Daemon {
    /// Shows the core the next snapshots, if it is time.
    pub(super) fn sweep(&mut self) {
        let now = Instant::now();
        let share = self.sweeps.share(now, self.core.len());
        self.core.expect_sweeps(self.sweeps.at_least_every());
        let Some(share) = share else {
            return;
        };
        let shown = self.snapshots.sweep(share, |facts| match facts {
            Ok(facts) => self.core.handle_swept(&facts),
            Err(error) => {
                self.undecodable += 1;
                log::warn!("a snapshot: {error}");
            }
        });
        match shown {
            Ok(()) if share >= 1.0 => {
                self.sweeps.complete(now, self.core.len());
                self.core.expect_sweeps(self.sweeps.at_least_every());
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
/// With a heartbeat every 30 s so many have some 20 deadlines a second, and a sweep has 4 parts.
const MANY: usize = 500;
const FEW: usize = MANY / 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_begin_with_many_connections_and_end_with_one_more_when_few_are_left() {
        let mut sweeps = Sweeps::of(&[]);
        let mut now = sweeps.begun;
        assert_eq!((sweeps.share(now, MANY), sweeps.due()), (None, None));
        assert_eq!(
            sweeps.share(now, MANY + 1),
            None,
            "the first part has to come"
        );
        let every = sweeps.at_least_every().expect("sweeps");
        let mut sweep = |sweeps: &mut Sweeps, connections| {
            loop {
                now = sweeps.due().expect("the next part");
                let share = sweeps.share(now, connections).expect("a part");
                if share >= 1.0 {
                    sweeps.complete(now, connections);
                    return now;
                }
            }
        };
        let first = sweep(&mut sweeps, FEW);
        assert!(
            sweeps.at_least_every().is_some(),
            "between few and many nothing changes"
        );
        let second = sweep(&mut sweeps, FEW - 1);
        assert!(second - first + PART <= every);
        assert_eq!(sweeps.at_least_every(), None, "one more is on its way");
        let last = sweep(&mut sweeps, FEW - 1);
        assert!(last > second);
        assert_eq!(sweeps.due(), None);
        assert_eq!(sweeps.share(now, FEW), None);
        assert_eq!(sweeps.share(now, MANY + 1), None);
        assert!(sweeps.at_least_every().is_some());
    }
}
