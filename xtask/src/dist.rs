//! `cargo xtask dist`: the files of a release.

mod archive;
pub(crate) mod sbom;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    bytecode_lock::sha256,
    chart, cross,
    files::{read, recreate, write},
    image,
    package::{self, Package},
    release_build::Effort,
    source,
};

/// The file with the checksums of all others.
const CHECKSUMS: &str = "SHA256SUMS";

#[derive(clap::Args)]
#[command(
    long_about = "Builds the files of a release from the last commit into target/dist, after removing what is there: for \
each processor an archive with wsmon, its documents and deploy/, a Debian package, an rpm, a container image, and a list of \
what is inside (CycloneDX); the Helm chart; and SHA256SUMS. The same commit gives the same files, byte for byte, with \
the same compiler and packing tools. `cargo xtask setup --tests` installs what is needed. RELEASE.md says how to make a release.",
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
    /// Leave out the container image, which needs root and buildah
    #[arg(long)]
    no_image: bool,
    /// Number of the packages of this version
    #[arg(long, value_name = "N", default_value_t = 1)]
    revision: u32,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if !args.allow_dirty {
        source::require_clean()?;
    }
    let commit = source::revision()?;
    let targets: Vec<_> = match &args.target {
        Some(target) => vec![cross::given_or_native(Some(target))?],
        None => cross::TARGETS.iter().collect(),
    };
    // Before the builds, which take minutes.
    for target in &targets {
        cross::require(target.name)?;
    }
    package::require_programs()?;
    if !args.no_image {
        image::require_programs()?;
    }
    let folder = Effort::Full.folder()?;
    recreate(&folder)?;
    let mut artifacts = Vec::new();
    for target in targets {
        let package = Package::build(target, Effort::Full, args.revision)?;
        package.require_portable()?;
        artifacts.extend(Artifacts::pack(&package)?.all());
        if !args.no_image {
            let image = image::build(package.target(), package.wsmon(), &folder)?;
            artifacts.push(image);
        }
    }
    artifacts.push(chart::archive(&folder, source::date()?)?);
    if !args.allow_dirty {
        // They were read until now.
        source::require_clean().context("the sources changed while they were packed")?;
        ensure!(
            source::revision()? == commit,
            "{commit} is not the last commit any more; run `cargo xtask dist` again"
        );
    }
    artifacts.push(write_checksums(&folder, &artifacts)?);
    for artifact in artifacts {
        let size = fs::metadata(&artifact).map_or(0, |metadata| metadata.len());
        println!("{}, {} KiB", artifact.display(), size.div_ceil(1024));
    }
    Ok(())
}

/// Packs what a release has for this machine's processor twice into `target/dist-test`, compares it, and checks the
/// packages. wsmon is linked as for other tests.
///
/// # Errors
/// With what is different or wrong.
pub(crate) fn run_check() -> Result<()> {
    let package = Package::build(cross::given_or_native(None)?, Effort::Quick, 1)?;
    let folder = package.folder();
    let first = checksums(folder, &Artifacts::pack(&package)?.all())?;
    let artifacts = Artifacts::pack(&package)?;
    package::check(&artifacts.deb, &artifacts.rpm)?;
    let second = checksums(folder, &artifacts.all())?;
    ensure!(
        first == second,
        "the same files give other bytes when they are packed again:\n{first}{second}"
    );
    Ok(())
}

/// What a release has for one processor.
struct Artifacts {
    archive: PathBuf,
    deb: PathBuf,
    rpm: PathBuf,
    sbom: PathBuf,
}

impl Artifacts {
    fn pack(package: &Package) -> Result<Self> {
        Ok(Self {
            archive: archive::write(package)?,
            deb: package.deb()?,
            rpm: package.rpm()?,
            sbom: sbom::write(
                package.folder(),
                &package.name(),
                package.target().name,
                package.date(),
            )?,
        })
    }

    fn all(self) -> [PathBuf; 4] {
        let Self {
            archive,
            deb,
            rpm,
            sbom,
        } = self;
        [archive, deb, rpm, sbom]
    }
}

fn write_checksums(folder: &Path, artifacts: &[PathBuf]) -> Result<PathBuf> {
    let path = folder.join(CHECKSUMS);
    write(&path, checksums(folder, artifacts)?.as_bytes(), 0o644)?;
    Ok(path)
}

/// In the format of sha256sum.
fn checksums(folder: &Path, artifacts: &[PathBuf]) -> Result<String> {
    let lines = artifacts.iter().map(|artifact| {
        let name = artifact.strip_prefix(folder).unwrap_or(artifact);
        Ok(format!(
            "{}  {}\n",
            sha256(&read(artifact)?),
            name.display()
        ))
    });
    lines.collect()
}
