//! All the thinking, sans-IO: no clock, no sockets, no kernel types, no unsafe.
//!
//! The shell ([`crate::daemon`]) shows the core events, snapshots and the time; the core answers
//! with deadlines, wishes to look at a flow, and actions. The same trace always gives the same
//! actions, so every bug report can be replayed.
#![forbid(unsafe_code)]

mod ages;
pub mod alert;
pub mod background;
pub mod correlator;
pub mod detail;
pub mod event;
pub mod facts;
mod flow;
mod flows;
pub mod group;
pub mod handshake;
pub mod histogram;
pub mod hop;
mod kept;
pub mod look;
pub mod loss;
mod pending;
mod queues;
pub mod reap;
mod servers;
pub mod silences;
pub mod storm;
mod strings;
pub mod tally;
pub mod time;
pub mod transition;
pub mod verdict;
mod wheel;

pub use alert::{
    Alert, Certainty, Group, ListenerAlert, ListenerFinding, Notice, Resolution, Status,
    StormAlert, VerdictKind,
};
pub use correlator::{Action, Correlator, StormSetup};
pub use detail::{Closed, Detail};
pub use event::{CloseHow, Event, Trouble};
pub use facts::{ConnId, Facts, ListenerId};
pub use group::Grouping;
pub use hop::{Hop, ListenerRules, OnExpiry};
pub use kept::Handshake;
pub use silences::{KnownHop, Learned};
pub use tally::Tally;
pub use time::Ktime;
pub use transition::{Reason, State, Transition};
