//! `cargo xtask vm`: the kernel's side of the tests on other kernels than this machine's.

mod cpio;
mod initramfs;
mod kernel;
mod machine;
mod module;
mod pins;
mod results;
mod table;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::artifacts::{Executable, executables};
use crate::{test, workspace};
use kernel::Kernel;
use machine::Accelerator;
use pins::Pin;
use results::Results;

/// The test targets that say what a kernel makes of the programs.
const TARGETS: [&str; 2] = ["load", "programs"];
const CONSOLE_LINES_SHOWN: usize = 60;

#[derive(clap::Args)]
#[command(
    long_about = "Boots Debian's kernels in QEMU, with nothing but the tests of the kernel programs \
in their memory, and runs there what needs root in monitor/tests/load.rs (the verifier accepts every \
configuration) and monitor/tests/programs.rs (packets are accounted as they are natively). Prints \
the results as the tables of docs/kernels.md (the verifier's numbers are the largest over all \
configurations). Needs no root and no KVM, only the packages that \
`cargo xtask setup --tests` installs. Kernels are fetched through apt at the versions and hashes of \
xtask/kernels.lock, and kept in target/vm, beside what the guests said.",
    after_help = "\
Examples:
  cargo xtask vm                            every pinned kernel
  cargo xtask vm 6.1                        one of them
  cargo xtask vm 6.1 --filter every_shape   only tests whose name contains this
  cargo xtask vm --update-pins              pin the newest kernels that apt knows, and run nothing

Exit codes: 0 ok, 1 failure, 2 usage error, 3 something has to be installed first."
)]
pub(crate) struct Args {
    /// Series of pinned kernels, by default all [example: 6.1]
    #[arg(value_name = "KERNEL", value_parser = pins::of_series)]
    kernels: Vec<Pin>,
    /// Only tests whose name contains one of these
    #[arg(long, value_name = "NAME")]
    filter: Vec<String>,
    /// Pin the newest packages of the same series that apt knows, in xtask/kernels.lock
    #[arg(long, exclusive = true)]
    update_pins: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.update_pins {
        return pins::update();
    }
    let pins = match &args.kernels[..] {
        [] => pins::read()?,
        some => some.to_vec(),
    };
    run_on(&pins, &args.filter)
}

/// Everything on every pinned kernel.
///
/// # Errors
/// When a test fails anywhere; a [`Prerequisite`](crate::root::Prerequisite) when there is no QEMU.
pub(crate) fn run_all() -> Result<()> {
    run_on(&pins::read()?, &[])
}

/// What [`run_all`] is called in a summary.
pub(crate) fn title() -> String {
    let series: Vec<_> = pins::read()
        .into_iter()
        .flatten()
        .map(|pin| pin.series)
        .collect();
    format!("vm: {}", series.join(", "))
}

fn run_on(pins: &[Pin], filter: &[String]) -> Result<()> {
    machine::require()?;
    let tests = tests()?;
    let kernels = pins.iter().map(Kernel::get).collect::<Result<Vec<_>>>()?;
    let Some(first) = kernels.first() else {
        bail!("no kernel to boot");
    };
    let accelerator = Accelerator::find(&first.image()?);
    println!("guests run by {accelerator}");
    let runs: Vec<_> = thread::scope(|scope| {
        let guests: Vec<_> = kernels
            .iter()
            .map(|kernel| scope.spawn(|| boot(kernel, accelerator, &tests, filter)))
            .collect();
        guests
            .into_iter()
            .map(|guest| {
                guest
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect::<Result<_>>()
    })?;
    for run in &runs {
        run.explain(filter);
    }
    println!("\n{}", table::tables(&runs));
    let failed: Vec<_> = runs
        .iter()
        .filter(|run| !run.complaints(filter).is_empty())
        .map(|run| run.kernel.pin.series.as_str())
        .collect();
    ensure!(failed.is_empty(), "failed on {}", failed.join(", "));
    Ok(())
}

/// One guest's run, to its end.
pub(crate) struct Run<'a> {
    kernel: &'a Kernel,
    results: Results,
    /// What QEMU had to say, if the guest did not end by itself.
    broken: Option<anyhow::Error>,
}

impl Run<'_> {
    fn complaints(&self, filter: &[String]) -> Vec<String> {
        let broken = self.broken.iter().map(|error| format!("{error:#}"));
        let results = self.results.complaints(&TARGETS, !filter.is_empty());
        broken.chain(results).collect()
    }

    /// Shows all there is to know about a failure.
    fn explain(&self, filter: &[String]) {
        let complaints = self.complaints(filter);
        if complaints.is_empty() {
            return;
        }
        let series = &self.kernel.pin.series;
        for target in &self.results.targets {
            if target.status != Some(0) {
                println!("\n--- {series}: {} printed\n{}", target.name, target.output);
            }
        }
        if !self.results.finished {
            print!("\n--- {series}: the guest said\n{}", self.results.rest);
            let console = fs::read(console(series)).unwrap_or_default();
            let console = String::from_utf8_lossy(&console);
            let lines: Vec<_> = console.lines().collect();
            println!("--- {series}: the end of its console");
            for line in &lines[lines.len().saturating_sub(CONSOLE_LINES_SHOWN)..] {
                println!("{}", line.trim_end_matches('\r'));
            }
        }
        for complaint in complaints {
            println!("{series}: {complaint}");
        }
    }
}

fn boot<'a>(
    kernel: &'a Kernel,
    accelerator: Accelerator,
    tests: &[Executable],
    filter: &[String],
) -> Result<Run<'a>> {
    let series = &kernel.pin.series;
    let archive = initramfs::archive(kernel, tests, filter)?;
    let initramfs = folder().join(format!("{series}.cpio"));
    fs::write(&initramfs, archive)
        .with_context(|| format!("could not write {}", initramfs.display()))?;

    let begin = Instant::now();
    let mut results = Results::default();
    let ended = machine::run(
        accelerator,
        &kernel.image()?,
        &initramfs,
        &console(series),
        |line| {
            if let Some(news) = results.line(line) {
                println!("{series}: {news} ({:.0} s)", begin.elapsed().as_secs_f64());
            }
        },
    );
    Ok(Run {
        kernel,
        results,
        broken: ended.err(),
    })
}

/// Builds the tests as `cargo xtask test` does, so that nothing is compiled twice.
fn tests() -> Result<Vec<Executable>> {
    let mut command = test::root_tests();
    command.args(["--quiet", "--no-run"]);
    for target in TARGETS {
        command.args(["--test", target]);
    }
    let mut made = executables(&mut command)?;
    made.retain(|executable| TARGETS.contains(&executable.name.as_str()));
    ensure!(
        made.len() == TARGETS.len(),
        anyhow!("cargo did not say where it put {}", TARGETS.join(" and "))
    );
    Ok(made)
}

/// Where kernels are kept, and what guests say.
fn folder() -> PathBuf {
    workspace::root().join("target/vm")
}

fn console(series: &str) -> PathBuf {
    folder().join(format!("{series}.console.log"))
}
