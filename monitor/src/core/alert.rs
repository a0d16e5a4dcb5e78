//! What the core says to people.

use std::time::Duration;

use super::{
    event::CloseHow,
    facts::{Facts, ListenerId},
    time::Ktime,
};

/// A verdict that begins, changes its certainty, or ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    pub status: Status,
    pub kind: ZombieKind,
    pub certainty: Certainty,
    pub listener: ListenerId,
    /// The moment the verdict was reached or left.
    pub at: Ktime,
    /// The moment from which it was true: the limit crossed, the first byte unanswered.
    pub since: Ktime,
    /// The limit that was crossed: the hop's idle timeout, or the patience of the rule.
    pub limit: Duration,
    /// The evidence.
    pub facts: Box<Facts>,
    /// One sentence for a person.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    Firing,
    Resolved(Resolution),
}

/// How a verdict ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// The peer was heard again: it was no zombie, or is none any more.
    Recovered,
    /// The socket is gone.
    Closed(CloseHow),
}

/// Why a connection that looks open is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ZombieKind {
    /// Idle past the limit of a hop that says nothing.
    Expired,
    /// Data goes out, nothing is acknowledged.
    BlackHoled,
    /// TCP acknowledges, the WebSocket peer does not pong.
    Unresponsive,
}

impl ZombieKind {
    pub const ALL: [Self; 3] = [Self::Expired, Self::BlackHoled, Self::Unresponsive];

    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::BlackHoled => "black_holed",
            Self::Unresponsive => "unresponsive",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Certainty {
    Suspected,
    Confirmed,
}

impl Certainty {
    /// The name in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suspected => "suspected",
            Self::Confirmed => "confirmed",
        }
    }
}
