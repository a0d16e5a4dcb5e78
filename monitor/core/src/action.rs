//! The outputs of the core.

use super::{
    alert::Alert,
    event::CloseHow,
    facts::{ConnId, ListenerId, Protocol},
    past_verdicts::PastVerdict,
    time::Ktime,
    transition::Transition,
};

/// An output of the core.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// For outputs that hold state as it is, for line-based ones after [`super::Grouping`].
    Alert(Alert),
    /// A state change, for clients that follow connections.
    Transition(Transition),
    /// A connection ended. It comes after its last transition.
    Ended(Box<Ended>),
    /// Compare the table with the published snapshots, because records were lost.
    Reconcile,
}

/// The end of a connection: what the core knows of it beyond its last facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub conn: ConnId,
    pub listener: ListenerId,
    pub protocol: Protocol,
    pub at: Ktime,
    /// [`CloseHow::Unknown`] if the kernel did not report the end.
    pub how: CloseHow,
    /// The verdicts it had, in the order of their first end.
    pub verdicts: Vec<PastVerdict>,
}
