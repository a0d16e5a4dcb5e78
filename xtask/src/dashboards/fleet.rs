//! All hosts together. Its panels use the recording rules, so that it also opens fast for a thousand hosts.

use super::{
    dashboard::{Dashboard, Row, Variable},
    panel::{COUNT, PER_SECOND, Panel, SHARE},
};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        uid: "wsmon-fleet",
        title: "wsmon: fleet",
        description: "All hosts together: storms, zombies, drains. Needs the recording rules in deploy/prometheus.",
        variables: &[Variable::Job, Variable::Listener],
        rows: vec![now(), clients(), verdicts(), hosts()],
    }
}

fn now() -> Row {
    Row {
        title: "Now",
        panels: vec![
            Panel::number("Hosts", "count(wsmon_degraded{job=~\"$job\"})")
                .about("Hosts whose wsmon was scraped."),
            Panel::faults("Hosts not scraped", "count(up{job=~\"$job\"} == 0) or vector(0)")
                .about("Targets that did not answer the last scrape."),
            Panel::faults("Hosts degraded", "sum(wsmon_degraded{job=~\"$job\"})")
                .about("Hosts whose wsmon lost something within the last five minutes."),
            Panel::number("Connections", "sum(listener:wsmon_connections:sum{@})")
                .about("Watched connections, open and closing ones."),
            Panel::faults("Zombies", "sum(listener_kind:wsmon_zombie_connections:sum{@})")
                .about("Connections with a standing verdict, suspected ones too."),
            Panel::faults("At risk", "sum(wsmon_at_risk_connections{@})")
                .about("Connections that have been silent for at least 0.8 of the idle limit."),
            Panel::faults("Hosts in a storm", "sum(wsmon_reconnect_storm{@})")
                .about("Pairs of host and listener whose clients come back all at once."),
            Panel::faults(
                "Alerts",
                "count(ALERTS{alertstate=\"firing\",alertname=~\"WebSocket.+|Wsmon.+\",@}) or vector(0)",
            )
            .about("Firing alerts of the rules in deploy/prometheus."),
        ],
    }
}

fn clients() -> Row {
    Row {
        title: "Clients",
        panels: vec![
            Panel::stacked("Connections", COUNT)
                .query("listener:wsmon_connections:sum{@}", "{{listener}}")
                .about("Connections on all hosts."),
            Panel::lines("Connections by host", COUNT)
                .query(
                    "topk(20, sum by (instance) (instance_listener:wsmon_connections:sum{@}))",
                    "{{instance}}",
                )
                .about("The 20 hosts with the most connections. A drained host falls to 0, and the others take over."),
            Panel::lines("Opened and closed", PER_SECOND)
                .query("listener:wsmon_connections_opened:rate5m{@}", "{{listener}} opened")
                .query("listener:wsmon_connections_closed:rate5m{@}", "{{listener}} closed")
                .about("Connections that were opened and closed, per second over five minutes."),
            Panel::lines("Returning clients", PER_SECOND)
                .query("listener:wsmon_reconnects:rate5m{@}", "{{listener}}")
                .about("Attempts of clients that had lost a connection or were refused in the five minutes before."),
            Panel::states("Reconnect storms")
                .query("max by (instance, listener) (wsmon_reconnect_storm{@})", "{{instance}} {{listener}}")
                .about("Where clients come back all at once. Bars at the same time have one cause."),
            Panel::lines("Refused upgrades", SHARE)
                .query("listener:wsmon_handshakes_refused:ratio_rate5m{@}", "{{listener}}")
                .about("Share of upgrade requests that are refused or not answered."),
            Panel::lines("Abnormal closures", SHARE)
                .query("listener:wsmon_abnormal_closures:ratio_rate5m{@}", "{{listener}} 5 min")
                .query("listener:wsmon_abnormal_closures:ratio_rate1h{@}", "{{listener}} 1 h")
                .query("listener:wsmon_abnormal_closures:ratio_rate1d{@}", "{{listener}} 1 d")
                .about("Share of connections that end without a close frame."),
            Panel::stacked("How connections end", PER_SECOND)
                .query(
                    "sum by (how) (rate(wsmon_connections_closed_total{@}[$__rate_interval]))",
                    "{{how}}",
                )
                .about("In a drain, all but close_frame are clients that were cut off."),
        ],
    }
}

fn verdicts() -> Row {
    Row {
        title: "Verdicts",
        panels: vec![
            Panel::stacked("Zombies by kind", COUNT)
                .query("sum by (kind) (listener_kind:wsmon_zombie_connections:sum{@})", "{{kind}}")
                .about("Connections with a standing verdict."),
            Panel::lines("Zombies by host", COUNT)
                .query(
                    "topk(20, sum by (instance) (instance_listener_kind:wsmon_zombie_connections:sum{@}))",
                    "{{instance}}",
                )
                .about("The 20 hosts with the most zombies. One host alone has a cause of its own."),
            Panel::lines("Found dead within 5 minutes", COUNT)
                .query("listener:wsmon_zombies_detected:increase5m{@}", "{{listener}}")
                .about("A load balancer that forgets its connections is a step here."),
            Panel::table("Alerts that fire")
                .query("ALERTS{alertstate=\"firing\",alertname=~\"WebSocket.+|Wsmon.+\",@}", "firing")
                .width(12)
                .about("Of the rules in deploy/prometheus."),
        ],
    }
}

fn hosts() -> Row {
    Row {
        title: "Hosts",
        panels: vec![
            Panel::table("Hosts")
                .query(
                    "sum by (instance) (instance_listener:wsmon_connections:sum{@})",
                    "connections",
                )
                .query(
                    "sum by (instance) (instance_listener_kind:wsmon_zombie_connections:sum{@})",
                    "zombies",
                )
                .query("sum by (instance) (wsmon_reconnect_storm{@})", "storms")
                .query(
                    "sum by (instance) (wsmon_degraded{job=~\"$job\"})",
                    "degraded",
                )
                .about("Every host with its connections, zombies, storms and losses."),
            Panel::lines("Versions", COUNT)
                .query(
                    "count by (version) (wsmon_build_info{job=~\"$job\"})",
                    "{{version}}",
                )
                .about("Hosts by the version of wsmon."),
            Panel::lines("Kernels", COUNT)
                .query(
                    "count by (kernel) (wsmon_build_info{job=~\"$job\"})",
                    "{{kernel}}",
                )
                .about("Hosts by the version of the kernel."),
        ],
    }
}
