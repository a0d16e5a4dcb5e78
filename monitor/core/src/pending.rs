//! Opening handshakes under way, and the halves of those whose other half is still to come.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::Duration,
};

use super::{
    facts::{ConnId, ListenerId},
    handshake::{UpgradeRequest, UpgradeResponse},
    interned_handshake::Handshake,
    time::Ktime,
    transition::State,
};

/// A request without an answer for this long is stuck.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// One attempt to open a WebSocket connection.
#[derive(Debug)]
pub(super) struct UpgradeAttempt {
    pub(super) listener: ListenerId,
    /// Who asks.
    pub(super) client: IpAddr,
    /// When the latest of its heads passed.
    pub(super) at: Ktime,
    /// [`Ktime::NEVER`] once it is stuck.
    pub(super) deadline: Ktime,
    pub(super) requested_at: Option<Ktime>,
    pub(super) request: Option<Box<UpgradeRequest>>,
    /// A 101: any other answer ends the attempt.
    pub(super) response: Option<Box<UpgradeResponse>>,
    /// The connection is open; the attempt only waits for the head that is missing.
    pub(super) opened: bool,
    pub(super) stuck: bool,
    /// The storm engine knows what became of it.
    pub(super) settled: bool,
}

impl UpgradeAttempt {
    pub(super) fn new(listener: ListenerId, client: IpAddr, at: Ktime) -> Self {
        Self {
            listener,
            client,
            at,
            deadline: at + TIMEOUT,
            requested_at: None,
            request: None,
            response: None,
            opened: false,
            stuck: false,
            settled: false,
        }
    }

    /// The client waits for its answer.
    pub(super) fn is_unanswered(&self) -> bool {
        self.response.is_none() && !self.opened
    }

    /// `None` if nothing was reported about it: its request was not seen, or it is over.
    pub(super) fn state(&self) -> Option<State> {
        (self.request.is_some() && !self.opened).then_some(State::Connecting)
    }

    pub(super) fn handshake(&self) -> Handshake<'_> {
        let (request, response) = (self.request.as_deref(), self.response.as_deref());
        Handshake::of(self.requested_at, request, response)
    }
}

/// At most one attempt for each connection, and when to check it.
#[derive(Debug, Default)]
pub(super) struct Pending {
    attempts: HashMap<ConnId, UpgradeAttempt>,
    deadlines: BTreeSet<(Ktime, ConnId)>,
}

impl Pending {
    pub(super) fn get(&self, conn: ConnId) -> Option<&UpgradeAttempt> {
        self.attempts.get(&conn)
    }

    /// Adds an attempt; there must be none for `conn`.
    pub(super) fn put(&mut self, conn: ConnId, attempt: UpgradeAttempt) {
        if attempt.deadline != Ktime::NEVER {
            self.deadlines.insert((attempt.deadline, conn));
        }
        self.attempts.insert(conn, attempt);
    }

    pub(super) fn take(&mut self, conn: ConnId) -> Option<UpgradeAttempt> {
        let attempt = self.attempts.remove(&conn)?;
        self.deadlines.remove(&(attempt.deadline, conn));
        Some(attempt)
    }

    /// The earliest deadline.
    pub(super) fn next_deadline(&self) -> Option<Ktime> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Takes out an attempt whose deadline has come.
    pub(super) fn take_due(&mut self, now: Ktime) -> Option<(ConnId, UpgradeAttempt)> {
        let (_, conn) = *self.deadlines.first().filter(|(at, _)| *at <= now)?;
        self.take(conn).map(|attempt| (conn, attempt))
    }

    /// The connections whose client waits for its answer.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = ConnId> + '_ {
        let unanswered = self.attempts.iter().filter(|(_, a)| a.is_unanswered());
        unanswered.map(|(conn, _)| *conn)
    }
}
