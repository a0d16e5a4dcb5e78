//! `cargo xtask scale`: wsmon's cost and accuracy with very many connections.

mod crowd;
mod report;
mod resources;
mod stage;
mod verdicts;
mod worker;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Result, bail, ensure};
use lab::{EXIT_INTERRUPTED, Interrupt};

use crate::{progress::Progress, results};
use report::Report;
use stage::Plan;

pub(crate) use worker::{Args as WorkerArgs, run as run_worker};

/// Memory per connection on this host, with both ends and some margin: measured, 4.3 kB per socket,
/// plus wsmon and the worker processes.
const BYTES_PER_CONNECTION: u64 = 11_000;

/// Enough for a million connections, which took a few seconds.
const SETTLE: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
#[command(
    long_about = "Opens real WebSocket connections on loopback while wsmon watches. The server pings \
each at an interval, and some die silently at known moments: a share of them one by one, ten thousand \
at once. Measures set-up time, CPU and memory of daemon and kernel, how soon each death is found, what \
is missed, wrong or lost, how long /metrics and `wsmon list` take, and how long a second daemon takes \
to start with all these connections open. Takes about three and a half minutes for each number of \
connections, and six for a million, which needs 11 GB of memory. Needs root.",
    after_help = EXAMPLES
)]
pub(crate) struct Args {
    /// Number of connections; a list with commas shows how the cost grows
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "10000", value_parser = clap::value_parser!(u32).range(100..=8_000_000))]
    connections: Vec<u32>,
    /// Interval of the pings on each connection
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    ping_every: Duration,
    /// Idle limit after which wsmon reports a connection as expired
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    lb_timeout: Duration,
    /// Time for which the daemon's CPU time is measured while only pings pass
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    steady: Duration,
    /// Share of the connections that die one by one
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    fading: f64,
    /// Number of connections that die at once, at most a tenth of all
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    at_once: u32,
    /// Run a few hundred connections for some seconds, as in `cargo xtask test`
    #[arg(long, conflicts_with_all = ["connections", "ping_every", "lb_timeout", "steady"])]
    brief: bool,
    /// Folder for scale.json and scale.svg
    #[arg(long, value_name = "FOLDER", default_value = "target/scale")]
    out: PathBuf,
    /// Measure this wsmon instead of building one
    #[arg(long, value_name = "FILE")]
    wsmon: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask scale                                          10,000 connections
  cargo xtask scale --connections 10000,100000,1000000       how the cost grows
  cargo xtask scale --connections 1000 --ping-every 2s --lb-timeout 5s --steady 10s
                                                             a short run
  cargo xtask scale --connections 10000,100000,1000000 --steady 205s --out docs
                                                             the figures of docs/benchmarks.md

Exit codes: 0 nothing missed, wrong or lost, 1 something was, 2 usage error, 3 not root or a tool is
missing, 130 interrupted.";

/// Measures each number of connections, the smallest first.
///
/// # Errors
/// If something could not be measured; a wrong result is an exit code.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.brief {
        return run_briefly().map(|()| ExitCode::SUCCESS);
    }
    ensure!(
        args.lb_timeout > args.ping_every,
        "--lb-timeout must be longer than --ping-every: otherwise every connection is dead"
    );
    ensure!(
        (0.0..=0.5).contains(&args.fading),
        "--fading is a share of all connections, half of them at most"
    );
    let interrupt = Interrupt::watch()?;
    let mut progress = Progress::new(&interrupt);
    let measured = measure(args, &mut progress);
    progress.clear();
    if interrupt.came() {
        progress.note("interrupted; nothing is left behind");
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    }
    let report = measured?;
    print!("{}", report.table());
    results::write(&args.out, "scale", &report.json(), report.picture())?;
    Ok(ExitCode::from(u8::from(!report.failures().is_empty())))
}

/// A few hundred connections for a few seconds, for `cargo xtask test`. This checks that nothing is
/// missed, wrong or lost, not how fast.
///
/// # Errors
/// If one of these checks fails.
fn run_briefly() -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let plan = Plan {
        connections: 600,
        ping_every: Duration::from_secs(1),
        // On a machine that is busy with other tests, a process may wait for seconds.
        limit: Duration::from_secs(6),
        steady: Duration::from_secs(1),
        settle: Duration::ZERO,
        fading: 30,
        at_once: 100,
    };
    let mut progress = Progress::new(&interrupt);
    let measured = stage::play(plan, &lab::build_wsmon()?, &mut progress);
    progress.clear();
    let failures = measured?.failures();
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok(())
}

fn measure(args: &Args, progress: &mut Progress<'_>) -> Result<Report> {
    let wsmon = match &args.wsmon {
        Some(wsmon) => wsmon.clone(),
        None => {
            progress.note("building wsmon (release) …");
            lab::build_wsmon()?
        }
    };
    let mut numbers = args.connections.clone();
    numbers.sort_unstable();
    numbers.dedup();
    let most = numbers.last().copied().unwrap_or_default();
    let (needed, there) = (
        u64::from(most) * BYTES_PER_CONNECTION,
        resources::available_bytes()?,
    );
    ensure!(
        needed <= there,
        "{most} connections need {} MB of memory, and {} MB are available",
        needed / 1_000_000,
        there / 1_000_000
    );
    let mut crowds = Vec::new();
    for number in numbers {
        let connections = number as usize;
        let plan = Plan {
            connections,
            ping_every: args.ping_every,
            limit: args.lb_timeout,
            steady: args.steady,
            settle: SETTLE,
            fading: (connections as f64 * args.fading) as usize,
            at_once: (args.at_once as usize).min(connections / 10),
        };
        crowds.push(stage::play(plan, &wsmon, progress)?);
    }
    Ok(Report { crowds })
}
