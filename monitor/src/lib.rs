//! wsmon as a library: the rooms of the daemon, for the binary and for the tests.

pub mod cli;
pub mod clients;
pub mod config;
pub mod connections;
pub mod daemon;
mod error_chain;
pub mod frame_stream;
pub mod frames;
mod json;
pub mod kernel;
pub mod listeners;
pub mod log_limit;
pub mod profiles;
pub mod reaper;
pub mod reconcile;
pub mod replay;
pub mod sink;
pub mod state;
