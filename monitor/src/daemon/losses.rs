//! Counts losses, and how long they mark the daemon as degraded.

use std::{array, collections::VecDeque, time::Duration};

use monitor_common::drop_reason::DropReason;

use super::Daemon;
use crate::{kernel::clock, metrics::Losses};
use monitor_core::{Event, Ktime};

/// How long a loss keeps `wsmon_degraded` at 1.
const DEGRADED_FOR: Duration = Duration::from_secs(300);

/// Losses within this time are counted together.
const SAME_LOSS: Duration = Duration::from_secs(10);

impl Daemon {
    /// Reports to the core the vitals for which the ring had no room.
    pub(super) fn notice_losses(&mut self) -> Losses {
        let losses = self.losses();
        if self.housekeeping.degradation.new_vitals_lost(&losses) {
            let at = clock::now();
            self.core.handle_event(Event::Lost { at });
        }
        self.housekeeping.degradation.update(&losses, clock::now());
        losses
    }

    fn losses(&self) -> Losses {
        Losses {
            kernel: array::from_fn(|index| {
                self.housekeeping
                    .drops
                    .read(DropReason::ALL[index])
                    .unwrap_or_else(|error| {
                        log::warn!("cannot read the drop counters: {error}");
                        0
                    })
            }),
            untracked_at_start: self.intake.untracked_at_start,
            undecodable: self.intake.undecodable + self.core.rejected(),
            unreported_ends: self.intake.reconciler.unreported_ends(),
            undecodable_handshakes: self.intake.undecodable_handshakes,
            undelivered: self.outputs.sinks.undelivered(),
            access_log: self.outputs.lost_lines(),
        }
    }
}

/// Records what was lost, and when.
#[derive(Debug, Default)]
pub(super) struct Degradation {
    seen: Losses,
    vitals_reported: u64,
    /// The losses of about the last five minutes, oldest first; at most one for each [`SAME_LOSS`], and
    /// one more.
    recent: VecDeque<RecentLoss>,
}

/// Losses within [`SAME_LOSS`].
#[derive(Debug)]
struct RecentLoss {
    first: Ktime,
    last: Ktime,
    /// What had been lost before them.
    before: Losses,
}

impl Degradation {
    fn update(&mut self, losses: &Losses, now: Ktime) {
        if losses.total() <= self.seen.total() {
            return;
        }
        let before = std::mem::replace(&mut self.seen, losses.clone());
        self.recent.retain(|loss| loss.is_recent(now));
        match self.recent.back_mut() {
            Some(loss) if now.since(loss.first) < SAME_LOSS => loss.last = now,
            _ => self.recent.push_back(RecentLoss {
                first: now,
                last: now,
                before,
            }),
        }
    }

    /// Whether vitals were lost since the last call.
    fn new_vitals_lost(&mut self, losses: &Losses) -> bool {
        let lost = losses.kernel[DropReason::VitalsFull as usize];
        lost > std::mem::replace(&mut self.vitals_reported, lost)
    }

    pub(super) fn is_degraded(&self, now: Ktime) -> bool {
        self.recent.iter().any(|loss| loss.is_recent(now))
    }

    /// What had been lost five minutes before `now`, of the losses known at the last update. It may be too
    /// little by what was lost in [`SAME_LOSS`] before that.
    pub(super) fn before(&self, now: Ktime) -> &Losses {
        let mut recent = self.recent.iter();
        let first = recent.find(|loss| loss.is_recent(now));
        first.map_or(&self.seen, |loss| &loss.before)
    }
}

impl RecentLoss {
    fn is_recent(&self, now: Ktime) -> bool {
        now.since(self.last) < DEGRADED_FOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degraded_rises_with_a_loss_and_falls_five_minutes_after_the_last() {
        let mut degradation = Degradation::default();
        let mut losses = Losses::default();
        let start = Ktime(1_000_000_000);
        degradation.update(&losses, start);
        assert!(!degradation.is_degraded(start));
        losses.kernel[DropReason::SnapshotsFull as usize] = 1;
        degradation.update(&losses, start);
        degradation.update(&losses, start + Duration::from_secs(299));
        assert!(degradation.is_degraded(start + Duration::from_secs(299)));
        assert!(!degradation.is_degraded(start + Duration::from_secs(300)));
    }

    #[test]
    fn losses_of_the_last_five_minutes_are_known_apart_and_take_bounded_memory() {
        let mut degradation = Degradation::default();
        let mut losses = Losses::default();
        let start = Ktime(1_000_000_000);
        let second = |seconds| start + Duration::from_secs(seconds);
        for now in 0..1_000 {
            losses.undecodable += 1;
            degradation.update(&losses, second(now));
            let recent = losses.undecodable - degradation.before(second(now)).undecodable;
            let exact = (now + 1).min(300);
            assert!((exact..exact + 10).contains(&recent), "{now}: {recent}");
        }
        assert!(
            degradation.recent.len() <= 31,
            "{}",
            degradation.recent.len()
        );
        assert_eq!(degradation.before(second(1_299)), &losses, "forgotten");
    }

    #[test]
    fn a_lost_vital_is_reported_to_the_core_once() {
        let mut degradation = Degradation::default();
        let mut losses = Losses::default();
        losses.kernel[DropReason::VitalsFull as usize] = 5;
        assert!(degradation.new_vitals_lost(&losses));
        assert!(!degradation.new_vitals_lost(&losses));
    }
}
