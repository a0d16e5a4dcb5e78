//! `quiet`: the peer has sent no message for a long time, regardless of other traffic.

use super::rule::{INSTANT, Rule, age};
use crate::{
    facts::Protocol,
    observation::{Observation, RECHECK},
    time::Ktime,
    verdict::{Certainty, Finding, Reviewed, Verdict, VerdictKind},
};

pub(super) const RULE: Rule = Rule {
    kind: VerdictKind::Quiet,
    find,
    review,
    has_recovered,
    silence: age,
};

fn find(observation: &Observation<'_>) -> Finding {
    let Some(limit) = observation
        .rules
        .message_gap
        .filter(|_| observation.facts.is_open())
    else {
        return Finding::NotBefore(Ktime::NEVER);
    };
    let since = last_message(observation) + limit;
    if observation.now <= since + observation.margin() {
        return Finding::NotBefore(since + observation.staleness + INSTANT);
    }
    Finding::Holds(Verdict {
        kind: VerdictKind::Quiet,
        certainty: Certainty::Suspected,
        since,
        limit,
        hop: None,
    })
}

fn has_recovered(observation: &Observation<'_>, verdict: &Verdict) -> bool {
    last_message(observation) > verdict.since
}

/// A message does not cause an event.
fn review(observation: &Observation<'_>, verdict: &Verdict, _: Option<Ktime>) -> Reviewed {
    verdict.unchanged(observation.now + (verdict.limit / 20).max(RECHECK))
}

/// The last text or binary frame; if frames are unknown, the last payload.
fn last_message(observation: &Observation<'_>) -> Ktime {
    let facts = observation.facts;
    let heard = match facts.protocol {
        Protocol::WebSocket => facts.rx.last_message,
        Protocol::Opaque | Protocol::Assumed => facts.rx.last_payload,
    };
    heard
        .max(facts.opened_at)
        .max(facts.established_at)
        .unwrap_or(observation.first_seen)
}
