//! `expiring`: close to the limit of a hop that closes what it gives up.

use std::time::Duration;

use super::{Finding, INSTANT, Verdict, sooner};
use crate::core::{
    alert::{Certainty, VerdictKind},
    hop::Hop,
    look::{Look, RECHECK},
    time::Ktime,
};

pub(super) fn find(look: &Look<'_>) -> Finding {
    if !look.facts.is_open() {
        return Finding::NotBefore(Ktime::NEVER);
    }
    let hops = look.path.hops.iter().enumerate();
    hops.flat_map(|(place, hop)| [of_idle(look, place, hop), of_age(look, place, hop)])
        .fold(Finding::NotBefore(Ktime::NEVER), sooner)
}

/// Idle for nearly as long as the hop allows.
fn of_idle(look: &Look<'_>, place: usize, hop: &Hop) -> Finding {
    let Some(limit) = hop
        .idle_timeout
        .filter(|_| !hop.on_expiry.leaves_a_zombie())
    else {
        return Finding::NotBefore(Ktime::NEVER);
    };
    let since = look.quiet_since(hop) + limit / 20 * 19;
    let over = look.quiet_since(hop) + limit + look.staleness + RECHECK;
    if look.now > over {
        // It should have been closed by now: the limit is not what the configuration says.
        Finding::NotBefore(match hop.counts_every_packet() {
            true => Ktime::NEVER,
            // Whatever restarts the clock does so after this look.
            false => look.now + limit / 20 * 19,
        })
    } else if look.now < since + look.margin() {
        Finding::NotBefore(since + look.staleness + INSTANT)
    } else {
        holds(place, since, limit)
    }
}

/// Nearly as old as the hop allows, however busy.
fn of_age(look: &Look<'_>, place: usize, hop: &Hop) -> Finding {
    let lifetime = hop.max_lifetime.zip(look.facts.established_at);
    let Some((limit, born)) = lifetime else {
        return Finding::NotBefore(Ktime::NEVER);
    };
    let since = born + (limit - (limit / 20).min(LAST_MINUTE));
    if look.now > born + limit + RECHECK {
        Finding::NotBefore(Ktime::NEVER)
    } else if look.now < since {
        Finding::NotBefore(since)
    } else {
        holds(place, since, limit)
    }
}

/// Whether an `expiring` verdict is about the hop's maximum lifetime, and not about silence.
pub fn is_near_lifetime(look: &Look<'_>, verdict: &Verdict) -> bool {
    let hop = verdict
        .hop
        .and_then(|place| Some((place, look.path.hops.get(place)?)));
    hop.is_some_and(|(place, hop)| {
        matches!(of_age(look, place, hop), Finding::Holds(of_age) if of_age.since == verdict.since)
    })
}

fn holds(place: usize, since: Ktime, limit: Duration) -> Finding {
    Finding::Holds(Verdict {
        kind: VerdictKind::Expiring,
        certainty: Certainty::Suspected,
        since,
        limit,
        hop: Some(place),
    })
}

/// Traffic ends an idle time, and is no event. A FIN is what was announced.
pub(super) fn has_recovered(look: &Look<'_>, verdict: &Verdict) -> bool {
    let holds = matches!(
        find(look),
        Finding::Holds(now) if now.hop == verdict.hop && now.since == verdict.since
    );
    look.facts.is_open() && !holds
}

pub(super) fn next_look(look: &Look<'_>, verdict: &Verdict) -> Ktime {
    look.now + (verdict.limit / 20).max(RECHECK)
}

const LAST_MINUTE: Duration = Duration::from_secs(60);
