//! The shape of the file, with the position of every value that later checks may refuse.

use serde::Deserialize;
use toml::Spanned;

use super::{
    Alerts, DaemonTable, Privacy,
    value::{Limit, Network, Ports},
};
use monitor_core::{
    OnExpiry,
    hop::{Activity, Directions},
    reap::ReapSettings,
};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) daemon: DaemonTable,
    pub(super) alerts: Alerts,
    pub(super) reap: ReapSettings,
    pub(super) privacy: Privacy,
    pub(super) listener: Vec<ListenerTable>,
}

/// `[[listener]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenerTable {
    pub(super) name: Option<Spanned<String>>,
    pub(super) ports: Spanned<Vec<Spanned<Ports>>>,
    #[serde(default)]
    pub(super) remote: bool,
    pub(super) ping_timeout: Option<Limit>,
    pub(super) unresponsive_floor: Option<Limit>,
    pub(super) message_gap: Option<Limit>,
    #[serde(default)]
    pub(super) path: Vec<Spanned<HopTable>>,
    #[serde(default)]
    pub(super) route: Vec<RouteTable>,
}

/// `[[listener.route]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteTable {
    pub(super) network: Spanned<Network>,
    pub(super) path: Vec<Spanned<HopTable>>,
}

/// An element of a `path`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HopTable {
    pub(super) profile: Option<Spanned<String>>,
    pub(super) name: Option<Spanned<String>>,
    pub(super) idle_timeout: Option<Spanned<Limit>>,
    pub(super) activity: Option<Activity>,
    pub(super) direction: Option<Directions>,
    pub(super) on_expiry: Option<OnExpiry>,
    pub(super) max_lifetime: Option<Limit>,
}
