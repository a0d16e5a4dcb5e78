//! The correlator with one listener, in virtual time.

mod application;
mod backlogged;
mod black_holed;
mod ends;
mod expired;
mod mptcp;
mod table;
mod unresponsive;
mod warnings;

use monitor_common::snapshot::TRY_APART;

use super::*;
use crate::{
    AlertResolution, Certainty, CloseHow, Ended, Hop, OnExpiry, PastVerdict, Status, Trouble,
    VerdictKind,
    event::{ReceiveQueue, SendQueue},
    facts::{Close, Closing, ClosingBy, Direction, IdleGap, InferredHeartbeat, Protocol},
    hop::{Activity, Directions, Path},
    loss::Loss,
};

const STALENESS: Duration = Duration::from_millis(260);

/// Milliseconds since boot.
fn ms(at: u64) -> Ktime {
    Ktime(at * 1_000_000)
}

/// A core with one listener behind a hop of 6 s, and the snapshot it reads.
struct Bench {
    core: Correlator,
    snapshot: Option<Facts>,
    checks: u32,
    emitted: Vec<(u64, Status, VerdictKind, Certainty)>,
    reasons: Vec<String>,
    ended: Vec<Ended>,
}

impl Bench {
    fn under(rules: ListenerRules) -> Self {
        Self {
            core: Correlator::new(vec![rules], STALENESS),
            snapshot: None,
            checks: 0,
            emitted: Vec::new(),
            reasons: Vec::new(),
            ended: Vec::new(),
        }
    }

    fn behind(hop: Option<OnExpiry>) -> Self {
        let hop = hop.map(|on_expiry| Hop::new("lb", Duration::from_secs(6), on_expiry));
        Self::under(ListenerRules::new("web", hop))
    }

    fn opened(hop: Option<OnExpiry>) -> (Self, Facts) {
        let mut bench = Self::behind(hop);
        let facts = Facts::just_opened(1, ms(0));
        bench.event(Event::Opened(Box::new(facts.clone())));
        (bench, facts)
    }

    fn event(&mut self, event: Event) {
        if let Event::Opened(facts) | Event::Trouble { facts, .. } = &event {
            self.snapshot = Some((**facts).clone());
        }
        self.core.handle_event(event);
        self.listen();
    }

    fn trouble(&mut self, trouble: Trouble, at: u64, facts: &Facts) {
        let facts = Box::new(Facts {
            at: ms(at),
            ..facts.clone()
        });
        self.event(Event::Trouble { facts, trouble });
    }

    fn closed(&mut self, how: CloseHow, at: u64, facts: &Facts) {
        let facts = Box::new(Facts {
            at: ms(at),
            ..facts.clone()
        });
        self.event(Event::Closed { facts, how });
    }

    /// Advances the time to `end`, through every deadline of the core.
    fn until(&mut self, end: u64) {
        while let Some(at) = self.core.poll_timeout().filter(|at| *at <= ms(end)) {
            self.show(at);
        }
        self.show(ms(end));
    }

    fn show(&mut self, now: Ktime) {
        self.core.handle_timeout(now);
        while let Some(conn) = self.core.poll_inspect() {
            self.checks += 1;
            self.core
                .handle_snapshot(conn, self.snapshot.clone().map(Box::new));
        }
        self.listen();
    }

    fn listen(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Alert(alert) => {
                    if let Some((kind, certainty)) = alert.subject.verdict() {
                        let at = alert.at.0 / 1_000_000;
                        self.emitted.push((at, alert.status, kind, certainty));
                        self.reasons.push(alert.reason);
                    }
                }
                Action::Ended(ended) => self.ended.push(*ended),
                Action::Transition(_) | Action::Reconcile => {}
            }
        }
    }

    fn tally(&self) -> &Tally {
        self.core.tallies()[0]
    }
}

/// This host sends a ping.
fn ping(facts: &mut Facts, at: u64) {
    let at = ms(at);
    facts.tx.last_packet = Some(at);
    facts.tx.last_frame = Some(at);
    facts.pings_unanswered += 1;
    let first = *facts.first_try.get_or_insert(at);
    if at.since(first) >= Duration::from_nanos(TRY_APART) {
        facts.second_try.get_or_insert(at);
    }
}

/// New payload other than a pong comes from the peer.
fn receive(facts: &mut Facts, at: u64) {
    facts.rx.last_packet = Some(ms(at));
    facts.rx.last_payload = Some(ms(at));
    (facts.first_try, facts.second_try) = (None, None);
}

/// A pong that answers all pings.
fn pong(facts: &mut Facts, at: u64) {
    receive(facts, at);
    facts.pings_unanswered = 0;
}

/// Everything sent is acknowledged.
fn ack(facts: &mut Facts, at: u64) {
    facts.rx.last_packet = Some(ms(at));
    facts.ack_progress_at = Some(ms(at));
    facts.unacked_bytes = 0;
    facts.unacked_since = None;
    facts.retransmits = 0;
    facts.unanswered_transmissions = 0;
    facts.unanswered_since = None;
}

/// Bytes leave at `to`, after a silence since `from`.
fn speak_into_silence(facts: &mut Facts, from: u64, to: u64) {
    facts.last_idle_gap = Some(IdleGap {
        from: ms(from),
        to: ms(to),
        ended_by: Direction::Tx,
    });
    send(facts, to);
}

fn send(facts: &mut Facts, at: u64) {
    facts.tx.last_packet = Some(ms(at));
    facts.tx.last_payload = Some(ms(at));
    facts.unacked_bytes = 100;
    facts.unacked_since = Some(ms(at));
    facts.unanswered_transmissions = 1;
    facts.unanswered_since = Some(ms(at));
}

fn retransmit(facts: &mut Facts, at: u64) {
    facts.tx.last_packet = Some(ms(at));
    facts.retransmits += 1;
    facts.unanswered_transmissions += 1;
}

const FIRING: Status = Status::Firing;
const SUPERSEDED: Status = Status::Resolved(AlertResolution::Superseded);
const RECOVERED: Status = Status::Resolved(AlertResolution::Recovered);
use Certainty::{Confirmed, Suspected};
use VerdictKind::{
    Backlogged, BlackHoled, Expired, Expiring, HalfClosed, Quiet, Stalled, Unresponsive,
};

/// If one try in seven fails, eight failures in a row are chance in less than one case in a million.
fn lossy() -> Loss {
    let loss = Loss::from_late(5_200);
    assert_eq!(loss.tries_beyond_chance(), 8);
    loss
}
