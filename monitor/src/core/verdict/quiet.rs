//! `quiet`: the peer has sent no message for long, whatever else passes.

use std::time::Duration;

use super::{Finding, INSTANT, Verdict};
use crate::core::{
    alert::{Certainty, VerdictKind},
    facts::Protocol,
    look::{Look, RECHECK},
    time::Ktime,
};

pub(super) fn find(look: &Look<'_>) -> Finding {
    let Some(limit) = look.rules.message_gap.filter(|_| look.facts.is_open()) else {
        return Finding::NotBefore(Ktime::NEVER);
    };
    let since = last_message(look) + limit;
    if look.now <= since + look.margin() {
        return Finding::NotBefore(since + look.staleness + INSTANT);
    }
    Finding::Holds(Verdict {
        kind: VerdictKind::Quiet,
        certainty: Certainty::Suspected,
        since,
        limit,
        hop: None,
    })
}

pub(super) fn has_recovered(look: &Look<'_>, verdict: &Verdict) -> bool {
    last_message(look) > verdict.since
}

/// A message is no event.
pub(super) fn next_look(look: &Look<'_>, limit: Duration) -> Ktime {
    look.now + (limit / 20).max(RECHECK)
}

/// The last text or binary frame; where frames are unknown, the last payload.
fn last_message(look: &Look<'_>) -> Ktime {
    let facts = look.facts;
    let heard = match facts.protocol {
        Protocol::WebSocket => facts.rx.last_message,
        Protocol::Opaque | Protocol::Assumed => facts.rx.last_payload,
    };
    heard
        .max(facts.opened_at)
        .max(facts.established_at)
        .unwrap_or(look.first_seen)
}
