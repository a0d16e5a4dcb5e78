//! `backlogged`: the peer's kernel acknowledges, but its application does not read.
//!
//! The mirror of `stalled`, seen from the other end. A window of 0, and the answers to TCP's probes of
//! it, are signs of a kernel, not of a reader. Packets show when the peer's window closes and opens. A
//! scan of the sockets shows whether anything waits here, and it shows a window that closed before wsmon
//! started.

use std::time::Duration;

use super::rule::{Rule, age};
use crate::{
    observation::Observation,
    send_queues::Unsent,
    time::Ktime,
    verdict::{Certainty, Finding, Reviewed, Verdict, VerdictKind},
};

pub(super) const RULE: Rule = Rule {
    kind: VerdictKind::Backlogged,
    find,
    review,
    has_recovered,
    silence: age,
};

fn find(observation: &Observation<'_>) -> Finding {
    let facts = observation.facts;
    if !facts.is_open() || !observation.peer_answers() {
        return Finding::NotBefore(Ktime::NEVER);
    }
    let closed_at = window_closed_at(observation);
    let held = held_since(observation)
        .filter(|(since, seen_at)| seen_at.since(*since) >= BACKLOGGED_AFTER);
    let held_since = held.map(|(since, _)| since);
    let is_due = |at: &Ktime| observation.now >= *at + BACKLOGGED_AFTER;
    let since = match (closed_at.filter(is_due), held_since) {
        (Some(closed_at), Some(held)) => closed_at.min(held),
        (Some(since), None) | (None, Some(since)) => since,
        (None, None) => {
            let due = closed_at.map_or(Ktime::NEVER, |at| at + BACKLOGGED_AFTER);
            return Finding::NotBefore(due);
        }
    };
    Finding::Holds(Verdict {
        kind: VerdictKind::Backlogged,
        certainty: Certainty::Suspected,
        since,
        limit: BACKLOGGED_AFTER,
        hop: None,
    })
}

/// An open window shows that the application has read something, and so does a scan that finds new bytes
/// acknowledged.
fn has_recovered(observation: &Observation<'_>, verdict: &Verdict) -> bool {
    let facts = observation.facts;
    if facts.own_window_closed_at.is_some() {
        // A snapshot then lacks the peer's window.
        return false;
    }
    let closed_at = facts.peer_window_closed_at;
    if closed_at.is_some_and(|at| at <= verdict.since) {
        return false;
    }
    let is_held = held_since(observation).is_some_and(|(since, _)| since <= verdict.since);
    !is_held
}

fn review(observation: &Observation<'_>, verdict: &Verdict, _: Option<Ktime>) -> Reviewed {
    let unchanged = verdict.unchanged(Ktime::NEVER);
    if verdict.certainty == Certainty::Confirmed {
        return unchanged;
    }
    let due = verdict.since + CERTAIN_AFTER;
    if observation.now < due {
        return verdict.unchanged(due);
    }
    // A scan must have found bytes that wait; each later one is a check. TCP probes a closed window every
    // two minutes at least, and a peer that has not been heard for longer may be gone.
    let waits = held_since(observation).is_some_and(|(since, seen_at)| seen_at > since);
    let heard = observation.facts.rx.last_packet;
    let is_heard = heard.is_some_and(|heard| heard + LONGEST_PROBE_INTERVAL >= observation.now);
    match waits && is_heard && observation.peer_answers() {
        true => Reviewed {
            certainty: Certainty::Confirmed,
            limit: CERTAIN_AFTER,
            ..unchanged
        },
        false => unchanged,
    }
}

/// Since when the peer's window is closed. A stale acknowledgement can show a closed window once; TCP's
/// probes, or any other packet, show it again.
fn window_closed_at(observation: &Observation<'_>) -> Option<Ktime> {
    let heard = observation.facts.rx.last_packet;
    observation
        .facts
        .peer_window_closed_at
        .filter(|at| heard.is_some_and(|heard| heard >= *at + REPEATED))
}

/// Since when scans have found bytes behind a closed window, and the last scan. A packet with an open window
/// that came after it refutes it.
fn held_since(observation: &Observation<'_>) -> Option<(Ktime, Ktime)> {
    let Observation { facts, unsent, .. } = observation;
    let Unsent {
        held_since,
        seen_at,
        ..
    } = (*unsent)?;
    let heard = facts.rx.last_packet.is_some_and(|at| at > seen_at);
    let is_refuted = heard && facts.peer_window_closed_at.is_none();
    held_since
        .filter(|_| !is_refuted)
        .map(|since| (since, seen_at))
}

/// Linux opens its window again when a sixteenth of the receive buffer is free (`__tcp_select_window` in
/// net/ipv4/tcp_output.c). Of 6 MiB, the largest default before Linux 6.16, that is 400 kB: a reader of
/// 20 kB/s takes 20 s.
pub(crate) const BACKLOGGED_AFTER: Duration = Duration::from_secs(30);
/// A reader that takes longer for a sixteenth of 32 MiB, the largest default since Linux 6.16, reads less
/// than 1.2 kB/s.
pub(crate) const CERTAIN_AFTER: Duration = Duration::from_secs(1_800);
/// `TCP_RTO_MAX` in include/net/tcp.h, and some time for the answer.
const LONGEST_PROBE_INTERVAL: Duration = Duration::from_secs(130);
const REPEATED: Duration = Duration::from_secs(1);
