//! The correlator: the table of flows, their deadlines, and what follows from both.
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
//! A flow has one wheel entry that counts, re-armed lazily: a later deadline waits for the entry to
//! come due, an earlier one gets an entry of its own and leaves the old one to be dropped. Under
//! [sweeps](Correlator::handle_swept) a healthy flow has none.

mod close;
mod storms;
mod sweep;
mod upgrades;

use std::{collections::VecDeque, time::Duration};

pub use storms::StormSetup;

use super::{
    alert::{Alert, Ending, ListenerAlert, StormAlert},
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
    tally::Tally,
    time::Ktime,
    transition::{State, Transition},
    wheel::{Wheel, WheelEntry},
};
pub(crate) use storms::StormWatch;
use storms::departure;

/// What the core wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A verdict on a connection. Which of them are reported singly is up to [`super::Grouping`].
    Alert(Box<Alert>),
    /// A finding on all connections of a listener.
    ListenerAlert(Box<ListenerAlert>),
    /// What all clients of a listener do together.
    Storm(Box<StormAlert>),
    /// Report to those who follow the connections.
    Transition(Transition),
    /// Compare the table with the kernel's sockets: records were lost.
    Reconcile,
}

/// The sans-IO state machine of the daemon.
#[derive(Debug)]
pub struct Correlator {
    /// Indexed by [`ListenerId`].
    listeners: Vec<Listener>,
    staleness: Duration,
    /// The last moment shown.
    now: Ktime,
    flows: Flows,
    pending: Pending,
    recv_queues: RecvQueues,
    /// Until when a verdict may depend on what is lost right now.
    uncertain_until: Ktime,
    known_hops: Vec<KnownHop>,
    listen_sockets: ListenSockets,
    /// Whether a client is who a proxy says that it is.
    forwarded: bool,
    /// Of the flows' handshakes.
    interner: Interner,
    wheel: Wheel,
    /// Every snapshot is shown at least this often; `None`: only those that are asked for.
    sweeps: Option<Duration>,
    /// Never used twice within a turn of `u32`, so a new flow cannot own an old flow's entry.
    next_generation: u32,
    inspect: VecDeque<ConnId>,
    actions: VecDeque<Action>,
    rejected: u64,
}

impl Correlator {
    /// `rules` are indexed by [`ListenerId`]; `staleness` is how far a snapshot may lag behind its
    /// socket, in time: the publish interval and the granularity of the kernel's clock.
    pub fn new(rules: Vec<ListenerRules>, staleness: Duration) -> Self {
        Self {
            listeners: rules.into_iter().map(Listener::new).collect(),
            listen_sockets: ListenSockets::default(),
            forwarded: false,
            staleness,
            now: Ktime::ZERO,
            flows: Flows::default(),
            pending: Pending::default(),
            recv_queues: RecvQueues::default(),
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

    /// Takes in a record; it is judged at its own moment, not at the clock's.
    pub fn handle_event(&mut self, event: Event) {
        match event {
            Event::Opened(facts) => {
                self.count_opening(&facts);
                if self.admit(&facts) {
                    self.upgrade(&facts);
                    self.judge(facts.conn, &facts, FactsSource::Event);
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
            }
            Event::ListenSocketsScanned {
                at,
                sockets,
                complete,
            } => {
                for listener in self.listen_sockets.observe(at, &sockets, complete) {
                    self.server_gone(listener, at);
                }
            }
            Event::RecvQueuesScanned {
                at,
                unread,
                complete,
            } => {
                for conn in self.recv_queues.observe(at, &unread, complete) {
                    self.queue_for_inspection(conn);
                }
            }
            Event::Lost { .. } => {
                if !self.actions.contains(&Action::Reconcile) {
                    self.actions.push_back(Action::Reconcile);
                }
            }
        }
    }

    /// Takes in the answer to [`Correlator::poll_inspect`]: `None` where the socket is gone.
    pub fn handle_snapshot(&mut self, conn: ConnId, facts: Option<Box<Facts>>) {
        match facts {
            Some(facts) if facts.conn == conn => self.judge(conn, &facts, FactsSource::Snapshot),
            Some(_) => self.rejected += 1,
            None => self.miss(conn),
        }
    }

    /// Middleboxes whose names may explain a timeout that is learned.
    pub fn handle_known_hops(&mut self, known: Vec<KnownHop>) {
        self.known_hops = known;
    }

    /// Takes in how many silences the connections of a listener have survived since the start, by slot
    /// of [`monitor_common::idle_gap_scale`]. How often this comes decides how soon a warning does.
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
        let changes = changes
            .into_iter()
            .chain(lifetime)
            .map(Box::new)
            .map(Action::ListenerAlert);
        self.actions.extend(changes);
    }

    /// Takes in what of a listener's connections was acknowledged, and how easily.
    pub fn handle_deliveries(&mut self, at: Ktime, listener: ListenerId, deliveries: Deliveries) {
        let Some(listener) = self.listeners.get_mut(listener.index()) else {
            self.rejected += 1;
            return;
        };
        listener.loss.take_in(at, deliveries);
        listener.history.tally.loss = listener.loss.loss();
    }

    /// Whether [`Correlator::handle_deliveries`] should come every second or so: something is not
    /// acknowledged, and it matters whether that can be chance.
    pub fn wants_deliveries(&self) -> bool {
        self.now < self.uncertain_until
    }

    /// What became of a connection that was to be aborted. If it was, that is what ends its verdict.
    pub fn handle_reaped(&mut self, conn: ConnId, outcome: ReapOutcome) {
        if let Some(flow) = self.flows.get_mut(conn) {
            flow.reaped |= outcome == ReapOutcome::Destroyed;
            let history = &mut self.listeners[flow.listener.index()].history;
            history.tally.reaped[outcome as usize] += 1;
        }
    }

    /// Replaces the rules, which are of the same listeners in the same order. Every flow is checked
    /// again under the new ones.
    pub fn handle_rules(&mut self, rules: Vec<ListenerRules>) {
        assert_eq!(rules.len(), self.listeners.len(), "the same listeners");
        for (listener, rules) in self.listeners.iter_mut().zip(rules) {
            listener.rules = rules;
        }
        for conn in self.conns() {
            self.queue_for_inspection(conn);
        }
    }

    /// Shows the time: every record older than `now` must have been handled. A clock that goes back
    /// is ignored.
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

    /// When the core next wants to be shown the time; `None` when only an event can matter.
    pub fn poll_timeout(&self) -> Option<Ktime> {
        let deadlines = [
            self.wheel.next_deadline(),
            self.pending.next_deadline(),
            self.next_storm_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// A flow whose snapshot is wanted; each must be answered with [`Correlator::handle_snapshot`].
    pub fn poll_inspect(&mut self) -> Option<ConnId> {
        while let Some(conn) = self.inspect.pop_front() {
            if let Some(flow) = self.flows.get_mut(conn).filter(|flow| flow.queued) {
                flow.queued = false;
                return Some(conn);
            }
        }
        // Once all connections wanted to be checked, most never will again.
        self.inspect.shrink_to(QUEUE_KEPT);
        None
    }

    /// Whether [`Correlator::poll_inspect`] may have one.
    pub fn wants_inspection(&self) -> bool {
        !self.inspect.is_empty()
    }

    /// What is to be done, in the order in which it was decided.
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        if action.is_none() {
            // A million connections found at the start must not keep the room for a million.
            self.actions.shrink_to(QUEUE_KEPT);
        }
        action
    }

    /// The counts per listener, indexed by [`ListenerId`].
    pub fn tallies(&self) -> Vec<&Tally> {
        let listeners = self.listeners.iter();
        listeners.map(|listener| &listener.history.tally).collect()
    }

    /// Inputs ignored because they named a listener that is not configured, or the wrong connection.
    pub fn rejected(&self) -> u64 {
        self.rejected
    }

    /// The connections in the table.
    pub fn conns(&self) -> Vec<ConnId> {
        self.flows.iter().map(|(conn, _)| conn).collect()
    }

    /// The connections in the table, each with the moment since when it is known: in their order the oldest
    /// comes first. Cookies alone do not tell: each processor hands out some of its own.
    pub fn known_since(&self) -> Vec<(Ktime, ConnId)> {
        let known = self.flows.iter();
        known.map(|(conn, flow)| (flow.first_seen, conn)).collect()
    }

    /// The same of those on which a verdict stands.
    pub fn judged_since(&self) -> Vec<(Ktime, ConnId)> {
        let judged = self.flows.iter().filter(|(_, flow)| flow.is_judged());
        judged.map(|(conn, flow)| (flow.first_seen, conn)).collect()
    }

    /// The verdict that stands on a connection: as it was last reported, with the evidence of the
    /// last check.
    pub fn standing(&self, conn: ConnId) -> Option<Alert> {
        self.flows.get(conn)?.standing()
    }

    /// Whether the connection is in the table.
    pub fn knows(&self, conn: ConnId) -> bool {
        self.flows.contains(conn)
    }

    /// Connections in the table.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Makes sure that the flow is in the table; `false` where it cannot be.
    fn admit(&mut self, facts: &Facts) -> bool {
        if self.flows.contains(facts.conn) {
            return true;
        }
        let Some(listener) = self.listeners.get_mut(facts.listener.index()) else {
            self.rejected += 1;
            return false;
        };
        let mut flow = TrackedFlow::new(facts, &mut listener.history.tally);
        let client = match self.pending.get(facts.conn) {
            Some(attempt) => attempt.client,
            None => storms::client(facts, None),
        };
        listener.storm.connect(&mut flow, facts.at, client);
        self.flows.insert(facts.conn, flow);
        match self.pending.get(facts.conn) {
            // Found by sock_diag while it waits for its answer.
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

    /// A socket found by `sock_diag`. Of a known one it tells less than the kernel's own snapshot,
    /// which is what has to be read where records may have been lost.
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
        let observation = Observation {
            facts,
            rules,
            path: rules.path_to(facts.peer.ip()),
            source,
            now: if source == FactsSource::Snapshot {
                self.now
            } else {
                facts.at
            },
            staleness: self.staleness,
            first_seen: flow.first_seen,
            unread: self.recv_queues.unread(conn),
            listener_loss: loss.loss(),
        };
        if observation.is_in_doubt() {
            self.uncertain_until = self.uncertain_until.max(observation.now + UNCERTAIN_FOR);
        }
        let departs = facts.closing.is_some() && storm.disconnect(flow);
        if departs {
            let forwarded = flow.forwarded().filter(|_| self.forwarded);
            let client = storms::client(facts, forwarded);
            storm.depart(&departure(&observation, None, client), &history.tally);
        }
        let next_check = flow.judge(&observation, self.now, history, &mut self.actions);
        let now = observation.now.max(self.now);
        // What is seeded may be old news by now, with its deadline before the next sweep.
        let waits = flow.is_healthy() && source != FactsSource::Seed;
        if !(waits && self.is_swept_before(next_check, now)) {
            self.arm(conn, next_check);
        }
        if departs {
            self.report_storm(id);
        }
    }

    /// Sees to it that the flow is checked no later than `deadline`, and not again at this moment.
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

/// Room that a queue keeps once it is empty.
const QUEUE_KEPT: usize = 1024;
/// How long after a check of a flow that waits for an acknowledgement, or a pong, the deliveries are
/// told every second. TCP's retransmissions and the checks they cause follow each other faster at first.
const UNCERTAIN_FOR: Duration = Duration::from_secs(10);
/// Whatever a rule says, the clock moves before a flow is checked again.
const MIN_STEP: Duration = Duration::from_nanos(1);

#[cfg(test)]
mod tests;
