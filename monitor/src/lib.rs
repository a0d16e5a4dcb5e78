//! wsmon as a library: the rooms of the daemon, for the binary and for the tests.

pub mod cli;
pub mod config;
pub mod daemon;
pub mod diagnostics;
pub mod kernel;
pub mod records;
pub mod replay;
pub mod sink;
