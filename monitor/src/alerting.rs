//! Delivers alerts: to the alert log, Alertmanagers and webhooks.

pub mod alert_log;
pub mod alertmanager;
mod delivery;
mod drain_deadline;
#[cfg(test)]
mod receiver;
pub mod sinks;
pub mod webhook;

pub use delivery::Undelivered;
pub use sinks::{SinkSettings, Sinks};
