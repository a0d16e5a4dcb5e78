//! Counts losses, and how long they mark the daemon as degraded.

use std::{array, time::Duration};

use monitor_common::drop_reason::DropReason;

use super::Daemon;
use crate::{kernel::clock, metrics::Losses};
use monitor_core::{Event, Ktime};

/// How long a loss keeps `wsmon_degraded` at 1.
const DEGRADED_FOR: Duration = Duration::from_secs(300);

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

/// Records what was lost, and when last.
#[derive(Debug, Default)]
pub(super) struct Degradation {
    seen: Losses,
    vitals_reported: u64,
    last_loss: Option<Ktime>,
}

impl Degradation {
    fn update(&mut self, losses: &Losses, now: Ktime) {
        if losses.total() > self.seen.total() {
            self.last_loss = Some(now);
            self.seen = losses.clone();
        }
    }

    /// Whether vitals were lost since the last call.
    fn new_vitals_lost(&mut self, losses: &Losses) -> bool {
        let lost = losses.kernel[DropReason::VitalsFull as usize];
        lost > std::mem::replace(&mut self.vitals_reported, lost)
    }

    pub(super) fn is_degraded(&self, now: Ktime) -> bool {
        self.last_loss
            .is_some_and(|last| now.since(last) < DEGRADED_FOR)
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
    fn a_lost_vital_is_reported_to_the_core_once() {
        let mut degradation = Degradation::default();
        let mut losses = Losses::default();
        losses.kernel[DropReason::VitalsFull as usize] = 5;
        assert!(degradation.new_vitals_lost(&losses));
        assert!(!degradation.new_vitals_lost(&losses));
    }
}
