//! Schedules the writes of learned state to the state file.

use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinHandle};

use super::finished;
use crate::daemon::state::StateFile;
use monitor_core::{Correlator, storm::Baseline};

/// Writes in the background, because a disk may be slow.
#[derive(Debug)]
pub(super) struct StateWriter {
    /// `None` during a write, and without a state file.
    file: Option<StateFile>,
    writing: Option<JoinHandle<StateFile>>,
    next: Instant,
}

impl StateWriter {
    pub(super) fn new(file: Option<StateFile>) -> Self {
        Self {
            file,
            writing: None,
            next: Instant::now() + WRITE_INTERVAL,
        }
    }

    /// The time of the next write; `None` without a state file or during a write.
    pub(super) fn due(&self) -> Option<Instant> {
        self.file.as_ref().map(|_| self.next)
    }

    /// Waits for the current write; pends forever if there is none.
    pub(super) async fn written(&mut self) -> Result<StateFile, JoinError> {
        finished(&mut self.writing).await
    }

    pub(super) fn finish_write(&mut self, written: Result<StateFile, JoinError>) {
        self.writing = None;
        match written {
            Ok(file) => self.file = Some(file),
            Err(error) => log::error!("stopped writing the state file: {error}"),
        }
    }

    fn begin(&mut self, learned: Vec<(String, Baseline)>) {
        self.next = Instant::now() + WRITE_INTERVAL;
        if let Some(mut file) = self.file.take() {
            self.writing = Some(tokio::task::spawn_blocking(move || {
                file.keep(learned.iter().map(|(name, base)| (name.as_str(), *base)));
                file
            }));
        }
    }

    pub(super) fn write(&mut self, core: &Correlator) {
        let learned = core.baselines();
        let learned = learned.map(|(name, baseline)| (name.to_owned(), baseline));
        self.begin(learned.collect());
    }

    /// Writes the state for the last time.
    pub(super) async fn write_final(&mut self, core: &Correlator) {
        if self.writing.is_some() {
            let written = self.written().await;
            self.finish_write(written);
        }
        if let Some(file) = &mut self.file {
            file.keep(core.baselines());
        }
    }
}

const WRITE_INTERVAL: Duration = Duration::from_secs(60);
