//! wsmon as a library: the rooms of the daemon, for the binary and for the tests.

pub mod cli;
pub mod core;
pub mod kernel;
pub mod listeners;
