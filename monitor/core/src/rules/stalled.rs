//! `stalled`: this host's application does not read what has arrived.
//!
//! There are two kinds of evidence. Packets show at once when this host's window closes and opens,
//! but an application may read a little behind a window that stays closed. A scan of the sockets
//! shows whether it reads anything at all.

use std::time::Duration;

use super::rule::{Rule, age};
use crate::{
    observation::{Observation, Unread},
    time::Ktime,
    verdict::{Certainty, Finding, Reviewed, Verdict, VerdictKind},
};

pub(super) const RULE: Rule = Rule {
    kind: VerdictKind::Stalled,
    find,
    review,
    has_recovered,
    silence: age,
};

/// *Suspected* because of its closed window, *confirmed* by its unread bytes.
fn find(observation: &Observation<'_>) -> Finding {
    let holds = |certainty, since, limit| {
        Finding::Holds(Verdict {
            kind: VerdictKind::Stalled,
            certainty,
            since,
            limit,
            hop: None,
        })
    };
    if let Some(since) = unread_since(observation) {
        return holds(Certainty::Confirmed, since, TIMEOUT);
    }
    let Some(closed_at) = window_closed_at(observation) else {
        return Finding::NotBefore(Ktime::NEVER);
    };
    if observation.now < closed_at + CLOSED {
        Finding::NotBefore(closed_at + CLOSED)
    } else {
        holds(Certainty::Suspected, closed_at, CLOSED)
    }
}

/// Unread bytes are known only from scans of the sockets, and the window from packets; both are
/// events.
fn has_recovered(observation: &Observation<'_>, verdict: &Verdict) -> bool {
    let stands = |since: Ktime| since <= verdict.since;
    let unread = observation
        .unread
        .is_some_and(|unread| stands(unread.since));
    let window = window_closed_at(observation).is_some_and(stands);
    !(unread || window || unread_since(observation).is_some())
}

fn review(observation: &Observation<'_>, verdict: &Verdict, _: Option<Ktime>) -> Reviewed {
    let unchanged = verdict.unchanged(Ktime::NEVER);
    match unread_since(observation) {
        Some(_) => Reviewed {
            certainty: Certainty::Confirmed,
            limit: TIMEOUT,
            ..unchanged
        },
        None => unchanged,
    }
}

/// Since when the application has read nothing, if that is too long.
fn unread_since(observation: &Observation<'_>) -> Option<Ktime> {
    let Unread { since, seen_at, .. } = observation.unread?;
    (seen_at.since(since) >= TIMEOUT).then_some(since)
}

/// Since when nothing can arrive, unless a later scan has found that the application reads; then
/// the next scan decides.
fn window_closed_at(observation: &Observation<'_>) -> Option<Ktime> {
    let closed_at = observation
        .facts
        .own_window_closed_at
        .filter(|_| observation.facts.is_open())?;
    let reads = |unread: Unread| unread.moved && unread.seen_at >= closed_at;
    (!observation.unread.is_some_and(reads)).then_some(closed_at)
}

/// Longer than a garbage collection or a blocking call should take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A window opens again as soon as a sixteenth of the buffer is free (`__tcp_select_window` in
/// net/ipv4/tcp_output.c): an application that reads at all needs less time.
const CLOSED: Duration = Duration::from_secs(10);
