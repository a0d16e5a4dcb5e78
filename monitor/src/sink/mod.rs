//! Outputs of the daemon's findings.

pub mod alert_log;
pub mod alertmanager;
pub mod control;
mod delivery;
mod drain_deadline;
mod families;
pub mod http;
pub mod metrics;
#[cfg(test)]
mod receiver;
pub mod sinks;
pub mod webhook;

pub use delivery::Undelivered;
pub use sinks::{SinkSettings, Sinks};
