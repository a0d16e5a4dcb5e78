//! `cargo xtask test`: everything this machine and user can run, from cheap to expensive.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    build_ebpf, chart, dist, fuzz, image, lint,
    program::Program,
    root::{Prerequisite, as_root, is_root},
    setup, vm,
    workspace::{self, cargo},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install nothing first
    #[arg(long)]
    no_setup: bool,
    /// Only tests whose name contains one of these; skips lint, the bytecode check, fuzzing and other
    /// kernels
    filter: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut report = Report::default();
    if !args.no_setup {
        report.section("set-up", setup::run_quietly);
    }
    if args.filter.is_empty() {
        report.section("lint", lint::run);
        report.section("bytecode", build_ebpf::run_check);
    }
    report.section("unit, property and oracle tests", || {
        workspace::run(cargo(&["test", "--no-fail-fast", "--"]).args(&args.filter))
    });
    if args.filter.is_empty() {
        report.section("chart", chart::run_check);
        report.section("fuzz targets, briefly", fuzz::run_briefly);
        report.section("packages", dist::run_check);
    }
    for target in RootTarget::all()? {
        match target.obstacle() {
            None => report.section(&target.title(), || target.run(&args.filter)),
            Some(why) => report.skip(&target.title(), why),
        }
    }
    if args.filter.is_empty() {
        for (title, measurement) in MEASUREMENTS {
            if is_root() {
                report.section(title, || measurement.run_briefly());
            } else {
                report.skip(title, "needs root");
            }
        }
        report.section(&vm::title(), vm::run_all);
    }
    report.finish()
}

/// The measuring commands in their smallest form. This checks that they work and count correctly,
/// not speed.
const MEASUREMENTS: [(&str, Program); 2] = [
    ("root: bench, briefly", Program::Bench),
    ("root: scale, briefly", Program::Scale),
];

/// A test target with `#[ignore = "needs root: …"]` tests to run.
enum RootTarget {
    /// Unit tests inside the crates.
    Unit,
    /// A file of a `tests` folder, or a folder in it with a `main.rs`.
    Integration(String),
}

impl RootTarget {
    /// All targets run one after another, because they share this machine's namespaces, ports and
    /// BPF memory. The tests of this one wait most of the time, so that many can run side by side, except
    /// those whose name begins with [`Self::ALONE`] or [`Self::FULL_LOAD`].
    const PATIENT: &str = "live";
    const ALONE: &str = "alone::";
    const FULL_LOAD: &str = "full_load::";
    const SIDE_BY_SIDE: &str = "--test-threads=4";
    const TWO_AT_A_TIME: &str = "--test-threads=2";

    /// All of them, with the slow ones last.
    fn all() -> Result<Vec<Self>> {
        let mut names = Vec::new();
        for folder in ["monitor/tests", "tests/lab/tests"] {
            // A crate without integration tests has no such folder.
            for entry in fs::read_dir(workspace::root().join(folder))
                .into_iter()
                .flatten()
            {
                names.extend(root_target(&entry?.path())?);
            }
        }
        names.sort_by_key(|name| (name == Self::PATIENT, name.clone()));
        Ok([Self::Unit]
            .into_iter()
            .chain(names.into_iter().map(Self::Integration))
            .collect())
    }

    fn title(&self) -> String {
        match self {
            Self::Unit => "root: unit tests".to_owned(),
            Self::Integration(name) => format!("root: {name}"),
        }
    }

    fn is_of_image(&self) -> bool {
        matches!(self, Self::Integration(name) if name == image::TESTS)
    }

    /// Why this machine or user can't run it.
    fn obstacle(&self) -> Option<&'static str> {
        if !is_root() {
            return Some("needs root");
        }
        self.is_of_image().then(image::obstacle).flatten()
    }

    fn run(&self, filter: &[String]) -> Result<()> {
        if self.is_of_image() {
            return image::test(filter);
        }
        let start = |arguments: &[&str]| {
            let mut command = root_tests();
            match self {
                Self::Unit => command.args(["--lib", "--bins"]),
                Self::Integration(name) => command.args(["--test", name]),
            };
            command.args(["--", "--ignored"]).args(arguments);
            workspace::run(command.args(filter))
        };
        match self {
            Self::Integration(name) if name == Self::PATIENT && filter.is_empty() => {
                // All, even if one fails.
                let side_by_side = start(&[
                    Self::SIDE_BY_SIDE,
                    "--skip",
                    Self::ALONE,
                    "--skip",
                    Self::FULL_LOAD,
                ]);
                let two_at_a_time = start(&[Self::TWO_AT_A_TIME, Self::ALONE]);
                let one_at_a_time = start(&["--test-threads=1", Self::FULL_LOAD]);
                side_by_side.and(two_at_a_time).and(one_at_a_time)
            }
            Self::Integration(name) if name == Self::PATIENT => start(&["--test-threads=1"]),
            _ => start(&[]),
        }
    }
}

/// Builds the tests that need root, and runs them unless the caller adds `--no-run`. Always of all
/// packages and in the same profile as the other tests, so that nothing is compiled twice.
pub(crate) fn root_tests() -> Command {
    cargo(&["test"])
}

/// Cargo's name of the test target at `path`, if there is one and some of its tests need root.
fn root_target(path: &Path) -> Result<Option<String>> {
    let name = if path.join("main.rs").is_file() {
        path.file_name()
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        path.file_stem()
    } else {
        None
    };
    match name {
        Some(name) if needs_root(path)? => Ok(Some(name.to_string_lossy().into_owned())),
        _ => Ok(None),
    }
}

/// Whether a test in this file, or in a file below this folder, needs root.
fn needs_root(path: &Path) -> Result<bool> {
    if path.is_file() {
        return Ok(fs::read_to_string(path)?.contains("#[ignore = \"needs root"));
    }
    for entry in fs::read_dir(path)? {
        if needs_root(&entry?.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[derive(Default)]
struct Report {
    sections: Vec<Section>,
}

struct Section {
    title: String,
    outcome: Outcome,
    took: Duration,
}

enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

impl Report {
    /// Runs one section to its end, even after a failure.
    fn section(&mut self, title: &str, run: impl FnOnce() -> Result<()>) {
        println!("\n=== {title}");
        let begin = Instant::now();
        let outcome = match run() {
            Ok(()) => Outcome::Passed,
            // Without root's rights a missing package is not a failure of the project.
            Err(error) if error.is::<Prerequisite>() && !is_root() => {
                Outcome::Skipped(format!("{error:#}"))
            }
            Err(error) => {
                println!("failed: {error:#}");
                Outcome::Failed(format!("{error:#}"))
            }
        };
        self.sections.push(Section {
            title: title.to_owned(),
            outcome,
            took: begin.elapsed(),
        });
    }

    fn skip(&mut self, title: &str, why: &str) {
        self.sections.push(Section {
            title: title.to_owned(),
            outcome: Outcome::Skipped(why.to_owned()),
            took: Duration::ZERO,
        });
    }

    /// Prints one line per section.
    ///
    /// # Errors
    /// If a section failed.
    fn finish(self) -> Result<()> {
        println!("\n=== summary");
        let (mut failed, mut skipped) = (0, 0);
        for Section {
            title,
            outcome,
            took,
        } in &self.sections
        {
            let (word, why) = match outcome {
                Outcome::Passed => ("ok", ""),
                Outcome::Failed(why) => {
                    failed += 1;
                    ("FAILED", why.as_str())
                }
                Outcome::Skipped(why) => {
                    skipped += 1;
                    ("skipped", why.as_str())
                }
            };
            let line = format!("{word:<8} {:>7.1} s  {title:<34} {why}", took.as_secs_f64());
            println!("{}", line.trim_end());
        }
        let total: Duration = self.sections.iter().map(|section| section.took).sum();
        println!("total    {:>7.1} s", total.as_secs_f64());
        if skipped > 0 {
            println!("to run what was skipped: {}", as_root("test"));
        }
        if failed > 0 {
            bail!("{failed} of {} sections failed", self.sections.len());
        }
        Ok(())
    }
}
