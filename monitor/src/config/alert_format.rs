//! The format of the alert log.

use clap::ValueEnum;
use serde::Deserialize;

/// How the alert log writes an alert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AlertFormat {
    /// Text if the log is stderr and stderr is a terminal, otherwise JSON
    #[default]
    Auto,
    /// One JSON object per line
    Json,
    /// One line of text for people
    Text,
}
