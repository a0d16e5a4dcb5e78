//! The correlator: flows, deadlines, verdicts.

use std::time::Duration;

use super::{
    alert::Alert,
    event::Event,
    facts::{ConnId, Facts},
    hop::ListenerRules,
    time::Ktime,
};

/// What the core wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Alert(Box<Alert>),
    /// Compare the table with the kernel's sockets: records were lost.
    Reconcile,
}

/// Counts per listener, for the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {}

/// The sans-IO state machine of the daemon.
#[derive(Debug)]
pub struct Correlator {}

impl Correlator {
    pub fn new(_rules: Vec<ListenerRules>, _staleness: Duration) -> Self {
        Self {}
    }
    pub fn handle_event(&mut self, _event: Event) {}
    pub fn handle_snapshot(&mut self, _conn: ConnId, _facts: Option<Box<Facts>>) {}
    pub fn handle_timeout(&mut self, _now: Ktime) {}
    pub fn poll_timeout(&self) -> Option<Ktime> {
        None
    }
    pub fn poll_inspect(&mut self) -> Option<ConnId> {
        None
    }
    pub fn poll_action(&mut self) -> Option<Action> {
        None
    }
    pub fn tally(&self) -> &[Tally] {
        &[]
    }
}
