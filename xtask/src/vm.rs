//! `cargo xtask vm`: runs wsmon on other kernels and processors than this machine's.

mod apt;
mod architecture;
mod archive;
mod debian;
mod guest;
mod initramfs;
mod kernel;
mod machine;
mod module;
mod package_guest;
mod page;
mod pins;
mod results;
mod run;
mod table;
mod update;

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::Mutex,
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{cross, root::Prerequisite, workspace};
use architecture::Architecture;
use guest::{Guest, Programs};
use kernel::Kernel;
use machine::Accelerator;
use package_guest::PackageGuest;
use pins::Pins;
use run::Run;

#[derive(clap::Args)]
#[command(
    long_about = "Boots other kernels in QEMU, with nothing but wsmon and its tests in their memory, \
and runs there what needs root in monitor/tests/load.rs (the verifier accepts every configuration), \
monitor/tests/programs (packets are accounted as they are natively) and monitor/tests/end_to_end.rs (a dead \
connection is found from end to end). Prints the results as the tables of docs/kernels.md.

One more guest is Debian 12 with systemd. It installs wsmon's packages, uses, upgrades and removes \
them (xtask/src/vm/package_guest/test.sh). mmdebstrap builds its disk image once; it stays in $XDG_CACHE_HOME/wsmon or \
~/.cache/wsmon. Without root, that build needs the package uidmap.

Needs no root and no KVM, only the packages that `cargo xtask setup --tests` installs. Guests run side by \
side, as many as there are processors and memory for. Debian's kernels are fetched from the mirrors \
that apt is configured with, at the hashes of xtask/kernels.lock, and kept in target/vm, where the \
consoles of the guests and all that the tests printed are too. A kernel that no mirror has any more is \
skipped, and so is the package if there is no image and the mirror does not answer.",
    after_help = "\
Examples:
  cargo xtask vm                                every pinned kernel, and the package under systemd
  cargo xtask vm --package                      only the package under systemd
  cargo xtask vm 6.1                            Linux 6.1 on every processor
  cargo xtask vm aarch64                        every kernel for this processor
  cargo xtask vm x86_64/6.1 --filter shape      only tests whose name contains this
  cargo xtask vm --out docs                     and write the results into docs/kernels.md
  cargo xtask vm --update-pins                  pin the newest packages, and run nothing
  cargo xtask vm --update-pins x86_64/7.4       and one more kernel
  cargo xtask vm --kernel-deb linux-binary.deb,linux-modules.deb
  cargo xtask vm --kernel-package 'linux-image-unsigned-6.8.0-*-generic' \\
      --apt-source 'deb [signed-by=KEYRING] URI noble-updates main'

Exit codes: 0 ok, 1 failure, 2 usage error, 3 something has to be installed first."
)]
pub(crate) struct Args {
    /// Pinned kernels: a series, a processor, or both, by default all [example: x86_64/6.1]
    #[arg(value_name = "KERNEL")]
    kernels: Vec<String>,
    /// Only tests whose name contains one of these
    #[arg(long, value_name = "NAME")]
    filter: Vec<String>,
    /// A kernel in a Debian package, its modules in another one if necessary
    #[arg(long, value_name = "FILE[,FILE]", conflicts_with = "kernels")]
    kernel_deb: Vec<String>,
    /// The archive of --kernel-package, as a line of a sources.list
    #[arg(long, value_name = "LINE", requires = "kernel_package")]
    apt_source: Option<String>,
    /// A kernel of --apt-source by the name of its package; of several that match, the newest
    #[arg(
        long,
        value_name = "NAME[,NAME]",
        requires = "apt_source",
        conflicts_with = "kernels"
    )]
    kernel_package: Vec<String>,
    /// Only wsmon's packages, on Debian with systemd
    #[arg(long, conflicts_with_all = ["kernels", "filter", "kernel_deb", "kernel_package", "out"])]
    package: bool,
    /// Put the results into kernels.md of this folder
    #[arg(long, value_name = "FOLDER", conflicts_with = "filter")]
    out: Option<PathBuf>,
    /// Pin the newest packages in xtask/kernels.lock, of KERNEL too if it is not pinned yet
    #[arg(long, conflicts_with_all = ["filter", "kernel_deb", "kernel_package", "package", "out"])]
    update_pins: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.update_pins {
        return update::run(&args.kernels);
    }
    let mut plan = Plan::default();
    for files in &args.kernel_deb {
        let files: Vec<_> = files.split(',').map(PathBuf::from).collect();
        plan.kernels.push(Kernel::of_files(&files)?);
    }
    if let Some(source) = &args.apt_source {
        for names in &args.kernel_package {
            plan.kernels.push(from_archive(source, names)?);
        }
    }
    if args.package {
        plan.has_package = true;
    } else if plan.kernels.is_empty() {
        plan = Plan::of_pins(&args.kernels)?;
        plan.has_package = args.kernels.is_empty() && args.filter.is_empty();
    }
    let outcome = plan.run(&args.filter)?;
    if let Some(folder) = &args.out {
        page::update(folder, &outcome.runs)?;
    }
    outcome.conclude(&args.filter)
}

/// Everything on every pinned kernel, and the package.
///
/// # Errors
/// If a test fails anywhere; a [`Prerequisite`] if there is no QEMU.
pub(crate) fn run_all() -> Result<()> {
    let mut plan = Plan::of_pins(&[])?;
    plan.has_package = true;
    plan.run(&[])?.conclude(&[])
}

/// The title of [`run_all`] in a summary.
pub(crate) fn title() -> String {
    let kernels = Pins::read().map_or(0, |pins| pins.kernels.len());
    format!("vm: {kernels} other kernels, the package")
}

/// Guests to boot, and those that can't be booted.
#[derive(Default)]
struct Plan {
    kernels: Vec<Kernel>,
    /// Whether the package is tested too.
    has_package: bool,
    /// Names of guests, and why they are skipped.
    skipped: Vec<(String, String)>,
}

/// What a worker does next.
enum Job {
    Package(PackageGuest),
    /// The tests on a kernel, and its place in the report.
    Tests(usize, Kernel),
}

impl Plan {
    fn of_pins(selections: &[String]) -> Result<Self> {
        let mut plan = Self::default();
        let archives = archives()?;
        for pin in Pins::read()?.select(selections)? {
            let target = pin.name.architecture.target();
            if !pin.name.architecture.is_native() && !cross::has_standard_library(target) {
                let why = format!("rustc cannot build for it: rustup target add {target}");
                plan.skipped.push((pin.name.to_string(), why));
                continue;
            }
            match Kernel::pinned(&pin, &archives)? {
                Ok(kernel) => plan.kernels.push(kernel),
                Err(gone) => plan.skipped.push((pin.name.to_string(), gone.reason())),
            }
        }
        Ok(plan)
    }

    /// Boots all, with as many in parallel as this machine can handle.
    fn run(self, filter: &[String]) -> Result<Outcome> {
        let Self {
            kernels,
            has_package,
            mut skipped,
        } = self;
        let mut architectures: Vec<_> = kernels.iter().map(|k| k.name.architecture).collect();
        architectures.sort();
        architectures.dedup();
        let tools: &[&str] = if has_package { &debian::TOOLS } else { &[] };
        machine::require(&architectures, tools)?;
        let mut programs = BTreeMap::new();
        let pins = Pins::read()?;
        for architecture in architectures {
            if !architecture.is_native() {
                cross::require(architecture.target())?;
            }
            println!("{architecture}: building the tests");
            let built = Programs::build(architecture, &pins, &archives()?)?;
            let kernel = kernels.iter().find(|k| k.name.architecture == architecture);
            let image = kernel.context("a processor without a kernel")?.image()?;
            let accelerator = Accelerator::find(architecture, &image);
            println!("{architecture}: guests run by {accelerator}");
            programs.insert(architecture, (accelerator, built));
        }

        let mut tests: Vec<_> = kernels.into_iter().enumerate().collect();
        // The slowest first: an emulated processor, then the newest verifiers.
        tests.sort_by_key(|(index, kernel)| {
            (
                kernel.name.architecture.is_native(),
                std::cmp::Reverse(*index),
            )
        });
        let mut jobs: VecDeque<_> = tests
            .into_iter()
            .map(|(index, kernel)| Job::Tests(index, kernel))
            .collect();
        if has_package {
            match PackageGuest::build(&archives()?)? {
                Ok(package) => jobs.push_front(Job::Package(package)),
                Err(why) => skipped.push((package_guest::NAME.to_owned(), why)),
            }
        }
        for (name, why) in &skipped {
            println!("{name}: skipped, {why}");
        }
        let slots = guest::slots()?.min(jobs.len());
        println!("{} guests, {slots} side by side", jobs.len());
        let queue = Mutex::new(jobs);
        let runs = Mutex::new(Vec::new());
        let package = Mutex::new(None);
        thread::scope(|scope| {
            let work = || -> Result<()> {
                loop {
                    let next = queue.lock().expect("no worker panics").pop_front();
                    match next {
                        None => return Ok(()),
                        Some(Job::Tests(index, kernel)) => {
                            let name = kernel.name.to_string();
                            let (accelerator, programs) = &programs[&kernel.name.architecture];
                            let news = |text: &str| println!("{name}: {text}");
                            let run = Guest { kernel }.run(*accelerator, programs, filter, news)?;
                            runs.lock().expect("no worker panics").push((index, run));
                        }
                        Some(Job::Package(job)) => {
                            let news = |text: &str| println!("{}: {text}", package_guest::NAME);
                            *package.lock().expect("no worker panics") = Some(job.run(news)?);
                        }
                    }
                }
            };
            let workers: Vec<_> = (0..slots).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })?;
        let mut runs = runs.into_inner().expect("no worker panicked");
        runs.sort_by_key(|(index, _)| *index);
        let package = match package
            .into_inner()
            .expect("no worker panicked")
            .transpose()
        {
            Ok(run) => run,
            Err(why) => {
                skipped.push((package_guest::NAME.to_owned(), why));
                None
            }
        };
        Ok(Outcome {
            runs: runs.into_iter().map(|(_, run)| run).collect(),
            package,
            skipped,
        })
    }
}

/// What all guests gave.
struct Outcome {
    /// Of the tests on kernels.
    runs: Vec<Run>,
    package: Option<Run>,
    skipped: Vec<(String, String)>,
}

impl Outcome {
    /// Prints all results.
    ///
    /// # Errors
    /// If a test failed anywhere, or no guest ran.
    fn conclude(&self, filter: &[String]) -> Result<()> {
        let all = || self.runs.iter().chain(&self.package);
        for run in all() {
            run.explain(filter);
        }
        if !self.runs.is_empty() {
            println!("\n{}", table::tables(&self.runs));
        }
        if let Some(run) = &self.package {
            println!("{}", package_guest::summary(run));
        }
        for (name, why) in &self.skipped {
            println!("{name}: SKIPPED, {why}");
        }
        ensure!(all().next().is_some(), "no guest ran");
        let failed: Vec<_> = all()
            .filter(|run| !run.complaints(filter).is_empty())
            .map(|run| run.name.clone())
            .collect();
        ensure!(failed.is_empty(), "failed on {}", failed.join(", "));
        Ok(())
    }
}

/// The newest packages of an archive with matching names, as a kernel.
fn from_archive(source: &str, names: &str) -> Result<Kernel> {
    let apt = apt::Apt::new(&folder().join("apt-source"), &[source.to_owned()])?;
    let archives: Vec<_> = apt.archives()?.into_iter().collect();
    let mut files = Vec::new();
    for name in names.split(',') {
        let mut offers = Vec::new();
        for architecture in Architecture::ALL {
            offers.extend(apt.offers(name, architecture)?);
        }
        let Some(offer) = apt::newest(&offers)? else {
            bail!("{source} has no package {name}");
        };
        println!("{}: fetching {}", offer.name, offer.version);
        let file = folder().join(offer.package.file_name());
        kernel::fetch(&offer.package, &archives, &file)?
            .map_err(|gone| anyhow::anyhow!("{source} has no {}", gone.file_name))?;
        files.push(file);
    }
    Kernel::of_files(&files)
}

/// The archives in this machine's apt configuration; none if there is no apt.
fn archives() -> Result<Vec<String>> {
    if workspace::on_path("apt-get").is_none() {
        return Err(Prerequisite {
            missing: "pinned kernels come from Debian's archives, and apt-get is not here".into(),
            remedy: vec!["cargo xtask vm --kernel-deb FILE".into()],
        }
        .into());
    }
    Ok(apt::host_archives()?.into_keys().collect())
}

/// Folder of the kernels and of the guests' output.
fn folder() -> PathBuf {
    workspace::root().join("target/vm")
}
