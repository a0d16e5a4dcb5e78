//! Describes what is watched in text: for the banner of `wsmon run`, `wsmon config check`, and reloads.

use std::{fmt, time::Duration};

use humantime::format_duration;

use super::wrap::{NARROW, wrap};
use crate::config::listeners::{ListenerConfig, PortRange};
use monitor_core::{Hop, ListenerRules, OnExpiry, hop::Path};

/// `local port 8080`, `remote ports 443, 8443-8450`.
pub fn ports(listener: &ListenerConfig) -> String {
    let whose = if listener.remote { "remote" } else { "local" };
    let ports: Vec<_> = listener.ports.iter().map(PortRange::to_string).collect();
    let is_one = matches!(listener.ports.as_slice(), [range] if range.0.start() == range.0.end());
    let noun = if is_one { "port" } else { "ports" };
    format!("{whose} {noun} {}", ports.join(", "))
}

/// The ports, after the listener's name if it has its own.
pub fn title(listener: &ListenerConfig) -> String {
    let name = &listener.rules.name;
    match *name == listener.default_name(&[]) {
        true => ports(listener),
        false => format!("{name}, {}", ports(listener)),
    }
}

/// What the hop does with a connection that was idle for too long.
pub fn gives_up(on_expiry: OnExpiry) -> &'static str {
    match on_expiry {
        OnExpiry::Silent => "expires silently",
        OnExpiry::RstOnNextPacket => "sends a RST on the next packet after expiry",
        OnExpiry::Rst => "sends a RST on expiry",
        OnExpiry::Fin => "sends a FIN on expiry",
    }
}

/// `ping timeout 30s, unresponsive after 10s, message gap 35s`.
pub fn timeouts(rules: &ListenerRules) -> String {
    let ping = format!(
        "ping timeout {}, unresponsive after {}",
        format_duration(rules.ping_timeout),
        format_duration(rules.unresponsive_floor)
    );
    match rules.message_gap {
        Some(gap) => format!("{ping}, message gap {}", format_duration(gap)),
        None => ping,
    }
}

/// The interval of heartbeats that tolerates two lost ones in a row.
pub fn heartbeat(idle_timeout: Duration) -> Duration {
    let third = idle_timeout / 3;
    match third.as_secs() {
        0 => third,
        seconds => Duration::from_secs(seconds),
    }
}

/// The effective limit: `idle limit 1m (lb, expires silently)`.
pub struct Tightest<'a>(pub &'a Path);

impl fmt::Display for Tightest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tightest = self.0.tightest();
        match tightest.and_then(|hop| Some((hop, hop.idle_timeout?))) {
            Some((hop, limit)) => write!(
                f,
                "idle limit {} ({}, {})",
                format_duration(limit),
                hop.name,
                gives_up(hop.on_expiry)
            ),
            None => f.write_str("no idle limit"),
        }
    }
}

/// Every hop, nearest first, with its limits: `nginx 1m 15s, aws-nlb 5m 50s`.
pub struct Hops<'a>(pub &'a Path);

impl fmt::Display for Hops<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.hops.is_empty() {
            return f.write_str("none");
        }
        for (place, hop) in self.0.hops.iter().enumerate() {
            if place > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{}", Limits(hop))?;
        }
        Ok(())
    }
}

/// `corp-fw 30m (closed at the age of 8h)`.
struct Limits<'a>(&'a Hop);

impl fmt::Display for Limits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hop {
            name,
            idle_timeout,
            max_lifetime,
            ..
        } = self.0;
        f.write_str(name)?;
        if let Some(limit) = idle_timeout {
            write!(f, " {}", format_duration(*limit))?;
        }
        if let Some(limit) = max_lifetime {
            write!(f, " (closed at the age of {})", format_duration(*limit))?;
        }
        Ok(())
    }
}

/// One listener for the banner, with a line for each path that is more than a single idle limit.
pub struct ListenerLines<'a>(pub &'a ListenerConfig);

impl ListenerLines<'_> {
    /// Lines of at most 80 columns, unless a word is longer.
    pub fn lines(&self) -> Vec<String> {
        let ListenerConfig { rules, .. } = self.0;
        let title = format!("{}: {}", title(self.0), Tightest(&rules.path));
        let mut lines = wrap(&title, NARROW, "  ", "    ");
        let mut details = Vec::new();
        if rules.shortest_idle_timeout().is_none() {
            details.push("give --lb or --lb-timeout to find expired connections".to_owned());
        }
        details.push(timeouts(rules));
        if is_more_than_a_limit(&rules.path) {
            details.push(format!("path: {}", Hops(&rules.path)));
        }
        for route in &rules.routes {
            let (network, path) = (route.network, &route.path);
            let mut peers = format!("peers in {network}: {}", Tightest(path));
            if is_more_than_a_limit(path) {
                peers += &format!("; path: {}", Hops(path));
            }
            details.push(peers);
        }
        let details = details.iter();
        lines.extend(details.flat_map(|text| wrap(text, NARROW, "    ", "      ")));
        lines
    }
}

fn is_more_than_a_limit(path: &Path) -> bool {
    match path.hops.as_slice() {
        [] => false,
        [hop] => hop.max_lifetime.is_some(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn banner(file: &str) -> String {
        let config = Config::parse(file).expect("a valid file");
        let listeners = config.listeners.iter();
        let lines = listeners.flat_map(|listener| ListenerLines(listener).lines());
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn one_silent_hop_has_no_path() {
        let file = r#"
            [[listener]]
            ports = ["8080"]
            path = [{ name = "lb", idle_timeout = "60s" }]
        "#;
        assert_eq!(
            banner(file),
            "  local port 8080: idle limit 1m (lb, expires silently)\n    \
             ping timeout 30s, unresponsive after 10s"
        );
    }

    #[test]
    fn without_a_limit_the_flags_that_set_one_are_named() {
        assert_eq!(
            banner("[[listener]]\nports = [\"80\"]"),
            "  local port 80: no idle limit\n    \
             give --lb or --lb-timeout to find expired connections\n    \
             ping timeout 30s, unresponsive after 10s"
        );
    }

    #[test]
    fn several_hops_and_routes_are_all_shown() {
        let file = r#"
            [[listener]]
            name = "edge"
            ports = ["8080", "9000-9010"]
            message_gap = "35s"
            path = [{ profile = "nginx" }, { profile = "azure-front-door" }]
            route = [
                { network = "10.0.0.0/8", path = [{ profile = "gcp-cloud-run" }] },
                { network = "fd00::/8", path = [] },
            ]
        "#;
        let expected = "  edge, local ports 8080, 9000-9010: idle limit 1m (nginx, sends a FIN on\n    \
                        expiry)\n    \
                        ping timeout 30s, unresponsive after 10s, message gap 35s\n    \
                        path: nginx 1m, azure-front-door 5m (closed at the age of 4h)\n    \
                        peers in 10.0.0.0/8: no idle limit; path: gcp-cloud-run (closed at the age\n      \
                        of 5m)\n    \
                        peers in fd00::/8: no idle limit";
        assert_eq!(banner(file), expected);
    }

    #[test]
    fn a_heartbeat_is_a_third_of_the_limit_in_whole_seconds() {
        for (limit, interval) in [(60_000, 20_000), (350_000, 116_000), (2_400, 800)] {
            let interval = Duration::from_millis(interval);
            assert_eq!(heartbeat(Duration::from_millis(limit)), interval);
        }
    }
}
