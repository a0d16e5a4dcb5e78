//! The core's state of a listener.

use crate::{
    correlator::StormWatch, facts::ListenerId, hop::ListenerRules, idle_gaps::IdleGaps,
    lifetimes::Lifetimes, loss::LossMeter, storm::StormSettings, tally::Tally,
};

/// A listener: its rules, the history of its connections, and its storm engine.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) rules: ListenerRules,
    pub(super) history: History,
    pub(super) loss: LossMeter,
    pub(super) storm: StormWatch,
}

/// Totals of the verdicts on a listener's connections and of their ends.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) tally: Tally,
    pub(super) idle_gaps: IdleGaps,
    pub(super) lifetimes: Lifetimes,
}

impl Listener {
    pub(super) fn new(id: ListenerId, rules: ListenerRules) -> Self {
        Self {
            rules,
            history: History::default(),
            loss: LossMeter::default(),
            storm: StormWatch::new(id, &StormSettings::default(), None),
        }
    }
}
