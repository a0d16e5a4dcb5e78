//! Work with its own schedule: counts, learned state, aborts, losses.

use tokio::task::JoinError;

use super::{
    DaemonError, losses::Degradation, reaper::Reaping, sleep_until, state::StateFile,
    state_writer::StateWriter, stats_poll::StatsPoll,
};
use crate::{
    config::listeners::ListenerConfig,
    kernel::bpf::{
        loader::Loaded,
        maps::{Drops, Stats},
    },
};
use monitor_core::{Correlator, reap::ReapSettings};

/// Work with its own schedule.
pub(super) struct Housekeeping {
    pub(super) stats_poll: StatsPoll,
    pub(super) state_writer: StateWriter,
    pub(super) reaping: Reaping,
    pub(super) drops: Drops,
    pub(super) degradation: Degradation,
}

/// Work that is due.
pub(super) enum Chore {
    ReadStats,
    WriteState,
    StateWritten(Result<StateFile, JoinError>),
}

impl Housekeeping {
    pub(super) fn take(
        loaded: &mut Loaded,
        listeners: &[ListenerConfig],
        reap: ReapSettings,
        state: Option<StateFile>,
    ) -> Result<Self, DaemonError> {
        Ok(Self {
            stats_poll: StatsPoll::new(Stats::take(loaded)?, listeners),
            state_writer: StateWriter::new(state),
            reaping: Reaping::new(reap)?,
            drops: Drops::take(loaded)?,
            degradation: Degradation::default(),
        })
    }

    pub(super) async fn next(&mut self) -> Chore {
        tokio::select! {
            () = sleep_until(Some(self.stats_poll.next)) => Chore::ReadStats,
            () = sleep_until(self.state_writer.due()) => Chore::WriteState,
            written = self.state_writer.written() => Chore::StateWritten(written),
        }
    }

    pub(super) fn handle(&mut self, chore: Chore, core: &mut Correlator, missed_ends: &[u64]) {
        match chore {
            Chore::ReadStats => self.stats_poll.poll(core, missed_ends),
            Chore::WriteState => self.state_writer.write(core),
            Chore::StateWritten(written) => self.state_writer.finish_write(written),
        }
    }
}
