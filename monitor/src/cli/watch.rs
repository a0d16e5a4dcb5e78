//! What is watched, and by which rules: the flags shared by `wsmon run` and `wsmon replay`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use monitor_common::listener::MAX_LISTENERS;

use super::exit::Failure;
use crate::{
    config::{
        Config, Limit,
        listeners::{ListenerConfig, PortRange, overlapping},
        profiles::{self, Idle, Profile},
    },
    diagnostics::notice_line,
};
use monitor_core::{Hop, ListenerRules, OnExpiry, hop::Path};

#[derive(Args, Clone, Debug)]
pub struct WatchArgs {
    /// File with listeners and settings (`wsmon config example`); flags override it
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Local port of WebSocket servers, or a range of ports; each is one listener. Replaces the file's
    /// listeners
    #[arg(
        short,
        long = "port",
        value_name = "PORT[-PORT],…",
        value_delimiter = ','
    )]
    pub ports: Vec<PortRange>,

    /// Port of remote services that this host connects to, or a range
    #[arg(
        long = "remote-port",
        value_name = "PORT[-PORT],…",
        value_delimiter = ','
    )]
    pub remote_ports: Vec<PortRange>,

    /// Hops on the path of every listener, nearest first, by their names in `wsmon profiles`
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = profile)]
    pub lb: Vec<&'static Profile>,

    /// Idle timeout of the hop of --lb, or else of a load balancer that forgets connections silently
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    pub lb_timeout: Option<Duration>,

    /// Maximum time that a single ping from this host may stay without its pong [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    pub ping_timeout: Option<Duration>,

    /// Minimum time without an answer before `unresponsive` is confirmed [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    pub unresponsive_floor: Option<Duration>,

    /// Report a connection as quiet after this long without a message
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    pub message_gap: Option<Duration>,
}

impl WatchArgs {
    /// Reads the file, with its warnings on stderr; an empty configuration without a file.
    pub fn file(&self) -> Result<Config, Failure> {
        let Some(path) = &self.config else {
            return Ok(Config::default());
        };
        let config = Config::read(path).map_err(|error| Failure::usage(error.to_string()))?;
        for warning in &config.warnings {
            notice_line!("wsmon: warning: {}:{warning}", path.display());
        }
        Ok(config)
    }

    /// The listeners of the flags, or else of the file, with the rules set by flags for all; empty if
    /// there are none.
    pub fn listeners(&self, file: &Config) -> Result<Vec<ListenerConfig>, Failure> {
        let mut listeners = self.of_ports()?;
        if listeners.is_empty() {
            listeners.clone_from(&file.listeners);
        }
        let path = self.path()?;
        for listener in &mut listeners {
            self.override_rules(&mut listener.rules, path.as_ref());
        }
        Ok(listeners)
    }

    /// One group of ports, named after them, with the rules set by flags for all.
    pub fn listener(&self, range: PortRange) -> Result<ListenerConfig, Failure> {
        let mut listener = named_after_ports(range, false, &[]);
        self.override_rules(&mut listener.rules, self.path()?.as_ref());
        Ok(listener)
    }

    /// Each port is in at most one listener of its kind.
    fn of_ports(&self) -> Result<Vec<ListenerConfig>, Failure> {
        let mut listeners: Vec<ListenerConfig> = Vec::new();
        let wanted = self
            .ports
            .iter()
            .map(|range| (range, false))
            .chain(self.remote_ports.iter().map(|range| (range, true)));
        for (range, remote) in wanted {
            if let Some((_, other)) = overlapping(&listeners, range, remote) {
                return Err(Failure::usage(format!(
                    "ports {range} and {other} overlap; name each port once"
                )));
            }
            listeners.push(named_after_ports(range.clone(), remote, &listeners));
        }
        if listeners.len() > MAX_LISTENERS {
            return Err(Failure::usage(format!(
                "{} groups of ports; one wsmon can watch {MAX_LISTENERS}, write adjacent ports as a \
                 range",
                listeners.len()
            )));
        }
        Ok(listeners)
    }

    fn override_rules(&self, rules: &mut ListenerRules, path: Option<&Path>) {
        if let Some(path) = path {
            rules.path.clone_from(path);
            rules.routes.clear();
        }
        rules.ping_timeout = self.ping_timeout.unwrap_or(rules.ping_timeout);
        rules.unresponsive_floor = self.unresponsive_floor.unwrap_or(rules.unresponsive_floor);
        rules.message_gap = self.message_gap.or(rules.message_gap);
    }

    /// The path described by flags; `None` without such flags.
    fn path(&self) -> Result<Option<Path>, Failure> {
        let usage = |error: &dyn std::fmt::Display| Failure::usage(format!("--lb: {error}"));
        let hops = match (self.lb.as_slice(), self.lb_timeout) {
            ([], None) => return Ok(None),
            ([], Some(limit)) => vec![Hop::new("lb", limit, OnExpiry::Silent)],
            ([profile], Some(limit)) => {
                if let Some(doubt) = profile.doubt(limit) {
                    notice_line!("wsmon: warning: --lb-timeout: {doubt}");
                }
                vec![profile.hop_with(Some(limit))]
            }
            (several, Some(_)) => {
                return Err(usage(&format!(
                    "{} hops cannot share one --lb-timeout; give each its idle_timeout in a file \
                     (--config)",
                    several.len()
                )));
            }
            ([profile], None) if profile.idle_timeout == Idle::Yours => {
                let knob = profile.knob.as_deref().unwrap_or("its configuration");
                return Err(usage(&format!(
                    "{} has no default idle timeout; give --lb-timeout with the value of {knob}",
                    profile.name
                )));
            }
            (several, None) => {
                let hops = several.iter().map(|profile| profile.hop());
                hops.collect::<Result<_, _>>()
                    .map_err(|error| usage(&format!("{error} in a file (--config)")))?
            }
        };
        for (place, hop) in hops.iter().enumerate() {
            if hops[..place].iter().any(|other| other.name == hop.name) {
                return Err(usage(&format!(
                    "{} is listed twice; give each its own name in a file (--config)",
                    hop.name
                )));
            }
        }
        Ok(Some(Path { hops }))
    }
}

fn named_after_ports(range: PortRange, remote: bool, others: &[ListenerConfig]) -> ListenerConfig {
    let mut listener = ListenerConfig {
        rules: ListenerRules::new("", None),
        ports: vec![range],
        remote,
    };
    listener.rules.name = listener.default_name(others);
    listener
}

fn profile(name: &str) -> Result<&'static Profile, String> {
    profiles::find(name).map_err(|error| error.to_string())
}

pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    text.parse().map(|Limit(limit)| limit)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        watch: WatchArgs,
    }

    fn parse(args: &[&str]) -> Result<WatchArgs, clap::Error> {
        Cli::try_parse_from([&["wsmon"], args].concat()).map(|cli| cli.watch)
    }

    fn listeners(args: &[&str], file: &str) -> Result<Vec<ListenerConfig>, Failure> {
        let file = Config::parse(file).expect("a valid file");
        parse(args).expect("valid flags").listeners(&file)
    }

    fn names(args: &[&str]) -> Result<Vec<String>, Failure> {
        let listeners = listeners(args, "")?;
        Ok(listeners
            .into_iter()
            .map(|listener| listener.rules.name)
            .collect())
    }

    const FILE: &str = r#"
        [[listener]]
        name = "edge"
        ports = ["8080"]
        ping_timeout = "10s"
        unresponsive_floor = "3s"
        message_gap = "35s"
        path = [{ profile = "nginx" }]
        route = [{ network = "10.0.0.0/8", path = [] }]
    "#;

    #[test]
    fn each_port_flag_becomes_a_listener_named_after_it() {
        let args = [
            "--port",
            "8080",
            "--port",
            "9000-9010",
            "--remote-port",
            "443",
        ];
        assert_eq!(names(&args).expect("valid"), ["8080", "9000-9010", "443"]);
        let args = ["--port", "443", "--remote-port", "443"];
        assert_eq!(names(&args).expect("valid"), ["443", "443-remote"]);
        assert_eq!(names(&[]).expect("valid"), [""; 0]);
    }

    #[test]
    fn ports_with_commas_are_as_many_flags() {
        let args = ["-p", "8080,9000-9010", "--remote-port", "443,80"];
        let expected = ["8080", "9000-9010", "443", "80"];
        assert_eq!(names(&args).expect("valid"), expected);
    }

    #[test]
    fn overlapping_ports_are_refused() {
        let overlap = names(&["--port", "9000-9010", "--port", "9005"]).expect_err("they overlap");
        assert!(overlap.to_string().contains("overlap"), "{overlap}");
    }

    #[test]
    fn limits_of_zero_and_nonsense_are_refused() {
        for bad in ["0s", "0", "soon", "-5s"] {
            assert!(
                parse(&["--port", "80", "--lb-timeout", bad]).is_err(),
                "{bad}"
            );
        }
        let args = parse(&["--port", "80", "--lb-timeout", "1500ms"]).expect("valid");
        assert_eq!(args.lb_timeout, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn without_flags_the_file_decides() {
        let listeners = listeners(&[], FILE).expect("valid");
        assert_eq!(listeners, Config::parse(FILE).expect("valid").listeners);
        assert_eq!(listeners[0].rules.ping_timeout, Duration::from_secs(10));
    }

    #[test]
    fn a_flag_overrides_only_its_own_setting_of_the_file() {
        let rules = |args: &[&str]| listeners(args, FILE).expect("valid").remove(0).rules;
        let of_file = rules(&[]);
        let other_path = rules(&["--lb-timeout", "5s"]);
        assert_eq!(other_path.path.hops[0].name, "lb");
        assert!(
            other_path.routes.is_empty(),
            "the flag applies to every peer"
        );
        assert_eq!(other_path.ping_timeout, of_file.ping_timeout);
        let floor = |rules: &ListenerRules| rules.unresponsive_floor.as_secs();
        assert_eq!(floor(&other_path), 3);
        assert_eq!(floor(&rules(&["--unresponsive-floor", "20s"])), 20);
        assert_eq!(other_path.message_gap, of_file.message_gap);
        let other_gap = rules(&["--message-gap", "5s"]);
        assert_eq!(other_gap.message_gap, Some(Duration::from_secs(5)));
        assert_eq!(other_gap.path, of_file.path);
        let other_ports = rules(&["--port", "9000"]);
        assert_eq!(other_ports, ListenerRules::new("9000", None));
    }

    #[test]
    fn profiles_become_the_hops_of_a_path() {
        let path = |flags: &[&str]| {
            let flags = [&["--port", "80"], flags].concat();
            listeners(&flags, "").map(|mut listeners| listeners.remove(0).rules.path)
        };
        let names = |path: Path| {
            path.hops
                .into_iter()
                .map(|hop| hop.name)
                .collect::<Vec<_>>()
        };
        let both = path(&["--lb", "aws-nlb,nginx"]).expect("valid");
        assert_eq!(both.idle_timeout(), Some(Duration::from_secs(60)));
        assert_eq!(names(both), ["aws-nlb", "nginx"]);
        let haproxy = path(&["--lb", "haproxy", "--lb-timeout", "1h"]).expect("valid");
        assert_eq!(haproxy.idle_timeout(), Some(Duration::from_secs(3600)));
        assert_eq!(names(haproxy), ["haproxy"]);
        for (flags, why) in [
            (&["--lb", "haproxy"][..], "timeout tunnel"),
            (&["--lb", "nginx,haproxy"], "timeout tunnel"),
            (&["--lb", "nginx,nginx"], "nginx is listed twice"),
            (
                &["--lb", "nginx,caddy", "--lb-timeout", "9s"],
                "cannot share",
            ),
        ] {
            let refusal = path(flags).expect_err("no path").to_string();
            assert!(refusal.contains(why), "{flags:?}: {refusal}");
        }
        let wrong = parse(&["--lb", "nginz"]).expect_err("no such profile");
        assert!(
            wrong.to_string().contains("did you mean \"nginx\"?"),
            "{wrong}"
        );
    }
}
