//! wsmon as a library, for the binary and its tests.
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

#[cfg(feature = "daemon")]
pub mod alerting;
#[cfg(feature = "daemon")]
pub mod api;
pub mod cli;
pub mod config;
#[cfg(feature = "daemon")]
pub mod daemon;
pub mod decode;
pub mod diagnostics;
#[cfg(feature = "daemon")]
pub mod kernel;
#[cfg(feature = "daemon")]
pub mod logs;
#[cfg(feature = "daemon")]
pub mod metrics;
pub mod records;
pub mod replay;
