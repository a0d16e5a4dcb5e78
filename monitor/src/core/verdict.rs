//! The rules: from facts to a verdict, and to the moment at which to look again.
//!
//! Every rule is a pure function of one [`Look`]. It says what holds now, or the earliest moment at
//! which it could hold if nothing else is heard. A flow's deadline is the earliest of its rules', so
//! a healthy flow needs one timer and no memory of its facts.
//!
//! What the rules rely on from the kernel side: a snapshot is never older than the last event of its
//! flow; it is published by a packet, so it may miss up to `staleness` of ordinary traffic after its
//! last activity, but never a retransmission, acknowledgement progress after one, a ping, a pong, a
//! FIN or a RST.
//!
//! A flow with a FIN in either direction gets no `expired` and no `unresponsive` verdict (the peer
//! owes nothing any more); `black_holed` applies until a RST passes. A RST never counts as a
//! recovery: it is how an `rst_on_next_packet` hop says that the connection is long dead.

use std::time::Duration;

use super::{
    alert::{Certainty, ZombieKind},
    facts::Facts,
    hop::Hop,
    look::{Look, RECHECK},
    time::Ktime,
};

/// What a rule believes about a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub kind: ZombieKind,
    pub certainty: Certainty,
    /// The moment from which it was true.
    pub since: Ktime,
    /// The limit that was crossed.
    pub limit: Duration,
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    Holds(Verdict),
    /// It cannot hold earlier than this unless an event comes; [`Ktime::NEVER`]: only an event matters.
    NotBefore(Ktime),
}

/// What became of a verdict that stood already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Review {
    /// The peer was heard again.
    Recovered,
    Stands {
        certainty: Certainty,
        /// When to look again; [`Ktime::NEVER`] leaves it to events.
        next_look: Ktime,
    },
}

/// Judges a flow that is believed healthy: the first rule that holds, or else the earliest deadline.
pub fn judge(look: &Look<'_>) -> Finding {
    let mut earliest = Ktime::NEVER;
    for rule in [expired, black_holed, unresponsive] {
        match rule(look) {
            Finding::Holds(verdict) => return Finding::Holds(verdict),
            Finding::NotBefore(at) => earliest = earliest.min(at),
        }
    }
    Finding::NotBefore(earliest)
}

/// Whether the flow is close to its hop's limit, and when to look again for this rule's sake.
pub fn at_risk(look: &Look<'_>) -> (bool, Ktime) {
    let Some(hop) = look
        .rules
        .tightest_hop
        .as_ref()
        .filter(|_| look.facts.is_open())
    else {
        return (false, Ktime::NEVER);
    };
    let limit = hop.idle_timeout;
    let threshold = limit / 5 * 4;
    let idle = look.idle();
    if idle > limit.saturating_add(look.staleness) {
        // No longer at risk: expired, or the limit is not what the configuration says.
        (false, Ktime::NEVER)
    } else if idle >= threshold {
        (true, look.now + RECHECK.max(limit / 20))
    } else {
        (false, look.quiet_since() + threshold)
    }
}

/// Idle past the limit of a hop that keeps silent about it: *suspected* until two transmissions
/// stay unanswered for a second.
pub fn expired(look: &Look<'_>) -> Finding {
    let facts = look.facts;
    let hop = look
        .rules
        .tightest_hop
        .as_ref()
        .filter(|hop| hop.on_expiry.leaves_a_zombie());
    let Some(&Hop {
        idle_timeout: limit,
        ..
    }) = hop.filter(|_| facts.is_open())
    else {
        return Finding::NotBefore(Ktime::NEVER);
    };
    let holds = |silent_since: Ktime| {
        let since = silent_since + limit;
        let certainty = expiry_certainty(look, since);
        Finding::Holds(Verdict {
            kind: ZombieKind::Expired,
            certainty,
            since,
            limit,
        })
    };
    if let Some(gap) = look.unheard_gap() {
        return holds(gap.from);
    }
    let idle = look.idle();
    if idle <= limit.saturating_add(look.margin()) {
        Finding::NotBefore(look.quiet_since() + limit.saturating_add(look.staleness) + INSTANT)
    } else if look.is_outstanding() {
        Finding::NotBefore(look.while_tcp_retries(look.quiet_since() + limit))
    } else {
        holds(look.quiet_since())
    }
}

/// Bytes go out again and again and nothing is acknowledged. After a silence longer than the hop's
/// limit less evidence is needed.
pub fn black_holed(look: &Look<'_>) -> Finding {
    let facts = look.facts;
    let stalled = facts
        .stalled_since
        .filter(|_| look.is_outstanding() && !look.is_reset());
    let Some(since) = stalled else {
        return Finding::NotBefore(Ktime::NEVER);
    };
    let (retransmits, limit) = match look.unheard_gap() {
        Some(_) => (RETRANSMITS_AFTER_GAP, STALL_AFTER_GAP),
        None => (RETRANSMITS, STALL),
    };
    if facts.retransmits < retransmits {
        // The kernel reports the second and the fifth.
        Finding::NotBefore(Ktime::NEVER)
    } else if look.now < since + limit {
        Finding::NotBefore(since + limit)
    } else {
        let certainty = Certainty::Confirmed;
        Finding::Holds(Verdict {
            kind: ZombieKind::BlackHoled,
            certainty,
            since,
            limit,
        })
    }
}

/// TCP acknowledges the pings, nobody answers them: *suspected* after one, *confirmed* after two.
pub fn unresponsive(look: &Look<'_>) -> Finding {
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
    let grace = grace(facts.ping_rtt);
    let second = look.second_ping_overdue_at(grace);
    let first = since + look.rules.ping_timeout;
    if look.now < first.min(second) {
        return Finding::NotBefore(first.min(second));
    }
    if !look.acks_cover(since) {
        return Finding::NotBefore(look.while_tcp_retries(since));
    }
    let (certainty, limit) = if look.now >= second {
        (Certainty::Confirmed, grace)
    } else {
        (Certainty::Suspected, look.rules.ping_timeout)
    };
    Finding::Holds(Verdict {
        kind: ZombieKind::Unresponsive,
        certainty,
        since,
        limit,
    })
}

/// Looks again at a verdict that stands. `heard_before` is the last packet from the peer that was
/// known at the look before.
pub fn review(look: &Look<'_>, verdict: &Verdict, heard_before: Option<Ktime>) -> Review {
    if !look.is_reset() && has_recovered(look.facts, verdict) {
        return Review::Recovered;
    }
    let stands = |certainty: Certainty, next_look| Review::Stands {
        certainty: certainty.max(verdict.certainty),
        next_look,
    };
    match verdict.kind {
        ZombieKind::Expired => {
            let certainty = expiry_certainty(look, verdict.since).max(verdict.certainty);
            let next_look = match certainty {
                Certainty::Suspected => next_look_for_confirmation(look, verdict.since),
                Certainty::Confirmed => Ktime::NEVER,
            };
            stands(certainty, next_look)
        }
        ZombieKind::BlackHoled => {
            // Heard, but not a byte acknowledged: the acknowledgement may be right behind.
            let heard = look.facts.rx.last_packet > heard_before;
            stands(
                verdict.certainty,
                if heard {
                    look.now + RECHECK
                } else {
                    Ktime::NEVER
                },
            )
        }
        ZombieKind::Unresponsive => {
            // A pong after a lone ping is no event, so this verdict is the one that has to watch.
            let recheck = look.while_frames_leave(true, pace_of_pongs(look.rules.ping_timeout));
            let second = look.second_ping_overdue_at(grace(look.facts.ping_rtt));
            if look.now < second {
                stands(verdict.certainty, recheck.min(second))
            } else {
                stands(Certainty::Confirmed, recheck)
            }
        }
    }
}

/// The silence that ended in this verdict: what a hop's idle limit has to be compared with.
pub fn silence_before(look: &Look<'_>, verdict: &Verdict) -> Duration {
    let facts = look.facts;
    if let Some(gap) = look.unheard_gap() {
        return gap.to.since(gap.from);
    }
    match verdict.kind {
        ZombieKind::Expired => look.idle().max(verdict.limit),
        ZombieKind::BlackHoled => silence_until(verdict.since, facts.rx.last_packet),
        ZombieKind::Unresponsive => {
            silence_until(verdict.since, facts.rx.last_frame.or(facts.rx.last_payload))
        }
    }
}

/// The silence before the end of a connection that closed without a close frame.
///
/// The FIN or the RST is itself a packet, so payload is what counts; unless bytes were still in
/// flight, then it is the peer's last packet.
pub fn silence_before_close(look: &Look<'_>) -> Duration {
    let facts = look.facts;
    if let Some(gap) = look.unheard_gap() {
        return gap.to.since(gap.from);
    }
    if let Some(stalled) = facts.stalled_since {
        return silence_until(stalled, facts.rx.last_packet);
    }
    let spoken = facts
        .rx
        .last_payload
        .max(facts.tx.last_payload)
        .max(facts.established_at);
    silence_until(facts.last_activity().unwrap_or(look.now), spoken)
}

fn has_recovered(facts: &Facts, verdict: &Verdict) -> bool {
    let after = |at: Option<Ktime>| at.is_some_and(|at| at > verdict.since);
    match verdict.kind {
        ZombieKind::Expired => after(facts.rx.last_packet),
        ZombieKind::BlackHoled => facts.unacked_bytes == 0 || after(facts.ack_progress_at),
        // A later first ping means that a pong came in between.
        ZombieKind::Unresponsive => {
            facts.pings_unanswered == 0 || after(facts.first_unanswered_ping)
        }
    }
}

fn expiry_certainty(look: &Look<'_>, crossed: Ktime) -> Certainty {
    let enough = look.facts.unanswered_transmissions >= UNANSWERED_TRANSMISSIONS;
    match look.asked_at(crossed) {
        Some(asked) if enough && look.now >= asked + UNANSWERED => Certainty::Confirmed,
        _ => Certainty::Suspected,
    }
}

/// Nothing sent: nothing to wait for. Otherwise TCP repeats itself within seconds.
fn next_look_for_confirmation(look: &Look<'_>, crossed: Ktime) -> Ktime {
    match look.asked_at(crossed) {
        Some(asked) if look.now < asked + UNANSWERED => asked + UNANSWERED,
        Some(asked) => look.while_tcp_retries(asked),
        None => Ktime::NEVER,
    }
}

/// How long a pong after a lone ping may go unnoticed: it is no event.
pub fn pace_of_pongs(ping_timeout: Duration) -> Duration {
    (ping_timeout / 20).max(RECHECK)
}

fn grace(ping_rtt: Option<Duration>) -> Duration {
    ping_rtt
        .unwrap_or_default()
        .saturating_mul(4)
        .max(MIN_PING_GRACE)
}

fn silence_until(end: Ktime, last: Option<Ktime>) -> Duration {
    last.map_or(Duration::ZERO, |last| end.since(last))
}

/// A limit must be exceeded, not met.
const INSTANT: Duration = Duration::from_nanos(1);

const UNANSWERED_TRANSMISSIONS: u32 = 2;
const UNANSWERED: Duration = Duration::from_secs(1);
/// The fifth retransmission leaves about 6 s after the bytes; a path that only hiccups is back by then.
const RETRANSMITS: u32 = 5;
const STALL: Duration = Duration::from_secs(6);
const RETRANSMITS_AFTER_GAP: u32 = 2;
const STALL_AFTER_GAP: Duration = Duration::from_secs(1);
const MIN_PING_GRACE: Duration = Duration::from_secs(1);
