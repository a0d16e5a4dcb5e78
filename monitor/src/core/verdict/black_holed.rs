//! `black_holed`: bytes go out again and again and nothing is acknowledged.

use std::time::Duration;

use super::{Finding, Verdict};
use crate::core::{
    alert::{Certainty, VerdictKind},
    look::{Look, RECHECK},
    time::Ktime,
};

/// After a silence longer than a hop's limit less evidence is needed.
pub(super) fn find(look: &Look<'_>) -> Finding {
    let facts = look.facts;
    let stalled = facts
        .stalled_since
        .filter(|_| look.is_outstanding() && !look.is_reset());
    let Some(since) = stalled else {
        return Finding::NotBefore(Ktime::NEVER);
    };
    let (retransmits, limit) = match look.longest_unheard_gap() {
        Some(_) => (RETRANSMITS_AFTER_GAP, STALL_AFTER_GAP),
        None => (RETRANSMITS, STALL),
    };
    if facts.retransmits < retransmits {
        // The kernel reports the second and the fifth.
        Finding::NotBefore(Ktime::NEVER)
    } else if look.now < since + limit {
        Finding::NotBefore(since + limit)
    } else {
        Finding::Holds(Verdict {
            kind: VerdictKind::BlackHoled,
            certainty: Certainty::Confirmed,
            since,
            limit,
            hop: None,
        })
    }
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

/// The fifth retransmission leaves about 6 s after the bytes; a path that only hiccups is back by then.
const RETRANSMITS: u32 = 5;
const STALL: Duration = Duration::from_secs(6);
const RETRANSMITS_AFTER_GAP: u32 = 2;
const STALL_AFTER_GAP: Duration = Duration::from_secs(1);
