//! The configuration file: what it may say, and what is wrong with it, by line and column.
//!
//! [`Config::parse`] goes in two steps. serde and `toml` read the shape (`file.rs`) and stop at the first
//! thing that cannot be read; what can be read is then held against itself (`build.rs`), and everything
//! that makes no sense is reported at once.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{config::listeners::Listener, sink::endpoint::Endpoint};
use monitor_core::reap::ReapSettings;

mod build;
mod file;
pub mod listeners;
mod problem;
pub mod profiles;
mod value;

pub(crate) use value::Limit;

pub use problem::{Problem, Problems};

/// A file that shows every key, and is itself valid.
pub const EXAMPLE: &str = include_str!("../../deploy/wsmon.toml");

/// What a valid file says. `None` where it says nothing: flags and defaults decide then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    pub daemon: DaemonTable,
    pub alerts: Alerts,
    pub reap: ReapSettings,
    pub privacy: Privacy,
    /// In the order of the file.
    pub listeners: Vec<Listener>,
    /// What is allowed, and probably not meant.
    pub warnings: Vec<Problem>,
}

/// `[daemon]`: as the flags of the same names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DaemonTable {
    #[serde(deserialize_with = "value::address")]
    pub metrics_addr: Option<SocketAddr>,
    /// A path, or `none`.
    pub control: Option<PathBuf>,
    /// Where what was learned is kept.
    pub state: Option<PathBuf>,
    pub cgroup: Option<PathBuf>,
    #[serde(deserialize_with = "value::connections")]
    pub max_connections: Option<u32>,
}

/// `[alerts]`: where they go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alerts {
    /// A file, or `-` for stderr.
    pub log: Option<String>,
    /// Base addresses of Alertmanagers.
    #[serde(deserialize_with = "value::urls")]
    pub alertmanager: Vec<Endpoint>,
    /// Where each alert is posted.
    #[serde(deserialize_with = "value::urls")]
    pub webhook: Vec<Endpoint>,
}

/// `[privacy]`: what may leave the host in an alert.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Privacy {
    /// The client's address as the load balancer forwards it.
    pub client_address: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// On one line: the first problem, and how many there are besides.
    #[error("{}:{problems}", path.display())]
    Wrong { path: PathBuf, problems: Problems },
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`], or [`ConfigError::Wrong`] with everything that is wrong with it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).map_err(|problems| ConfigError::Wrong {
            path: path.to_owned(),
            problems,
        })
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// Everything that is wrong with it; if it cannot be read to the end, the first thing only.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let file =
            toml::from_str(text).map_err(|error| Problems::from(Problem::of_toml(text, &error)))?;
        build::config(text, file)
    }
}

#[cfg(test)]
mod tests;
