//! `unresponsive`: TCP acknowledges the pings, but they get no pong.
//!
//! The rule counts *tries*, which the kernel programs keep
//! ([`first_try`](monitor_common::snapshot::Snapshot::first_try)): pings after which no new payload
//! has come, that left while it could have come, and not together. Therefore a peer that is
//! uploading, a host that does not read, and a burst of pings are excused before this rule sees
//! them.
//!
//! Under TLS the pings of a heartbeat are inferred from the sizes and times of records. A single one
//! proves nothing, and nothing is ever confirmed. Texts that both sides send by timers of their own may
//! be mistaken for pings and pongs, so the peer gets the time to which a browser slows down a timer.

use std::time::Duration;

use super::rule::{Rule, silence_until};
use crate::{
    facts::Protocol,
    observation::{FactsSource, Observation, RECHECK},
    time::Ktime,
    verdict::{Certainty, Finding, Reviewed, Verdict, VerdictKind},
};

pub(super) const RULE: Rule = Rule {
    kind: VerdictKind::Unresponsive,
    find,
    review,
    has_recovered,
    silence: |observation, verdict| {
        let rx = &observation.facts.rx;
        silence_until(verdict.since, rx.last_frame.or(rx.last_payload))
    },
};

/// *Suspected* at the second try, or when the first is older than the ping timeout. *Inferred* at the
/// second try.
fn find(observation: &Observation<'_>) -> Finding {
    let facts = observation.facts;
    if !facts.is_open() {
        return Finding::NotBefore(Ktime::NEVER);
    }
    let Some(since) = facts.first_try else {
        // Every ping is published at once, so a check per timeout sees a single one in time.
        let pings = facts.ping_rtt.is_some();
        return Finding::NotBefore(
            observation.while_frames_leave(pings, observation.rules.ping_timeout),
        );
    };
    let is_inferred = has_inferred_pings(observation);
    let (first, wait) = match is_inferred {
        // The second try causes an event.
        true => (Ktime::NEVER, grace(observation)),
        false => (
            since + observation.rules.ping_timeout,
            usual_grace(observation),
        ),
    };
    let second = match facts.second_try {
        None => Ktime::NEVER,
        Some(second) if is_inferred => {
            let silent_since = facts.rx.last_payload.unwrap_or(since);
            (second + wait).max(silent_since + slowed_timer(observation) + wait)
        }
        Some(second) => second + wait,
    };
    if observation.now < first.min(second) {
        return Finding::NotBefore(first.min(second));
    }
    if !observation.acks_cover(since) {
        return Finding::NotBefore(observation.while_tcp_retries(since));
    }
    if let Some(acked) = pongs_may_be_right_behind(observation) {
        return Finding::NotBefore(acked + usual_grace(observation));
    }
    let (certainty, limit) = match certainty(observation) {
        Certainty::Confirmed => (Certainty::Confirmed, ping_deadline(observation)),
        Certainty::Inferred => (Certainty::Inferred, wait),
        Certainty::Suspected if observation.now >= second => {
            (Certainty::Suspected, usual_grace(observation))
        }
        Certainty::Suspected => (Certainty::Suspected, observation.rules.ping_timeout),
    };
    Finding::Holds(Verdict {
        kind: VerdictKind::Unresponsive,
        certainty,
        since,
        limit,
        hop: None,
    })
}

/// A later first try, or none, means that something arrived in between. A peer whose window closes has
/// taken nothing, but it ends the tries too.
fn has_recovered(observation: &Observation<'_>, verdict: &Verdict) -> bool {
    let facts = observation.facts;
    facts.peer_window_closed_at.is_none() && facts.first_try.is_none_or(|at| at > verdict.since)
}

fn review(observation: &Observation<'_>, verdict: &Verdict, _: Option<Ktime>) -> Reviewed {
    // Data that a peer sends after a single ping causes no event, so this verdict must poll.
    let recheck =
        observation.while_frames_leave(true, pace_of_pongs(observation.rules.ping_timeout));
    if verdict.certainty == Certainty::Confirmed {
        verdict.unchanged(recheck)
    } else if certainty(observation) == Certainty::Confirmed {
        Reviewed {
            certainty: Certainty::Confirmed,
            limit: ping_deadline(observation),
            next_check: recheck,
        }
    } else {
        verdict.unchanged(match confirmed_at(observation) {
            at if observation.now < at => recheck.min(at),
            _ => recheck,
        })
    }
}

fn certainty(observation: &Observation<'_>) -> Certainty {
    if has_inferred_pings(observation) {
        return Certainty::Inferred;
    }
    let acked = observation
        .facts
        .second_try
        .is_some_and(|at| observation.acks_cover(at));
    let overdue = observation.now >= confirmed_at(observation);
    if overdue && acked && pongs_may_be_right_behind(observation).is_none() {
        Certainty::Confirmed
    } else {
        Certainty::Suspected
    }
}

/// Whether the pings are known only by the records of TLS that hold them.
fn has_inferred_pings(observation: &Observation<'_>) -> bool {
    observation.facts.protocol == Protocol::Opaque
}

/// How long a timer of the peer may have slowed down instead. Pings that come faster than any such timer
/// are pings.
fn slowed_timer(observation: &Observation<'_>) -> Duration {
    match observation.facts.ping_interval {
        Some(interval) if interval < MIN_TIMER => Duration::ZERO,
        _ => SLOWED_TIMER,
    }
}

/// When both tries will have waited long enough.
fn confirmed_at(observation: &Observation<'_>) -> Ktime {
    match (observation.facts.first_try, observation.facts.second_try) {
        (Some(first), Some(second)) => {
            (first + observation.rules.unresponsive_floor).max(second + grace(observation))
        }
        _ => Ktime::NEVER,
    }
}

/// The time of an acknowledgement that pongs may follow at once: pings that had to wait behind a
/// loss leave all together.
fn pongs_may_be_right_behind(observation: &Observation<'_>) -> Option<Ktime> {
    observation.facts.ack_progress_at.filter(|at| {
        observation.source == FactsSource::Event && observation.now < *at + usual_grace(observation)
    })
}

/// How long a pong after a single ping may go unnoticed, because it causes no event.
pub fn pace_of_pongs(ping_timeout: Duration) -> Duration {
    (ping_timeout / 20).max(RECHECK)
}

/// How long the peer is given before it is reported as dead, and again before it is aborted.
fn ping_deadline(observation: &Observation<'_>) -> Duration {
    grace(observation).max(observation.rules.unresponsive_floor)
}

/// How long a ping may wait for its pong without loss.
fn usual_grace(observation: &Observation<'_>) -> Duration {
    let rtt = observation.facts.ping_rtt.unwrap_or_default();
    rtt.saturating_mul(4).max(MIN_PING_GRACE)
}

/// How long it may wait at all. On a lossy path the peer's TCP may be retransmitting the pong while
/// its acknowledgements arrive.
fn grace(observation: &Observation<'_>) -> Duration {
    let (usual, loss) = (usual_grace(observation), observation.loss());
    if loss.is_usual() {
        return usual;
    }
    // Each try waits twice as long as the previous one.
    let rtt = observation.facts.ping_rtt.unwrap_or_default();
    let waits = 2u32.saturating_pow(loss.tries_beyond_chance() - 1) - 1;
    let retrying = (MIN_RTO + rtt).saturating_mul(waits);
    usual.max(retrying.min(MAX_PING_GRACE))
}

const MIN_PING_GRACE: Duration = Duration::from_secs(1);
/// Of heartbeats that both sides send by timers: STOMP clients use 4 to 20 s, SignalR's 15 s. Less than 3 s by a
/// tenth of a second, because intervals are smoothed and rounded down.
const MIN_TIMER: Duration = Duration::from_millis(2_900);
/// The timers of a hidden page fire once a minute. The rest is for a retransmission.
pub const SLOWED_TIMER: Duration = Duration::from_secs(64);
/// `TCP_RTO_MIN` (`include/net/tcp.h`).
const MIN_RTO: Duration = Duration::from_millis(200);
/// Most peers' TCP has given up by then.
const MAX_PING_GRACE: Duration = Duration::from_secs(900);
