//! `cargo xtask dist`: the files of a release.

mod archive;
mod sbom;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    bytecode_lock::sha256,
    cross::{self, Target},
    files::{read, recreate},
    package::{self, Package},
    release_build::{Effort, PROGRAM},
    source,
};

/// The file with the checksums of all others, in the format of sha256sum.
const CHECKSUMS: &str = "SHA256SUMS";

#[derive(clap::Args)]
#[command(
    long_about = "Builds the files of a release from the last commit into target/dist, after removing what is there: for \
each processor an archive with wsmon, its documents and deploy/, a Debian package, an rpm, and a list of what is \
inside (CycloneDX); and SHA256SUMS. The same commit gives the same files, byte for byte, with the same compiler and \
packing tools. `cargo xtask setup --tests` installs what is needed. RELEASE.md says how to make a release.",
    after_help = "\
Examples:
  cargo xtask dist                                            for every processor
  cargo xtask dist --target aarch64-unknown-linux-gnu         for one
  cd target/dist && sha256sum --check SHA256SUMS              are the files what was built?

Exit codes: 0 ok, 1 failure, 2 usage error, 3 something has to be installed first."
)]
pub(crate) struct Args {
    /// Target to build for [default: all]
    #[arg(long, value_name = "TARGET", value_parser = cross::TARGETS.map(|target| target.name))]
    target: Option<String>,
    /// Pack sources that differ from the last commit, for a trial
    #[arg(long)]
    allow_dirty: bool,
    /// Number of the packages of this version
    #[arg(long, value_name = "N", default_value_t = 1)]
    revision: u32,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if !args.allow_dirty {
        source::require_clean()?;
    }
    let targets: Vec<_> = match &args.target {
        Some(target) => vec![cross::given_or_native(Some(target))?],
        None => cross::TARGETS.iter().collect(),
    };
    for target in &targets {
        cross::require(target.name)?;
    }
    let folder = package::folder();
    recreate(&folder)?;
    let date = source::date()?;
    let mut artifacts = Vec::new();
    for target in targets {
        artifacts.extend(of_target(&folder, target, args.revision, date)?);
    }
    artifacts.push(write_checksums(&folder, &artifacts)?);
    for artifact in artifacts {
        let size = fs::metadata(&artifact).map_or(0, |metadata| metadata.len());
        println!("{}, {} KiB", artifact.display(), size.div_ceil(1024));
    }
    Ok(())
}

/// What a release has for each processor.
fn of_target(
    folder: &Path,
    target: &'static Target,
    revision: u32,
    date: u64,
) -> Result<Vec<PathBuf>> {
    let package = Package::build(target, Effort::Full, revision)?;
    let name = format!("{PROGRAM}-{}-{}", env!("CARGO_PKG_VERSION"), target.name);
    Ok(vec![
        archive::archive(folder, &name, &package, date)?,
        package.deb()?,
        package.rpm()?,
        sbom::write(folder, &name, target.name, date)?,
    ])
}

fn write_checksums(folder: &Path, artifacts: &[PathBuf]) -> Result<PathBuf> {
    let mut lines = Vec::new();
    for artifact in artifacts {
        let bytes = read(artifact)?;
        let name = artifact.strip_prefix(folder).unwrap_or(artifact);
        lines.push(format!("{}  {}\n", sha256(&bytes), name.display()));
    }
    let path = folder.join(CHECKSUMS);
    fs::write(&path, lines.concat())
        .with_context(|| format!("could not write {}", path.display()))?;
    Ok(path)
}
