//! What is watched, and by which rules: the flags that `wsmon run` and `wsmon replay` share.

use std::time::Duration;

use clap::Args;
use monitor_common::listener::MAX_LISTENERS;

use super::exit::Failure;
use crate::{
    core::{Hop, ListenerRules, OnExpiry},
    listeners::{Listener, PortRange},
};

#[derive(Args, Clone, Debug)]
pub struct WatchArgs {
    /// A local port of WebSocket servers, or a range of them; each is one listener
    #[arg(long = "port", value_name = "PORT[-PORT]")]
    pub ports: Vec<PortRange>,

    /// A port of remote services that this host connects to, or a range of them
    #[arg(long = "remote-port", value_name = "PORT[-PORT]")]
    pub remote_ports: Vec<PortRange>,

    /// After how much silence the load balancer forgets a connection, without a word to either
    /// side
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    pub lb_timeout: Option<Duration>,

    /// How long a single ping from this host may stay without its pong
    #[arg(long, value_name = "DURATION", value_parser = positive_duration, default_value = "30s")]
    pub ping_timeout: Duration,
}

impl WatchArgs {
    /// The listeners that the flags describe, each port in at most one of its kind; none if none
    /// is named.
    pub fn listeners(&self) -> Result<Vec<Listener>, Failure> {
        let mut listeners: Vec<Listener> = Vec::new();
        let wanted = self
            .ports
            .iter()
            .map(|range| (range, false))
            .chain(self.remote_ports.iter().map(|range| (range, true)));
        for (range, remote) in wanted {
            let overlap = listeners.iter().find(|other| {
                other.remote == remote
                    && other.ports.start() <= range.0.end()
                    && range.0.start() <= other.ports.end()
            });
            if let Some(other) = overlap {
                return Err(Failure::usage(format!(
                    "ports {range} and {} overlap; name each port once",
                    other.rules.name
                )));
            }
            let mut listener = self.listener(range, remote);
            if listeners
                .iter()
                .any(|other| other.rules.name == listener.rules.name)
            {
                listener.rules.name.push_str("-remote");
            }
            listeners.push(listener);
        }
        if listeners.len() > MAX_LISTENERS {
            return Err(Failure::usage(format!(
                "{} groups of ports; one wsmon can watch {MAX_LISTENERS}, write neighbours as a \
                 range",
                listeners.len()
            )));
        }
        Ok(listeners)
    }

    /// One group of ports, named after them, under the rules that the flags give to all.
    pub fn listener(&self, range: &PortRange, remote: bool) -> Listener {
        let hop = self
            .lb_timeout
            .map(|idle_timeout| Hop::new("lb", idle_timeout, OnExpiry::Silent));
        Listener {
            rules: ListenerRules {
                ping_timeout: self.ping_timeout,
                ..ListenerRules::new(range.to_string(), hop)
            },
            ports: range.0.clone(),
            remote,
        }
    }
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it like 60s, 5m or 1500ms"))?;
    if duration.is_zero() {
        return Err("it must be longer than zero".into());
    }
    Ok(duration)
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

    fn names(args: &[&str]) -> Result<Vec<String>, Failure> {
        let listeners = parse(args).expect("valid flags").listeners()?;
        Ok(listeners
            .into_iter()
            .map(|listener| listener.rules.name)
            .collect())
    }

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
}
