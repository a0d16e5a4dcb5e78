//! One guest from its kernel to its results, and the programs that run in it.

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, ensure};

use super::{
    architecture::Architecture,
    folder, initramfs, kernel,
    kernel::Kernel,
    machine::{self, Accelerator},
    pins::Pins,
    results::Results,
};
use crate::{
    artifacts::{Executable, executables},
    cross, test,
    workspace::{cargo, on_path},
};

/// The test targets that show whether wsmon works on a kernel, in the order to run them.
pub(crate) const TARGETS: [&str; 3] = ["load", "programs", "end_to_end"];
/// Unit tests independent of the kernel: they run on processors other than this machine's.
const UNITS: &str = "monitor_common";
const WSMON: &str = "wsmon";
const CONSOLE_LINES_SHOWN: usize = 60;

/// The programs for guests with one processor.
pub(crate) struct Programs {
    pub(crate) shell: PathBuf,
    pub(crate) wsmon: Executable,
    pub(crate) tests: Vec<Executable>,
}

impl Programs {
    /// Builds the tests as `cargo xtask test` does for this machine's processor, so that nothing is
    /// compiled twice.
    ///
    /// # Errors
    /// If a build fails, or something is not installed.
    pub(crate) fn build(
        architecture: Architecture,
        pins: &Pins,
        archives: &[String],
    ) -> Result<Self> {
        let mut command = if architecture.is_native() {
            test::root_tests()
        } else {
            let mut command = cargo(&["test", "--profile", "guest"]);
            command.args(["--package", "monitor", "--package", "lab"]);
            cross::configure(&mut command, architecture.target());
            command
        };
        command.args(["--quiet", "--no-run"]);
        for target in TARGETS {
            command.args(["--test", target]);
        }
        let mut made = executables(&mut command)?;
        let mut take = |name: &str| -> Result<Executable> {
            let index = made.iter().position(|executable| executable.name == name);
            let index = index.with_context(|| format!("cargo did not say where it put {name}"))?;
            Ok(made.swap_remove(index))
        };
        let mut tests = TARGETS
            .map(&mut take)
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        let wsmon = take(WSMON)?;
        if !architecture.is_native() {
            tests.push(units(architecture)?);
        }
        Ok(Self {
            shell: shell(architecture, pins, archives)?,
            wsmon,
            tests,
        })
    }
}

fn units(architecture: Architecture) -> Result<Executable> {
    let mut command = cargo(&["test", "--profile", "guest", "--quiet", "--no-run"]);
    command.args(["--package", "monitor-common", "--lib"]);
    cross::configure(&mut command, architecture.target());
    let made = executables(&mut command)?;
    made.into_iter()
        .find(|executable| executable.name == UNITS)
        .with_context(|| format!("cargo did not say where it put {UNITS}"))
}

/// A busybox without shared libraries: this machine's, or a pinned one.
fn shell(architecture: Architecture, pins: &Pins, archives: &[String]) -> Result<PathBuf> {
    if architecture.is_native() {
        return on_path("busybox").context("busybox is not installed");
    }
    let (_, package) = pins
        .shells
        .iter()
        .find(|(its, _)| *its == architecture)
        .with_context(|| format!("no busybox for {architecture} is pinned"))?;
    let unpacked = kernel::get(package, archives)?.map_err(|gone| {
        anyhow::anyhow!(
            "no archive has {} any more; `cargo xtask vm --update-pins` pins the newest",
            gone.file_name
        )
    })?;
    let places = ["bin/busybox", "usr/bin/busybox"].map(|place| unpacked.join(place));
    places
        .into_iter()
        .find(|place| place.is_file())
        .with_context(|| format!("no busybox in {}", package.file_name()))
}

/// A kernel to boot.
pub(crate) struct Guest {
    pub(crate) kernel: Kernel,
}

impl Guest {
    /// Boots it and runs the tests. `news` receives progress lines for a waiting person.
    ///
    /// # Errors
    /// If the guest cannot be built; failures inside it are part of the result.
    pub(crate) fn run(
        self,
        accelerator: Accelerator,
        programs: &Programs,
        filter: &[String],
        news: impl Fn(&str),
    ) -> Result<Run> {
        let architecture = self.kernel.name.architecture;
        let archive = initramfs::archive(&self.kernel, programs, filter)?;
        let stem = self.kernel.name.file_stem();
        let initramfs = folder().join(format!("{stem}.cpio"));
        fs::write(&initramfs, archive)
            .with_context(|| format!("could not write {}", initramfs.display()))?;
        let console = folder().join(format!("{stem}.console.log"));

        let begin = Instant::now();
        let seconds = || begin.elapsed().as_secs_f64();
        let mut results = Results::default();
        let mut said = String::new();
        let ended = machine::run(
            accelerator,
            architecture,
            &self.kernel.image()?,
            &initramfs,
            &console,
            |line| {
                said.push_str(line);
                said.push('\n');
                if let Some(text) = results.line(line) {
                    news(&format!("{text} ({:.0} s)", seconds()));
                }
            },
        );
        let log = folder().join(format!("{stem}.results.log"));
        fs::write(&log, said).with_context(|| format!("could not write {}", log.display()))?;
        fs::remove_file(&initramfs)
            .with_context(|| format!("could not remove {}", initramfs.display()))?;
        Ok(Run {
            kernel: self.kernel,
            expected: programs
                .tests
                .iter()
                .map(|test| test.name.clone())
                .collect(),
            results,
            broken: ended.err(),
            console,
            seconds: seconds(),
        })
    }
}

/// One guest's run, to its end.
pub(crate) struct Run {
    pub(crate) kernel: Kernel,
    pub(crate) results: Results,
    pub(crate) seconds: f64,
    expected: Vec<String>,
    /// QEMU's error, if the guest did not end normally.
    broken: Option<anyhow::Error>,
    console: PathBuf,
}

impl Run {
    /// Why this is not a success; empty if it is one.
    pub(crate) fn complaints(&self, filter: &[String]) -> Vec<String> {
        let broken = self.broken.iter().map(|error| format!("{error:#}"));
        let expected: Vec<_> = self.expected.iter().map(String::as_str).collect();
        let results = self.results.complaints(&expected, !filter.is_empty());
        broken.chain(results).collect()
    }

    /// Prints everything known about a failure.
    pub(crate) fn explain(&self, filter: &[String]) {
        let complaints = self.complaints(filter);
        if complaints.is_empty() {
            return;
        }
        let name = &self.kernel.name;
        for target in &self.results.targets {
            if target.status != Some(0) {
                println!("\n--- {name}: {} printed\n{}", target.name, target.output);
            }
        }
        if !self.results.finished {
            print!("\n--- {name}: the guest said\n{}", self.results.rest);
            let console = fs::read(&self.console).unwrap_or_default();
            let console = String::from_utf8_lossy(&console);
            let lines: Vec<_> = console.lines().collect();
            println!("--- {name}: the end of its console");
            for line in &lines[lines.len().saturating_sub(CONSOLE_LINES_SHOWN)..] {
                println!("{}", line.trim_end_matches('\r'));
            }
        }
        for complaint in complaints {
            println!("{name}: {complaint}");
        }
    }
}

/// How many guests run in parallel: limited by processors and memory.
///
/// # Errors
/// If the memory is not enough for one.
pub(crate) fn slots() -> Result<usize> {
    /// QEMU's memory in addition to the guest's.
    const OVERHEAD_MIB: u64 = 256;
    let info = fs::read_to_string("/proc/meminfo").context("could not read /proc/meminfo")?;
    let available_kib: u64 = info
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.trim().split(' ').next())
        .and_then(|kib| kib.parse().ok())
        .context("no MemAvailable in /proc/meminfo")?;
    let fit = available_kib / 1024 / (machine::MEMORY_MIB + OVERHEAD_MIB);
    ensure!(
        fit > 0,
        "a guest needs {} MiB of memory, {} are available",
        machine::MEMORY_MIB + OVERHEAD_MIB,
        available_kib / 1024
    );
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(processors.min(usize::try_from(fit).unwrap_or(usize::MAX)))
}
