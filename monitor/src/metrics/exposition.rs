//! What a scraper gets, in each of its formats.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use prometheus::{TEXT_FORMAT, TextEncoder};

use super::{
    FamilyBuilder, Scrape, connections, families::Family, frames, handshakes, health, openmetrics,
    process, storms, tcp, verdicts,
};
use crate::records::Now;
use monitor_core::Ktime;

/// A format of the exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The value of the header `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => TEXT_FORMAT,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The metrics server's figures about its own work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerFigures {
    /// How long the last exposition took, from its request to its text.
    pub last_scrape: Option<Duration>,
    /// Changes of the web configuration that could not be applied; `None` without such a file.
    pub web_config_failures: Option<u64>,
}

/// All metric families of one moment.
#[derive(Clone, Debug)]
pub struct Exposition {
    families: Vec<Family>,
    /// When the process started, and with it most series.
    started: Timestamp,
    /// Converts the beginnings of the others.
    clocks: Now,
}

impl Exposition {
    pub fn of(scrape: &Scrape<'_>) -> Self {
        let mut families = Vec::new();
        connections::families(scrape, &mut families);
        handshakes::families(scrape, &mut families);
        storms::families(scrape, &mut families);
        verdicts::families(scrape, &mut families);
        frames::families(scrape, &mut families);
        tcp::families(scrape, &mut families);
        health::families(scrape, &mut families);
        if let Some(process) = scrape.process {
            process::families(process, &mut families);
        }
        Self {
            families,
            started: scrape.started,
            clocks: scrape.clocks,
        }
    }

    /// Adds the metrics server's figures about its own work.
    pub fn with_server(mut self, server: &ServerFigures) -> Self {
        let mut duration = FamilyBuilder::gauge(
            "scrape_duration_seconds",
            "How long the last scrape before this one took, from its request to its text.",
        );
        if let Some(last) = server.last_scrape {
            duration.add(&[], last.as_secs_f64());
        }
        let mut failures = FamilyBuilder::counter(
            "web_config_failures_total",
            "Changes of the web configuration that could not be applied.",
        );
        if let Some(count) = server.web_config_failures {
            failures.add(&[], count as f64);
        }
        self.families
            .extend([duration, failures].map(FamilyBuilder::finish));
        self
    }

    /// The text in this format. A family without a series (no hop configured, nothing closed yet) has no
    /// text.
    ///
    /// # Errors
    ///
    /// If a family has no name.
    pub fn encode(mut self, format: Format) -> Result<String, prometheus::Error> {
        self.families
            .retain(|family| !family.proto.get_metric().is_empty());
        match format {
            Format::Text => {
                let families: Vec<_> = self.families.into_iter().map(|it| it.proto).collect();
                TextEncoder::new().encode_to_string(&families)
            }
            Format::OpenMetrics => {
                let created =
                    |since: Option<Ktime>| since.map_or(self.started, |at| self.later(at));
                Ok(openmetrics::encode(&self.families, created))
            }
        }
    }

    /// Converts a moment since the start.
    fn later(&self, at: Ktime) -> Timestamp {
        let after = SignedDuration::try_from(at.since(self.clocks.at)).unwrap_or_default();
        self.clocks
            .ts
            .saturating_add(after)
            .unwrap_or(self.clocks.ts)
    }
}
