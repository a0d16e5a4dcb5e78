//! `expired`: idle past the limit of a hop that keeps silent about it.

use std::time::Duration;

use super::{Finding, INSTANT, Verdict, sooner};
use crate::core::{
    alert::{Certainty, VerdictKind},
    hop::Hop,
    look::Look,
    time::Ktime,
};

/// *Suspected* until two transmissions stay unanswered for a second, on a lossy path more. Of several hops the one whose
/// limit was crossed first.
pub(super) fn find(look: &Look<'_>) -> Finding {
    if !look.facts.is_open() {
        return Finding::NotBefore(Ktime::NEVER);
    }
    let hops = look.path.hops.iter().enumerate();
    hops.map(|(place, hop)| of_hop(look, place, hop))
        .fold(Finding::NotBefore(Ktime::NEVER), sooner)
}

fn of_hop(look: &Look<'_>, place: usize, hop: &Hop) -> Finding {
    let Some(limit) = hop.idle_timeout.filter(|_| hop.on_expiry.leaves_a_zombie()) else {
        return Finding::NotBefore(Ktime::NEVER);
    };
    let holds = |silent_since: Ktime| {
        let since = silent_since + limit;
        Finding::Holds(Verdict {
            kind: VerdictKind::Expired,
            certainty: certainty(look, since, limit),
            since,
            limit,
            hop: Some(place),
        })
    };
    if let Some(gap) = look.unheard_gap(limit) {
        return holds(gap.from);
    }
    let quiet_since = look.quiet_since(hop);
    let crossed = quiet_since + limit;
    if look.now <= crossed + look.margin() {
        Finding::NotBefore(crossed + look.staleness + INSTANT)
    } else if look.is_outstanding() {
        Finding::NotBefore(look.while_tcp_retries(crossed))
    } else if look
        .facts
        .rx
        .last_packet
        .is_some_and(|heard| heard > crossed)
    {
        // A hop that counts payload, or each direction, should have forgotten; and the peer was heard
        // since. Whatever restarts its clock does so after this look.
        Finding::NotBefore(look.now + limit)
    } else {
        holds(quiet_since)
    }
}

pub(super) fn has_recovered(look: &Look<'_>, verdict: &Verdict) -> bool {
    look.facts
        .rx
        .last_packet
        .is_some_and(|at| at > verdict.since)
}

pub(super) fn review(look: &Look<'_>, verdict: &Verdict) -> (Certainty, Ktime) {
    match certainty(look, verdict.since, verdict.limit).max(verdict.certainty) {
        Certainty::Suspected => (Certainty::Suspected, next_look(look, verdict)),
        Certainty::Confirmed => (Certainty::Confirmed, Ktime::NEVER),
    }
}

fn certainty(look: &Look<'_>, crossed: Ktime, limit: Duration) -> Certainty {
    let tries = look.facts.unanswered_transmissions;
    let enough = tries >= UNANSWERED_TRANSMISSIONS && !look.loss().excuses(tries);
    match look.asked_at(crossed, limit) {
        Some(asked) if enough && look.now >= asked + UNANSWERED => Certainty::Confirmed,
        _ => Certainty::Suspected,
    }
}

/// Nothing sent: nothing to wait for. Otherwise TCP repeats itself within seconds.
fn next_look(look: &Look<'_>, verdict: &Verdict) -> Ktime {
    match look.asked_at(verdict.since, verdict.limit) {
        Some(asked) if look.now < asked + UNANSWERED => asked + UNANSWERED,
        Some(asked) => look.while_tcp_backs_off(asked),
        None => Ktime::NEVER,
    }
}

const UNANSWERED_TRANSMISSIONS: u32 = 2;
const UNANSWERED: Duration = Duration::from_secs(1);
