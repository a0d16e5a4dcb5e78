//! `cargo xtask package`: wsmon as a Debian package and as an rpm.

mod check;
mod deb;
mod install_tree;
mod rpm;
mod shared_libraries;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};

use crate::{
    cross::{self, Target},
    files::read,
    release_build::{self, Effort, PROGRAM},
    root::Prerequisite,
    source, third_party, workspace,
};
pub(crate) use check::check;
use install_tree::{Generated, InstallTree, Layout};
use shared_libraries::{GlibcVersion, glibc_version};

/// The version of glibc with which a release must run, as the documents promise: that of RHEL 9, the oldest one of the
/// distributions there.
const OLDEST_GLIBC: GlibcVersion = GlibcVersion(2, 34);

#[derive(clap::Args)]
#[command(
    long_about = "Builds wsmon in release mode and packs it into target/dist/wsmon_VERSION-REVISION_ARCHITECTURE.deb \
and wsmon-VERSION-REVISION.ARCHITECTURE.rpm, with unit, configuration, man pages, completions and documentation. The \
same files give the same packages, byte for byte. `cargo xtask setup --tests` installs rpmbuild and what other \
processors need.",
    after_help = "\
Examples:
  cargo xtask package                                         for this machine's processor
  cargo xtask package --target aarch64-unknown-linux-gnu      for another one
  cargo xtask package --quick --revision 2                    a second one, to try an upgrade

Exit codes: 0 ok, 1 failure, 2 usage error, 3 something has to be installed first."
)]
pub(crate) struct Args {
    /// Target to build for [default: this machine's]
    #[arg(long, value_name = "TARGET", value_parser = cross::TARGETS.map(|target| target.name))]
    target: Option<String>,
    /// Link as tests do, without optimization, which takes a part of the time, and write to target/dist-test
    #[arg(long)]
    quick: bool,
    /// Number of the packages of this version
    #[arg(long, value_name = "N", default_value_t = 1)]
    revision: u32,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let target = cross::given_or_native(args.target.as_deref())?;
    let effort = match args.quick {
        true => Effort::Quick,
        false => Effort::Full,
    };
    let package = Package::build(target, effort, args.revision)?;
    for package in [package.deb()?, package.rpm()?] {
        let size = fs::metadata(&package).map_or(0, |metadata| metadata.len());
        println!("{}, {} KiB", package.display(), size / 1024);
    }
    Ok(())
}

/// Fails unless this machine can build packages.
///
/// # Errors
/// [`Prerequisite`] with what is missing.
pub(crate) fn require_programs() -> Result<()> {
    let programs = [
        ("dpkg-deb", "build on Debian or Ubuntu"),
        ("rpmbuild", "cargo xtask setup --tests"),
    ];
    let missing = programs.map(|(name, remedy)| (workspace::on_path(name).is_none(), name, remedy));
    let missing: Vec<_> = missing.iter().filter(|(missing, ..)| *missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|(_, name, _)| *name).collect();
    Err(Prerequisite {
        missing: format!("not installed: {}", names.join(", ")),
        remedy: missing
            .iter()
            .map(|(.., remedy)| (*remedy).to_owned())
            .collect(),
    }
    .into())
}

/// wsmon for one processor, and what the packages are made of.
pub(crate) struct Package {
    target: &'static Target,
    /// Where its files are put.
    folder: PathBuf,
    wsmon: Vec<u8>,
    /// The oldest version with which it runs.
    glibc: GlibcVersion,
    generated: Generated,
    /// The licences of the crates inside it.
    third_party: String,
    revision: u32,
    date: u64,
}

impl Package {
    /// Builds wsmon. The files are put into the folder of `effort`.
    ///
    /// # Errors
    /// If something is missing, or the build fails.
    pub(crate) fn build(target: &'static Target, effort: Effort, revision: u32) -> Result<Self> {
        require_programs()?;
        let date = source::date()?;
        let wsmon = release_build::build(target, effort)?;
        // Another processor's program does not run here, and its man pages are the same.
        let runnable = match target.is_native() {
            true => wsmon.clone(),
            false => release_build::build(cross::given_or_native(None)?, effort)?,
        };
        let folder = effort.folder()?;
        let wsmon = read(&wsmon)?;
        Ok(Self {
            target,
            glibc: glibc_version(&wsmon)?,
            wsmon,
            generated: Generated::by(&runnable, date, &folder)?,
            third_party: third_party::licences(target.name)?,
            revision,
            date,
            folder,
        })
    }

    /// Fails if it does not run where a release has to run.
    ///
    /// # Errors
    /// With the remedy.
    pub(crate) fn require_portable(&self) -> Result<()> {
        ensure!(
            self.glibc <= OLDEST_GLIBC,
            "wsmon for {} needs glibc {}, and a release must run with {OLDEST_GLIBC}\nbuild on an older distribution, \
             or find the symbol: nm --dynamic PROGRAM | grep GLIBC_{}",
            self.target.name,
            self.glibc,
            self.glibc,
        );
        Ok(())
    }

    /// The name of its files other than packages.
    pub(crate) fn name(&self) -> String {
        format!(
            "{PROGRAM}-{}-{}",
            env!("CARGO_PKG_VERSION"),
            self.target.name
        )
    }

    pub(crate) fn target(&self) -> &'static Target {
        self.target
    }

    /// Where its files are put.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The time of all files, in seconds since 1970.
    pub(crate) fn date(&self) -> u64 {
        self.date
    }

    /// The program.
    pub(crate) fn wsmon(&self) -> &[u8] {
        &self.wsmon
    }

    /// The licences of the crates inside it.
    pub(crate) fn third_party(&self) -> &str {
        &self.third_party
    }

    /// The Debian package.
    ///
    /// # Errors
    /// If dpkg-deb fails.
    pub(crate) fn deb(&self) -> Result<PathBuf> {
        deb::build(self, self.tree(Layout::Debian)?)
    }

    /// The rpm.
    ///
    /// # Errors
    /// If rpmbuild fails.
    pub(crate) fn rpm(&self) -> Result<PathBuf> {
        rpm::build(self, &self.tree(Layout::Rpm)?)
    }

    /// The next rpm of this version, whose example of a configuration ends with `line`. An update has to decide
    /// between that and the administrator's file.
    ///
    /// # Errors
    /// If rpmbuild fails.
    pub(crate) fn next_rpm(self, line: &str) -> Result<PathBuf> {
        let mut tree = self.tree(Layout::Rpm)?;
        tree.append_to_example(line);
        let next = Self {
            revision: self.revision + 1,
            ..self
        };
        rpm::build(&next, &tree)
    }

    fn tree(&self, layout: Layout) -> Result<InstallTree> {
        InstallTree::new(
            layout,
            &workspace::root(),
            &self.wsmon,
            &self.generated,
            &self.third_party,
        )
    }
}
