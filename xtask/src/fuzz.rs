//! `cargo xtask fuzz`: unexpected inputs, guided by the coverage they reach.
//!
//! The targets are a plain cargo build with stable flags (`fuzz/rustc-wrapper`) around libFuzzer,
//! so neither a nightly toolchain nor cargo-fuzz is needed.

mod libfuzzer;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::{
    artifacts::{Executable, executables},
    root::Prerequisite,
    workspace,
};
use libfuzzer::Fuzzer;

#[derive(Debug, clap::Args)]
#[command(
    long_about = "Builds the fuzz targets and runs one or all of them for a time, each beginning \
with fuzz/seeds and with what earlier runs found (fuzz/corpus). An input that breaks a guarantee is \
kept in fuzz/artifacts. `cargo xtask test` runs every target briefly. Needs a C++ compiler for \
libFuzzer.",
    after_help = EXAMPLES
)]
pub(crate) struct Args {
    /// Target to run [default: all, one after the other]
    target: Option<Target>,
    /// Time for each target
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Do a fixed number of runs instead, always the same ones, as in `cargo xtask test`
    #[arg(long, conflicts_with = "time")]
    brief: bool,
    /// Run this one input instead, to reproduce a failure
    #[arg(
        long,
        value_name = "FILE",
        requires = "target",
        conflicts_with = "time"
    )]
    input: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask fuzz                       every target, ten minutes each
  cargo xtask fuzz segment --time 8h     one target, over night
  cargo xtask fuzz --brief               a quarter of a minute in all, always the same runs
  cargo xtask fuzz segment --input fuzz/artifacts/segment/crash-0a1b2c

Exit codes: 0 nothing found, 1 an input broke a guarantee, 2 usage error, 3 no C++ compiler.";

/// What is attacked, named after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Target {
    /// The reader of kernel types
    BtfFile,
    /// The frame header's parser, compared with tungstenite's
    FrameHeader,
    /// The parsers of HTTP upgrade requests and answers
    Handshake,
    /// The reader of recordings, and what is reported about them
    Pcap,
    /// The decoder of ring-buffer records
    RingRecord,
    /// The packet logic, with segments cut, lost, late, doubled and forged
    Segment,
    /// Heartbeats inferred from TLS records, with any sizes, times, losses and garbage
    TlsRecords,
}

impl Target {
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Number of runs that take about five seconds on one slow CPU.
    const fn brief_runs(self) -> u32 {
        match self {
            Self::FrameHeader => 1_000_000,
            Self::Handshake | Self::Pcap | Self::Segment | Self::TlsRecords => 20_000,
            Self::BtfFile | Self::RingRecord => 200_000,
        }
    }
}

/// Runs one or all targets, or one input.
///
/// # Errors
/// If they cannot be built, or an input broke a guarantee.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let (Some(input), Some(target)) = (&args.input, args.target) {
        run_input(target, input)?;
    } else if args.brief {
        run_each_briefly(args.target)?;
    } else {
        run_each(args.target, |fuzzer, _| fuzzer.run_for(args.time))?;
    }
    Ok(())
}

/// A fixed number of runs of every target, always the same ones.
///
/// # Errors
/// If they cannot be built, or an input broke a guarantee.
pub(crate) fn run_briefly() -> Result<()> {
    run_each_briefly(None)
}

fn run_each_briefly(chosen: Option<Target>) -> Result<()> {
    run_each(chosen, |fuzzer, target| {
        fuzzer.run_times(target.brief_runs())
    })
}

/// Runs each target, even after a failure.
fn run_each(
    chosen: Option<Target>,
    mut run: impl FnMut(&mut Fuzzer, Target) -> Result<()>,
) -> Result<()> {
    let programs = build()?;
    let mut failures = Vec::new();
    for target in targets(chosen) {
        let mut fuzzer = Fuzzer::new(&target.name(), program(&programs, target)?)?;
        failures.extend(run(&mut fuzzer, target).err());
    }
    if !failures.is_empty() {
        let all: Vec<_> = failures.iter().map(|error| format!("{error:#}")).collect();
        bail!("{}", all.join("; "));
    }
    Ok(())
}

fn run_input(target: Target, input: &Path) -> Result<()> {
    fs::metadata(input).with_context(|| format!("could not read {}", input.display()))?;
    let programs = build()?;
    workspace::run(Command::new(program(&programs, target)?).arg(input))?;
    println!("{} breaks nothing", input.display());
    Ok(())
}

fn targets(chosen: Option<Target>) -> impl Iterator<Item = Target> {
    let all = Target::value_variants().iter().copied();
    all.filter(move |target| chosen.is_none_or(|chosen| chosen == *target))
}

/// Builds all targets.
fn build() -> Result<Vec<Executable>> {
    if env::var_os("CXX").is_none() && workspace::on_path("c++").is_none() {
        return Err(Prerequisite {
            missing: "no C++ compiler, which libFuzzer is built with".to_owned(),
            remedy: vec!["cargo xtask setup --tests".to_owned()],
        }
        .into());
    }
    let mut build = workspace::cargo(&["build", "--package", "fuzz", "--bins"]);
    build.args(["--features", "libfuzzer"]).env(
        "RUSTC_WORKSPACE_WRAPPER",
        fuzz_folder().join("rustc-wrapper"),
    );
    executables(&mut build)
}

fn program(programs: &[Executable], target: Target) -> Result<&Path> {
    let name = target.name();
    programs
        .iter()
        .find_map(|made| (made.name == name).then_some(&*made.path))
        .with_context(|| format!("fuzz/Cargo.toml has no target named {name}"))
}

fn fuzz_folder() -> PathBuf {
    workspace::root().join("fuzz")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_targets_are_those_in_the_folder() {
        let files = fs::read_dir(fuzz_folder().join("fuzz_targets")).expect("the folder");
        let files: BTreeSet<_> = files
            .map(|entry| entry.expect("an entry").path())
            .map(|path| {
                path.file_stem()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        assert_eq!(files, targets(None).map(Target::name).collect());
    }
}
