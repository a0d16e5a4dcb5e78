//! The state of the daemon, for `/v1/status`.

use jiff::Timestamp;

use super::Daemon;
use crate::{
    kernel::{bpf::maps::MapAccessError, clock, host::kernel_release},
    metrics::{LossFigure, Losses},
    records::status::{ListenerStatus, LossCount, StatusRecord},
};
use monitor_core::{Ktime, tally::Turnover};

impl Daemon {
    /// The state with all listeners, or with the one of this name.
    pub(super) fn status(
        &mut self,
        listener: Option<&str>,
    ) -> Result<StatusRecord, MapAccessError> {
        let (losses, stats) = self.read_counts()?;
        let turnovers = stats.iter().map(Turnover::of);
        let counts = self.core.tallies().into_iter().zip(turnovers);
        let listeners = self
            .listeners
            .iter()
            .zip(counts)
            .zip(self.core.storm_phases());
        let listeners = listeners
            .filter(|((config, _), _)| listener.is_none_or(|name| config.rules.name == name))
            .map(|((config, (tally, turnover)), storm)| {
                ListenerStatus::new(config, tally, &turnover, storm)
            });
        Ok(StatusRecord::new(
            Timestamp::now(),
            kernel_release(),
            self.started_at.elapsed(),
            listeners.collect(),
            self.loss_counts(&losses, clock::now()),
        ))
    }

    /// The losses that occurred, without those of live viewers, which get them themselves.
    fn loss_counts(&self, losses: &Losses, now: Ktime) -> Vec<LossCount> {
        let before = self.housekeeping.degradation.before(now);
        let figures = |losses: &Losses| losses.events().into_iter().chain(losses.untracked());
        let counts = figures(losses).zip(figures(before));
        counts
            .filter(|(figure, _)| figure.count > 0 && figure.ring != "samples")
            .map(
                |(
                    LossFigure {
                        ring,
                        reason,
                        count,
                    },
                    before,
                )| LossCount {
                    ring: ring.to_owned(),
                    reason: reason.to_owned(),
                    total: count,
                    last_five_minutes: count.saturating_sub(before.count),
                },
            )
            .collect()
    }
}
