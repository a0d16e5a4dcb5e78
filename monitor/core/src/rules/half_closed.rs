//! `half_closed`: one side has sent its FIN, and the other keeps the connection open.

use std::time::Duration;

use super::rule::{Rule, age};
use crate::{
    observation::Observation,
    time::Ktime,
    verdict::{Certainty, Finding, Verdict, VerdictKind},
};

pub(super) const RULE: Rule = Rule {
    kind: VerdictKind::HalfClosed,
    find,
    review: |_, verdict, _| verdict.unchanged(Ktime::NEVER),
    // Only the other FIN or a RST ends it.
    has_recovered: |_, _| false,
    silence: age,
};

/// A WebSocket has no use for half a connection (RFC 6455 §7.1.1): a side that does not close after
/// a FIN has not noticed it.
fn find(observation: &Observation<'_>) -> Finding {
    let facts = observation.facts;
    if facts.fin_rx == facts.fin_tx || observation.is_reset() {
        return Finding::NotBefore(Ktime::NEVER);
    }
    // The FIN of a connection older than the monitor was not seen.
    let since = facts
        .closing
        .map_or(observation.first_seen, |closing| closing.at);
    if observation.now < since + TIMEOUT {
        return Finding::NotBefore(since + TIMEOUT);
    }
    Finding::Holds(Verdict {
        kind: VerdictKind::HalfClosed,
        certainty: Certainty::Confirmed,
        since,
        limit: TIMEOUT,
        hop: None,
    })
}

/// As long as an orphaned socket waits for the peer's FIN (`net.ipv4.tcp_fin_timeout`).
const TIMEOUT: Duration = Duration::from_secs(60);
