//! Aborts confirmed zombies if configured; [`core::reap`](monitor_core::reap) chooses which.

use std::time::Instant;

use crate::kernel::{
    sock_destroy::{self, DestroyOutcome},
    socket_finder::SocketFinder,
    socket_query::SocketKey,
};
use monitor_core::{
    Alert, Correlator, Facts, Ktime,
    reap::{ReapMode, ReapOutcome, ReapSettings, Reaper, may_be_reaped},
};

/// The policy, and the socket that carries it out.
#[derive(Debug)]
pub struct Reaping {
    policy: Reaper,
}

impl Reaping {
    pub fn new(settings: ReapSettings) -> Self {
        Self {
            policy: Reaper::new(settings),
        }
    }

    /// Records an alert.
    pub fn offer(&mut self, alert: &Alert) {
        self.policy.offer(alert);
    }

    /// When the next waiting connection is due.
    pub fn poll_timeout(&self) -> Option<Ktime> {
        self.policy.poll_timeout()
    }

    /// Aborts each connection that is due and whose verdict still stands. Every abort is logged and
    /// reported to the core.
    pub fn tick(&mut self, now: Ktime, core: &mut Correlator, finder: &mut SocketFinder) {
        while let Some(conn) = self.policy.poll(now) {
            let Some(alert) = core.standing(conn) else {
                continue;
            };
            if !may_be_reaped(&alert.subject) {
                continue;
            }
            let outcome = match self.policy.mode() {
                ReapMode::Off => return,
                ReapMode::DryRun => ReapOutcome::DryRun,
                ReapMode::Confirmed => abort(&alert.subject.facts, finder),
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
