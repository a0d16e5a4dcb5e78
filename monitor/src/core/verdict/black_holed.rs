//! `black_holed`: bytes go out again and again and nothing is acknowledged.
//!
//! *Confirmed* unless the path is so lossy that it can be chance; then *suspected* until TCP has tried
//! often enough.

use std::time::Duration;

use super::{Finding, Verdict};
use crate::core::{
    alert::{Certainty, VerdictKind},
    look::{Look, RECHECK, Source},
    time::Ktime,
};

pub(super) fn find(look: &Look<'_>) -> Finding {
    let facts = look.facts;
    let stalled = facts
        .stalled_since
        .filter(|_| look.is_outstanding() && !look.is_reset());
    let Some(since) = stalled else {
        return Finding::NotBefore(Ktime::NEVER);
    };
    if look.longest_unheard_gap().is_some() {
        after_silence(look, since)
    } else {
        in_conversation(look, since)
    }
}

fn in_conversation(look: &Look<'_>, since: Ktime) -> Finding {
    let facts = look.facts;
    let last = facts.tx.last_packet.unwrap_or(since);
    if facts.retransmits < RETRANSMITS {
        // The kernel reports the second and the fifth.
        Finding::NotBefore(Ktime::NEVER)
    } else if look.source == Source::Event {
        // As the report of a retransmission comes, its acknowledgement cannot have come yet.
        Finding::NotBefore((since + STALL).max(look.now + ANSWER))
    } else if look.now < since + STALL {
        Finding::NotBefore(since + STALL)
    } else if last + look.margin() < since + LATE {
        // With a tail loss probe the fifth leaves after 3 s already, and the sixth after 6 s.
        Finding::NotBefore(look.while_tcp_retries(since))
    } else {
        holds(look, since, STALL)
    }
}

/// After a silence longer than a hop's limit less evidence is needed.
fn after_silence(look: &Look<'_>, since: Ktime) -> Finding {
    if look.facts.retransmits < RETRANSMITS_AFTER_GAP {
        Finding::NotBefore(Ktime::NEVER)
    } else if look.now < since + STALL_AFTER_GAP {
        Finding::NotBefore(since + STALL_AFTER_GAP)
    } else {
        holds(look, since, STALL_AFTER_GAP)
    }
}

fn holds(look: &Look<'_>, since: Ktime, limit: Duration) -> Finding {
    Finding::Holds(Verdict {
        kind: VerdictKind::BlackHoled,
        certainty: certainty(look),
        since,
        limit,
        hop: None,
    })
}

pub(super) fn has_recovered(look: &Look<'_>, verdict: &Verdict) -> bool {
    let progress = look.facts.ack_progress_at;
    look.facts.unacked_bytes == 0 || progress.is_some_and(|at| at > verdict.since)
}

fn certainty(look: &Look<'_>) -> Certainty {
    // The first one is no retransmission.
    let tries = look.facts.retransmits.saturating_add(1);
    match look.loss().excuses(tries) {
        true => Certainty::Suspected,
        false => Certainty::Confirmed,
    }
}

pub(super) fn review(
    look: &Look<'_>,
    verdict: &Verdict,
    heard_before: Option<Ktime>,
) -> (Certainty, Ktime) {
    let certainty = certainty(look).max(verdict.certainty);
    let next_look = if look.facts.rx.last_packet > heard_before {
        // Heard, but not a byte acknowledged: the acknowledgement may be right behind.
        look.now + RECHECK
    } else if certainty == Certainty::Suspected {
        look.while_tcp_backs_off(verdict.since)
    } else {
        Ktime::NEVER
    };
    (certainty, next_look)
}

/// A path that comes back within `LATE` shows it by an answer to what leaves after that. TCP tries some
/// 6 s after the bytes, with or without a tail loss probe at the start.
const RETRANSMITS: u32 = 5;
const LATE: Duration = Duration::from_secs(5);
const STALL: Duration = Duration::from_secs(7);
const ANSWER: Duration = Duration::from_secs(1);
const RETRANSMITS_AFTER_GAP: u32 = 2;
const STALL_AFTER_GAP: Duration = Duration::from_secs(1);
