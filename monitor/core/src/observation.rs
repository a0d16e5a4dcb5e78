//! The input of a rule: the facts of one flow, and their reliability.

use std::time::Duration;

use super::{
    facts::{Direction, Facts, IdleGap, InferredHeartbeat, Protocol},
    hop::{Hop, ListenerRules, Path},
    loss::Loss,
    send_queues::Unsent,
    time::Ktime,
    verdict::Verdict,
};

/// One evaluation of a flow: its facts, the time of the evaluation, and the rules that apply.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    pub facts: &'a Facts,
    pub rules: &'a ListenerRules,
    /// The path to the peer.
    pub path: &'a Path,
    pub source: FactsSource,
    pub now: Ktime,
    /// How far a snapshot may lag behind its socket.
    pub staleness: Duration,
    /// Start of the idle time of a flow whose facts contain no activity.
    pub first_seen: Ktime,
    /// Bytes that its application has not read, if the last scan of the sockets found any.
    pub unread: Option<Unread>,
    /// Bytes in its send queue, if the last scan of the sockets found any.
    pub unsent: Option<Unsent>,
    /// The recent loss of the listener's connections.
    pub listener_loss: Loss,
}

impl<'a> Observation<'a> {
    /// What is observed of a flow by its facts alone: no queues, and not seen before.
    pub(crate) fn new(
        facts: &'a Facts,
        source: FactsSource,
        now: Ktime,
        rules: &'a ListenerRules,
        listener_loss: Loss,
        staleness: Duration,
    ) -> Self {
        Self {
            facts,
            rules,
            path: rules.path_to(facts.peer.ip()),
            source,
            now,
            staleness,
            first_seen: Ktime::ZERO,
            unread: None,
            unsent: None,
            listener_loss,
        }
    }
}

/// Bytes that wait in a receive queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The first scan that found the application at its present position.
    pub since: Ktime,
    /// The last scan.
    pub seen_at: Ktime,
    /// Bytes in the queue at the last scan.
    pub bytes: u32,
    /// True if the application had read more at the last scan than at the one before.
    pub moved: bool,
}

/// The source of facts, which determines their reliability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactsSource {
    /// A kernel record: exact at [`Facts::at`].
    Event,
    /// `sock_diag`: complete, but times may be off by the clock's granularity.
    Seed,
    /// The published copy: it may lag behind the socket.
    Snapshot,
}

impl<'a> Observation<'a> {
    /// The hop that a verdict is about, or else the tightest one.
    pub(super) fn hop(&self, verdict: &Verdict) -> Option<&'a Hop> {
        match verdict.hop {
            Some(index) => self.path.hops.get(index),
            None => self.path.tightest(),
        }
    }

    /// When this hop's clock was last restarted, if known.
    pub(super) fn quiet_since(&self, hop: &Hop) -> Ktime {
        hop.quiet_since(self.facts).unwrap_or(self.first_seen)
    }

    /// Time since the last packet in either direction.
    pub(super) fn idle(&self) -> Duration {
        let last = self.facts.last_activity().unwrap_or(self.first_seen);
        self.now.since(last)
    }

    /// How much longer than a limit an idle gap must appear to be certain.
    pub(super) fn margin(&self) -> Duration {
        match self.source {
            FactsSource::Event => Duration::ZERO,
            FactsSource::Seed | FactsSource::Snapshot => self.staleness,
        }
    }

    /// The loss to assume: the path of one client may be worse than the others.
    pub(super) fn loss(&self) -> Loss {
        self.facts.loss.max(self.listener_loss)
    }

    pub(super) fn is_reset(&self) -> bool {
        self.facts.rst_rx || self.facts.rst_tx
    }

    /// True if a rule may fall back on `first_seen`.
    pub(super) fn needs_first_seen(&self) -> bool {
        let hops = || self.path.hops.iter();
        let unknown = || hops().any(|hop| hop.quiet_since(self.facts).is_none());
        self.facts.established_at.is_none() && (self.rules.message_gap.is_some() || unknown())
    }

    /// True if at most the last transmission is unanswered, which may be on its way.
    pub(super) fn peer_answers(&self) -> bool {
        self.facts.unanswered_transmissions < 2
    }

    /// True if bytes are certainly in flight.
    pub(super) fn is_outstanding(&self) -> bool {
        self.facts.unacked_bytes > 0 && !self.ack_may_be_unseen()
    }

    /// True if the current loss of the path matters.
    pub(super) fn is_in_doubt(&self) -> bool {
        let waits = self.is_outstanding() && self.facts.retransmits > 1;
        waits || self.facts.second_try.is_some()
    }

    /// A snapshot can miss an acknowledgement that came right after it. However, TCP does not wait
    /// silently, and a retransmission would have been published.
    pub(super) fn ack_may_be_unseen(&self) -> bool {
        self.source == FactsSource::Snapshot && self.facts.retransmits == 0
    }

    /// The facts as evidence, without claims of a copy that may be older than the last
    /// acknowledgement.
    pub(super) fn evidence(&self) -> Facts {
        let mut facts = self.facts.clone();
        if self.ack_may_be_unseen() {
            facts.unacked_bytes = 0;
            facts.unanswered_transmissions = 0;
        }
        facts
    }

    /// True if TCP has acknowledged the data that was sent at `sent`.
    pub(super) fn acks_cover(&self, sent: Ktime) -> bool {
        !self.is_outstanding() || self.facts.ack_progress_at.is_some_and(|at| at >= sent)
    }

    /// An idle gap past the shortest limit of the path that this host ended; see
    /// [`Observation::unanswered_gap`].
    pub(super) fn longest_unanswered_gap(&self) -> Option<IdleGap> {
        self.unanswered_gap(self.path.idle_timeout()?)
    }

    /// An idle gap longer than `limit` that this host ended, with nothing in flight before and
    /// nothing heard since.
    pub(super) fn unanswered_gap(&self, limit: Duration) -> Option<IdleGap> {
        let facts = self.facts;
        facts.last_idle_gap.filter(|gap| {
            gap.ended_by == Direction::Tx
                && gap.to.since(gap.from) > limit
                && facts.rx.last_packet.is_none_or(|heard| heard <= gap.from)
                && facts.unacked_since.is_none_or(|stalled| stalled > gap.from)
        })
    }

    /// When the first unanswered transmission left after `limit` was `crossed`. A snapshot may be
    /// outdated about earlier transmissions.
    pub(super) fn elicited_at(&self, crossed: Ktime, limit: Duration) -> Option<Ktime> {
        let facts = self.facts;
        let since = facts
            .unanswered_since
            .filter(|_| facts.unanswered_transmissions > 0)?;
        match self.unanswered_gap(limit) {
            Some(gap) => Some(since.max(gap.to)),
            None => facts
                .tx
                .last_packet
                .filter(|sent| *sent > crossed)
                .map(|_| since.max(crossed)),
        }
    }

    /// The next check while a retransmission must still come, for data in flight since `since`.
    pub(super) fn while_tcp_retries(&self, since: Ktime) -> Ktime {
        let last = self.facts.tx.last_packet.unwrap_or(since).max(since);
        if self.now.since(last) <= MAX_RTO {
            self.now + RECHECK
        } else {
            Ktime::NEVER
        }
    }

    /// The same for a rule that waits for a number of tries, because TCP tries less and less often.
    pub(super) fn while_tcp_backs_off(&self, since: Ktime) -> Ktime {
        match self.while_tcp_retries(since) {
            Ktime::NEVER => Ktime::NEVER,
            soon => soon.max(self.now + self.now.since(since) / 32),
        }
    }

    /// The next check of a flow that pings, until it has sent no frame for a long time.
    pub(super) fn while_frames_leave(&self, pings: bool, interval: Duration) -> Ktime {
        let alive = |last| self.now.since(last) < PINGER_MEMORY;
        if pings && self.facts.tx.last_frame.is_some_and(alive) {
            self.now + interval.max(RECHECK)
        } else {
            Ktime::NEVER
        }
    }

    /// The next check of a TLS connection whose heartbeat may be learned or refused, until no payload has
    /// passed for a long time.
    pub(super) fn while_heartbeat_is_unknown(&self) -> Ktime {
        let facts = self.facts;
        let is_known = matches!(
            facts.heartbeat,
            Some(InferredHeartbeat::Learned | InferredHeartbeat::Refused)
        );
        let alive = |last| self.now.since(last) < PINGER_MEMORY;
        let last_payload = facts.rx.last_payload.max(facts.tx.last_payload);
        if facts.protocol == Protocol::Opaque
            && facts.is_open()
            && !is_known
            && last_payload.is_some_and(alive)
        {
            // At the same time for all connections, so that the daemon wakes up once.
            let interval = HEARTBEAT_CHECK.as_nanos() as u64;
            Ktime((self.now.0 / interval + 1).saturating_mul(interval))
        } else {
            Ktime::NEVER
        }
    }
}

/// The interval of checks for conditions that no event announces.
pub(super) const RECHECK: Duration = Duration::from_secs(1);
/// The interval of checks for a heartbeat, which affect only a gauge.
const HEARTBEAT_CHECK: Duration = Duration::from_secs(10);
/// With bytes in flight, TCP sends at least this often (`TCP_RTO_MAX`, `include/net/tcp.h`).
const MAX_RTO: Duration = Duration::from_secs(120);
/// A flow without a frame for this long has no heartbeat: no known default is above 2 minutes.
const PINGER_MEMORY: Duration = Duration::from_secs(600);
