//! SIGHUP: reads the file again and applies new rules without losing a connection.

use std::fmt::Display;

use humantime::format_duration;
use tokio::{
    signal::unix::Signal,
    sync::{mpsc, oneshot},
};

use super::{RunArgs, settings::Settings};
use crate::{
    cli::{describe::Hops, exit::Failure},
    config::Config,
    daemon::{Reload, service_manager::ServiceManager},
    diagnostics::{notice_line, stderr_line},
};
use monitor_core::ListenerRules;

/// The effective settings, and where they came from.
pub(super) struct Reloader {
    args: RunArgs,
    in_force: Settings,
    service_manager: ServiceManager,
}

impl Reloader {
    pub(super) fn new(args: RunArgs, in_force: Settings, service_manager: ServiceManager) -> Self {
        Self {
            args,
            in_force,
            service_manager,
        }
    }

    /// Reloads at every SIGHUP and reports the outcome on one line of stderr.
    pub(super) async fn run(mut self, mut hangups: Signal, daemon: mpsc::Sender<Reload>) {
        while hangups.recv().await.is_some() {
            self.reload(&daemon).await;
        }
    }

    async fn reload(&mut self, daemon: &mpsc::Sender<Reload>) {
        let Some(path) = self.args.watch.config.clone() else {
            notice_line!("wsmon: SIGHUP: no --config, nothing to reload");
            return;
        };
        let path = path.display();
        self.service_manager.reloading();
        let outcome = self.bring_into_force(daemon).await;
        let failure = outcome.as_ref().err();
        self.service_manager
            .reloaded(failure.map(|failure| failure as &dyn Display));
        match outcome {
            Ok(changes) if changes.is_empty() => {
                notice_line!("wsmon: reloaded {path}: nothing changed");
            }
            Ok(changes) => notice_line!("wsmon: reloaded {path}: {}", changes.join("; ")),
            Err(failure) => {
                stderr_line!(
                    "wsmon: not reloaded, the old configuration stays in force: {failure}"
                );
            }
        }
    }

    /// Applies the file; returns a description of each change.
    async fn bring_into_force(
        &mut self,
        daemon: &mpsc::Sender<Reload>,
    ) -> Result<Vec<String>, Failure> {
        let file = self.args.watch.file()?;
        let new = self.accept(file)?;
        let changes = changes(&self.in_force, &new);
        let (reply, answered) = oneshot::channel();
        let reload = Reload {
            listeners: new.listeners.clone(),
            reply,
        };
        let gone = "the daemon is ending";
        let sent = daemon.send(reload).await;
        sent.map_err(|_| Failure::failed(gone))?;
        let outcome = answered.await.map_err(|_| Failure::failed(gone))?;
        outcome.map_err(|error| Failure::failed(error.to_string()))?;
        self.in_force = new;
        Ok(changes)
    }

    /// The new settings, unless they need a restart.
    fn accept(&self, file: Config) -> Result<Settings, Failure> {
        let new = Settings::of(&self.args, file)?;
        let fixed = self.in_force.fixed_differences(&new);
        if fixed.is_empty() {
            Ok(new)
        } else {
            Err(Failure::usage(format!(
                "restart needed for {}",
                fixed.join(", ")
            )))
        }
    }
}

/// The differences between the rules of the same listeners.
fn changes(old: &Settings, new: &Settings) -> Vec<String> {
    let pairs = old.listeners.iter().zip(&new.listeners);
    pairs
        .filter(|(old, new)| old.rules != new.rules)
        .map(|(old, new)| {
            format!(
                "{}: {}",
                new.rules.name,
                differences(&old.rules, &new.rules).join(", ")
            )
        })
        .collect()
}

fn differences(old: &ListenerRules, new: &ListenerRules) -> Vec<String> {
    let mut found = Vec::new();
    if old.path != new.path {
        let (before, after) = (Hops(&old.path).to_string(), Hops(&new.path).to_string());
        found.push(match before == after {
            // Only the activity or the expiry of a hop changed.
            true => format!("path {after} with other rules"),
            false => format!("path {before} -> {after}"),
        });
    }
    if old.routes != new.routes {
        found.push("routes".to_owned());
    }
    if old.ping_timeout != new.ping_timeout {
        let [old, new] = [old.ping_timeout, new.ping_timeout].map(format_duration);
        found.push(format!("ping timeout {old} -> {new}"));
    }
    if old.unresponsive_floor != new.unresponsive_floor {
        let [old, new] = [old, new].map(|rules| format_duration(rules.unresponsive_floor));
        found.push(format!("unresponsive floor {old} -> {new}"));
    }
    if old.message_gap != new.message_gap {
        let [old, new] = [old.message_gap, new.message_gap].map(|gap| {
            gap.map_or_else(
                || "never".to_owned(),
                |gap| format_duration(gap).to_string(),
            )
        });
        found.push(format!("message gap {old} -> {new}"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_reported_with_its_old_and_new_value() {
        let rules = |text: &str| {
            let text = format!("[[listener]]\nname = \"edge\"\nports = [\"80\"]\n{text}");
            let mut config = Config::parse(&text).expect("a valid file");
            config.listeners.remove(0).rules
        };
        let described = |old: &str, new: &str| differences(&rules(old), &rules(new)).join(", ");
        let path = |hop: &str| format!("path = [{{ profile = \"nginx\"{hop} }}]");
        assert_eq!(described(&path(""), &path("")), "");
        assert_eq!(
            described(&path(""), &path(", idle_timeout = \"2s\"")),
            "path nginx 1m -> nginx 2s"
        );
        assert_eq!(
            described(&path(""), &path(", on_expiry = \"silent\"")),
            "path nginx 1m with other rules"
        );
        assert_eq!(
            described(
                "",
                "ping_timeout = \"9s\"\nunresponsive_floor = \"4s\"\nmessage_gap = \"35s\""
            ),
            "ping timeout 30s -> 9s, unresponsive floor 10s -> 4s, message gap never -> 35s"
        );
        let route = "route = [{ network = \"::/0\", path = [] }]";
        assert_eq!(described("", route), "routes");
    }
}
