//! The monitor's logic, sans-IO: no clock, no sockets, no kernel types, no unsafe.
//!
//! The daemon passes events, snapshots and the time to the core. The core returns deadlines,
//! requests to inspect a flow, and actions. The same trace always yields the same actions, so every
//! bug report can be replayed.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod action;
pub mod alert;
pub mod background;
pub mod connection_ages;
pub mod correlator;
pub mod detail;
pub mod event;
pub mod facts;
mod flow;
mod flows;
pub mod group;
pub mod handshake;
pub mod histogram;
mod history;
pub mod hop;
pub mod idle_gaps;
mod interned_handshake;
mod interner;
mod lifetimes;
mod listen_sockets;
mod listener;
pub mod loss;
mod message;
pub mod observation;
pub mod past_verdicts;
mod pending;
pub mod reap;
mod recv_queues;
pub mod rules;
pub mod send_queues;
pub mod storm;
mod storm_watch;
pub mod tally;
pub mod time;
pub mod transition;
pub mod verdict;
mod wheel;
mod workloads;

pub use action::{Action, Ended};
pub use alert::{
    Alert, AlertGroup, AlertResolution, ConnectionAlert, ConnectionVerdict, ListenerFinding,
    Status, Subject,
};
pub use correlator::{Correlator, StormSetup};
pub use detail::{Closed, Detail};
pub use event::{CloseHow, Event, Trouble};
pub use facts::{ConnId, Facts, ListenerId};
pub use group::Grouping;
pub use hop::{Hop, ListenerRules, OnExpiry};
pub use idle_gaps::{KnownHop, Learned};
pub use interned_handshake::Handshake;
pub use past_verdicts::PastVerdict;
pub use tally::Tally;
pub use time::Ktime;
pub use transition::{Reason, State, Transition};
pub use verdict::{Certainty, VerdictKind};
pub use workloads::{WorkloadName, WorkloadSeries, Workloads};
