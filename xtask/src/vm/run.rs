//! One guest's run: boots it, collects its results, and explains a failure.

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result};

use super::{
    folder,
    kernel::Kernel,
    machine::{self, Accelerator, Boot},
    results::Results,
};

const CONSOLE_LINES_SHOWN: usize = 60;

/// A guest that is ready to boot.
pub(crate) struct Setup {
    /// What to call it.
    pub(crate) name: String,
    /// The name of its files in `target/vm`, without extension.
    pub(crate) file_stem: String,
    pub(crate) kernel: Kernel,
    /// The content of its initial file system.
    pub(crate) initramfs: Vec<u8>,
    /// A disk image.
    pub(crate) disk: Option<PathBuf>,
    /// The names of the test targets that it runs.
    pub(crate) expected: Vec<String>,
}

/// One guest's run, to its end.
pub(crate) struct Run {
    /// What to call it.
    pub(crate) name: String,
    pub(crate) kernel: Kernel,
    pub(crate) results: Results,
    pub(crate) seconds: f64,
    expected: Vec<String>,
    /// QEMU's error, if the guest did not end normally.
    broken: Option<anyhow::Error>,
    console: PathBuf,
}

impl Run {
    /// Boots a guest and reads its results until it ends. `news` receives progress lines for a
    /// waiting person.
    ///
    /// # Errors
    /// If the guest's files cannot be written; failures inside it are part of the result.
    pub(crate) fn of(setup: Setup, accelerator: Accelerator, news: impl Fn(&str)) -> Result<Self> {
        let Setup {
            name,
            file_stem,
            kernel,
            initramfs: archive,
            disk,
            expected,
        } = setup;
        fs::create_dir_all(folder()).context("could not make target/vm")?;
        let file = |extension: &str| folder().join(format!("{file_stem}.{extension}"));
        let initramfs = file("cpio");
        fs::write(&initramfs, archive)
            .with_context(|| format!("could not write {}", initramfs.display()))?;
        let console = file("console.log");

        let begin = Instant::now();
        let seconds = || begin.elapsed().as_secs_f64();
        let boot = Boot {
            accelerator,
            architecture: kernel.name.architecture,
            image: &kernel.image()?,
            initramfs: &initramfs,
            disk: disk.as_deref(),
            console: &console,
        };
        let attempt = || {
            let mut results = Results::default();
            let mut said = String::new();
            let ended = machine::run(&boot, |line| {
                said.push_str(line);
                said.push('\n');
                if let Some(text) = results.line(line) {
                    news(&format!("{text} ({:.0} s)", seconds()));
                }
            });
            (results, said, ended)
        };
        let (mut results, mut said, mut ended) = attempt();
        // Some kernels crash now and then while they boot under emulation, before wsmon is there.
        if results.release.is_none() {
            news(&format!(
                "did not reach its first process, booted again ({:.0} s)",
                seconds()
            ));
            (results, said, ended) = attempt();
        }
        let log = file("results.log");
        fs::write(&log, said).with_context(|| format!("could not write {}", log.display()))?;
        fs::remove_file(&initramfs)
            .with_context(|| format!("could not remove {}", initramfs.display()))?;
        Ok(Self {
            name,
            kernel,
            results,
            seconds: seconds(),
            expected,
            broken: ended.err(),
            console,
        })
    }

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
        let name = &self.name;
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
