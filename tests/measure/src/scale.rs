//! `cargo xtask scale`: wsmon's cost and accuracy with very many connections.

mod crowd;
mod namespaces;
mod report;
mod resources;
mod stage;
mod verdicts;
mod worker;
mod worker_process;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use lab::{EXIT_INTERRUPTED, Interrupt};
use serde_json::Value;

use crate::{progress::Progress, results};
use report::Report;
use stage::Plan;

pub(crate) use namespaces::run_worker as run_namespace_worker;
pub(crate) use worker::{Args as WorkerArgs, run as run_worker};

/// Memory per connection on this host, with both ends and some margin: measured, 4.3 kB per socket,
/// plus wsmon and the worker processes.
const BYTES_PER_CONNECTION: u64 = 11_000;

/// Enough for a million connections, which took a few seconds.
const SETTLE: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
#[command(
    about = "Measure what watching very many connections costs, and how soon deaths are found",
    long_about = "Opens real WebSocket connections on loopback while wsmon watches. The server pings \
each at an interval, and some die silently at known moments: a share of them one by one, ten thousand \
at once. Measures set-up time, CPU and memory of daemon and kernel, how soon each death is found, what \
is missed, wrong or lost, how long /metrics and `wsmon list` take, and how long a second daemon takes \
to start with all these connections open. Takes about three and a half minutes for each number of \
connections, and six for a million, which needs 11 GB of memory.

With --namespaces, the connections are spread over that many network namespaces and open before wsmon \
starts. Measures the time until it is ready and until it knows all of them, the scans of the sockets, CPU \
and memory, and whether connections whose server stops reading are found, also in a namespace that begins \
to listen later. Takes two to five minutes for each scene.

Needs root.",
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
    #[arg(long, conflicts_with_all = ["connections", "ping_every", "lb_timeout", "steady", "namespaces"])]
    brief: bool,
    /// Spread the connections over N network namespaces, and measure the start and the scans
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=60_000), conflicts_with_all = ["ping_every", "lb_timeout", "fading", "at_once"])]
    namespaces: Option<u32>,
    /// Share of the namespaces in which a server listens on the watched port; a list with commas plays
    /// several scenes
    #[arg(
        long,
        value_name = "SHARE",
        value_delimiter = ',',
        default_value = "0.1",
        requires = "namespaces"
    )]
    served_share: Vec<f64>,
    /// Folder for scale.json and scale.svg, or namespaces.json
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
  cargo xtask scale --namespaces 200 --connections 50000,100000 --served-share 0.1,1
                                                             200 namespaces, 20 or all served
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
    let measured = match args.namespaces {
        Some(count) => namespaces::measure(args, count, &mut progress).map(Outcome::of_namespaces),
        None => measure(args, &mut progress).map(Outcome::of_crowds),
    };
    progress.clear();
    if interrupt.came() {
        progress.note("interrupted; nothing is left behind");
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    }
    let outcome = measured?;
    print!("{}", outcome.table);
    results::write(&args.out, outcome.name, &outcome.json, outcome.picture)?;
    Ok(ExitCode::from(u8::from(outcome.has_failed)))
}

/// What a measurement writes.
struct Outcome {
    /// Of its files.
    name: &'static str,
    table: String,
    json: Value,
    picture: Option<String>,
    has_failed: bool,
}

impl Outcome {
    fn of_crowds(report: Report) -> Self {
        Self {
            name: "scale",
            table: report.table(),
            json: report.json(),
            picture: Some(report.picture()),
            has_failed: !report.failures().is_empty(),
        }
    }

    fn of_namespaces(report: namespaces::Report) -> Self {
        Self {
            name: "namespaces",
            table: report.table(),
            json: report.json(),
            picture: None,
            has_failed: !report.failures().is_empty(),
        }
    }
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
    let checked = measured.and_then(|measured| {
        require_none(&measured.failures())?;
        namespaces::run_briefly(&mut progress)
    });
    progress.clear();
    checked
}

fn require_none(failures: &[String]) -> Result<()> {
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

fn measure(args: &Args, progress: &mut Progress<'_>) -> Result<Report> {
    let wsmon = measured_wsmon(args, progress)?;
    let mut numbers = args.connections.clone();
    numbers.sort_unstable();
    numbers.dedup();
    let most = numbers.last().copied().unwrap_or_default();
    require_memory(most)?;
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

/// The wsmon that is measured, which is built if none was given.
fn measured_wsmon(args: &Args, progress: &mut Progress<'_>) -> Result<PathBuf> {
    if let Some(wsmon) = &args.wsmon {
        return Ok(wsmon.clone());
    }
    progress.note("building wsmon (release) …");
    Ok(lab::build_wsmon()?)
}

/// Fails if there is too little memory for so many connections.
fn require_memory(connections: u32) -> Result<()> {
    let (needed, there) = (
        u64::from(connections) * BYTES_PER_CONNECTION,
        resources::available_bytes()?,
    );
    ensure!(
        needed <= there,
        "{connections} connections need {} MB of memory, and {} MB are available",
        needed / 1_000_000,
        there / 1_000_000
    );
    Ok(())
}
