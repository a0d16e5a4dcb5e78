//! `cargo xtask bench`: what watching costs the watched traffic, compared with other observers.

mod observer;
mod packets;
mod report;
mod ring;
mod traffic;
mod windows;
mod workload;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use clap::ValueEnum;
use lab::{EXIT_INTERRUPTED, Interrupt};

use crate::{progress::Progress, results};
use observer::Observer;
use packets::Packets;
use report::Report;
use windows::Extent;
use workload::Workload;

#[derive(Debug, clap::Args)]
#[command(
    about = "Measure what watching costs the traffic that is watched",
    long_about = "Runs WebSocket traffic over loopback as fast as possible, and compares windows with \
and without an observer: wsmon, wsmon with its frame viewer, tcpdump, a packet ring, ss. The windows \
alternate (A B B A). Each pair gives a ratio of throughputs; the result is the median with a bootstrap \
interval. `nobody` is the control: how far two windows differ without an observer. Then measures \
nanoseconds per packet. Needs root and an idle machine. Takes about 7 minutes for each workload.",
    after_help = EXAMPLES
)]
pub(crate) struct Args {
    /// Traffic to run [default: all]
    #[arg(long, value_enum)]
    workload: Vec<Workload>,
    /// Observer to measure [default: all]
    #[arg(long, value_enum)]
    observer: Vec<Observer>,
    /// Pairs of windows for each observer and workload
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    pairs: u16,
    /// Length of each window; whole seconds with `ss`
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    window: Duration,
    /// Run a few windows only, to check that everything works, as in `cargo xtask test`
    #[arg(long, conflicts_with_all = ["workload", "observer", "pairs", "window"])]
    brief: bool,
    /// Skip the nanoseconds per packet
    #[arg(long)]
    no_packets: bool,
    /// Folder for bench.json and bench.svg
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    out: PathBuf,
    /// Measure this wsmon instead of building one
    #[arg(long, value_name = "FILE")]
    wsmon: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask bench                                        everything, about half an hour
  cargo xtask bench --workload echo --pairs 10             one workload, roughly
  cargo xtask bench --observer nobody --observer wsmon     wsmon and the control only
  cargo xtask bench --out docs                             the figures of docs/benchmarks.md

Exit codes: 0 measured, 1 failure, 2 usage error, 3 not root or a tool is missing, 130 interrupted.";

/// Runs the comparison and writes its results.
///
/// # Errors
/// If something could not be measured.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.brief {
        return run_briefly().map(|()| ExitCode::SUCCESS);
    }
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
    results::write(&args.out, "bench", &report.json(), Some(report.picture()))?;
    Ok(ExitCode::SUCCESS)
}

/// A few windows of one workload, for `cargo xtask test`. This checks that the tools work and that
/// wsmon counts the traffic, not how fast.
///
/// # Errors
/// If one of these fails.
fn run_briefly() -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let extent = Extent {
        pairs: 2,
        window: Duration::from_millis(150),
    };
    let observers = [Observer::Wsmon, Observer::Tcpdump, Observer::Ring];
    let mut progress = Progress::new(&interrupt);
    let wsmon = lab::build_wsmon()?;
    let comparison = windows::compare(Workload::Echo, &observers, extent, &wsmon, &mut progress)?;
    progress.clear();
    for row in &comparison.rows {
        let seen = row.seen().unwrap_or_default();
        ensure!(seen > 0.0, "{} saw nothing", row.observer.name());
        if row.observer == Observer::Wsmon {
            ensure!(row.lost() == 0.0, "wsmon lost {} events", row.lost());
            // Frames and metrics are read one after the other while thousands of frames pass. The
            // live tests check exact agreement.
            ensure!(
                (0.5..2.0).contains(&seen),
                "wsmon counted {seen:.3} of the frames"
            );
        }
    }
    Ok(())
}

fn measure(args: &Args, progress: &mut Progress<'_>) -> Result<Report> {
    let workloads = chosen(&args.workload);
    let observers = chosen(&args.observer);
    ensure!(
        !observers.contains(&Observer::Ss) || args.window.subsec_nanos() == 0,
        "`ss` runs every second: --window must be whole seconds, or choose observers without it"
    );
    let wsmon = match &args.wsmon {
        Some(wsmon) => wsmon.clone(),
        None => {
            progress.note("building wsmon (release) …");
            lab::build_wsmon()?
        }
    };
    let without = |workload: &Workload| Some((workload.name(), workload.missing()?));
    let unseen = |observer: &Observer| Some((observer.name(), observer.missing()?));
    let left_out = workloads.iter().filter_map(without);
    let left_out = left_out
        .chain(observers.iter().filter_map(unseen))
        .collect();
    let extent = Extent {
        pairs: args.pairs.into(),
        window: args.window,
    };
    let mut report = Report {
        extent,
        comparisons: Vec::new(),
        packets: None,
        left_out,
    };
    let observers: Vec<_> = observers
        .into_iter()
        .filter(|observer| observer.missing().is_none())
        .collect();
    for workload in workloads {
        if workload.missing().is_some() {
            continue;
        }
        let comparison = windows::compare(workload, &observers, extent, &wsmon, progress)?;
        report.comparisons.push(comparison);
    }
    if !args.no_packets {
        report.packets = Some(Packets::measure(progress)?);
    }
    Ok(report)
}

/// The selection from the command line, or everything.
fn chosen<T: ValueEnum>(named: &[T]) -> Vec<T> {
    match named {
        [] => T::value_variants().to_vec(),
        named => named.to_vec(),
    }
}
