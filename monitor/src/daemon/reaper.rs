//! Aborts dead connections if configured; [`core::reap`](monitor_core::reap) chooses which.

use std::time::Instant;

use crate::kernel::sock_diag::{
    sock_destroy::{self, DestroyOutcome},
    socket_finder::{FindError, SocketFinder},
    socket_query::SocketKey,
};
use monitor_core::{
    Alert, Correlator, Facts, Ktime,
    reap::{ReapMode, ReapOutcome, ReapSettings, Reaper, may_be_reaped},
};

/// The policy, and the sockets that carry it out.
#[derive(Debug)]
pub(super) struct Reaping {
    mode: ReapMode,
    policy: Reaper,
    /// `None` unless connections are aborted.
    finder: Option<SocketFinder>,
}

impl Reaping {
    pub(super) fn new(settings: ReapSettings) -> Result<Self, FindError> {
        let aborts = settings.mode.aborts();
        Ok(Self {
            mode: settings.mode,
            policy: Reaper::new(settings),
            finder: aborts.then(SocketFinder::open).transpose()?,
        })
    }

    /// Closes the sockets of namespaces that are no longer searched. Called after each scan of the sockets.
    pub(super) fn close_unused(&mut self) {
        if let Some(finder) = &mut self.finder {
            finder.close_unused();
        }
    }

    /// Records an alert.
    pub(super) fn offer(&mut self, alert: &Alert) {
        self.policy.offer(alert);
    }

    /// When the next waiting connection is due.
    pub(super) fn poll_timeout(&self) -> Option<Ktime> {
        self.policy.poll_timeout()
    }

    /// Aborts each connection that is due and whose verdict still stands. Every abort is logged and
    /// reported to the core.
    pub(super) fn tick(&mut self, now: Ktime, core: &mut Correlator) {
        while let Some(conn) = self.policy.poll(now) {
            let Some(alert) = core.standing(conn) else {
                continue;
            };
            if !may_be_reaped(self.mode, &alert.subject) {
                continue;
            }
            let outcome = match &mut self.finder {
                Some(finder) => abort(&alert.subject.facts, finder),
                None => ReapOutcome::DryRun,
            };
            let verb = match outcome {
                ReapOutcome::Destroyed => "aborted",
                ReapOutcome::Gone => "already closed:",
                ReapOutcome::DryRun => "would abort",
                ReapOutcome::Failed => "could not abort",
            };
            let (facts, kind) = (&alert.subject.facts, alert.subject.kind.as_str());
            log::warn!(
                "reap: {verb} socket {}, {} to {}, {kind}: {}",
                conn.0,
                facts.local,
                facts.peer,
                alert.reason
            );
            core.handle_reaped(conn, outcome);
        }
    }
}

fn abort(facts: &Facts, finder: &mut SocketFinder) -> ReapOutcome {
    let begun = Instant::now();
    let conn = facts.conn;
    let Some(key) = SocketKey::new(conn.0, facts.local, facts.peer) else {
        return ReapOutcome::Failed;
    };
    match sock_destroy::destroy(finder, &key) {
        Ok(DestroyOutcome::Destroyed) => {
            log::debug!("socket {} aborted in {:?}", conn.0, begun.elapsed());
            ReapOutcome::Destroyed
        }
        Ok(DestroyOutcome::Gone) => ReapOutcome::Gone,
        Err(error) => {
            log::warn!("socket {}: {error}", conn.0);
            ReapOutcome::Failed
        }
    }
}
