//! How much `wsmon run` writes to stderr.

use clap::{ArgAction, Args};
use log::LevelFilter;

use crate::cli::number;

#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Verbosity {
    /// Log what happens, and with -vv why; RUST_LOG selects more exactly
    #[arg(short, long, action = ArgAction::Count, value_parser = number::repeated)]
    verbose: u8,

    /// Print only errors, and alerts if they go to stderr
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
}

impl Verbosity {
    /// What is logged unless `RUST_LOG` selects something else.
    pub fn level(self) -> LevelFilter {
        match (self.quiet, self.verbose) {
            (true, _) => LevelFilter::Error,
            (false, 0) => LevelFilter::Warn,
            (false, 1) => LevelFilter::Info,
            (false, _) => LevelFilter::Debug,
        }
    }
}
