//! The correlator: the table of flows, their deadlines, and the resulting actions.
//!
//! ```text
//! loop {
//!     let sampled = clock();
//!     for event in ring { core.handle_event(event) }
//!     core.handle_timeout(sampled - slack);
//!     for facts in next part of all snapshots { core.handle_swept(facts) }
//!     while let Some(conn) = core.poll_inspect() { core.handle_snapshot(conn, read(conn)) }
//!     while let Some(action) = core.poll_action() { act(action) }
//!     sleep_until(core.poll_timeout() + slack or ring readable);
//! }
//! ```
//!
//! A flow has at most one valid wheel entry, re-armed lazily. A later deadline waits until the entry
//! expires. An earlier one gets a new entry, and the old one is dropped when it expires. With
//! [sweeps](Correlator::handle_swept), a healthy flow has no entry.

mod close;
mod queues;
mod standing;
mod storms;
mod sweep;
mod upgrades;
mod workloads;

use std::{collections::VecDeque, time::Duration};

pub use storms::StormSetup;

use super::{
    action::Action,
    event::Event,
    facts::{ConnId, Facts, ListenerId, Protocol},
    flow::TrackedFlow,
    flows::Flows,
    hop::ListenerRules,
    idle_gaps::KnownHop,
    interner::Interner,
    listen_sockets::ListenSockets,
    listener::Listener,
    loss::Deliveries,
    observation::{FactsSource, Observation},
    pending::{Pending, UpgradeAttempt},
    reap::ReapOutcome,
    recv_queues::RecvQueues,
    send_queues::SendQueues,
    tally::Tally,
    time::Ktime,
    transition::{State, Transition},
    verdict::Ending,
    wheel::{Wheel, WheelEntry},
};

/// The sans-IO state machine of the daemon.
///
/// Its methods are of five kinds:
///
/// * **Set-up**: [`new`](Self::new), [`with_storms`](Self::with_storms) and
///   [`with_workloads`](Self::with_workloads).
/// * **Input**: `handle_*` takes records, snapshots, counts, results and new rules, and
///   [`expect_sweeps`](Self::expect_sweeps) the time of the next sweep. No input does I/O or reads a clock.
/// * **Deadlines**: [`poll_timeout`](Self::poll_timeout) says when
///   [`handle_timeout`](Self::handle_timeout) is due.
/// * **Output**: [`poll_inspect`](Self::poll_inspect), [`poll_cgroup`](Self::poll_cgroup) and
///   [`poll_action`](Self::poll_action) return what to do; `wants_*` say what input is needed soon.
/// * **Queries**: all others. They change nothing.
///
/// Every input may change the deadline and the output. After a round of input, call
/// [`handle_timeout`](Self::handle_timeout), then poll in this order: `poll_inspect` until `None`, with
/// an answer to each; `poll_action` until `None`; `poll_timeout` last.
#[derive(Debug)]
pub struct Correlator {
    /// Indexed by [`ListenerId`].
    listeners: Vec<Listener>,
    staleness: Duration,
    /// The latest time passed to [`Correlator::handle_timeout`].
    now: Ktime,
    flows: Flows,
    pending: Pending,
    recv_queues: RecvQueues,
    send_queues: SendQueues,
    /// Until then, verdicts may depend on the current packet loss.
    uncertain_until: Ktime,
    known_hops: Vec<KnownHop>,
    listen_sockets: ListenSockets,
    /// Whether the client address that a proxy forwards is trusted.
    forwarded: bool,
    /// The strings of the flows' handshakes.
    interner: Interner,
    wheel: Wheel,
    /// Every snapshot is passed in at least this often. `None`: only the requested ones are.
    sweeps: Option<Duration>,
    /// Repeats only when `u32` wraps, so a new flow cannot own an old flow's entry.
    next_generation: u32,
    inspect: VecDeque<ConnId>,
    actions: VecDeque<Action>,
    rejected: u64,
}

impl Correlator {
    /// `rules` are indexed by [`ListenerId`]. `staleness` is the maximum age of a snapshot relative to
    /// its socket: the publish interval plus the granularity of the kernel's clock.
    pub fn new(rules: Vec<ListenerRules>, staleness: Duration) -> Self {
        let listeners = (0..).map(ListenerId).zip(rules);
        Self {
            listeners: listeners
                .map(|(id, rules)| Listener::new(id, rules))
                .collect(),
            listen_sockets: ListenSockets::default(),
            forwarded: false,
            staleness,
            now: Ktime::ZERO,
            flows: Flows::default(),
            pending: Pending::default(),
            recv_queues: RecvQueues::default(),
            send_queues: SendQueues::default(),
            uncertain_until: Ktime::ZERO,
            known_hops: Vec::new(),
            interner: Interner::default(),
            wheel: Wheel::new(),
            sweeps: None,
            next_generation: 0,
            inspect: VecDeque::new(),
            actions: VecDeque::new(),
            rejected: 0,
        }
    }

    /// Handles a record. It is judged at its own timestamp, not at the current time.
    pub fn handle_event(&mut self, event: Event) {
        match event {
            Event::Opened(facts) => {
                self.count_opening(&facts);
                if self.admit(&facts) {
                    self.upgrade(&facts);
                    self.judge(facts.conn, &facts, FactsSource::Event);
                    self.count_opened(&facts);
                }
            }
            Event::Closing(facts) | Event::Trouble { facts, .. } => {
                if self.admit(&facts) {
                    self.judge(facts.conn, &facts, FactsSource::Event);
                }
            }
            Event::UpgradeRequested { of, request } => self.requested(&of, request),
            Event::UpgradeResponded { of, response } => self.responded(&of, response),
            Event::Seeded(facts) => self.seed(&facts),
            Event::Closed { facts, how } => self.close(&facts, how),
            Event::Dismissed { conn, at } => self.forget(conn, Ending::Dismissed, at),
            Event::Gone { conn, at } => self.forget(conn, Ending::Gone, at),
            Event::Listening { at, socket, begins } => {
                if begins {
                    self.listen_sockets.began(at, &socket);
                } else if self.listen_sockets.ended(&socket) {
                    self.server_gone(socket.listener, at);
                }
                self.count_listen_sockets();
            }
            Event::ListenSocketsScanned {
                at,
                sockets,
                complete,
            } => {
                for listener in self.listen_sockets.observe(at, &sockets, complete) {
                    self.server_gone(listener, at);
                }
                self.count_listen_sockets();
            }
            Event::RecvQueuesScanned { at, unread, missed } => {
                self.take_recv_queues(at, &unread, &missed);
            }
            Event::SendQueuesScanned(queues) => self.take_send_queues(queues),
            Event::Lost { .. } => {
                if !self.actions.contains(&Action::Reconcile) {
                    self.actions.push_back(Action::Reconcile);
                }
            }
        }
    }

    /// Handles the response to [`Correlator::poll_inspect`]: `None` if the socket is gone.
    pub fn handle_snapshot(&mut self, conn: ConnId, facts: Option<Box<Facts>>) {
        match facts {
            Some(facts) if facts.conn == conn => self.judge(conn, &facts, FactsSource::Snapshot),
            Some(_) => self.rejected += 1,
            None => self.miss(conn),
        }
    }

    /// Sets the middleboxes that may explain a learned timeout.
    pub fn handle_known_hops(&mut self, known: Vec<KnownHop>) {
        self.known_hops = known;
    }

    /// Handles the number of idle gaps that the connections of a listener have survived since the
    /// start, by slot of [`monitor_common::idle_gap_scale`]. A warning comes at the earliest with the next call.
    pub fn handle_idle_gaps(&mut self, at: Ktime, listener: ListenerId, survived: &[u64]) {
        let Some(Listener { rules, history, .. }) = self.listeners.get_mut(listener.index()) else {
            self.rejected += 1;
            return;
        };
        let known = &self.known_hops;
        history.idle_gaps.survive(at, survived);
        let changes = history.idle_gaps.judge(listener, rules, known, at);
        history.tally.learned = history.idle_gaps.learned();
        let longest = history.idle_gaps.longest();
        let lifetime = history.lifetimes.judge(listener, rules, known, longest, at);
        history.tally.limit_mismatch = history.idle_gaps.is_mismatch();
        history.tally.lifetime_mismatch = history.lifetimes.standing().is_some();
        let changes = changes.into_iter().chain(lifetime).map(Action::Alert);
        self.actions.extend(changes);
    }

    /// Handles a listener's counts of acknowledged and retransmitted segments.
    pub fn handle_deliveries(&mut self, at: Ktime, listener: ListenerId, deliveries: Deliveries) {
        let Some(listener) = self.listeners.get_mut(listener.index()) else {
            self.rejected += 1;
            return;
        };
        listener.loss.take_in(at, deliveries);
        listener.history.tally.loss = listener.loss.loss();
    }

    /// Handles the result of an attempt to abort a connection. If it succeeded, its verdict ends as
    /// reaped.
    pub fn handle_reaped(&mut self, conn: ConnId, outcome: ReapOutcome) {
        if let Some(flow) = self.flows.get_mut(conn) {
            flow.reaped |= outcome == ReapOutcome::Destroyed;
            let history = &mut self.listeners[flow.listener.index()].history;
            history.tally.reaped[outcome as usize] += 1;
        }
    }

    /// Replaces the rules, and checks every flow against the new ones. They must be of the same
    /// listeners in the same order.
    pub fn handle_rules(&mut self, rules: Vec<ListenerRules>) {
        assert_eq!(rules.len(), self.listeners.len(), "the same listeners");
        for (listener, rules) in self.listeners.iter_mut().zip(rules) {
            listener.rules = rules;
        }
        for conn in self.conns() {
            self.queue_for_inspection(conn);
        }
    }

    /// Advances the time. Every record older than `now` must have been handled before. A `now` in the
    /// past is ignored.
    pub fn handle_timeout(&mut self, now: Ktime) {
        self.now = self.now.max(now);
        self.expire_attempts();
        self.expire_storms();
        for entry in self.wheel.expire(self.now) {
            let Some(flow) = self.flows.get_mut(entry.conn) else {
                continue;
            };
            if flow.armed != Ktime::NEVER && flow.generation == entry.generation {
                flow.armed = Ktime::NEVER;
                self.queue_for_inspection(entry.conn);
            }
        }
    }

    /// When [`Correlator::handle_timeout`] is due next; `None` if only an event can change anything.
    pub fn poll_timeout(&self) -> Option<Ktime> {
        let deadlines = [
            self.wheel.next_deadline(),
            self.pending.next_deadline(),
            self.next_storm_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// The next flow whose snapshot is needed. The caller must pass it to
    /// [`Correlator::handle_snapshot`].
    pub fn poll_inspect(&mut self) -> Option<ConnId> {
        while let Some(conn) = self.inspect.pop_front() {
            if let Some(flow) = self.flows.get_mut(conn).filter(|flow| flow.queued) {
                flow.queued = false;
                return Some(conn);
            }
        }
        // Checks of all connections at once are rare, so the queue gives its memory back.
        self.inspect.shrink_to(QUEUE_KEPT);
        None
    }

    /// The next action, in the order of the decisions.
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        if action.is_none() {
            // A million connections found at the start would otherwise occupy the memory forever.
            self.actions.shrink_to(QUEUE_KEPT);
        }
        action
    }

    /// Whether [`Correlator::poll_inspect`] may return a flow.
    pub fn wants_inspection(&self) -> bool {
        !self.inspect.is_empty()
    }

    /// Whether [`Correlator::handle_deliveries`] should be called about every second: something is
    /// unacknowledged, and the loss rate decides whether that can be chance.
    pub fn wants_deliveries(&self) -> bool {
        self.now < self.uncertain_until
    }

    /// The counts per listener, indexed by [`ListenerId`].
    pub fn tallies(&self) -> Vec<&Tally> {
        let listeners = self.listeners.iter();
        listeners.map(|listener| &listener.history.tally).collect()
    }

    /// The counts of one listener; `None` if there is no such listener.
    pub fn tally(&self, listener: ListenerId) -> Option<&Tally> {
        let listener = self.listeners.get(listener.index())?;
        Some(&listener.history.tally)
    }

    /// Number of inputs ignored because they name an unknown listener or the wrong connection.
    pub fn rejected(&self) -> u64 {
        self.rejected
    }

    /// The connections in the table.
    pub fn conns(&self) -> Vec<ConnId> {
        self.flows.iter().map(|(conn, _)| conn).collect()
    }

    /// The connections in the table, unordered, each with the time when it was first seen. Cookies don't
    /// have that order, because each CPU allocates them from its own batch.
    pub fn known_since(&self) -> Vec<(Ktime, ConnId)> {
        let known = self.flows.iter();
        known.map(|(conn, flow)| (flow.first_seen, conn)).collect()
    }

    /// Whether the connection is in the table.
    pub fn knows(&self, conn: ConnId) -> bool {
        self.flows.contains(conn)
    }

    /// Number of connections in the table.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Adds the flow unless it is in the table; `false` if its listener is unknown.
    fn admit(&mut self, facts: &Facts) -> bool {
        if self.flows.contains(facts.conn) {
            return true;
        }
        let Some(listener) = self.listeners.get_mut(facts.listener.index()) else {
            self.rejected += 1;
            return false;
        };
        let mut flow = TrackedFlow::new(facts, &mut listener.history);
        let client = match self.pending.get(facts.conn) {
            Some(attempt) => attempt.client,
            None => storms::client(facts, None),
        };
        listener.storm.connect(&mut flow, facts.at, client);
        self.flows.insert(facts.conn, flow);
        match self.pending.get(facts.conn) {
            // Found by sock_diag while its upgrade request is unanswered.
            Some(attempt) if facts.protocol == Protocol::Assumed && attempt.is_unanswered() => {}
            attempt => {
                let upgraded = attempt.is_some_and(|attempt| attempt.response.is_some());
                let from = attempt.and_then(UpgradeAttempt::state);
                let opened = Transition::opened(facts, from, upgraded);
                self.actions.push_back(Action::Transition(opened));
                self.join(facts);
            }
        }
        true
    }

    /// Handles a socket found by `sock_diag`. For a known one, the snapshot is read instead: it has
    /// more facts, and records may have been lost.
    fn seed(&mut self, facts: &Facts) {
        if self.flows.contains(facts.conn) {
            self.queue_for_inspection(facts.conn);
        } else if self.admit(facts) {
            self.judge(facts.conn, facts, FactsSource::Seed);
        }
    }

    fn judge(&mut self, conn: ConnId, facts: &Facts, source: FactsSource) {
        let Some(flow) = self.flows.get_mut(conn) else {
            return;
        };
        flow.missing = false;
        let id = flow.listener;
        let Listener {
            rules,
            history,
            loss,
            storm,
        } = &mut self.listeners[id.index()];
        let now = match source {
            FactsSource::Snapshot => self.now,
            FactsSource::Event | FactsSource::Seed => facts.at,
        };
        let observation = Observation {
            first_seen: flow.first_seen,
            unread: self.recv_queues.unread(conn),
            unsent: self.send_queues.unsent(conn),
            ..Observation::new(facts, source, now, rules, loss.loss(), self.staleness)
        };
        if observation.is_in_doubt() {
            self.uncertain_until = self.uncertain_until.max(observation.now + UNCERTAIN_FOR);
        }
        let departs = facts.closing.is_some() && storm.disconnect(flow);
        if departs {
            let forwarded = flow.forwarded().filter(|_| self.forwarded);
            let client = storms::client(facts, forwarded);
            storm.depart(&observation, None, client, &history.tally);
        }
        let mut next_check = flow.judge(&observation, self.now, history, &mut self.actions);
        if self.sweeps.is_none() {
            next_check = next_check.min(observation.while_heartbeat_is_unknown());
        }
        let now = observation.now.max(self.now);
        // Seeded facts may be old, so their deadline may come before the next sweep.
        let waits = flow.is_healthy() && source != FactsSource::Seed;
        if !(waits && self.is_swept_before(next_check, now)) {
            self.arm(conn, next_check);
        }
        if departs {
            self.report_storm(id);
        }
    }

    /// Ensures a check of the flow at `deadline` or earlier, but later than now.
    fn arm(&mut self, conn: ConnId, deadline: Ktime) {
        let Some(flow) = self.flows.get_mut(conn) else {
            return;
        };
        let deadline = deadline.max(self.now + MIN_STEP);
        if deadline >= flow.armed {
            return;
        }
        self.next_generation = self.next_generation.wrapping_add(1);
        flow.armed = deadline;
        flow.generation = self.next_generation;
        self.wheel.insert(WheelEntry {
            deadline,
            conn,
            generation: flow.generation,
        });
    }

    fn count_listen_sockets(&mut self) {
        for (id, listener) in (0..).map(ListenerId).zip(&mut self.listeners) {
            listener.history.tally.listen_sockets = self.listen_sockets.count(id);
        }
    }

    fn queue_for_inspection(&mut self, conn: ConnId) {
        let Some(flow) = self.flows.get_mut(conn) else {
            return;
        };
        if !flow.queued {
            flow.queued = true;
            self.inspect.push_back(conn);
        }
    }
}

/// Capacity that an empty queue keeps.
const QUEUE_KEPT: usize = 1024;
/// How long deliveries are read every second after a check of a flow that waits for an acknowledgement
/// or a pong. TCP's first retransmissions, and so the checks they cause, come at shorter intervals.
const UNCERTAIN_FOR: Duration = Duration::from_secs(10);
/// Minimum time between two checks of a flow, so that a rule cannot cause an endless loop.
const MIN_STEP: Duration = Duration::from_nanos(1);

#[cfg(test)]
mod tests;
