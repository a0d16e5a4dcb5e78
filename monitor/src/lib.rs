//! wsmon as a library, for the binary and its tests.

pub mod cli;
pub mod config;
pub mod daemon;
pub mod decode;
pub mod diagnostics;
pub mod kernel;
pub mod records;
pub mod replay;
pub mod sink;
