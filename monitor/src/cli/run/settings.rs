//! The effective settings: flags override the file, the file overrides the defaults.

use std::{
    ffi::OsStr,
    fmt::Debug,
    path::{Path, PathBuf},
};

use super::{RunArgs, origin::origin};
use crate::{
    alerting::SinkSettings,
    cli::{client::DEFAULT_CONTROL, describe, environment, exit::Failure},
    config::{
        self, Config,
        alert_format::AlertFormat,
        endpoint::Endpoint,
        listeners::ListenerConfig,
        metrics_address::{MetricsAddress, MetricsUrl},
    },
    daemon::access_log::AccessLogSettings,
    diagnostics::notice_line,
    kernel::bpf::loader::LoadSettings,
    logs::line_log::LogTarget,
};
use monitor_core::reap::{ReapMode, ReapSettings};

/// Each workload has about 50 series.
const DEFAULT_MAX_WORKLOADS: u16 = 200;

/// The settings of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) listeners: Vec<ListenerConfig>,
    pub(super) metrics_addrs: Vec<MetricsAddress>,
    /// Whether the page at `/` of that address shows the state of the daemon.
    pub(super) status_page: bool,
    /// Without it, everybody may read the metrics, over plain HTTP.
    pub(super) web_config: Option<PathBuf>,
    /// A path, or `none`.
    pub(super) control: PathBuf,
    /// Without it nothing is kept across restarts.
    pub(super) state: Option<PathBuf>,
    pub(super) cgroup: Option<PathBuf>,
    /// As given; see [`Settings::pod_logs`].
    pub(super) given_pod_logs: Option<PathBuf>,
    /// `None` without labels for workloads.
    pub(super) max_workloads: Option<u16>,
    pub(super) max_connections: u32,
    /// A file, or `-` for stderr.
    pub(super) alert_log: String,
    pub(super) alert_format: AlertFormat,
    /// A file, or `-` for stderr.
    pub(super) access_log: Option<String>,
    /// Whether the access log may have the text of handshakes.
    pub(super) access_log_handshake: bool,
    pub(super) alertmanagers: Vec<Endpoint>,
    /// The name of this host in alerts; `None` for that of the kernel.
    pub(super) instance: Option<String>,
    pub(super) webhooks: Vec<Endpoint>,
    pub(super) reap: ReapSettings,
    /// Whether alerts and the access log may name the client behind a proxy.
    pub(super) client_address: bool,
}

impl Settings {
    /// Needs at least one listener.
    pub(super) fn of(args: &RunArgs, file: Config) -> Result<Self, Failure> {
        let listeners = args.watch.listeners(&file)?;
        if listeners.is_empty() {
            return Err(Failure::usage(match &args.watch.config {
                None => {
                    "nothing to watch; name the port of your WebSocket server, for example --port \
                         8080, or a file with a [[listener]] by --config"
                        .to_owned()
                }
                Some(path) => format!(
                    "nothing to watch; {} has no [[listener]] yet: add one with the port of your \
                     WebSocket server (`wsmon config example` shows how)",
                    path.display()
                ),
            }));
        }
        let Config {
            daemon,
            alerts,
            reap,
            privacy,
            ..
        } = file;
        let control = args.control.clone().or(daemon.control);
        let alert_log = args.alert_log.clone().or(alerts.log);
        let workload_labels = args.workload_labels || daemon.workload_labels;
        let metrics_addrs = metrics_addrs(given_or(&args.metrics_addrs, daemon.metrics_addr))?;
        let status_page = args.status_page || daemon.status_page;
        let web_config = args.web_config.clone().or(daemon.web_config);
        let settings = Self {
            listeners,
            metrics_addrs,
            status_page,
            web_config,
            control: control.unwrap_or_else(|| DEFAULT_CONTROL.into()),
            state: args.state.clone().or(daemon.state),
            cgroup: args.cgroup.clone().or(daemon.cgroup),
            max_workloads: workload_labels.then(|| {
                let limit = args.max_workloads.or(daemon.max_workloads);
                limit.unwrap_or(DEFAULT_MAX_WORKLOADS)
            }),
            given_pod_logs: args.pod_logs.clone().or(daemon.pod_logs),
            max_connections: args
                .max_connections
                .or(daemon.max_connections)
                .unwrap_or(LoadSettings::default().max_connections),
            alert_log: alert_log.unwrap_or_else(|| "-".to_owned()),
            alert_format: args.alert_format.or(alerts.format).unwrap_or_default(),
            access_log: args.access_log.clone().or(daemon.access_log),
            access_log_handshake: args.access_log_handshake || privacy.access_log_handshake,
            alertmanagers: given_or(&args.alertmanagers, alerts.alertmanager),
            instance: args.instance.clone().or(alerts.instance),
            webhooks: given_or(&args.webhooks, alerts.webhook),
            reap: ReapSettings {
                mode: match (args.reap, args.reap_dry_run) {
                    (_, true) => ReapMode::DryRun,
                    (Some(mode), false) => mode,
                    (None, false) => reap.mode,
                },
                max_per_minute: args.reap_max_per_minute.unwrap_or(reap.max_per_minute),
            },
            client_address: args.client_address || privacy.client_address,
        };
        for warning in settings.ineffective(args) {
            notice_line!("wsmon: warning: {warning}");
        }
        Ok(settings)
    }

    /// What was set and has no effect, with the reason.
    fn ineffective(&self, args: &RunArgs) -> Vec<String> {
        const NO_SERVER: &str =
            "with --metrics-addr none; give an address, or leave one of them out";
        let has_no_server = self.metrics_addrs == [MetricsAddress::None];
        let instance = origin(
            "instance",
            "alerts.instance",
            args.instance.as_deref().map(OsStr::new),
        );
        // The variable may be set wherever wsmon runs, as in the Helm chart.
        let is_instance_given =
            self.instance.is_some() && instance != environment::variable("instance");
        let settings = [
            (
                "--max-workloads",
                args.max_workloads.is_some() && self.max_workloads.is_none(),
                "without --workload-labels",
            ),
            (
                "--status-page",
                self.status_page && has_no_server,
                NO_SERVER,
            ),
            (
                "--web-config",
                self.web_config.is_some() && has_no_server,
                NO_SERVER,
            ),
            (
                &instance,
                is_instance_given && self.alertmanagers.is_empty(),
                "without --alertmanager",
            ),
        ];
        let ineffective = settings.into_iter().filter(|(_, applies, _)| *applies);
        ineffective
            .map(|(name, _, reason)| format!("{name} has no effect {reason}"))
            .collect()
    }

    /// Where the kubelet keeps the logs of pods.
    pub(super) fn pod_logs(&self) -> &Path {
        let given = self.given_pod_logs.as_deref();
        given.unwrap_or(Path::new(config::DEFAULT_POD_LOGS))
    }

    /// The path of the control socket, unless it is switched off.
    pub(super) fn control(&self) -> Option<&Path> {
        Some(self.control.as_path()).filter(|path| *path != Path::new("none"))
    }

    /// Where alerts go, and where metrics are served.
    pub(super) fn sinks(&self, metrics_url: Option<MetricsUrl>) -> SinkSettings {
        SinkSettings {
            alert_log: LogTarget::parse(&self.alert_log),
            alert_format: self.alert_format,
            alertmanagers: self.alertmanagers.clone(),
            instance: self.instance.clone(),
            webhooks: self.webhooks.clone(),
            metrics_url,
        }
    }

    /// Where the ends of connections go, if anywhere.
    pub(super) fn access_log(&self) -> Option<AccessLogSettings> {
        Some(AccessLogSettings {
            target: LogTarget::parse(self.access_log.as_deref()?),
            handshake: self.access_log_handshake,
            client_address: self.client_address,
        })
    }

    /// The settings of `new` that need a restart, each by its key.
    pub(super) fn fixed_differences(&self, new: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |key: &str, old: &dyn Debug, new: &dyn Debug| {
            let (old, new) = (format!("{old:?}"), format!("{new:?}"));
            if old != new {
                found.push(format!("{key} ({old} -> {new})"));
            }
        };
        compare(
            "daemon.metrics_addr",
            &self.metrics_addrs,
            &new.metrics_addrs,
        );
        compare("daemon.status_page", &self.status_page, &new.status_page);
        compare("daemon.web_config", &self.web_config, &new.web_config);
        compare("daemon.control", &self.control, &new.control);
        compare("daemon.state", &self.state, &new.state);
        compare("daemon.cgroup", &self.cgroup, &new.cgroup);
        compare("daemon.pod_logs", &self.pod_logs(), &new.pod_logs());
        compare(
            "daemon.workload_labels",
            &self.max_workloads.is_some(),
            &new.max_workloads.is_some(),
        );
        if let (Some(old), Some(new)) = (self.max_workloads, new.max_workloads) {
            compare("daemon.max_workloads", &old, &new);
        }
        compare(
            "daemon.max_connections",
            &self.max_connections,
            &new.max_connections,
        );
        compare("daemon.access_log", &self.access_log, &new.access_log);
        compare("alerts.log", &self.alert_log, &new.alert_log);
        compare("alerts.format", &self.alert_format, &new.alert_format);
        compare(
            "alerts.alertmanager",
            &self.alertmanagers,
            &new.alertmanagers,
        );
        compare("alerts.instance", &self.instance, &new.instance);
        compare("alerts.webhook", &self.webhooks, &new.webhooks);
        compare("reap.mode", &self.reap.mode, &new.reap.mode);
        compare(
            "reap.max_per_minute",
            &self.reap.max_per_minute,
            &new.reap.max_per_minute,
        );
        compare(
            "privacy.client_address",
            &self.client_address,
            &new.client_address,
        );
        compare(
            "privacy.access_log_handshake",
            &self.access_log_handshake,
            &new.access_log_handshake,
        );
        compare("listeners", &self.watched(), &new.watched());
        found
    }

    /// What the kernel programs and the counters are bound to: the ports, their order, and their names.
    fn watched(&self) -> String {
        let listeners = self.listeners.iter().map(describe::title);
        listeners.collect::<Vec<_>>().join("; ")
    }
}

/// At least one, and `none` only alone.
fn metrics_addrs(given: Vec<MetricsAddress>) -> Result<Vec<MetricsAddress>, Failure> {
    match given.as_slice() {
        [] => Ok(vec![MetricsAddress::Address(config::DEFAULT_METRICS_ADDR)]),
        [_, _, ..] if given.contains(&MetricsAddress::None) => Err(Failure::usage(
            "none means no metrics server; give it alone, without other addresses for metrics",
        )),
        _ => Ok(given),
    }
}

/// The values of the flags, or else those of the file.
fn given_or<T: Clone>(flags: &[T], file: Vec<T>) -> Vec<T> {
    match flags.is_empty() {
        true => file,
        false => flags.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        run: RunArgs,
    }

    fn settings(flags: &[&str], file: &str) -> Result<Settings, Failure> {
        Settings::of(
            &parsed(flags).run,
            Config::parse(file).expect("a valid file"),
        )
    }

    fn parsed(flags: &[&str]) -> Cli {
        Cli::try_parse_from([&["wsmon"], flags].concat()).expect("valid flags")
    }

    const FILE: &str = r#"
        [[listener]]
        ports = ["8080"]

        [daemon]
        metrics_addr = "10.0.0.1:9000"
        web_config = "/etc/web.yml"
        control = "none"
        state = "/var/lib/a"
        cgroup = "/sys/fs/cgroup/a"
        pod_logs = "/a/pods"
        max_connections = 7
        access_log = "/var/log/c"

        [alerts]
        log = "/var/log/a"
        format = "json"
        instance = "node-7"
    "#;

    fn shown(settings: &Settings) -> Vec<String> {
        let addresses = settings.metrics_addrs.iter();
        addresses.map(ToString::to_string).collect()
    }

    #[test]
    fn flags_override_the_file_and_the_file_overrides_the_defaults() {
        let of_file = settings(&[], FILE).expect("valid");
        assert_eq!(shown(&of_file), ["10.0.0.1:9000"]);
        assert_eq!(of_file.web_config, Some("/etc/web.yml".into()));
        assert_eq!(of_file.control, PathBuf::from("none"));
        assert_eq!(of_file.state, Some("/var/lib/a".into()));
        assert_eq!(of_file.cgroup, Some("/sys/fs/cgroup/a".into()));
        assert_eq!(of_file.pod_logs(), Path::new("/a/pods"));
        assert_eq!(of_file.max_connections, 7);
        assert_eq!(of_file.alert_log, "/var/log/a");
        assert_eq!(of_file.alert_format, AlertFormat::Json);
        assert_eq!(of_file.access_log.as_deref(), Some("/var/log/c"));
        assert_eq!(of_file.instance.as_deref(), Some("node-7"));

        let flags = [
            ["--metrics-addr", "1,[::1]:2"],
            ["--web-config", "/w"],
            ["--control", "/b"],
            ["--state", "/s"],
            ["--cgroup", "/c"],
            ["--pod-logs", "/p"],
            ["--max-connections", "8"],
            ["--alert-log", "-"],
            ["--alert-format", "text"],
            ["--access-log", "/d"],
            ["--instance", "10.0.0.7:6455"],
        ];
        let of_flags = settings(&flags.concat(), FILE).expect("valid");
        assert_eq!(shown(&of_flags), ["127.0.0.1:1", "[::1]:2"]);
        assert_eq!(of_flags.web_config, Some("/w".into()));
        assert_eq!(of_flags.control, PathBuf::from("/b"));
        assert_eq!(of_flags.state, Some("/s".into()));
        assert_eq!(of_flags.cgroup, Some("/c".into()));
        assert_eq!(of_flags.pod_logs(), Path::new("/p"));
        assert_eq!(of_flags.max_connections, 8);
        assert_eq!(of_flags.alert_log, "-");
        assert_eq!(of_flags.alert_format, AlertFormat::Text);
        assert_eq!(of_flags.access_log.as_deref(), Some("/d"));
        assert_eq!(of_flags.instance.as_deref(), Some("10.0.0.7:6455"));

        let defaults = settings(&["--port", "80"], "").expect("valid");
        assert_eq!(shown(&defaults), ["127.0.0.1:6455"]);
        assert_eq!(defaults.control, PathBuf::from(DEFAULT_CONTROL));
        assert_eq!(defaults.web_config, None);
        assert_eq!(defaults.state, None);
        assert_eq!(defaults.pod_logs(), Path::new("/var/log/pods"));
        assert_eq!(defaults.max_connections, 262_144);
        assert_eq!(defaults.alert_log, "-");
        assert_eq!(defaults.alert_format, AlertFormat::Auto);
        assert_eq!(defaults.access_log(), None);
        assert_eq!(defaults.instance, None);
    }

    #[test]
    fn without_a_metrics_server_there_is_no_other_address() {
        let none = settings(&["--metrics-addr", "none"], FILE).expect("valid");
        assert_eq!(none.metrics_addrs, [MetricsAddress::None]);
        let both = settings(&["--metrics-addr", "none,:6455"], FILE);
        let refusal = both.expect_err("a contradiction").to_string();
        assert!(refusal.contains("give it alone"), "{refusal}");
    }

    #[test]
    fn workloads_have_a_limit_only_with_their_labels() {
        let limit = |flags: &[&str], keys: &str| {
            let flags = [&["--port", "80"], flags].concat();
            let settings = settings(&flags, &format!("[daemon]\n{keys}"));
            settings.expect("valid").max_workloads
        };
        assert_eq!(limit(&[], ""), None);
        assert_eq!(limit(&["--max-workloads", "7"], "max_workloads = 8"), None);
        assert_eq!(limit(&["--workload-labels"], ""), Some(200));
        let on = "workload_labels = true\nmax_workloads = 8";
        assert_eq!(limit(&[], on), Some(8));
        assert_eq!(limit(&["--max-workloads", "7"], on), Some(7));
    }

    #[test]
    fn what_has_no_effect_is_named_with_the_reason() {
        let no_server = "with --metrics-addr none; give an address, or leave one of them out";
        let alertmanager = ["--alertmanager", "http://a:9093"];
        let instance = ["--instance", "a"];
        let in_file = "[alerts]\ninstance = \"a\"";
        for (flags, file, expected) in [
            (&[][..], "", vec![]),
            (
                &["--max-workloads", "7"],
                "",
                vec!["--max-workloads has no effect without --workload-labels".to_owned()],
            ),
            (&["--max-workloads", "7", "--workload-labels"], "", vec![]),
            (&["--metrics-addr", "none"], "", vec![]),
            (&["--status-page", "--web-config", "w"], "", vec![]),
            (
                &[
                    "--metrics-addr",
                    "none",
                    "--status-page",
                    "--web-config",
                    "w",
                ],
                "",
                vec![
                    format!("--status-page has no effect {no_server}"),
                    format!("--web-config has no effect {no_server}"),
                ],
            ),
            (
                &instance,
                "",
                vec!["--instance has no effect without --alertmanager".to_owned()],
            ),
            (
                &instance,
                in_file,
                vec!["--instance has no effect without --alertmanager".to_owned()],
            ),
            (
                &[],
                in_file,
                vec!["alerts.instance has no effect without --alertmanager".to_owned()],
            ),
            (&[instance, alertmanager].concat(), "", vec![]),
            (&alertmanager, in_file, vec![]),
            (
                &instance,
                "[alerts]\nalertmanager = [\"http://a:9093\"]",
                vec![],
            ),
        ] {
            let flags = [&["--port", "80"], flags].concat();
            let cli = parsed(&flags);
            let settings = settings(&flags, file).expect("valid");
            assert_eq!(settings.ineffective(&cli.run), expected, "{flags:?} {file}");
        }
    }

    #[test]
    fn a_file_without_a_listener_needs_a_port() {
        assert!(settings(&[], "[daemon]").is_err());
        assert!(settings(&["--port", "80"], "[daemon]").is_ok());
    }

    #[test]
    fn settings_that_need_a_restart_are_named_and_a_new_rule_needs_none() {
        let old = settings(&[], FILE).expect("valid");
        let changed = |from: &str, to: &str| {
            let new = settings(&[], &FILE.replace(from, to)).expect("valid");
            old.fixed_differences(&new).join(", ")
        };
        assert_eq!(changed("= 7", "= 9"), "daemon.max_connections (7 -> 9)");
        let labels = "= 7\nworkload_labels = true";
        assert_eq!(
            changed("= 7", labels),
            "daemon.workload_labels (false -> true)"
        );
        assert_eq!(
            changed("= 7", "= 7\nstatus_page = true"),
            "daemon.status_page (false -> true)"
        );
        let ports = changed("\"8080\"", "\"8080\", \"443\"");
        assert!(ports.starts_with("listeners ("), "{ports}");
        let renamed = changed("ports =", "name = \"a\"\nports =");
        assert!(renamed.starts_with("listeners ("), "{renamed}");
        let remote = changed("ports =", "remote = true\nports =");
        assert!(remote.starts_with("listeners ("), "{remote}");
        assert_eq!(changed("ports =", "ping_timeout = \"1s\"\nports ="), "");
    }
}
