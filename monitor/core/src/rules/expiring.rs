//! `expiring`: close to the limit of a hop that closes connections.

use std::time::Duration;

use super::rule::{INSTANT, Rule, idle, sooner};
use crate::{
    hop::Hop,
    observation::{Observation, RECHECK},
    time::Ktime,
    verdict::{Certainty, Finding, Reviewed, Verdict, VerdictKind},
};

pub(super) const RULE: Rule = Rule {
    kind: VerdictKind::Expiring,
    find,
    review,
    has_recovered,
    silence: idle,
};

fn find(observation: &Observation<'_>) -> Finding {
    if !observation.facts.is_open() {
        return Finding::NotBefore(Ktime::NEVER);
    }
    let hops = observation.path.hops.iter().enumerate();
    hops.flat_map(|(index, hop)| {
        [
            of_idle(observation, index, hop),
            of_age(observation, index, hop),
        ]
    })
    .fold(Finding::NotBefore(Ktime::NEVER), sooner)
}

/// Idle for nearly as long as the hop allows.
fn of_idle(observation: &Observation<'_>, index: usize, hop: &Hop) -> Finding {
    let Some(limit) = hop
        .idle_timeout
        .filter(|_| !hop.on_expiry.leaves_a_zombie())
    else {
        return Finding::NotBefore(Ktime::NEVER);
    };
    let since = observation.quiet_since(hop) + limit / 20 * 19;
    let over = observation.quiet_since(hop) + limit + observation.staleness + RECHECK;
    if observation.now > over {
        // It should have been closed by now: the configured limit is wrong.
        Finding::NotBefore(match hop.counts_every_packet() {
            true => Ktime::NEVER,
            // Whatever restarts the clock does so after this check.
            false => observation.now + limit / 20 * 19,
        })
    } else if observation.now < since + observation.margin() {
        Finding::NotBefore(since + observation.staleness + INSTANT)
    } else {
        holds(index, since, limit)
    }
}

/// Nearly as old as the hop allows, even if busy.
fn of_age(observation: &Observation<'_>, index: usize, hop: &Hop) -> Finding {
    let lifetime = hop.max_lifetime.zip(observation.facts.established_at);
    let Some((limit, established_at)) = lifetime else {
        return Finding::NotBefore(Ktime::NEVER);
    };
    let since = established_at + (limit - (limit / 20).min(LAST_MINUTE));
    if observation.now > established_at + limit + RECHECK {
        Finding::NotBefore(Ktime::NEVER)
    } else if observation.now < since {
        Finding::NotBefore(since)
    } else {
        holds(index, since, limit)
    }
}

/// True if an `expiring` verdict is about the hop's maximum lifetime, not about its idle timeout.
pub fn is_near_lifetime(observation: &Observation<'_>, verdict: &Verdict) -> bool {
    let hop = verdict
        .hop
        .and_then(|index| Some((index, observation.path.hops.get(index)?)));
    hop.is_some_and(|(index, hop)| {
        matches!(of_age(observation, index, hop), Finding::Holds(of_age) if of_age.since == verdict.since)
    })
}

fn holds(index: usize, since: Ktime, limit: Duration) -> Finding {
    Finding::Holds(Verdict {
        kind: VerdictKind::Expiring,
        certainty: Certainty::Suspected,
        since,
        limit,
        hop: Some(index),
    })
}

/// Traffic ends an idle time without an event. A FIN is the announced disconnect, not a recovery.
fn has_recovered(observation: &Observation<'_>, verdict: &Verdict) -> bool {
    let holds = matches!(
        find(observation),
        Finding::Holds(now) if now.hop == verdict.hop && now.since == verdict.since
    );
    observation.facts.is_open() && !holds
}

fn review(observation: &Observation<'_>, verdict: &Verdict, _: Option<Ktime>) -> Reviewed {
    verdict.unchanged(observation.now + (verdict.limit / 20).max(RECHECK))
}

const LAST_MINUTE: Duration = Duration::from_secs(60);
