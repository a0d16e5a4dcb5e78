//! `stalled`: this host's application does not read what has arrived.
//!
//! Two things show it. Packets show at once that this host's window is closed, and when it opens; but an
//! application may read a little behind a window that stays closed. A look at the sockets shows whether it
//! reads anything at all.

use std::time::Duration;

use super::{Finding, Verdict};
use crate::core::{
    alert::{Certainty, VerdictKind},
    look::{Look, Unread},
    time::Ktime,
};

/// *Suspected* by its closed window, *confirmed* by what it leaves unread.
pub(super) fn find(look: &Look<'_>) -> Finding {
    let holds = |certainty, since, limit| {
        Finding::Holds(Verdict {
            kind: VerdictKind::Stalled,
            certainty,
            since,
            limit,
            hop: None,
        })
    };
    if let Some(since) = unread_since(look) {
        return holds(Certainty::Confirmed, since, PATIENCE);
    }
    let Some(closed_at) = window_closed_at(look) else {
        return Finding::NotBefore(Ktime::NEVER);
    };
    if look.now < closed_at + CLOSED {
        Finding::NotBefore(closed_at + CLOSED)
    } else {
        holds(Certainty::Suspected, closed_at, CLOSED)
    }
}

/// What is unread is known from looks at the sockets only, and the window from packets; both are events.
pub(super) fn has_recovered(look: &Look<'_>, verdict: &Verdict) -> bool {
    let stands = |since: Ktime| since <= verdict.since;
    let unread = look.unread.is_some_and(|unread| stands(unread.since));
    let window = window_closed_at(look).is_some_and(stands);
    !(unread || window || unread_since(look).is_some())
}

/// The certainty, and the limit that was crossed for it.
pub(super) fn review(look: &Look<'_>, verdict: &Verdict) -> (Certainty, Duration) {
    match unread_since(look) {
        Some(_) => (Certainty::Confirmed, PATIENCE),
        None => (verdict.certainty, verdict.limit),
    }
}

/// Since when the application has read nothing, where that is for too long.
fn unread_since(look: &Look<'_>) -> Option<Ktime> {
    let Unread { since, seen_at, .. } = look.unread?;
    (seen_at.since(since) >= PATIENCE).then_some(since)
}

/// Since when nothing can arrive, unless a look has found meanwhile that the application reads: then the
/// next look will tell more.
fn window_closed_at(look: &Look<'_>) -> Option<Ktime> {
    let closed_at = look
        .facts
        .own_window_closed_at
        .filter(|_| look.facts.is_open())?;
    let reads = |unread: Unread| unread.moved && unread.seen_at >= closed_at;
    (!look.unread.is_some_and(reads)).then_some(closed_at)
}

/// Longer than a garbage collection or a blocking call should take.
const PATIENCE: Duration = Duration::from_secs(30);
/// A window opens again as soon as a sixteenth of the buffer is free (`__tcp_select_window` in
/// net/ipv4/tcp_output.c): an application that reads at all does that in less.
const CLOSED: Duration = Duration::from_secs(10);
