//! All outputs: the alert log, the Alertmanagers, the webhooks.

use std::{io, net::SocketAddr, path::PathBuf};

use super::{alertmanager::Alertmanagers, delivery::Undelivered, webhook::Webhook};
use crate::{
    config::endpoint::Endpoint,
    logs::line_log::{LineLog, LogTarget, LostLines},
    records::{Now, alert::AlertRecord},
};
use monitor_core::Alert;

/// Lines of the alert log that may wait for a slow reader.
const WAITING_LINES: usize = 4096;

/// Where alerts go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkSettings {
    pub alert_log: LogTarget,
    pub alertmanagers: Vec<Endpoint>,
    pub webhooks: Vec<Endpoint>,
    /// The metrics server's address, which Alertmanager shows as an alert's source.
    pub metrics_addr: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error("cannot write --alert-log {}: {source}", path.display())]
    AlertLog { path: PathBuf, source: io::Error },
    #[error("cannot start a thread for alerts: {0}")]
    Thread(#[source] io::Error),
}

/// Alerts that a sink did not deliver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UndeliveredAlerts {
    /// Of the alert log. An alert that could not be serialized is missing for the webhooks too.
    pub lines: LostLines,
    pub alertmanager: Undelivered,
    pub webhook: Undelivered,
}

impl UndeliveredAlerts {
    pub fn total(self) -> u64 {
        self.lines.total() + self.alertmanager.total() + self.webhook.total()
    }
}

/// Each output has its own threads, so that none blocks the daemon or another output.
#[derive(Debug)]
pub struct Sinks {
    log: LineLog,
    alertmanagers: Alertmanagers,
    webhooks: Vec<Webhook>,
    lines_unencodable: u64,
}

impl Sinks {
    /// Opens the alert log and starts the threads. Does not check whether a receiver responds.
    pub fn open(settings: &SinkSettings) -> Result<Self, SinkError> {
        let target = &settings.alert_log;
        let log = LineLog::open("alert log", target, WAITING_LINES).map_err(|source| {
            let path = target.path().to_owned();
            SinkError::AlertLog { path, source }
        })?;
        let alertmanagers = Alertmanagers::start(&settings.alertmanagers, settings.metrics_addr)
            .map_err(SinkError::Thread)?;
        let webhooks = settings.webhooks.iter().map(Webhook::start);
        Ok(Self {
            log,
            alertmanagers,
            webhooks: webhooks
                .collect::<io::Result<_>>()
                .map_err(SinkError::Thread)?,
            lines_unencodable: 0,
        })
    }

    /// Passes every alert, ungrouped, to the outputs that hold state. `listener` is the name of its
    /// listener.
    pub fn follow(&mut self, alert: &Alert, listener: &str, now: &Now) {
        self.alertmanagers.follow(alert, listener, now);
    }

    /// Passes an alert, grouped, to the line-based outputs. Returns its line, without a newline; `None`
    /// if it cannot be serialized.
    pub fn emit(&mut self, alert: &Alert, listener: &str, now: &Now) -> Option<String> {
        let ts = now.wall_clock(alert.at);
        let line = match AlertRecord::new(alert, listener, ts).to_json() {
            Ok(line) => line,
            Err(error) => {
                log::error!("an alert on {listener} can't be written as JSON: {error}");
                self.lines_unencodable += 1;
                return None;
            }
        };
        for webhook in &mut self.webhooks {
            webhook.send(line.clone());
        }
        self.log.write(line.clone());
        Some(line)
    }

    /// See [`LineLog::reopen`].
    pub fn reopen(&self) {
        self.log.reopen();
    }

    pub fn undelivered(&self) -> UndeliveredAlerts {
        UndeliveredAlerts {
            lines: LostLines {
                unencodable: self.lines_unencodable,
                ..self.log.lost()
            },
            alertmanager: self.alertmanagers.undelivered(),
            webhook: self.webhooks.iter().map(Webhook::undelivered).sum(),
        }
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        // Close all at once, so that draining all queues takes no longer than draining one.
        self.log.close();
        self.alertmanagers.close();
        self.webhooks.iter_mut().for_each(Webhook::close);
    }
}
