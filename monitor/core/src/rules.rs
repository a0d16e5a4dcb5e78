//! The rules: from facts to a verdict, and to the time of the next check.
//!
//! Every rule is a pure function of one [`Observation`]. It returns the verdict that holds now, or
//! the earliest moment at which it could hold if nothing else is heard. A flow's deadline is the
//! earliest of its rules', so a healthy flow needs one timer and no memory of its facts.
//!
//! The rules rely on these properties of the kernel side: a snapshot is never older than the last
//! event of its flow. It is published by a packet, so it may miss up to `staleness` of ordinary
//! traffic after its last activity, but never a retransmission, acknowledgement progress after one,
//! a ping, a pong, a FIN or a RST.
//!
//! A flow with a FIN in either direction gets no `expired` and no `unresponsive` verdict, because
//! the peer owes nothing any more; `black_holed` applies until a RST passes. A RST never counts as
//! a recovery: an `rst_on_next_packet` hop sends one for a connection that is long dead.
//!
//! On an MPTCP subflow no rule confirms that the connection is dead, because it may survive on
//! another subflow.

mod backlogged;
mod black_holed;
mod expired;
mod expiring;
mod half_closed;
mod quiet;
mod rule;
mod stalled;
mod unresponsive;

use std::time::Duration;

use super::{
    observation::{Observation, RECHECK},
    time::Ktime,
    verdict::{Certainty, Finding, Review, Reviewed, Verdict, VerdictKind},
};
use rule::{Rule, silence_until};

pub(super) use backlogged::{BACKLOGGED_AFTER, CERTAIN_AFTER};
pub use expiring::is_near_lifetime;
pub use unresponsive::{SLOWED_TIMER, pace_of_pongs};

/// Judges a flow that seems healthy: the first rule that holds, or else the earliest deadline.
pub fn judge(observation: &Observation<'_>) -> Finding {
    first(observation, &RULES)
}

/// Judges a flow on which a verdict already stands, by the rules that find graver ones.
///
/// Any zombie is graver than `expiring` and `quiet`. A peer with a closed window may die too, and so may the
/// path to one whose death is inferred: another, confirmed death is graver than either.
pub fn judge_graver(observation: &Observation<'_>, standing: &Verdict) -> Finding {
    match standing.kind {
        VerdictKind::Expiring | VerdictKind::Quiet => first(
            observation,
            RULES.iter().filter(|rule| rule.kind.is_zombie()),
        ),
        VerdictKind::Backlogged => confirmed_death(observation, standing.kind),
        VerdictKind::Unresponsive if standing.certainty == Certainty::Inferred => {
            confirmed_death(observation, standing.kind)
        }
        VerdictKind::Expired
        | VerdictKind::BlackHoled
        | VerdictKind::Unresponsive
        | VerdictKind::HalfClosed
        | VerdictKind::Stalled => Finding::NotBefore(Ktime::NEVER),
    }
}

/// Looks for a confirmed death of another kind than the one that stands.
fn confirmed_death(observation: &Observation<'_>, standing: VerdictKind) -> Finding {
    let others = RULES
        .iter()
        .filter(|rule| rule.kind.is_death() && rule.kind != standing);
    match first(observation, others) {
        Finding::Holds(verdict) if verdict.certainty < Certainty::Confirmed => {
            Finding::NotBefore(observation.now + RECHECK)
        }
        finding => finding,
    }
}

/// In the order of [`VerdictKind`]. The first one that holds wins, so the rules that find zombies come first.
static RULES: [Rule; VerdictKind::ALL.len()] = [
    expired::RULE,
    black_holed::RULE,
    unresponsive::RULE,
    half_closed::RULE,
    stalled::RULE,
    backlogged::RULE,
    expiring::RULE,
    quiet::RULE,
];

fn rule(kind: VerdictKind) -> &'static Rule {
    &RULES[kind as usize]
}

fn first<'a>(observation: &Observation<'_>, rules: impl IntoIterator<Item = &'a Rule>) -> Finding {
    let mut earliest = Ktime::NEVER;
    for rule in rules {
        match (rule.find)(observation) {
            Finding::Holds(mut verdict) => {
                verdict.certainty = allowed(observation, verdict.kind, verdict.certainty);
                return Finding::Holds(verdict);
            }
            Finding::NotBefore(at) => earliest = earliest.min(at),
        }
    }
    Finding::NotBefore(earliest)
}

/// A rule's certainty, reduced if the flow is only a part of its connection.
fn allowed(observation: &Observation<'_>, kind: VerdictKind, certainty: Certainty) -> Certainty {
    match observation.facts.is_subflow && kind.is_about_path_or_peer() {
        true => Certainty::Suspected,
        false => certainty,
    }
}

/// How long a flow is idle, at least, when it is at risk: 0.8 of the limit.
pub fn at_risk_threshold(limit: Duration) -> Duration {
    limit / 5 * 4
}

/// True if the flow is close to the limit of its tightest hop, and when to check this again.
pub fn at_risk(observation: &Observation<'_>) -> (bool, Ktime) {
    let hop = observation
        .path
        .tightest()
        .filter(|_| observation.facts.is_open());
    let Some((hop, limit)) = hop.and_then(|hop| Some((hop, hop.idle_timeout?))) else {
        return (false, Ktime::NEVER);
    };
    let threshold = at_risk_threshold(limit);
    let quiet_since = observation.quiet_since(hop);
    let idle = observation.now.since(quiet_since);
    if idle > limit.saturating_add(observation.staleness) {
        // No longer at risk: expired, or the configured limit is wrong.
        (false, Ktime::NEVER)
    } else if idle >= threshold {
        (true, observation.now + RECHECK.max(limit / 20))
    } else {
        (false, quiet_since + threshold)
    }
}

/// Reviews a standing verdict. `heard_before` is the last packet from the peer that was known at
/// the previous check.
pub fn review(
    observation: &Observation<'_>,
    verdict: &Verdict,
    heard_before: Option<Ktime>,
) -> Review {
    let rule = rule(verdict.kind);
    if !observation.is_reset() && (rule.has_recovered)(observation, verdict) {
        return Review::Recovered;
    }
    let reviewed = (rule.review)(observation, verdict, heard_before);
    let certainty = allowed(observation, verdict.kind, reviewed.certainty).max(verdict.certainty);
    Review::Stands(Reviewed {
        certainty,
        ..reviewed
    })
}

/// The idle time before this verdict, to be compared with a hop's idle limit.
pub fn silence_before(observation: &Observation<'_>, verdict: &Verdict) -> Duration {
    match observation.longest_unanswered_gap() {
        Some(gap) => gap.to.since(gap.from),
        None => (rule(verdict.kind).silence)(observation, verdict),
    }
}

/// The silence before the end of a connection that closed without a close frame.
///
/// A FIN is itself a packet, so only payload counts. A RST does not change any clock: if nothing
/// else began the end, the idle time lasts until now. With bytes still in flight it begins at the
/// peer's last packet.
pub fn silence_before_close(observation: &Observation<'_>) -> Duration {
    let facts = observation.facts;
    if let Some(gap) = observation.longest_unanswered_gap() {
        return gap.to.since(gap.from);
    }
    if let Some(stalled) = facts.unacked_since {
        return silence_until(stalled, facts.rx.last_packet);
    }
    let spoken = facts
        .rx
        .last_payload
        .max(facts.tx.last_payload)
        .max(facts.established_at);
    let ended = match facts.rst_rx && facts.closing.is_none() {
        true => None,
        false => facts.last_activity(),
    };
    silence_until(ended.unwrap_or(observation.now), spoken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_rule_and_zombies_come_first() {
        assert_eq!(RULES.each_ref().map(|rule| rule.kind), VerdictKind::ALL);
        assert!(RULES.is_sorted_by_key(|rule| !rule.kind.is_zombie()));
    }
}
