//! What `wsmon run` prints once it watches.

use std::path::Path;

use super::{refusals::missing_line, settings::Settings};
use crate::{
    cli::{
        client::DEFAULT_CONTROL,
        describe::ListenerLines,
        screen::Counted,
        wrap::{NARROW, wrap},
    },
    config::metrics_address::MetricsUrl,
    daemon::reconcile::Seeded,
    kernel::{host::cgroup::WatchedCgroup, prerequisites::Prerequisite},
};
use monitor_core::reap::ReapMode;

/// What is watched, with which limits, where to find it, and what to do next.
pub(super) struct Banner<'a> {
    pub(super) settings: &'a Settings,
    pub(super) cgroup: &'a WatchedCgroup,
    /// `None` if older connections are not scanned for.
    pub(super) seeded: Option<&'a Seeded>,
    /// Empty without a metrics server.
    pub(super) metrics_urls: &'a [MetricsUrl],
    /// Those that are missing have a line.
    pub(super) missing: &'a [Prerequisite],
}

fn counted(count: usize, noun: &'static str) -> Counted {
    Counted(count as u64, noun)
}

impl Banner<'_> {
    /// Lines of at most 80 columns, unless a word is longer.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("wsmon {} watches", env!("CARGO_PKG_VERSION"))];
        for listener in &self.settings.listeners {
            lines.extend(ListenerLines(listener).lines());
        }
        let mut paragraphs = Vec::new();
        if !self.cgroup.is_root {
            let path = self.cgroup.path.display();
            paragraphs.push(format!("only sockets of cgroup {path} and below"));
        }
        paragraphs.extend(self.older());
        paragraphs.extend(self.outputs());
        paragraphs.extend(self.missing.iter().filter_map(|prerequisite| {
            let missing = prerequisite.outcome.as_ref().err()?;
            let line = missing_line(&prerequisite.name, missing);
            Some(format!("missing: {line}"))
        }));
        paragraphs.push(self.next());
        let wrapped = paragraphs
            .iter()
            .flat_map(|text| wrap(text, NARROW, "  ", "    "));
        lines.extend(wrapped);
        lines
    }

    /// What is known of older connections.
    fn older(&self) -> Vec<String> {
        let Some(seeded) = self.seeded else {
            let text = "connections older than this start are tracked from their next packet";
            return vec![text.to_owned()];
        };
        let mut lines = Vec::new();
        if seeded.connections > 0 {
            lines.push(format!(
                "{} older than this start, in {}",
                counted(seeded.connections, "connection"),
                counted(seeded.namespaces, "network namespace")
            ));
        }
        if seeded.unsearched > 0 {
            lines.push(format!(
                "still searching {} for older connections",
                counted(seeded.unsearched, "network namespace")
            ));
        }
        let hidden = [
            (seeded.refused, "namespace", ""),
            (seeded.hidden, "process", "the namespaces of "),
        ];
        let hidden: Vec<_> = hidden
            .into_iter()
            .filter(|(count, ..)| *count > 0)
            .map(|(count, noun, whose)| format!("{whose}{}", counted(count, noun)))
            .collect();
        if !hidden.is_empty() {
            let hidden = hidden.join(" and ");
            lines.push(format!("not scanned: {hidden} (see wsmon check)"));
        }
        if seeded.untracked > 0 {
            lines.push(format!(
                "not watched: {}; there is room for {}, raise --max-connections",
                counted(seeded.untracked, "older connection"),
                self.settings.max_connections
            ));
        }
        lines
    }

    /// Where the results go.
    fn outputs(&self) -> Vec<String> {
        let Settings {
            alert_log,
            alertmanagers,
            webhooks,
            access_log,
            reap,
            ..
        } = self.settings;
        let place = |path: &str| match path {
            "-" => "stderr".to_owned(),
            path => path.to_owned(),
        };
        let others = alertmanagers.iter().chain(webhooks);
        let others: String = others.map(|endpoint| format!(", {endpoint}")).collect();
        let mut lines = vec![format!("alerts to {}{others}", place(alert_log))];
        if let Some(path) = access_log {
            lines.push(format!("ends of connections to {}", place(path)));
        }
        let urls = self.metrics_urls.iter().map(ToString::to_string);
        let urls: Vec<_> = urls.collect();
        lines.push(match urls.as_slice() {
            [] => "no metrics server".to_owned(),
            urls => format!("metrics at {}", urls.join(", ")),
        });
        match reap.mode {
            ReapMode::Off => {}
            ReapMode::DryRun => {
                lines.push("logs which confirmed zombies it would abort".to_owned());
            }
            ReapMode::Confirmed => lines.push(format!(
                "aborts confirmed zombies, at most {} a minute",
                reap.max_per_minute
            )),
            ReapMode::Inferred => lines.push(format!(
                "aborts confirmed zombies and those inferred under TLS, at most {} a minute",
                reap.max_per_minute
            )),
        }
        lines.push(match self.settings.control() {
            None => "no control socket".to_owned(),
            Some(path) => format!("control socket {}", path.display()),
        });
        lines
    }

    fn next(&self) -> String {
        let help = "wsmon help zombies";
        let control = match self.settings.control() {
            None => return format!("next: {help}"),
            Some(path) if path == Path::new(DEFAULT_CONTROL) => String::new(),
            Some(path) => format!(" --control {}", path.display()),
        };
        format!("next: sudo wsmon top{control} (live view), sudo wsmon status{control}, {help}")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use unicode_width::UnicodeWidthStr;

    use super::*;
    use crate::{cli::run::RunArgs, config::Config, kernel::prerequisites::Missing};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        run: RunArgs,
    }

    fn lines(flags: &str, seeded: Option<&Seeded>, missing: &[Prerequisite]) -> Vec<String> {
        let flags = ["wsmon"].into_iter().chain(flags.split_whitespace());
        let cli = Cli::try_parse_from(flags).expect("valid flags");
        let settings = Settings::of(&cli.run, Config::default()).expect("valid settings");
        let cgroup = WatchedCgroup {
            path: "/sys/fs/cgroup".into(),
            is_root: true,
        };
        let addresses = settings.metrics_addrs.iter();
        let metrics_urls: Vec<_> = addresses
            .filter_map(|address| {
                Some(MetricsUrl {
                    addr: address.to_string().parse().ok()?,
                    has_tls: settings.web_config.is_some(),
                })
            })
            .collect();
        let banner = Banner {
            settings: &settings,
            cgroup: &cgroup,
            seeded,
            metrics_urls: &metrics_urls,
            missing,
        };
        banner.lines()
    }

    #[test]
    fn the_usual_banner_has_no_zero_and_names_the_next_step() {
        let lines = lines("-p 8080 --lb-timeout 60s", Some(&Seeded::default()), &[]);
        let expected = format!(
            "wsmon {} watches\n  \
             local port 8080: idle limit 1m (lb, expires silently)\n    \
             ping timeout 30s, unresponsive after 10s\n  \
             alerts to stderr\n  \
             metrics at http://127.0.0.1:6455/metrics\n  \
             control socket /run/wsmon.sock\n  \
             next: sudo wsmon top (live view), sudo wsmon status, wsmon help zombies",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(lines.join("\n"), expected);
    }

    #[test]
    fn what_was_found_and_what_was_hidden_is_counted() {
        let seeded = Seeded {
            connections: 1,
            namespaces: 3,
            refused: 2,
            hidden: 1,
            untracked: 7,
            unsearched: 12,
            ..Seeded::default()
        };
        let lines = lines(
            "-p 80 --metrics-addr none --control none",
            Some(&seeded),
            &[],
        );
        for line in [
            "  1 connection older than this start, in 3 network namespaces",
            "  still searching 12 network namespaces for older connections",
            "  not scanned: 2 namespaces and the namespaces of 1 process (see wsmon check)",
            "  not watched: 7 older connections; there is room for 262144, raise",
            "  no metrics server",
            "  no control socket",
            "  next: wsmon help zombies",
        ] {
            assert!(lines.iter().any(|shown| shown == line), "{lines:#?}");
        }
    }

    #[test]
    fn it_fits_a_narrow_terminal() {
        let missing = Missing::new("cannot find others' namespaces ".repeat(3), "run as root");
        let missing = [Prerequisite::recommended("CAP_SYS_PTRACE", Err(missing))];
        let flags = "-p 8080,9000-9010,9100,9200,9300 --lb nginx,aws-alb,azure-front-door \
                     --message-gap 35s --control /run/somewhere/wsmon.sock --reap confirmed \
                     --access-log - --alertmanager http://127.0.0.1:9093,http://127.0.0.2:9093 \
                     --metrics-addr 127.0.0.1:6455,[::1]:6455";
        let lines = lines(flags, None, &missing);
        assert!(lines.len() > 20, "{lines:#?}");
        for line in lines {
            assert!(line.width() <= NARROW, "{line}");
        }
    }
}
