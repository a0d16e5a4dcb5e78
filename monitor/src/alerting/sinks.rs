//! All outputs: the alert log, the Alertmanagers, the webhooks.

use std::{io, net::SocketAddr, path::PathBuf};

use super::{
    alert_log::{AlertLog, LogTarget},
    alertmanager::Alertmanagers,
    delivery::Undelivered,
    webhook::Webhook,
};
use crate::{
    config::endpoint::Endpoint,
    records::{Now, alert::AlertRecord},
};
use monitor_core::Alert;

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
    /// Lines of the alert log dropped because of a slow reader.
    pub lines_full: u64,
    /// Lines of the alert log that could not be written.
    pub lines_unwritten: u64,
    /// Alerts that could not be serialized, for the log or the webhooks.
    pub lines_unencodable: u64,
    pub alertmanager: Undelivered,
    pub webhook: Undelivered,
}

impl UndeliveredAlerts {
    pub fn total(self) -> u64 {
        let lines = self.lines_full + self.lines_unwritten + self.lines_unencodable;
        lines + self.alertmanager.total() + self.webhook.total()
    }
}

/// Each output has its own threads, so that none blocks the daemon or another output.
#[derive(Debug)]
pub struct Sinks {
    log: AlertLog,
    alertmanagers: Alertmanagers,
    webhooks: Vec<Webhook>,
    lines_unencodable: u64,
}

impl Sinks {
    /// Opens the alert log and starts the threads. Does not check whether a receiver responds.
    pub fn open(settings: &SinkSettings) -> Result<Self, SinkError> {
        let log = AlertLog::open(&settings.alert_log).map_err(|source| {
            let path = match &settings.alert_log {
                LogTarget::Stderr => PathBuf::from("-"),
                LogTarget::File(path) => path.clone(),
            };
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

    /// Passes an alert, grouped, to the line-based outputs.
    pub fn emit(&mut self, alert: &Alert, listener: &str, now: &Now) {
        let ts = now.wall_clock(alert.at);
        let line = match AlertRecord::new(alert, listener, ts).to_json() {
            Ok(line) => line,
            Err(error) => {
                log::error!("an alert on {listener} can't be written as JSON: {error}");
                self.lines_unencodable += 1;
                return;
            }
        };
        for webhook in &mut self.webhooks {
            webhook.send(line.clone());
        }
        self.log.write(line);
    }

    /// See [`AlertLog::reopen`].
    pub fn reopen(&self) {
        self.log.reopen();
    }

    pub fn undelivered(&self) -> UndeliveredAlerts {
        UndeliveredAlerts {
            lines_full: self.log.full(),
            lines_unwritten: self.log.unwritten(),
            lines_unencodable: self.lines_unencodable,
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
