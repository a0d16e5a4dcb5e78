//! Delivers alerts: to the alert log, Alertmanagers and webhooks.

pub mod alertmanager;
mod delivery;
#[cfg(test)]
mod receiver;
pub mod sinks;
pub mod webhook;

pub use delivery::Undelivered;
pub use sinks::{SinkSettings, Sinks};
