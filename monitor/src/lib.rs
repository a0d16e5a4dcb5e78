//! wsmon as a library, for the binary and its tests.

pub mod alerting;
pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod decode;
pub mod diagnostics;
pub mod kernel;
pub mod metrics;
pub mod records;
pub mod replay;
