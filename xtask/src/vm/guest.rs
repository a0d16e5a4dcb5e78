//! A guest that runs wsmon's tests on a kernel, and the programs that run in it.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::{
    architecture::Architecture,
    initramfs, kernel,
    kernel::Kernel,
    machine::{self, Accelerator},
    pins::Pins,
    run::{Run, Setup},
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
            let mut command = cargo(&["test"]);
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
    let mut command = cargo(&["test", "--quiet", "--no-run"]);
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
        let archive = initramfs::archive(&self.kernel, programs, filter)?;
        let tests = programs.tests.iter().map(|test| test.name.clone());
        Run::of(
            Setup {
                name: self.kernel.name.to_string(),
                file_stem: self.kernel.name.file_stem(),
                initramfs: archive,
                disk: None,
                expected: tests.collect(),
                kernel: self.kernel,
            },
            accelerator,
            news,
        )
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
