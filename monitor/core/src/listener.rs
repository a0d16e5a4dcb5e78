//! The core's state of a listener.

use super::{
    facts::ListenerId, history::History, hop::ListenerRules, loss::LossMeter, storm::StormSettings,
    storm_watch::StormWatch,
};

/// A listener: its rules, the history of its connections, and its storm engine.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) rules: ListenerRules,
    pub(super) history: History,
    pub(super) loss: LossMeter,
    pub(super) storm: StormWatch,
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
