//! The configuration file: its content, and its problems by line and column.
//!
//! [`Config::parse`] has two steps. `reading.rs` reads the shape (`file.rs`) and goes on without what it
//! cannot read. `build.rs` then checks the values against each other. All problems are reported at once.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::config::{
    alert_format::AlertFormat, endpoint::Endpoint, listeners::ListenerConfig,
    metrics_address::MetricsAddress,
};
use monitor_core::reap::ReapSettings;

pub mod alert_format;
mod build;
pub mod endpoint;
mod file;
pub mod listeners;
pub mod metrics_address;
mod problem;
pub mod profiles;
mod reading;
mod value;
#[cfg(feature = "daemon")]
pub mod web_config;

pub(crate) use value::Limit;
#[cfg(feature = "daemon")]
pub(crate) use value::{instance, max_connections, max_workloads};

pub use problem::{Problem, Problems};

/// The default address of the metrics server. The port stands for RFC 6455.
pub const DEFAULT_METRICS_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6455);

/// Where the kubelet keeps the logs of pods.
pub const DEFAULT_POD_LOGS: &str = "/var/log/pods";

/// A valid file that shows every key.
pub const EXAMPLE: &str = include_str!("../../deploy/wsmon.toml");

/// The content of a valid file. `None` where the file has no value: then flags and defaults decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    pub daemon: DaemonTable,
    pub alerts: Alerts,
    pub reap: ReapSettings,
    pub privacy: Privacy,
    /// In the order of the file.
    pub listeners: Vec<ListenerConfig>,
    /// Probable mistakes in a valid file.
    pub warnings: Vec<Problem>,
}

/// `[daemon]`: keys named after the flags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DaemonTable {
    /// Empty without the key.
    #[serde(deserialize_with = "value::metrics_addresses")]
    pub metrics_addr: Vec<MetricsAddress>,
    /// Whether the page at `/` of these addresses shows the state of the daemon.
    pub status_page: bool,
    /// Who may read the metrics, in the format that Prometheus' exporters share.
    pub web_config: Option<PathBuf>,
    /// A path, or `none`.
    pub control: Option<PathBuf>,
    /// Where learned state is kept.
    pub state: Option<PathBuf>,
    pub cgroup: Option<PathBuf>,
    /// Where the kubelet keeps the logs of pods.
    pub pod_logs: Option<PathBuf>,
    /// Whether metrics of connections have the labels of their workload.
    pub workload_labels: bool,
    #[serde(deserialize_with = "value::workloads")]
    pub max_workloads: Option<u16>,
    /// A file, or `-` for stderr.
    pub access_log: Option<String>,
    #[serde(deserialize_with = "value::connections")]
    pub max_connections: Option<u32>,
}

/// `[alerts]`: destinations of alerts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alerts {
    /// A file, or `-` for stderr.
    pub log: Option<String>,
    pub format: Option<AlertFormat>,
    /// Base addresses of Alertmanagers.
    #[serde(deserialize_with = "value::urls")]
    pub alertmanager: Vec<Endpoint>,
    /// The name of this host in alerts.
    #[serde(deserialize_with = "value::instance_name")]
    pub instance: Option<String>,
    /// URLs to which each alert is posted.
    #[serde(deserialize_with = "value::urls")]
    pub webhook: Vec<Endpoint>,
}

/// `[privacy]`: personal data that alerts and the access log may contain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Privacy {
    /// The client's address as the load balancer forwards it.
    pub client_address: bool,
    /// The text of handshakes, in the access log.
    pub access_log_handshake: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// On one line: the first problem, and the number of further ones.
    #[error("{}:{problems}", path.display())]
    Wrong { path: PathBuf, problems: Problems },
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Unreadable`], or [`ConfigError::Wrong`] with all its problems.
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

    /// Parses the text of a file.
    ///
    /// # Errors
    ///
    /// All problems of the file; only those of its syntax if it is not TOML.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let reading = reading::read(text)?;
        build::config(text, reading)
    }
}

#[cfg(test)]
mod tests;
