//! The core's verdicts on the connections.

use std::collections::BTreeMap;

use super::families::core_histogram;
use super::{Family, FamilyBuilder, Scrape};
use monitor_core::{VerdictKind, reap::ReapOutcome};

pub(super) fn families(scrape: &Scrape<'_>, out: &mut Vec<Family>) {
    let mut zombies = FamilyBuilder::gauge(
        "zombie_connections",
        "Dead connections whose sockets are still open.",
    );
    let mut detected = FamilyBuilder::counter(
        "zombies_detected_total",
        "Detected zombies, one per episode, by the certainty with which it began.",
    );
    let mut recovered = FamilyBuilder::counter(
        "zombies_recovered_total",
        "Zombies that recovered with a sign of life from their peer.",
    );
    let mut reaped = FamilyBuilder::counter(
        "reaped_total",
        "Attempts to abort a dead connection, by outcome.",
    );
    let mut at_risk = FamilyBuilder::gauge(
        "at_risk_connections",
        "Connections idle for at least 0.8 of the tightest hop's limit.",
    );
    let mut limits = FamilyBuilder::gauge(
        "lb_idle_timeout_seconds",
        "The configured idle timeout of a hop on the path.",
    );
    let mut learned = FamilyBuilder::gauge(
        "lb_idle_timeout_learned_seconds",
        "Bounds of the path's real idle timeout: the longest silence that a connection survived, and \
         the shortest that killed one.",
    );
    let mut mismatch = FamilyBuilder::gauge(
        "limit_mismatch",
        "1 while the connections contradict the configured idle timeouts or lifetimes.",
    );
    let mut margin = FamilyBuilder::gauge(
        "heartbeat_margin_seconds",
        "The tightest hop's idle timeout minus the 99th percentile of recent silences; below 0, it \
         will drop connections.",
    );
    let mut idle_at_death = FamilyBuilder::histogram(
        "idle_at_death_seconds",
        "Silence before a connection died without a close frame; a spike names the hop.",
    );
    let mut age_at_death = FamilyBuilder::histogram(
        "age_at_death_seconds",
        "Age of connections that died without a close frame; a spike names a maximum lifetime.",
    );
    for of in scrape.counts() {
        for kind in VerdictKind::zombies() {
            let labels = of.and(&[("kind", kind.as_str())]);
            zombies.add(&labels, of.counts.zombies[kind as usize] as f64);
        }
    }
    for ((name, _, tally), listener) in scrape.each().zip(scrape.listeners) {
        for kind in VerdictKind::zombies() {
            let labels = [("listener", name), ("kind", kind.as_str())];
            for certainty in kind.certainties() {
                let [listener, of_kind] = labels;
                let labels = [listener, of_kind, ("certainty", certainty.as_str())];
                let episodes = tally.detected[kind as usize][certainty as usize];
                detected.add(&labels, episodes as f64);
            }
            recovered.add(&labels, tally.recovered[kind as usize] as f64);
        }
        for &outcome in ReapOutcome::ALL {
            let labels = [("listener", name), ("outcome", outcome.as_str())];
            reaped.add(&labels, tally.reaped[outcome as usize] as f64);
        }
        at_risk.add(&[("listener", name)], tally.at_risk as f64);
        let hops: BTreeMap<_, _> = listener
            .rules
            .paths()
            .flat_map(|path| &path.hops)
            .filter_map(|hop| Some((&hop.name, hop.idle_timeout?)))
            .collect();
        for (hop, limit) in hops {
            limits.add(&[("listener", name), ("hop", hop)], limit.as_secs_f64());
        }
        let bounds = [
            ("lower", tally.learned.survived),
            ("upper", tally.learned.killed),
        ];
        for (bound, timeout) in bounds {
            if let Some(timeout) = timeout {
                let labels = [("listener", name), ("bound", bound)];
                learned.add(&labels, timeout.as_secs_f64());
            }
        }
        for (kind, stands) in [
            ("limit_mismatch", tally.limit_mismatch),
            ("lifetime_mismatch", tally.lifetime_mismatch),
        ] {
            let labels = [("listener", name), ("kind", kind)];
            mismatch.add(&labels, u64::from(stands) as f64);
        }
        let limit = listener.rules.shortest_idle_timeout();
        if let Some(seconds) = tally.learned.heartbeat_margin(limit) {
            margin.add(&[("listener", name)], seconds);
        }
        idle_at_death.add_histogram(&[("listener", name)], core_histogram(&tally.idle_at_death));
        age_at_death.add_histogram(&[("listener", name)], core_histogram(&tally.age_at_death));
    }
    out.extend(
        [
            zombies,
            detected,
            recovered,
            reaped,
            at_risk,
            limits,
            learned,
            mismatch,
            margin,
            idle_at_death,
            age_at_death,
        ]
        .map(FamilyBuilder::finish),
    );
}
