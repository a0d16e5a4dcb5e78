//! `black_holed`: bytes go out again and again and nothing is acknowledged.

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
        holds(since, STALL)
    }
}

/// After a silence longer than a hop's limit less evidence is needed.
fn after_silence(look: &Look<'_>, since: Ktime) -> Finding {
    if look.facts.retransmits < RETRANSMITS_AFTER_GAP {
        Finding::NotBefore(Ktime::NEVER)
    } else if look.now < since + STALL_AFTER_GAP {
        Finding::NotBefore(since + STALL_AFTER_GAP)
    } else {
        holds(since, STALL_AFTER_GAP)
    }
}

fn holds(since: Ktime, limit: Duration) -> Finding {
    Finding::Holds(Verdict {
        kind: VerdictKind::BlackHoled,
        certainty: Certainty::Confirmed,
        since,
        limit,
        hop: None,
    })
}

pub(super) fn has_recovered(look: &Look<'_>, verdict: &Verdict) -> bool {
    let progress = look.facts.ack_progress_at;
    look.facts.unacked_bytes == 0 || progress.is_some_and(|at| at > verdict.since)
}

/// When to look again.
pub(super) fn review(look: &Look<'_>, heard_before: Option<Ktime>) -> Ktime {
    // Heard, but not a byte acknowledged: the acknowledgement may be right behind.
    if look.facts.rx.last_packet > heard_before {
        look.now + RECHECK
    } else {
        Ktime::NEVER
    }
}

/// A path that comes back within `LATE` shows it by an answer to what leaves after that. TCP tries some
/// 6 s after the bytes, with or without a tail loss probe at the start.
const RETRANSMITS: u32 = 5;
const LATE: Duration = Duration::from_secs(5);
const STALL: Duration = Duration::from_secs(7);
const ANSWER: Duration = Duration::from_secs(1);
const RETRANSMITS_AFTER_GAP: u32 = 2;
const STALL_AFTER_GAP: Duration = Duration::from_secs(1);
