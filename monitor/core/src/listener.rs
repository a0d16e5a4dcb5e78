//! What the core keeps of a listener.

use crate::{
    correlator::StormWatch, hop::ListenerRules, idle_gaps::IdleGaps, lifetimes::Lifetimes,
    loss::LossMeter, storm::StormSettings, tally::Tally,
};

/// A listener: its rules, what its connections went through, and what they do together.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) rules: ListenerRules,
    pub(super) history: History,
    pub(super) loss: LossMeter,
    pub(super) storm: StormWatch,
}

/// What the verdicts on a listener's connections, and their ends, add up to.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) tally: Tally,
    pub(super) idle_gaps: IdleGaps,
    pub(super) lifetimes: Lifetimes,
}

impl Listener {
    pub(super) fn new(rules: ListenerRules) -> Self {
        Self {
            rules,
            history: History::default(),
            loss: LossMeter::default(),
            storm: StormWatch::new(&StormSettings::default(), None),
        }
    }
}
