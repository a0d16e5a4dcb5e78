//! All outputs: the alert log, the Alertmanagers, the webhooks.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
};

use super::{alertmanager::Alertmanagers, delivery::Undelivered, webhook::Webhook};
use crate::{
    config::{alert_format::AlertFormat, endpoint::Endpoint, metrics_address::MetricsUrl},
    diagnostics::color::{self, Color},
    logs::line_log::{LineLog, LogTarget, LostLines},
    records::{
        Now,
        alert::AlertRecord,
        alert_text::{AlertLine, AlertText},
    },
};
use monitor_core::Alert;

/// Lines of the alert log that may wait for a slow reader.
const WAITING_LINES: usize = 4096;

/// Where alerts go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkSettings {
    pub alert_log: LogTarget,
    pub alert_format: AlertFormat,
    pub alertmanagers: Vec<Endpoint>,
    /// The name of this host in alerts; `None` for that of the kernel.
    pub instance: Option<String>,
    pub webhooks: Vec<Endpoint>,
    /// Where metrics are served, if anywhere. Alertmanager shows it as an alert's source.
    pub metrics_url: Option<MetricsUrl>,
}

/// How the alert log writes a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineForm {
    Json,
    /// For a file, which may span days.
    DatedText,
    Text,
    /// The title has the colour of its certainty.
    ColoredText,
}

impl LineForm {
    fn new(format: AlertFormat, target: &LogTarget) -> Self {
        let is_terminal = *target == LogTarget::Stderr && io::stderr().is_terminal();
        match format {
            AlertFormat::Json => Self::Json,
            AlertFormat::Auto if !is_terminal => Self::Json,
            AlertFormat::Text if !is_terminal => Self::DatedText,
            AlertFormat::Auto | AlertFormat::Text => match color::is_wanted(&io::stderr()) {
                true => Self::ColoredText,
                false => Self::Text,
            },
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::DatedText | Self::Text | Self::ColoredText => "text",
        }
    }

    /// The line for an alert in JSON.
    fn of(self, json: &str) -> String {
        if self == Self::Json {
            return json.to_owned();
        }
        // A line that cannot be parsed is still worth reading.
        let Ok(alert) = AlertLine::parse(json.as_bytes()) else {
            return json.to_owned();
        };
        let text = match self {
            Self::DatedText => format!("{:#}", AlertText(&alert)),
            _ => AlertText(&alert).to_string(),
        };
        let certainty = alert.certainty.as_deref().filter(|_| {
            // The end of an alert needs no attention.
            self == Self::ColoredText && alert.status == "firing"
        });
        match certainty.and_then(Color::of_certainty) {
            Some(color) => {
                let title = alert.title();
                text.replacen(&title, &color.paint(&title), 1)
            }
            None => text,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error("cannot write the alert log {}: {source}", path.display())]
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
    form: LineForm,
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
        let alertmanagers = Alertmanagers::start(
            &settings.alertmanagers,
            settings.instance.as_deref(),
            settings.metrics_url,
        )
        .map_err(SinkError::Thread)?;
        let webhooks = settings.webhooks.iter().map(Webhook::start);
        let form = LineForm::new(settings.alert_format, target);
        log::info!("alerts go to {target} as {}", form.as_str());
        for receiver in settings.alertmanagers.iter().chain(&settings.webhooks) {
            log::info!("alerts go to {receiver}");
        }
        Ok(Self {
            log,
            form,
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
        self.log.write(self.form.of(&line));
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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::records::alert;

    #[test]
    fn the_title_of_a_firing_alert_has_the_color_of_its_certainty() {
        let record = |alert: &Alert| {
            let record = AlertRecord::new(alert, "8080", Timestamp::UNIX_EPOCH);
            record.to_json().expect("JSON")
        };
        let firing = record(&alert::tests::alert().into());
        assert_eq!(LineForm::Json.of(&firing), firing);
        let plain = LineForm::Text.of(&firing);
        let start = "00:00:00 suspected zombie/expired [fd00::1]:5000";
        assert!(plain.starts_with(start), "{plain}");
        let colored = LineForm::ColoredText.of(&firing);
        let start = "00:00:00 \x1b[33msuspected zombie/expired\x1b[0m [fd00::1]:5000";
        assert!(colored.starts_with(start), "{colored}");
        assert_eq!(LineForm::ColoredText.of("no JSON"), "no JSON");
    }

    #[test]
    fn only_a_terminal_or_a_flag_makes_text() {
        let form = |format, log| LineForm::new(format, &LogTarget::parse(log));
        assert_eq!(form(AlertFormat::Text, "/a"), LineForm::DatedText);
        assert_eq!(form(AlertFormat::Json, "-"), LineForm::Json);
        assert_eq!(form(AlertFormat::Auto, "/a"), LineForm::Json);
        let is_json = form(AlertFormat::Auto, "-") == LineForm::Json;
        assert_eq!(is_json, !io::stderr().is_terminal());
    }
}
