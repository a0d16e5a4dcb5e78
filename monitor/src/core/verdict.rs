//! The rules: from facts to a verdict, and to the moment at which to look again.
//!
//! Every rule is a pure function of one [`Look`]. It says what holds now, or the earliest moment at
//! which it could hold if nothing else is heard. A flow's deadline is the earliest of its rules', so
//! a healthy flow needs one timer and no memory of its facts.
//!
//! What the rules rely on from the kernel side: a snapshot is never older than the last event of its
//! flow, and it may miss up to `staleness` of ordinary traffic after [`Facts::at`], but never a
//! retransmission, acknowledgement progress after one, a ping, a pong, a FIN or a RST.
//!
//! A flow with a FIN in either direction gets no `expired` and no `unresponsive` verdict (the peer
//! owes nothing any more); `black_holed` applies until a RST passes. A RST never counts as a
//! recovery: it is how an `rst_on_next_packet` hop says that the connection is long dead.

use std::time::Duration;

use super::{
    alert::{Certainty, ZombieKind},
    facts::{Direction, Facts, Gap},
    hop::{Hop, ListenerRules},
    time::Ktime,
};

/// One look at a flow: its facts, the moment they are judged at, and the rules that apply.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    pub facts: &'a Facts,
    pub rules: &'a ListenerRules,
    pub source: Source,
    pub now: Ktime,
    /// How far a snapshot may lag behind its socket.
    pub staleness: Duration,
    /// The silence of a flow whose facts know no activity begins here.
    pub first_seen: Ktime,
}

/// Where facts come from, and so how far they can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A kernel record: exact at [`Facts::at`].
    Event,
    /// `sock_diag`: complete, with times that may be off by the clock's granularity.
    Seed,
    /// The published copy: may lag behind the socket.
    Snapshot,
}

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
        Finding::Holds(Verdict {
            kind: ZombieKind::Expired,
            certainty: expiry_certainty(look),
            since: silent_since + limit,
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
            let certainty = expiry_certainty(look).max(verdict.certainty);
            stands(certainty, next_look_for_confirmation(look, certainty))
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
            let recheck = look.while_frames_leave(true, look.rules.ping_timeout / 20);
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

impl Look<'_> {
    /// The last activity known.
    fn quiet_since(&self) -> Ktime {
        self.facts.last_activity().unwrap_or(self.first_seen)
    }

    fn idle(&self) -> Duration {
        self.now.since(self.quiet_since())
    }

    /// How much longer the silence must look before it surely is.
    fn margin(&self) -> Duration {
        match self.source {
            Source::Event => Duration::ZERO,
            Source::Seed | Source::Snapshot => self.staleness,
        }
    }

    fn is_reset(&self) -> bool {
        self.facts.rst_rx || self.facts.rst_tx
    }

    /// Whether bytes really are in flight. A snapshot can miss the acknowledgement that came right
    /// after it; but TCP does not wait in silence, and a retransmission would have been published.
    fn is_outstanding(&self) -> bool {
        let ack_may_be_unseen = self.source == Source::Snapshot && self.facts.retransmits == 0;
        self.facts.unacked_bytes > 0 && !ack_may_be_unseen
    }

    /// Whether TCP has acknowledged what was sent at `sent`.
    fn acks_cover(&self, sent: Ktime) -> bool {
        !self.is_outstanding() || self.facts.ack_progress_at.is_some_and(|at| at >= sent)
    }

    /// A silence past the hop's limit that this host ended, with nothing in flight before and
    /// nothing heard since.
    fn unheard_gap(&self) -> Option<Gap> {
        let limit = self.rules.tightest_hop.as_ref()?.idle_timeout;
        let facts = self.facts;
        facts.last_gap.filter(|gap| {
            gap.ended_by == Direction::Tx
                && gap.to.since(gap.from) > limit
                && facts.rx.last_packet.is_none_or(|heard| heard <= gap.from)
                && facts.stalled_since.is_none_or(|stalled| stalled > gap.from)
        })
    }

    fn second_ping_overdue_at(&self, grace: Duration) -> Ktime {
        match self.facts.last_unanswered_ping {
            Some(last) if self.facts.pings_unanswered >= 2 => last + grace,
            _ => Ktime::NEVER,
        }
    }

    /// The next look while a retransmission must still come, if something is in flight since `since`.
    fn while_tcp_retries(&self, since: Ktime) -> Ktime {
        let last = self.facts.tx.last_packet.unwrap_or(since).max(since);
        if self.now.since(last) <= MAX_RTO {
            self.now + RECHECK
        } else {
            Ktime::NEVER
        }
    }

    /// The next look at a flow that pings, until it has sent no frame for a long time.
    fn while_frames_leave(&self, pings: bool, interval: Duration) -> Ktime {
        let alive = |last| self.now.since(last) < PINGER_MEMORY;
        if pings && self.facts.tx.last_frame.is_some_and(alive) {
            self.now + interval.max(RECHECK)
        } else {
            Ktime::NEVER
        }
    }
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

fn expiry_certainty(look: &Look<'_>) -> Certainty {
    let asked_long_ago = look
        .facts
        .unanswered_since
        .is_some_and(|at| look.now >= at + UNANSWERED);
    if look.facts.unanswered_transmissions >= UNANSWERED_TRANSMISSIONS && asked_long_ago {
        Certainty::Confirmed
    } else {
        Certainty::Suspected
    }
}

/// Nothing sent: nothing to wait for. Otherwise TCP repeats itself within seconds.
fn next_look_for_confirmation(look: &Look<'_>, certainty: Certainty) -> Ktime {
    let asked = look
        .facts
        .unanswered_since
        .filter(|_| look.facts.unanswered_transmissions > 0);
    match asked {
        Some(at) if certainty == Certainty::Suspected => {
            if look.now < at + UNANSWERED {
                at + UNANSWERED
            } else {
                look.while_tcp_retries(at)
            }
        }
        _ => Ktime::NEVER,
    }
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
/// The pace of looks that wait for something no event announces.
const RECHECK: Duration = Duration::from_secs(1);
/// With bytes in flight TCP sends at least this often (`TCP_RTO_MAX`, `include/net/tcp.h`).
const MAX_RTO: Duration = Duration::from_secs(120);
/// A flow without a frame for this long has no heartbeat: no known default is above 2 minutes.
const PINGER_MEMORY: Duration = Duration::from_secs(600);

const UNANSWERED_TRANSMISSIONS: u32 = 2;
const UNANSWERED: Duration = Duration::from_secs(1);
/// The fifth retransmission leaves about 6 s after the bytes; a path that only hiccups is back by then.
const RETRANSMITS: u32 = 5;
const STALL: Duration = Duration::from_secs(6);
const RETRANSMITS_AFTER_GAP: u32 = 2;
const STALL_AFTER_GAP: Duration = Duration::from_secs(1);
const MIN_PING_GRACE: Duration = Duration::from_secs(1);
