//! Program behind `cargo xtask bench` and `cargo xtask scale`: what watching costs.

mod bench;
mod machine;
mod picture;
mod progress;
mod results;
mod scale;
mod statistics;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Measurement,
}

#[derive(Subcommand)]
enum Measurement {
    // Doc comments here would replace the long help texts of their arguments.
    Bench(bench::Args),
    Scale(scale::Args),
    /// One of the processes behind `scale`
    #[command(hide = true)]
    ScaleWorker(scale::WorkerArgs),
    /// One of the processes behind `scale --namespaces`
    #[command(hide = true)]
    ScaleNamespaceWorker,
}

fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Measurement::Bench(args) => bench::run(&args),
        Measurement::Scale(args) => scale::run(&args),
        Measurement::ScaleWorker(args) => {
            scale::run_worker(&args)?;
            Ok(ExitCode::SUCCESS)
        }
        Measurement::ScaleNamespaceWorker => {
            scale::run_namespace_worker()?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
