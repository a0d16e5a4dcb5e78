//! `expired`: idle past the limit of a hop that drops connections silently.

use std::time::Duration;

use super::rule::{INSTANT, Rule, idle, sooner};
use crate::{
    hop::Hop,
    observation::Observation,
    time::Ktime,
    verdict::{Certainty, Finding, Reviewed, Verdict, VerdictKind},
};

pub(super) const RULE: Rule = Rule {
    kind: VerdictKind::Expired,
    find,
    review,
    has_recovered,
    silence: |observation, verdict| idle(observation, verdict).max(verdict.limit),
};

/// *Suspected* until two transmissions, or more on a lossy path, stay unanswered for a second. Of
/// several hops, the one whose limit was crossed first counts.
fn find(observation: &Observation<'_>) -> Finding {
    if !observation.facts.is_open() {
        return Finding::NotBefore(Ktime::NEVER);
    }
    let hops = observation.path.hops.iter().enumerate();
    hops.map(|(index, hop)| of_hop(observation, index, hop))
        .fold(Finding::NotBefore(Ktime::NEVER), sooner)
}

fn of_hop(observation: &Observation<'_>, index: usize, hop: &Hop) -> Finding {
    let Some(limit) = hop.idle_timeout.filter(|_| hop.on_expiry.leaves_a_zombie()) else {
        return Finding::NotBefore(Ktime::NEVER);
    };
    let holds = |silent_since: Ktime| {
        let since = silent_since + limit;
        Finding::Holds(Verdict {
            kind: VerdictKind::Expired,
            certainty: certainty(observation, since, limit),
            since,
            limit,
            hop: Some(index),
        })
    };
    if let Some(gap) = observation.unanswered_gap(limit) {
        return holds(gap.from);
    }
    let quiet_since = observation.quiet_since(hop);
    let crossed = quiet_since + limit;
    if observation.now <= crossed + observation.margin() {
        Finding::NotBefore(crossed + observation.staleness + INSTANT)
    } else if observation.is_outstanding() {
        Finding::NotBefore(observation.while_tcp_retries(crossed))
    } else if observation
        .facts
        .rx
        .last_packet
        .is_some_and(|heard| heard > crossed)
    {
        // A hop that counts payload, or each direction, should have dropped the connection, but the
        // peer was heard since. Whatever restarts the hop's clock does so after this check.
        Finding::NotBefore(observation.now + limit)
    } else {
        holds(quiet_since)
    }
}

fn has_recovered(observation: &Observation<'_>, verdict: &Verdict) -> bool {
    observation
        .facts
        .rx
        .last_packet
        .is_some_and(|at| at > verdict.since)
}

fn review(observation: &Observation<'_>, verdict: &Verdict, _: Option<Ktime>) -> Reviewed {
    let certainty = certainty(observation, verdict.since, verdict.limit).max(verdict.certainty);
    let next_check = match certainty {
        Certainty::Suspected | Certainty::Inferred => next_check(observation, verdict),
        Certainty::Confirmed => Ktime::NEVER,
    };
    Reviewed {
        certainty,
        limit: verdict.limit,
        next_check,
    }
}

fn certainty(observation: &Observation<'_>, crossed: Ktime, limit: Duration) -> Certainty {
    let tries = observation.facts.unanswered_transmissions;
    let enough = tries >= UNANSWERED_TRANSMISSIONS && !observation.loss().excuses(tries);
    match observation.elicited_at(crossed, limit) {
        Some(elicited) if enough && observation.now >= elicited + UNANSWERED => {
            Certainty::Confirmed
        }
        _ => Certainty::Suspected,
    }
}

/// If nothing was sent, no answer is expected. Otherwise TCP retransmits within seconds.
fn next_check(observation: &Observation<'_>, verdict: &Verdict) -> Ktime {
    match observation.elicited_at(verdict.since, verdict.limit) {
        Some(elicited) if observation.now < elicited + UNANSWERED => elicited + UNANSWERED,
        Some(elicited) => observation.while_tcp_backs_off(elicited),
        None => Ktime::NEVER,
    }
}

const UNANSWERED_TRANSMISSIONS: u32 = 2;
const UNANSWERED: Duration = Duration::from_secs(1);
