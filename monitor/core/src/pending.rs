//! Opening handshakes in progress, and those with only one half seen so far.

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

/// A request without a response for this long is stuck.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// One attempt to open a WebSocket connection.
#[derive(Debug)]
pub(super) struct UpgradeAttempt {
    pub(super) listener: ListenerId,
    /// The client that sent the request.
    pub(super) client: IpAddr,
    /// When the latest of its heads passed.
    pub(super) at: Ktime,
    /// [`Ktime::NEVER`] once the attempt is stuck.
    pub(super) deadline: Ktime,
    pub(super) requested_at: Option<Ktime>,
    pub(super) request: Option<Box<UpgradeRequest>>,
    /// A 101; any other response ends the attempt.
    pub(super) response: Option<Box<UpgradeResponse>>,
    /// The connection is open; only the missing head is awaited.
    pub(super) opened: bool,
    pub(super) stuck: bool,
    /// The storm engine has received the outcome.
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

    /// True while the client waits for the response.
    pub(super) fn is_unanswered(&self) -> bool {
        self.response.is_none() && !self.opened
    }

    /// `None` if nothing was reported about it: its request was not seen, or the handshake is over.
    pub(super) fn state(&self) -> Option<State> {
        (self.request.is_some() && !self.opened).then_some(State::Connecting)
    }

    pub(super) fn handshake(&self) -> Handshake<'_> {
        let (request, response) = (self.request.as_deref(), self.response.as_deref());
        Handshake::of(self.requested_at, request, response)
    }
}

/// At most one attempt per connection, and when to check it.
#[derive(Debug, Default)]
pub(super) struct Pending {
    attempts: HashMap<ConnId, UpgradeAttempt>,
    deadlines: BTreeSet<(Ktime, ConnId)>,
}

impl Pending {
    pub(super) fn get(&self, conn: ConnId) -> Option<&UpgradeAttempt> {
        self.attempts.get(&conn)
    }

    /// Adds an attempt; `conn` must not have one.
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

    /// Removes an attempt whose deadline has passed.
    pub(super) fn take_due(&mut self, now: Ktime) -> Option<(ConnId, UpgradeAttempt)> {
        let (_, conn) = *self.deadlines.first().filter(|(at, _)| *at <= now)?;
        self.take(conn).map(|attempt| (conn, attempt))
    }

    /// The connections whose client waits for the response.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = ConnId> + '_ {
        let unanswered = self.attempts.iter().filter(|(_, a)| a.is_unanswered());
        unanswered.map(|(conn, _)| *conn)
    }
}
