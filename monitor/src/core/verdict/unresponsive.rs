//! `unresponsive`: TCP acknowledges the pings, nobody answers them.

use std::time::Duration;

use super::{Finding, Verdict};
use crate::core::{
    alert::{Certainty, VerdictKind},
    look::{Look, RECHECK, Source},
    time::Ktime,
};

/// *Suspected* after one ping, *confirmed* after two.
pub(super) fn find(look: &Look<'_>) -> Finding {
    let facts = look.facts;
    if !facts.is_open() {
        return Finding::NotBefore(Ktime::NEVER);
    }
    let Some(since) = facts
        .first_unanswered_ping
        .filter(|_| facts.pings_unanswered > 0)
    else {
        // Every ping is published at once, so a look per timeout sees a lone one in time.
        let pings = facts.ping_rtt.is_some();
        return Finding::NotBefore(look.while_frames_leave(pings, look.rules.ping_timeout));
    };
    let grace = grace(look);
    let second = look.second_ping_overdue_at(grace);
    let first = since + look.rules.ping_timeout;
    if look.now < first.min(second) {
        return Finding::NotBefore(first.min(second));
    }
    if !look.acks_cover(since) {
        return Finding::NotBefore(look.while_tcp_retries(since));
    }
    // Pings that had to wait behind a loss leave all at once, and are not even; the pongs may be right
    // behind the acknowledgement.
    let acked = facts
        .ack_progress_at
        .filter(|at| look.source == Source::Event && look.now < *at + usual_grace(look));
    if let Some(acked) = acked {
        return Finding::NotBefore(acked + usual_grace(look));
    }
    let (certainty, limit) = if look.now >= second {
        (Certainty::Confirmed, grace)
    } else {
        (Certainty::Suspected, look.rules.ping_timeout)
    };
    Finding::Holds(Verdict {
        kind: VerdictKind::Unresponsive,
        certainty,
        since,
        limit,
        hop: None,
    })
}

/// A later first ping means that a pong came in between.
pub(super) fn has_recovered(look: &Look<'_>, verdict: &Verdict) -> bool {
    let first = look.facts.first_unanswered_ping;
    look.facts.pings_unanswered == 0 || first.is_some_and(|at| at > verdict.since)
}

pub(super) fn review(look: &Look<'_>, verdict: &Verdict) -> (Certainty, Ktime) {
    // A pong after a lone ping is no event, so this verdict is the one that has to watch.
    let recheck = look.while_frames_leave(true, pace_of_pongs(look.rules.ping_timeout));
    let second = look.second_ping_overdue_at(grace(look));
    if look.now < second {
        (verdict.certainty, recheck.min(second))
    } else {
        (Certainty::Confirmed, recheck)
    }
}

/// How long a pong after a lone ping may go unnoticed: it is no event.
pub fn pace_of_pongs(ping_timeout: Duration) -> Duration {
    (ping_timeout / 20).max(RECHECK)
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
