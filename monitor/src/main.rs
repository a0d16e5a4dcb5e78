//! The `wsmon` binary.

use std::process::ExitCode;

use clap::Parser;
use monitor::{
    cli::{
        Cli, Command, check, config,
        exit::{CommandResult, Failure},
        frames, inspect, list, profiles, replay, run,
    },
    diagnostics::log_limit,
};

fn main() -> ExitCode {
    log_limit::install();
    let outcome: CommandResult = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::List(args) => list::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Frames(args) => frames::run(&args),
        Command::Check(args) => {
            check::run(&args).map_err(|error| Failure::failed(format!("cannot print: {error}")))
        }
        Command::Replay(args) => replay::run(&args),
        Command::Profiles(args) => profiles::run(&args),
        Command::Config(args) => config::run(&args),
    };
    log::logger().flush();
    outcome.unwrap_or_else(|failure| {
        eprintln!("wsmon: {failure}");
        failure.exit_code()
    })
}
