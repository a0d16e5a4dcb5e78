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

mod black_holed;
mod expired;
mod expiring;
mod half_closed;
mod quiet;
mod stalled;
mod unresponsive;

use std::time::Duration;

use super::{
    alert::{Certainty, VerdictKind},
    observation::{Observation, RECHECK},
    time::Ktime,
};

pub use expiring::is_near_lifetime;
pub use unresponsive::pace_of_pongs;

/// The verdict of a rule on a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub kind: VerdictKind,
    pub certainty: Certainty,
    /// The moment from which it was true.
    pub since: Ktime,
    /// The limit that was crossed, or is near.
    pub limit: Duration,
    /// The index in the path of the hop whose limit it is.
    pub hop: Option<usize>,
}

/// The result of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    Holds(Verdict),
    /// It cannot hold earlier than this unless an event comes; with [`Ktime::NEVER`], only an event
    /// matters.
    NotBefore(Ktime),
}

/// The result of the review of a standing verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Review {
    /// The peer was heard again.
    Recovered,
    Stands {
        certainty: Certainty,
        /// The limit that was crossed for this certainty.
        limit: Duration,
        /// When to check again; [`Ktime::NEVER`] leaves it to events.
        next_check: Ktime,
    },
}

/// Judges a flow that seems healthy: the first rule that holds, or else the earliest deadline.
pub fn judge(observation: &Observation<'_>) -> Finding {
    first(observation, RULES)
}

/// Judges a flow that is already `expiring` or `quiet`, by the rules that find zombies.
pub fn judge_graver(observation: &Observation<'_>) -> Finding {
    first(observation, &RULES[..ZOMBIES])
}

type Rule = fn(&Observation<'_>) -> Finding;

/// In the order of evaluation: those that find a zombie first.
const RULES: &[Rule] = &[
    expired::find,
    black_holed::find,
    unresponsive::find,
    half_closed::find,
    stalled::find,
    expiring::find,
    quiet::find,
];
/// The number of rules that find zombies.
const ZOMBIES: usize = 5;

fn first(observation: &Observation<'_>, rules: &[Rule]) -> Finding {
    let mut earliest = Ktime::NEVER;
    for rule in rules {
        match rule(observation) {
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

/// Of the findings of two hops, the verdict that became true first, or else the earlier deadline.
fn sooner(one: Finding, other: Finding) -> Finding {
    match (one, other) {
        (Finding::Holds(a), Finding::Holds(b)) => {
            Finding::Holds(if b.since < a.since { b } else { a })
        }
        (Finding::Holds(verdict), Finding::NotBefore(_))
        | (Finding::NotBefore(_), Finding::Holds(verdict)) => Finding::Holds(verdict),
        (Finding::NotBefore(a), Finding::NotBefore(b)) => Finding::NotBefore(a.min(b)),
    }
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
    let threshold = limit / 5 * 4;
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
    if !observation.is_reset() && has_recovered(observation, verdict) {
        return Review::Recovered;
    }
    let mut limit = verdict.limit;
    let (certainty, next_check) = match verdict.kind {
        VerdictKind::Expired => expired::review(observation, verdict),
        VerdictKind::BlackHoled => black_holed::review(observation, verdict, heard_before),
        VerdictKind::Unresponsive => {
            let (certainty, crossed, next_check) = unresponsive::review(observation, verdict);
            limit = crossed;
            (certainty, next_check)
        }
        VerdictKind::HalfClosed => (verdict.certainty, Ktime::NEVER),
        VerdictKind::Stalled => {
            let (certainty, crossed) = stalled::review(observation, verdict);
            limit = crossed;
            (certainty, Ktime::NEVER)
        }
        VerdictKind::Expiring => (
            verdict.certainty,
            expiring::next_check(observation, verdict),
        ),
        VerdictKind::Quiet => (
            verdict.certainty,
            quiet::next_check(observation, verdict.limit),
        ),
    };
    Review::Stands {
        certainty: allowed(observation, verdict.kind, certainty).max(verdict.certainty),
        limit,
        next_check,
    }
}

fn has_recovered(observation: &Observation<'_>, verdict: &Verdict) -> bool {
    match verdict.kind {
        VerdictKind::Expired => expired::has_recovered(observation, verdict),
        VerdictKind::BlackHoled => black_holed::has_recovered(observation, verdict),
        VerdictKind::Unresponsive => unresponsive::has_recovered(observation, verdict),
        // Only the other FIN or a RST ends it.
        VerdictKind::HalfClosed => false,
        VerdictKind::Stalled => stalled::has_recovered(observation, verdict),
        VerdictKind::Expiring => expiring::has_recovered(observation, verdict),
        VerdictKind::Quiet => quiet::has_recovered(observation, verdict),
    }
}

/// The idle time before this verdict, to be compared with a hop's idle limit.
pub fn silence_before(observation: &Observation<'_>, verdict: &Verdict) -> Duration {
    let facts = observation.facts;
    if let Some(gap) = observation.longest_unheard_gap() {
        return gap.to.since(gap.from);
    }
    // The hop's own clock may count payload only, or one direction.
    let idle = || match observation.hop(verdict) {
        Some(hop) => observation.now.since(observation.quiet_since(hop)),
        None => observation.idle(),
    };
    match verdict.kind {
        VerdictKind::Expired => idle().max(verdict.limit),
        VerdictKind::Expiring => idle(),
        VerdictKind::BlackHoled => silence_until(verdict.since, facts.rx.last_packet),
        VerdictKind::Unresponsive => {
            silence_until(verdict.since, facts.rx.last_frame.or(facts.rx.last_payload))
        }
        VerdictKind::HalfClosed | VerdictKind::Stalled | VerdictKind::Quiet => {
            observation.now.since(verdict.since)
        }
    }
}

/// The idle time before the end of a connection that closed without a close frame.
///
/// A FIN is itself a packet, so only payload counts. A RST does not change any clock: if nothing
/// else began the end, the idle time lasts until now. With bytes still in flight it begins at the
/// peer's last packet.
pub fn silence_before_close(observation: &Observation<'_>) -> Duration {
    let facts = observation.facts;
    if let Some(gap) = observation.longest_unheard_gap() {
        return gap.to.since(gap.from);
    }
    if let Some(stalled) = facts.stalled_since {
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

fn silence_until(end: Ktime, last: Option<Ktime>) -> Duration {
    last.map_or(Duration::ZERO, |last| end.since(last))
}

/// A limit must be exceeded, not only reached.
const INSTANT: Duration = Duration::from_nanos(1);
