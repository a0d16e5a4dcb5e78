//! `black_holed`: bytes are retransmitted, and nothing is acknowledged.
//!
//! *Confirmed*, unless the path is so lossy that it can be chance; then *suspected* until TCP has
//! tried often enough.

use std::time::Duration;

use monitor_common::flow::RETRANSMIT_WAKES;

use super::rule::{Rule, silence_until};
use crate::{
    observation::{FactsSource, Observation, RECHECK},
    time::Ktime,
    verdict::{Certainty, Finding, Reviewed, Verdict, VerdictKind},
};

pub(super) const RULE: Rule = Rule {
    kind: VerdictKind::BlackHoled,
    find,
    review,
    has_recovered,
    silence: |observation, verdict| silence_until(verdict.since, observation.facts.rx.last_packet),
};

fn find(observation: &Observation<'_>) -> Finding {
    let facts = observation.facts;
    let unacked = facts
        .unacked_since
        .filter(|_| observation.is_outstanding() && !observation.is_reset())
        // Retransmissions to a closed window are probes of it.
        .filter(|_| facts.peer_window_closed_at.is_none() || !observation.peer_answers());
    let Some(since) = unacked else {
        return Finding::NotBefore(Ktime::NEVER);
    };
    if observation.longest_unanswered_gap().is_some() {
        after_silence(observation, since)
    } else {
        in_conversation(observation, since)
    }
}

fn in_conversation(observation: &Observation<'_>, since: Ktime) -> Finding {
    let facts = observation.facts;
    let last = facts.tx.last_packet.unwrap_or(since);
    if facts.retransmits < RETRANSMITS {
        // The kernel reports the second and the fifth retransmission.
        Finding::NotBefore(Ktime::NEVER)
    } else if observation.source == FactsSource::Event {
        // When a retransmission is reported, its acknowledgement cannot have arrived yet.
        Finding::NotBefore((since + STALL).max(observation.now + ANSWER))
    } else if observation.now < since + STALL {
        Finding::NotBefore(since + STALL)
    } else if last + observation.margin() < since + LATE {
        // With a tail loss probe, the fifth leaves after only 3 s, and the sixth after 6 s.
        Finding::NotBefore(observation.while_tcp_retries(since))
    } else {
        holds(observation, since, STALL)
    }
}

/// After an idle gap longer than a hop's limit, less evidence is needed.
fn after_silence(observation: &Observation<'_>, since: Ktime) -> Finding {
    if observation.facts.retransmits < RETRANSMITS_AFTER_GAP {
        Finding::NotBefore(Ktime::NEVER)
    } else if observation.now < since + STALL_AFTER_GAP {
        Finding::NotBefore(since + STALL_AFTER_GAP)
    } else {
        holds(observation, since, STALL_AFTER_GAP)
    }
}

fn holds(observation: &Observation<'_>, since: Ktime, limit: Duration) -> Finding {
    Finding::Holds(Verdict {
        kind: VerdictKind::BlackHoled,
        certainty: certainty(observation),
        since,
        limit,
        hop: None,
    })
}

fn has_recovered(observation: &Observation<'_>, verdict: &Verdict) -> bool {
    let progress = observation.facts.ack_progress_at;
    observation.facts.unacked_bytes == 0 || progress.is_some_and(|at| at > verdict.since)
}

fn certainty(observation: &Observation<'_>) -> Certainty {
    // The first transmission is not a retransmission.
    let tries = observation.facts.retransmits.saturating_add(1);
    match observation.loss().excuses(tries) {
        true => Certainty::Suspected,
        false => Certainty::Confirmed,
    }
}

fn review(
    observation: &Observation<'_>,
    verdict: &Verdict,
    heard_before: Option<Ktime>,
) -> Reviewed {
    let certainty = certainty(observation).max(verdict.certainty);
    let next_check = if observation.facts.rx.last_packet > heard_before {
        // Heard, but no byte acknowledged: the acknowledgement may come next.
        observation.now + RECHECK
    } else if certainty == Certainty::Suspected {
        observation.while_tcp_backs_off(verdict.since)
    } else {
        Ktime::NEVER
    };
    Reviewed {
        certainty,
        limit: verdict.limit,
        next_check,
    }
}

/// A path that comes back within `LATE` shows it by an answer to later transmissions. TCP tries
/// about 6 s after the bytes, with or without a tail loss probe at the start.
///
/// The kernel wakes the daemon at exactly these counts.
const RETRANSMITS: u32 = RETRANSMIT_WAKES[1];
const LATE: Duration = Duration::from_secs(5);
const STALL: Duration = Duration::from_secs(7);
const ANSWER: Duration = Duration::from_secs(1);
const RETRANSMITS_AFTER_GAP: u32 = RETRANSMIT_WAKES[0];
const STALL_AFTER_GAP: Duration = Duration::from_secs(1);
