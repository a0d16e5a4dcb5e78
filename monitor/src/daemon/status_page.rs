//! The status page: the state that it shows, and the minutes behind its charts.

use std::time::Instant;

use tokio::sync::oneshot;

use super::Daemon;
use crate::{
    api::page::{PageData, trend::Trend},
    kernel::clock,
};
use monitor_core::{Alert, Correlator};

/// The last hour of the listeners, and when its next minute ends. One timer a minute wakes the daemon.
pub(super) struct TrendRecorder {
    trend: Trend,
    due: Instant,
}

impl TrendRecorder {
    pub(super) fn new(listeners: usize) -> Self {
        Self {
            trend: Trend::new(listeners, clock::now()),
            due: Instant::now() + Trend::INTERVAL,
        }
    }

    /// When the minute ends.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    pub(super) fn handle_alert(&mut self, alert: &Alert, core: &Correlator) {
        if let Some(tally) = core.tally(alert.listener) {
            self.trend.handle_alert(alert, tally);
        }
    }
}

impl Daemon {
    /// Adds the minute that has ended to the hour.
    pub(super) fn end_minute(&mut self) {
        let status = self.status(None);
        let Some(recorder) = &mut self.trend else {
            return;
        };
        recorder.due = Instant::now() + Trend::INTERVAL;
        match status {
            Ok(status) => {
                let tallies = self.core.tallies();
                recorder
                    .trend
                    .end_minute(clock::now(), &status.listeners, &tallies);
            }
            Err(error) => log::warn!("the status page lacks a minute: {error}"),
        }
    }

    /// Without a response, the page says that the log has the reason.
    pub(super) fn respond_to_page(&mut self, reply: oneshot::Sender<Box<PageData>>) {
        let status = self.status(None);
        let Some(recorder) = &self.trend else {
            return;
        };
        match status {
            Ok(status) => {
                let tallies = self.core.tallies();
                let hours = recorder
                    .trend
                    .hours(clock::now(), &status.listeners, &tallies);
                // The requester may have gone.
                drop(reply.send(Box::new(PageData { status, hours })));
            }
            Err(error) => log::error!("cannot answer a request for the status page: {error}"),
        }
    }
}
