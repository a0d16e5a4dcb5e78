//! Sweeps over the snapshots, one part at a time, so that each snapshot is read at equal intervals.

use std::time::{Duration, Instant};

use super::intake::Intake;
use crate::config::listeners::ListenerConfig;
use monitor_core::Correlator;

/// The schedule of the sweeps. With few connections there are none: each connection has its own
/// deadline, and the daemon sleeps until the first.
#[derive(Debug)]
pub(super) struct Sweeps {
    /// The duration of one sweep.
    length: Duration,
    /// When the current sweep began.
    begun: Instant,
    /// When the next part is due.
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
    /// Chooses the longest sweep in which no connection with a heartbeat at half of its limit reaches a
    /// deadline between two readings. A single ping must be seen within the ping timeout.
    pub(super) fn of(listeners: &[ListenerConfig]) -> Self {
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

    /// Maximum time between two readings of a snapshot: one sweep, two of its parts, and some delay.
    fn at_least_every(&self) -> Option<Duration> {
        (self.phase == SweepPhase::Sweeping).then(|| self.length + DELAY)
    }

    /// When the next part is due.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.phase != SweepPhase::Resting).then_some(self.next)
    }

    /// The share of the snapshots, from 0 to 1, that should be read by now. Begins a sweep if there are
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

    /// Handles the end of a sweep.
    fn complete(&mut self, now: Instant, connections: usize) {
        self.begun = now;
        self.phase = match self.phase {
            _ if connections >= FEW => SweepPhase::Sweeping,
            SweepPhase::Sweeping => SweepPhase::Ending,
            SweepPhase::Ending | SweepPhase::Resting => SweepPhase::Resting,
        };
    }
}

impl Intake {
    /// Feeds the next snapshots to the core if a part is due.
    pub(super) fn sweep(&mut self, core: &mut Correlator) {
        let now = Instant::now();
        let share = self.sweeps.share(now, core.len());
        core.expect_sweeps(self.sweeps.at_least_every());
        let Some(share) = share else {
            return;
        };
        let shown = self.snapshots.sweep(share, |facts| match facts {
            Ok(facts) => core.handle_swept(&facts),
            Err(error) => {
                self.undecodable += 1;
                log::warn!("a snapshot: {error}");
            }
        });
        match shown {
            Ok(()) if share >= 1.0 => {
                self.sweeps.complete(now, core.len());
                core.expect_sweeps(self.sweeps.at_least_every());
                self.snapshots.restart_sweep();
            }
            Ok(()) => {}
            Err(error) => log::warn!("cannot sweep the snapshots, will try again: {error}"),
        }
    }
}

/// The shortest sweep. Under limits too short for it, a connection still gets its own deadline.
const FASTEST: Duration = Duration::from_secs(5);
const SLOWEST: Duration = Duration::from_secs(60);
/// Interval between two parts of a sweep. Of a million connections one part reads about 12,000, in 10
/// ms.
const PART: Duration = Duration::from_millis(250);
const DELAY: Duration = Duration::from_millis(1_250);
/// At a heartbeat every 30 s, this many connections have about 20 deadlines a second; a sweep has 4
/// parts a second.
const MANY: usize = 500;
const FEW: usize = MANY / 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_begin_with_many_connections_and_one_more_runs_when_few_are_left() {
        let mut sweeps = Sweeps::of(&[]);
        let mut now = sweeps.begun;
        assert_eq!((sweeps.share(now, MANY), sweeps.due()), (None, None));
        assert_eq!(
            sweeps.share(now, MANY + 1),
            None,
            "the first part is still due"
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
            "nothing changes between few and many"
        );
        let second = sweep(&mut sweeps, FEW - 1);
        assert!(second - first + PART <= every);
        assert_eq!(sweeps.at_least_every(), None, "the last sweep is running");
        let last = sweep(&mut sweeps, FEW - 1);
        assert!(last > second);
        assert_eq!(sweeps.due(), None);
        assert_eq!(sweeps.share(now, FEW), None);
        assert_eq!(sweeps.share(now, MANY + 1), None);
        assert!(sweeps.at_least_every().is_some());
    }
}
