//! `unresponsive`: TCP acknowledges the pings, nobody answers them.
//!
//! What counts is *tries*, which the kernel programs keep
//! ([`first_try`](monitor_common::snapshot::Snapshot::first_try)): pings since which no new payload has
//! come, that left while it could have come, and not in one go. So a peer that is uploading, a host that
//! does not read, and a burst of pings are excused before this rule sees them.

use std::time::Duration;

use super::{Finding, Verdict};
use crate::core::{
    alert::{Certainty, VerdictKind},
    look::{Look, RECHECK, Source},
    time::Ktime,
};

/// *Suspected* at the second try, or when the first is older than the ping timeout.
pub(super) fn find(look: &Look<'_>) -> Finding {
    let facts = look.facts;
    if !facts.is_open() {
        return Finding::NotBefore(Ktime::NEVER);
    }
    let Some(since) = facts.first_try else {
        // Every ping is published at once, so a look per timeout sees a lone one in time.
        let pings = facts.ping_rtt.is_some();
        return Finding::NotBefore(look.while_frames_leave(pings, look.rules.ping_timeout));
    };
    let first = since + look.rules.ping_timeout;
    let second = facts
        .second_try
        .map_or(Ktime::NEVER, |second| second + usual_grace(look));
    if look.now < first.min(second) {
        return Finding::NotBefore(first.min(second));
    }
    if !look.acks_cover(since) {
        return Finding::NotBefore(look.while_tcp_retries(since));
    }
    if let Some(acked) = pongs_may_be_right_behind(look) {
        return Finding::NotBefore(acked + usual_grace(look));
    }
    let (certainty, limit) = match certainty(look) {
        Certainty::Confirmed => (Certainty::Confirmed, patience(look)),
        Certainty::Suspected if look.now >= second => (Certainty::Suspected, usual_grace(look)),
        Certainty::Suspected => (Certainty::Suspected, look.rules.ping_timeout),
    };
    Finding::Holds(Verdict {
        kind: VerdictKind::Unresponsive,
        certainty,
        since,
        limit,
        hop: None,
    })
}

/// A later first try, or none, means that something came in between.
pub(super) fn has_recovered(look: &Look<'_>, verdict: &Verdict) -> bool {
    look.facts.first_try.is_none_or(|at| at > verdict.since)
}

/// The certainty, the limit that was crossed for it, and when to look again.
pub(super) fn review(look: &Look<'_>, verdict: &Verdict) -> (Certainty, Duration, Ktime) {
    // What a peer sends after a lone ping is no event, so this verdict is the one that has to watch.
    let recheck = look.while_frames_leave(true, pace_of_pongs(look.rules.ping_timeout));
    if verdict.certainty == Certainty::Confirmed {
        (Certainty::Confirmed, verdict.limit, recheck)
    } else if certainty(look) == Certainty::Confirmed {
        (Certainty::Confirmed, patience(look), recheck)
    } else {
        let next_look = match confirmed_at(look) {
            at if look.now < at => recheck.min(at),
            _ => recheck,
        };
        (Certainty::Suspected, verdict.limit, next_look)
    }
}

fn certainty(look: &Look<'_>) -> Certainty {
    let acked = look.facts.second_try.is_some_and(|at| look.acks_cover(at));
    let overdue = look.now >= confirmed_at(look);
    if overdue && acked && pongs_may_be_right_behind(look).is_none() {
        Certainty::Confirmed
    } else {
        Certainty::Suspected
    }
}

/// When both tries will have waited for long enough.
fn confirmed_at(look: &Look<'_>) -> Ktime {
    match (look.facts.first_try, look.facts.second_try) {
        (Some(first), Some(second)) => {
            (first + look.rules.unresponsive_floor).max(second + grace(look))
        }
        _ => Ktime::NEVER,
    }
}

/// Pings that had to wait behind a loss leave all at once; the pongs may be right behind the
/// acknowledgement. The moment of that.
fn pongs_may_be_right_behind(look: &Look<'_>) -> Option<Ktime> {
    look.facts
        .ack_progress_at
        .filter(|at| look.source == Source::Event && look.now < *at + usual_grace(look))
}

/// How long a pong after a lone ping may go unnoticed: it is no event.
pub fn pace_of_pongs(ping_timeout: Duration) -> Duration {
    (ping_timeout / 20).max(RECHECK)
}

/// How long the peer is given before it is called dead, and again before it is aborted.
fn patience(look: &Look<'_>) -> Duration {
    grace(look).max(look.rules.unresponsive_floor)
}

/// How long a ping may wait for its pong where nothing is lost.
fn usual_grace(look: &Look<'_>) -> Duration {
    let rtt = look.facts.ping_rtt.unwrap_or_default();
    rtt.saturating_mul(4).max(MIN_PING_GRACE)
}

/// How long it may wait anyhow. Where the path is lossy the peer's TCP may be sending the
/// pong again, while its acknowledgements come through.
fn grace(look: &Look<'_>) -> Duration {
    let (usual, loss) = (usual_grace(look), look.loss());
    if loss.is_usual() {
        return usual;
    }
    // Each try waits twice as long as the one before.
    let rtt = look.facts.ping_rtt.unwrap_or_default();
    let waits = 2u32.saturating_pow(loss.tries_beyond_chance() - 1) - 1;
    let retrying = (MIN_RTO + rtt).saturating_mul(waits);
    usual.max(retrying.min(MAX_PING_GRACE))
}

const MIN_PING_GRACE: Duration = Duration::from_secs(1);
/// `TCP_RTO_MIN` (`include/net/tcp.h`).
const MIN_RTO: Duration = Duration::from_millis(200);
/// By then most peers' TCP gives up.
const MAX_PING_GRACE: Duration = Duration::from_secs(900);
