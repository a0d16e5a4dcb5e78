//! The number of listening sockets and connections, and how connections were opened and closed.

use super::{Family, FamilyBuilder, Scrape, families::core_histogram};
use monitor_core::{
    CloseHow,
    facts::{InferredHeartbeat, Protocol},
    send_queues::QueueTotals,
};

pub(super) fn families(scrape: &Scrape<'_>, out: &mut Vec<Family>) {
    let mut live = FamilyBuilder::gauge("connections", "Watched connections.");
    let mut opened = FamilyBuilder::counter(
        "connections_opened_total",
        "Connections that finished their upgrade or began TLS since wsmon started.",
    );
    let mut closed = FamilyBuilder::counter(
        "connections_closed_total",
        "Connections that ended, by the kind of close.",
    );
    let mut codes = FamilyBuilder::counter(
        "close_codes_total",
        "First close frames, by sender and code.",
    );
    let mut abnormal = FamilyBuilder::counter(
        "abnormal_closures_total",
        "WebSocket connections that ended without a close frame (what browsers call 1006).",
    );
    let mut durations = FamilyBuilder::histogram(
        "connection_duration_seconds",
        "Lifetimes of connections that ended, from TCP's establishment to CLOSE.",
    );
    // The text format has no gauge histogram, and `promtool` rejects a gauge with a label `le`. The one of
    // OpenMetrics has other names for its series.
    let mut ages = FamilyBuilder::gauge_histogram(
        "connection_age_seconds",
        "Ages of the connections that exist now, a gauge in the form of a histogram: no rate().",
    );
    let mut over_limit = FamilyBuilder::counter(
        "workloads_over_limit_total",
        "Connections counted in workload=\"other\", because there was no room for their workload.",
    );
    let mut listening = FamilyBuilder::gauge(
        "listener_sockets",
        "Listening sockets on the ports of a listener, in all network namespaces.",
    );
    let mut queues = FamilyBuilder::gauge(
        "send_queue_bytes",
        "Bytes in the send queues of the connections, at the last scan of the host's sockets.",
    );
    let mut heartbeats = FamilyBuilder::gauge(
        "heartbeats_inferred",
        "Open TLS connections whose records are followed, by what they show of the heartbeat.",
    );
    for (listener, tally) in scrape.listeners.iter().zip(&scrape.tallies) {
        if !listener.remote {
            let labels = [("listener", listener.rules.name.as_str())];
            listening.add(&labels, tally.listen_sockets as f64);
        }
    }
    for of in scrape.counts() {
        for &protocol in Protocol::ALL {
            let phases = of.counts.connections[protocol as usize];
            for (state, count) in [("open", phases.open), ("closing", phases.closing)] {
                let labels = of.and(&[("protocol", protocol.as_str()), ("state", state)]);
                live.add(&labels, count as f64);
            }
        }
        let turnover = &of.counts.turnover;
        opened.add(&of.labels, turnover.opened as f64);
        opened.since(of.since);
        for &how in CloseHow::ALL {
            let labels = of.and(&[("how", how.as_str())]);
            closed.add(&labels, turnover.closed[how as usize] as f64);
            closed.since(of.since);
        }
        durations.add_histogram(&of.labels, core_histogram(&of.counts.durations));
        durations.since(of.since);
    }
    for (listener, workloads) in scrape.listeners.iter().zip(&scrape.workloads) {
        let labels = [("listener", listener.rules.name.as_str())];
        over_limit.add(&labels, workloads.over_limit() as f64);
    }
    for (name, _, tally) in scrape.each() {
        for (&(initiator, code), &n) in &tally.close_codes.counts {
            let code = code.map_or("none".to_owned(), |code| code.to_string());
            codes.add(
                &[
                    ("listener", name),
                    ("initiator", initiator.sender()),
                    ("code", &code),
                ],
                n as f64,
            );
        }
        if tally.close_codes.overflow > 0 {
            let labels = [("listener", name), ("initiator", "any"), ("code", "other")];
            codes.add(&labels, tally.close_codes.overflow as f64);
        }
        abnormal.add(&[("listener", name)], tally.abnormal_closures as f64);
        let QueueTotals { sum, max } = tally.send_queues;
        for (stat, bytes) in [("sum", sum), ("max", max.into())] {
            queues.add(&[("listener", name), ("stat", stat)], bytes as f64);
        }
        for &state in InferredHeartbeat::ALL {
            let labels = [("listener", name), ("state", state.as_str())];
            heartbeats.add(&labels, tally.heartbeats[state as usize] as f64);
        }
        let open = tally.ages.histogram(scrape.now);
        ages.add_histogram(&[("listener", name)], core_histogram(&open));
    }
    out.extend(
        [
            listening, live, opened, closed, codes, abnormal, durations, ages, queues, heartbeats,
            over_limit,
        ]
        .map(FamilyBuilder::finish),
    );
}
