//! `stalled`: this host's application does not read what has arrived.

use std::time::Duration;

use super::{Finding, Verdict};
use crate::core::{
    alert::{Certainty, VerdictKind},
    look::{Look, Unread},
    time::Ktime,
};

/// What is unread is known from looks at the sockets only; each is an event.
pub(super) fn find(look: &Look<'_>) -> Finding {
    let Some(Unread { since, seen_at, .. }) = look.unread else {
        return Finding::NotBefore(Ktime::NEVER);
    };
    if seen_at.since(since) < PATIENCE {
        return Finding::NotBefore(Ktime::NEVER);
    }
    Finding::Holds(Verdict {
        kind: VerdictKind::Stalled,
        certainty: Certainty::Confirmed,
        since,
        limit: PATIENCE,
        hop: None,
    })
}

pub(super) fn has_recovered(look: &Look<'_>, verdict: &Verdict) -> bool {
    look.unread
        .is_none_or(|unread| unread.since > verdict.since)
}

/// Longer than a garbage collection or a blocking call should take.
const PATIENCE: Duration = Duration::from_secs(30);
