//! One listener: its connections, clients, limits, frames and TCP.

use super::{
    dashboard::{Dashboard, Row, Variable},
    panel::{BYTES, BYTES_PER_SECOND, COUNT, PER_SECOND, Panel, SECONDS, SHARE},
};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        uid: "wsmon-listener",
        title: "wsmon: listener",
        description: "A listener on one host or on all: its connections, verdicts, limits, frames and TCP.",
        variables: &[Variable::Job, Variable::Instance, Variable::Listener],
        rows: vec![
            connections(),
            handshakes(),
            verdicts(),
            limits(),
            frames(),
            latency(),
            tcp(),
        ],
    }
}

fn connections() -> Row {
    Row {
        title: "Connections",
        panels: vec![
            Panel::stacked("By protocol and state", COUNT)
                .query("sum by (protocol, state) (wsmon_connections{@})", "{{protocol}} {{state}}")
                .about("opaque is TLS; assumed is older than wsmon and not recognised yet."),
            Panel::stacked("By host", COUNT)
                .query("sum by (instance) (wsmon_connections{@})", "{{instance}}")
                .about("Watched connections of each host."),
            Panel::stacked("By workload", COUNT)
                .query(
                    "topk(20, sum by (namespace, workload) (wsmon_connections{@,workload!=\"\"}))",
                    "{{namespace}}/{{workload}}",
                )
                .about("The 20 largest. Needs --workload-labels."),
            Panel::stacked("How they end", PER_SECOND)
                .query("sum by (how) (rate(wsmon_connections_closed_total{@}[$__rate_interval]))", "{{how}}")
                .about("The strongest sign that was seen."),
            Panel::stacked("Close codes", PER_SECOND)
                .query(
                    "sum by (initiator, code) (rate(wsmon_close_codes_total{@}[$__rate_interval]))",
                    "{{initiator}} {{code}}",
                )
                .about("First close frames, by the side that sent them."),
            Panel::lines("Without a close frame", SHARE)
                .query(
                    "sum by (listener) (rate(wsmon_abnormal_closures_total{@}[$__rate_interval]))
  / (sum by (listener) (rate(wsmon_connections_closed_total{@}[$__rate_interval])) > 0)",
                    "{{listener}}",
                )
                .about("Browsers call such an end 1006."),
            Panel::lines("Lifetimes of connections that ended", SECONDS)
                .query("histogram_quantile(0.5, sum by (le) (rate(wsmon_connection_duration_seconds_bucket{@}[$__rate_interval])))", "p50")
                .query("histogram_quantile(0.95, sum by (le) (rate(wsmon_connection_duration_seconds_bucket{@}[$__rate_interval])))", "p95")
                .about("From TCP's ESTABLISHED to CLOSE, of connections younger than wsmon."),
            Panel::lines("Ages of connections that exist", SECONDS)
                .query("histogram_quantile(0.5, sum by (le) (wsmon_connection_age_seconds_bucket{@}))", "p50")
                .query("histogram_quantile(0.95, sum by (le) (wsmon_connection_age_seconds_bucket{@}))", "p95")
                .about("Of connections younger than wsmon."),
        ],
    }
}

fn handshakes() -> Row {
    Row {
        title: "Clients",
        panels: vec![
            Panel::stacked("Upgrade requests by status", PER_SECOND)
                .query("sum by (status) (rate(wsmon_handshakes_total{@}[$__rate_interval]))", "{{status}}")
                .about("101 is a success; none ended without an answer."),
            Panel::lines("Duration of the opening handshake", SECONDS)
                .query("histogram_quantile(0.5, sum by (le) (rate(wsmon_handshake_seconds_bucket{@}[$__rate_interval])))", "p50")
                .query("histogram_quantile(0.99, sum by (le) (rate(wsmon_handshake_seconds_bucket{@}[$__rate_interval])))", "p99")
                .about("From TCP's ESTABLISHED to the 101."),
            Panel::lines("Requests and returning clients", PER_SECOND)
                .query("sum(rate(wsmon_upgrade_requests_total{@}[$__rate_interval]))", "requests")
                .query("sum(rate(wsmon_reconnects_total{@}[$__rate_interval]))", "of returning clients")
                .about("Returning clients had lost a connection or were refused in the five minutes before."),
            Panel::lines("Requests without an answer", COUNT)
                .query("sum by (listener) (wsmon_handshakes_stuck{@})", "{{listener}}")
                .about("Upgrade requests that have waited for 10 s or more."),
            Panel::lines("Duration of the closing handshake", SECONDS)
                .query("histogram_quantile(0.99, sum by (le) (rate(wsmon_close_handshake_seconds_bucket{@}[$__rate_interval])))", "p99")
                .width(6)
                .about("From the first close frame to the other side's."),
            Panel::states("Reconnect storms")
                .query("max by (instance, listener) (wsmon_reconnect_storm{@})", "{{instance}} {{listener}}")
                .width(6)
                .about("Where clients come back all at once."),
            Panel::lines("Thrashing clients", COUNT)
                .query("sum by (instance) (wsmon_thrashing_clients{@})", "{{instance}}")
                .width(6)
                .about("They keep reconnecting and stay for seconds only."),
            Panel::lines("Listening sockets", COUNT)
                .query("sum by (instance) (wsmon_listener_sockets{@})", "{{instance}}")
                .width(6)
                .about("0: the server is down, or the port is wrong."),
        ],
    }
}

fn verdicts() -> Row {
    Row {
        title: "Verdicts",
        panels: vec![
            Panel::stacked("Zombies", COUNT)
                .query("sum by (kind) (wsmon_zombie_connections{@})", "{{kind}}")
                .about("Connections with a standing verdict, suspected ones too."),
            Panel::lines("Found and recovered", PER_SECOND)
                .query(
                    "sum by (kind) (rate(wsmon_zombies_detected_total{@}[$__rate_interval]))",
                    "{{kind}} found",
                )
                .query(
                    "sum by (kind) (rate(wsmon_zombies_recovered_total{@}[$__rate_interval]))",
                    "{{kind}} recovered",
                )
                .about("Verdicts that begin, and that end with a sign of life."),
            Panel::lines("Aborted by wsmon", PER_SECOND)
                .query(
                    "sum by (outcome) (rate(wsmon_reaped_total{@}[$__rate_interval]))",
                    "{{outcome}}",
                )
                .about("Attempts of --reap to abort dead connections."),
            Panel::lines("Send queues", BYTES)
                .query(
                    "sum by (instance) (wsmon_send_queue_bytes{@,stat=\"sum\"})",
                    "{{instance}} all",
                )
                .query(
                    "max by (instance) (wsmon_send_queue_bytes{@,stat=\"max\"})",
                    "{{instance}} worst",
                )
                .about(
                    "What peers have not acknowledged. A slow consumer lets the worst one grow.",
                ),
        ],
    }
}

fn limits() -> Row {
    Row {
        title: "Idle limits",
        panels: vec![
            Panel::lines("Configured and real idle limit", SECONDS)
                .query("min by (listener, hop) (wsmon_lb_idle_timeout_seconds{@})", "{{listener}} {{hop}} configured")
                .query("max by (listener) (wsmon_lb_idle_timeout_learned_seconds{@,bound=\"lower\"})", "{{listener}} survived")
                .query("min by (listener) (wsmon_lb_idle_timeout_learned_seconds{@,bound=\"upper\"})", "{{listener}} killed")
                .about("The real limit lies between the longest silence that was survived and the shortest that killed."),
            Panel::lines("Margin of heartbeats", SECONDS)
                .query("min by (instance, listener) (wsmon_heartbeat_margin_seconds{@})", "{{instance}} {{listener}}")
                .about("The tightest limit minus the p99 of the silences. Below 0, connections get lost."),
            Panel::lines("Connections at risk", COUNT)
                .query("sum by (instance) (wsmon_at_risk_connections{@})", "{{instance}}")
                .about("Silent for at least 0.8 of the limit, and not past it."),
            Panel::lines("Silences that ended well", SECONDS)
                .query("histogram_quantile(0.5, sum by (le) (rate(wsmon_idle_gap_seconds_bucket{@}[$__rate_interval])))", "p50")
                .query("histogram_quantile(0.99, sum by (le) (rate(wsmon_idle_gap_seconds_bucket{@}[$__rate_interval])))", "p99")
                .about("Silences of at least 1 s. Their p99 should stay below half of the limit."),
            Panel::buckets(
                "Silence before a death",
                "sum by (le) (increase(wsmon_idle_at_death_seconds_bucket{@}[$__range]))",
            )
            .about("A spike at one value names the hop that forgets."),
            Panel::buckets(
                "Age at death",
                "sum by (le) (increase(wsmon_age_at_death_seconds_bucket{@}[$__range]))",
            )
            .about("A spike names a maximum lifetime."),
        ],
    }
}

fn frames() -> Row {
    Row {
        title: "Frames",
        panels: vec![
            Panel::lines("Frames", PER_SECOND)
                .query("sum by (direction, opcode) (rate(wsmon_frames_total{@}[$__rate_interval]))", "{{direction}} {{opcode}}")
                .about("rx: towards the host, tx: away from it."),
            Panel::lines("Payload", BYTES_PER_SECOND)
                .query("sum by (direction) (rate(wsmon_frame_payload_bytes_total{@}[$__rate_interval]))", "{{direction}}")
                .about("As on the wire, so compressed if it is compressed."),
            Panel::lines("Size of messages", BYTES)
                .query("histogram_quantile(0.5, sum by (le, direction) (rate(wsmon_message_size_bytes_bucket{@}[$__rate_interval])))", "{{direction}} p50")
                .query("histogram_quantile(0.99, sum by (le, direction) (rate(wsmon_message_size_bytes_bucket{@}[$__rate_interval])))", "{{direction}} p99")
                .about("Payload of all frames of a message."),
            Panel::lines("Kinds of messages", PER_SECOND)
                .query("sum by (direction) (rate(wsmon_compressed_messages_total{@}[$__rate_interval]))", "{{direction}} compressed")
                .query("sum by (direction) (rate(wsmon_fragmented_messages_total{@}[$__rate_interval]))", "{{direction}} fragmented")
                .query("sum by (direction) (rate(wsmon_unfinished_messages_total{@}[$__rate_interval]))", "{{direction}} unfinished")
                .about("Unfinished ones were cut off by the end of their connection."),
            Panel::lines("Protocol errors", PER_SECOND)
                .query("sum by (kind) (rate(wsmon_protocol_errors_total{@}[$__rate_interval]))", "{{kind}}")
                .about("Violations of RFC 6455."),
            Panel::lines("Bytes without frames", BYTES_PER_SECOND)
                .query("sum by (direction) (rate(wsmon_unsynced_bytes_total{@}[$__rate_interval]))", "{{direction}}")
                .about("Bytes that could not be attributed to frames."),
        ],
    }
}

fn latency() -> Row {
    Row {
        title: "Heartbeats and latency",
        panels: vec![
            Panel::lines("Round trip of pings", SECONDS)
                .query("histogram_quantile(0.5, sum by (le, direction) (rate(wsmon_ping_rtt_seconds_bucket{@}[$__rate_interval])))", "{{direction}} p50")
                .query("histogram_quantile(0.99, sum by (le, direction) (rate(wsmon_ping_rtt_seconds_bucket{@}[$__rate_interval])))", "{{direction}} p99")
                .about("tx: this host pings, rx: the peer does."),
            Panel::lines("Interval of heartbeats", SECONDS)
                .query("histogram_quantile(0.99, sum by (le, direction) (rate(wsmon_heartbeat_interval_seconds_bucket{@}[$__rate_interval])))", "{{direction}} p99")
                .about("Between consecutive pings of one connection."),
            Panel::lines("Pings and pongs", PER_SECOND)
                .query("sum by (direction) (rate(wsmon_pings_total{@}[$__rate_interval]))", "pings {{direction}}")
                .query("sum by (direction) (rate(wsmon_pings_unanswered_total{@}[$__rate_interval]))", "unanswered pings {{direction}}")
                .query("sum by (direction, kind) (rate(wsmon_pongs_total{@}[$__rate_interval]))", "pongs {{direction}} {{kind}}")
                .about("A ping without a pong before the next ping is unanswered."),
            Panel::lines("Response of the server", SECONDS)
                .query("histogram_quantile(0.5, sum by (le) (rate(wsmon_response_seconds_bucket{@}[$__rate_interval])))", "p50")
                .query("histogram_quantile(0.95, sum by (le) (rate(wsmon_response_seconds_bucket{@}[$__rate_interval])))", "p95")
                .about("From a client's last data frame to the server's next one, without the network."),
        ],
    }
}

fn tcp() -> Row {
    Row {
        title: "TCP",
        panels: vec![
            Panel::lines("Retransmissions and duplicate ACKs", PER_SECOND)
                .query(
                    "sum(rate(wsmon_tcp_retransmits_total{@}[$__rate_interval]))",
                    "retransmissions",
                )
                .query(
                    "sum(rate(wsmon_tcp_duplicate_acks_total{@}[$__rate_interval]))",
                    "duplicate ACKs",
                )
                .about("Retransmissions by the host, and duplicate ACKs that it received."),
            Panel::lines("Closed windows", PER_SECOND)
                .query(
                    "sum by (direction) (rate(wsmon_tcp_zero_windows_total{@}[$__rate_interval]))",
                    "{{direction}}",
                )
                .about("rx: the peer does not read, tx: the host's application does not read."),
            Panel::lines("Loss", SHARE)
                .query(
                    "max by (instance, listener) (wsmon_tcp_loss_ratio{@})",
                    "{{instance}} {{listener}}",
                )
                .about("Share of TCP's tries that fail. 0.01 where nothing is known."),
        ],
    }
}
