//! The opening handshake in the correlator's table.
//!
//! The heads come through one ring, opened and closed connections through another, and each record may
//! be lost. So an attempt is assembled from its records in any order, and leaves the table at the first
//! sign of its end.

use super::{Action, Correlator, State, Transition};
use crate::{
    event::HandshakeSocket,
    facts::{ConnId, Facts},
    flow::TrackedFlow,
    handshake::{UpgradeRequest, UpgradeResponse},
    interned_handshake::{Handshake, InternedHandshake},
    pending::{TIMEOUT, UpgradeAttempt},
    storm::AttemptOutcome,
    time::Ktime,
    transition::Reason,
};

impl Correlator {
    /// The opening handshake of a connection, complete or pending. `None` if neither head was seen.
    pub fn handshake(&self, conn: ConnId) -> Option<Handshake<'_>> {
        let flow = self.flows.get(conn);
        match flow.and_then(|flow| flow.handshake.as_deref()) {
            Some(interned) => Some(interned.view(&self.interner)),
            None => self.pending.get(conn).map(UpgradeAttempt::handshake),
        }
    }

    /// The connections with an unanswered upgrade request.
    pub fn unanswered(&self) -> Vec<ConnId> {
        self.pending.unanswered().collect()
    }

    /// Whether the connection has an unanswered upgrade request.
    pub fn is_unanswered(&self, conn: ConnId) -> bool {
        self.pending
            .get(conn)
            .is_some_and(UpgradeAttempt::is_unanswered)
    }

    pub(super) fn requested(&mut self, of: &HandshakeSocket, request: Box<UpgradeRequest>) {
        if !self.has_listener(of) {
            return;
        }
        let earlier = self.take_attempt(of.conn);
        let client = self.client_of_request(of, Some(&request));
        let mut attempt = UpgradeAttempt::new(of.listener, client, of.at);
        attempt.requested_at = Some(of.at);
        attempt.request = Some(request);
        attempt.opened = self.is_proven(of.conn);
        let reported = earlier.as_ref().and_then(UpgradeAttempt::state).is_some();
        if !reported && !attempt.opened {
            let from = self.flows.get(of.conn).map(TrackedFlow::state);
            self.report(of, from, State::Connecting, Reason::Requested);
        }
        // A response that is not older than this request overtook it. An older one belongs to an
        // earlier request.
        match earlier {
            Some(earlier) if earlier.at >= of.at => {
                attempt.response = earlier.response;
                attempt.settled = earlier.settled;
            }
            Some(earlier) => self.give_up(&earlier, of.at),
            None => {}
        }
        // An open connection was counted when it opened.
        attempt.settled |= attempt.opened;
        if !attempt.settled {
            self.arrived(of.listener, of.at, client);
        }
        self.assemble(of.conn, attempt);
    }

    pub(super) fn responded(&mut self, of: &HandshakeSocket, response: Box<UpgradeResponse>) {
        if !self.has_listener(of) {
            return;
        }
        match response.status {
            Some(UpgradeResponse::SWITCHING_PROTOCOLS) => {
                let attempt = self.take_attempt(of.conn);
                let mut attempt = attempt.unwrap_or_else(|| self.attempt_without_request(of));
                attempt.at = attempt.at.max(of.at);
                attempt.deadline = attempt.at + TIMEOUT;
                attempt.response = Some(response);
                attempt.opened = self.is_proven(of.conn);
                self.conclude(&mut attempt, of.at, AttemptOutcome::Accepted);
                self.assemble(of.conn, attempt);
            }
            // Interim (RFC 9110 §15.2): the final response follows.
            Some(100..=199) => {}
            status => self.refused(of, status, &response),
        }
    }

    /// Opens a connection whose protocol was only assumed.
    pub(super) fn upgrade(&mut self, facts: &Facts) {
        let Some(attempt) = self.pending.get(facts.conn).filter(|a| !a.opened) else {
            return;
        };
        if let Some(from) = attempt.state() {
            let opened = Transition::opened(facts, Some(from), attempt.response.is_some());
            self.actions.push_back(Action::Transition(opened));
        }
        self.join(facts);
    }

    /// Attaches what is known of the handshake to a connection that is now open.
    pub(super) fn join(&mut self, facts: &Facts) {
        if let Some(mut attempt) = self.take_attempt(facts.conn) {
            let at = facts.opened_at.unwrap_or(facts.at);
            self.conclude(&mut attempt, at, AttemptOutcome::Accepted);
            attempt.opened = true;
            attempt.deadline = facts.at + TIMEOUT;
            self.assemble(facts.conn, attempt);
        }
    }

    pub(super) fn expire_attempts(&mut self) {
        while let Some((conn, mut attempt)) = self.pending.take_due(self.now) {
            if attempt.is_unanswered() {
                attempt.stuck = true;
                attempt.deadline = Ktime::NEVER;
                self.listeners[attempt.listener.index()]
                    .history
                    .tally
                    .handshakes_stuck += 1;
                self.pending.put(conn, attempt);
            } else {
                // The record of the other half, or of the connection, was lost.
                self.settle(conn, &attempt);
            }
        }
    }

    /// Counts an unknown connection that opens: TLS begins, or the record of its request was lost.
    pub(super) fn count_opening(&mut self, facts: &Facts) {
        let known = self.flows.contains(facts.conn) || self.pending.get(facts.conn).is_some();
        // A connection older than the monitor isn't a new arrival.
        if known || facts.established_at.is_none() || facts.listener.index() >= self.listeners.len()
        {
            return;
        }
        let (at, client) = (facts.opened_at.unwrap_or(facts.at), self.client_of(facts));
        self.arrived(facts.listener, at, client);
        self.settled(facts.listener, at, client, AttemptOutcome::Accepted);
    }

    /// Settles an attempt as unanswered if it is still open.
    pub(super) fn give_up(&mut self, attempt: &UpgradeAttempt, at: Ktime) {
        if !attempt.settled {
            self.settled(
                attempt.listener,
                at,
                attempt.client,
                AttemptOutcome::Unanswered,
            );
        }
    }

    /// An attempt whose request record was lost. It is counted now, unless its connection is open and so
    /// was counted when it opened.
    fn attempt_without_request(&mut self, of: &HandshakeSocket) -> UpgradeAttempt {
        let client = self.client_of_request(of, None);
        let mut attempt = UpgradeAttempt::new(of.listener, client, of.at);
        attempt.settled = self.is_proven(of.conn);
        if !attempt.settled {
            self.arrived(of.listener, of.at, client);
        }
        attempt
    }

    fn conclude(&mut self, attempt: &mut UpgradeAttempt, at: Ktime, outcome: AttemptOutcome) {
        if !std::mem::replace(&mut attempt.settled, true) {
            self.settled(attempt.listener, at, attempt.client, outcome);
        }
    }

    /// Removes an attempt from the table and the gauge.
    pub(super) fn take_attempt(&mut self, conn: ConnId) -> Option<UpgradeAttempt> {
        let mut attempt = self.pending.take(conn)?;
        if std::mem::take(&mut attempt.stuck) {
            self.listeners[attempt.listener.index()]
                .history
                .tally
                .handshakes_stuck -= 1;
        }
        Some(attempt)
    }

    fn refused(&mut self, of: &HandshakeSocket, status: Option<u16>, response: &UpgradeResponse) {
        let requested_later = |attempt: &UpgradeAttempt| attempt.at > of.at;
        if self.is_proven(of.conn) || self.pending.get(of.conn).is_some_and(requested_later) {
            return;
        }
        let attempt = self.take_attempt(of.conn);
        let from = attempt.as_ref().and_then(UpgradeAttempt::state);
        let mut attempt = attempt.unwrap_or_else(|| self.attempt_without_request(of));
        self.conclude(&mut attempt, of.at, AttemptOutcome::Refused(status));
        let reason = Reason::Refused {
            status,
            retry_after: response.retry_after,
        };
        self.report(of, from, State::Closed, reason);
    }

    /// Settles a complete attempt, or puts it back until the missing records come.
    fn assemble(&mut self, conn: ConnId, attempt: UpgradeAttempt) {
        if attempt.opened && attempt.request.is_some() && attempt.response.is_some() {
            self.settle(conn, &attempt);
        } else {
            self.pending.put(conn, attempt);
        }
    }

    /// Stores the handshake in its flow, if there is one.
    fn settle(&mut self, conn: ConnId, attempt: &UpgradeAttempt) {
        if let Some(flow) = self.flows.get_mut(conn)
            && flow.handshake.is_none()
        {
            let interned = InternedHandshake::new(&attempt.handshake(), &mut self.interner);
            flow.handshake = Some(Box::new(interned));
            // The request, with the client's address, may come after the record of the opening.
            if self.forwarded && flow.client.is_some() {
                self.listeners[flow.listener.index()].storm.connect(
                    flow,
                    attempt.at,
                    attempt.client,
                );
            }
        }
    }

    /// Whether the connection's protocol is known, not assumed.
    fn is_proven(&self, conn: ConnId) -> bool {
        self.flows.get(conn).is_some_and(TrackedFlow::is_proven)
    }

    fn has_listener(&mut self, of: &HandshakeSocket) -> bool {
        let known = of.listener.index() < self.listeners.len();
        self.rejected += u64::from(!known);
        known
    }

    fn report(&mut self, of: &HandshakeSocket, from: Option<State>, to: State, reason: Reason) {
        self.actions.push_back(Action::Transition(Transition {
            conn: of.conn,
            listener: of.listener,
            endpoints: Some([of.local, of.peer]),
            at: of.at,
            from,
            to,
            reason,
        }));
    }
}

#[cfg(test)]
mod tests;
