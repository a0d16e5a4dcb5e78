//! Builds the listeners from the parsed file.

use std::{ops::Range, time::Duration};

use monitor_common::listener::MAX_LISTENERS;
use toml::Spanned;

use super::{
    Config, Problem, Problems,
    file::{HopTable, ListenerTable, RouteTable},
    reading::Reading,
    value::Limit,
};
use crate::{
    config::{
        listeners::{ListenerConfig, PortRange, overlapping},
        profiles,
    },
    diagnostics::control_character::is_control_character,
};
use monitor_core::{
    Hop, ListenerRules, OnExpiry,
    hop::{Path, Route},
};

pub(super) fn config(text: &str, reading: Reading) -> Result<Config, Problems> {
    let Reading {
        file,
        problems,
        damaged,
    } = reading;
    let mut builder = Builder {
        text,
        damaged,
        listeners: Vec::new(),
        problems,
        warnings: Vec::new(),
    };
    for table in &file.listener {
        builder.listener(table);
    }
    if let Some(first_too_many) = file.listener.get(MAX_LISTENERS) {
        let message = format!(
            "{} listeners; one wsmon can watch {MAX_LISTENERS}, put ports with the same rules into \
             one",
            file.listener.len()
        );
        builder.wrong(first_too_many.ports.span(), message);
    }
    match Problems::of(builder.problems) {
        Some(problems) => Err(problems),
        None => Ok(Config {
            daemon: file.daemon,
            alerts: file.alerts,
            reap: file.reap,
            privacy: file.privacy,
            listeners: builder.listeners,
            warnings: builder.warnings,
        }),
    }
}

/// Names are printed on terminals, so they hold no control characters.
fn is_printable(name: &str) -> bool {
    !name.is_empty() && !name.contains(is_control_character)
}

fn invalid_name(name: &str) -> String {
    format!("invalid name {name:?}, expected printable characters: it is in metrics and alerts")
}

struct Builder<'a> {
    text: &'a str,
    /// See [`Reading::damaged`].
    damaged: Vec<Range<usize>>,
    listeners: Vec<ListenerConfig>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Builder<'_> {
    fn wrong(&mut self, at: Range<usize>, message: impl Into<String>) {
        if !self.damaged.contains(&at) {
            self.problems.push(Problem::new(self.text, at, message));
        }
    }

    fn warn(&mut self, at: Range<usize>, message: impl Into<String>) {
        self.warnings.push(Problem::new(self.text, at, message));
    }

    fn listener(&mut self, table: &ListenerTable) {
        let mut listener = ListenerConfig {
            rules: ListenerRules::new("", None),
            ports: self.ports(table),
            remote: table.remote,
        };
        listener.rules.name = self.name(table, &listener);
        listener.rules.path = self.path(&table.path);
        listener.rules.routes = self.routes(&table.route);
        if let Some(Limit(limit)) = table.ping_timeout {
            listener.rules.ping_timeout = limit;
        }
        if let Some(Limit(limit)) = table.unresponsive_floor {
            listener.rules.unresponsive_floor = limit;
        }
        listener.rules.message_gap = table.message_gap.map(|Limit(limit)| limit);
        self.listeners.push(listener);
    }

    fn ports(&mut self, table: &ListenerTable) -> Vec<PortRange> {
        let mut ports: Vec<PortRange> = Vec::new();
        for range in table.ports.get_ref() {
            let wanted = &range.get_ref().0;
            let here = ports.iter().find(|other| other.overlaps(wanted));
            let other = here.map(|other| (other, "above in this list".to_owned()));
            let other = other.or_else(|| {
                let (listener, other) = overlapping(&self.listeners, wanted, table.remote)?;
                Some((other, format!("of listener {:?}", listener.rules.name)))
            });
            match other {
                Some((other, whose)) => {
                    let message =
                        format!("ports {wanted} and {other} {whose} overlap; name each port once");
                    self.wrong(range.span(), message);
                }
                None => ports.push(wanted.clone()),
            }
        }
        if table.ports.get_ref().is_empty() {
            let message = "no ports; name one, like [\"8080\"]";
            self.wrong(table.ports.span(), message);
        }
        ports
    }

    fn name(&mut self, table: &ListenerTable, listener: &ListenerConfig) -> String {
        let (name, at) = match &table.name {
            Some(name) => (name.get_ref().clone(), name.span()),
            None => (listener.default_name(&self.listeners), table.ports.span()),
        };
        if table.name.is_some() && !is_printable(&name) {
            self.wrong(at, invalid_name(&name));
        } else if self.listeners.iter().any(|other| other.rules.name == name) {
            let message = format!("two listeners are called {name:?}; give this one another name");
            self.wrong(at, message);
        }
        name
    }

    fn routes(&mut self, tables: &[RouteTable]) -> Vec<Route> {
        let mut routes: Vec<Route> = Vec::new();
        for table in tables {
            let written = table.network.get_ref().0;
            let network = written.trunc();
            if written != network {
                let message = format!("{written} means all of {network}");
                self.warn(table.network.span(), message);
            }
            if routes.iter().any(|route| route.network == network) {
                let message = format!("{network} has a route already; give one path for it");
                self.wrong(table.network.span(), message);
            }
            let path = self.path(&table.path);
            routes.push(Route { network, path });
        }
        routes
    }

    fn path(&mut self, tables: &[Spanned<HopTable>]) -> Path {
        let mut hops: Vec<Hop> = Vec::new();
        for table in tables {
            let Some(hop) = self.hop(table) else {
                continue;
            };
            if hops.iter().any(|other| other.name == hop.name) {
                let message = format!(
                    "two hops of this path are called {:?}; give one another name, like name = \
                     \"{}-2\"",
                    hop.name, hop.name
                );
                self.wrong(table.span(), message);
            }
            hops.push(hop);
        }
        Path { hops }
    }

    /// `None` if the hop is invalid; the problem is then recorded.
    fn hop(&mut self, table: &Spanned<HopTable>) -> Option<Hop> {
        let HopTable {
            profile,
            name,
            idle_timeout,
            activity,
            direction,
            on_expiry,
            max_lifetime,
        } = table.get_ref();
        let mut hop = match (profile, name) {
            (Some(profile), _) => self.hop_of_profile(profile, idle_timeout.as_ref())?,
            (None, Some(name)) => Hop {
                idle_timeout: idle_timeout.as_ref().map(|limit| limit.get_ref().0),
                ..Hop::new(name.get_ref(), Duration::ZERO, OnExpiry::Silent)
            },
            (None, None) => {
                let message = "a hop without a name; give it a profile, as `wsmon profiles` lists \
                               them, or a name and an idle_timeout";
                self.wrong(table.span(), message);
                return None;
            }
        };
        if let Some(name) = name {
            hop.name = name.get_ref().clone();
            if !is_printable(&hop.name) {
                self.wrong(name.span(), invalid_name(&hop.name));
            }
        }
        hop.activity = activity.unwrap_or(hop.activity);
        hop.direction = direction.unwrap_or(hop.direction);
        hop.on_expiry = on_expiry.unwrap_or(hop.on_expiry);
        hop.max_lifetime = max_lifetime.map(|Limit(limit)| limit).or(hop.max_lifetime);
        if profile.is_none() && hop.idle_timeout.is_none() && hop.max_lifetime.is_none() {
            let message = format!(
                "hop {:?} never gives a connection up; give it an idle_timeout or a max_lifetime",
                hop.name
            );
            self.wrong(table.span(), message);
        }
        Some(hop)
    }

    fn hop_of_profile(
        &mut self,
        name: &Spanned<String>,
        idle_timeout: Option<&Spanned<Limit>>,
    ) -> Option<Hop> {
        let profile = match profiles::find(name.get_ref()) {
            Ok(profile) => profile,
            Err(error) => {
                self.wrong(name.span(), error.to_string());
                return None;
            }
        };
        let Some(limit) = idle_timeout else {
            return profile
                .hop()
                .map_err(|error| self.wrong(name.span(), error.to_string()))
                .ok();
        };
        let Limit(idle_timeout) = *limit.get_ref();
        if let Some(warning) = profile.doubt(idle_timeout) {
            self.warn(limit.span(), warning);
        }
        Some(profile.hop_with(Some(idle_timeout)))
    }
}
