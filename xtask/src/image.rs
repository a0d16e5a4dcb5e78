//! `cargo xtask image`: builds the container image, and tests it in podman.

mod builder;
mod debian_files;
mod libraries;
mod rootfs;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    artifacts::executables,
    cross::{self, Target},
    files::{output, read},
    release_build::{self, Effort},
    source,
    test::root_tests,
    workspace,
};
pub(crate) use builder::require_programs;

use builder::{Builder, Labels};

/// The test target that runs the image, `monitor/tests/image`, and the variable that leads it there.
pub(crate) const TESTS: &str = "image";
const IMAGE: &str = "WSMON_IMAGE";

#[derive(clap::Args)]
#[command(
    long_about = "Builds the container image from deploy/container, the release build of wsmon and the files of \
the C library that it needs. Writes target/dist/wsmon-VERSION-TARGET.oci.tar, an archive in the OCI format. The same \
files give the same archive, byte for byte; its time is SOURCE_DATE_EPOCH or else that of the commit. The C library \
is that of this machine, which must be Debian or Ubuntu. Needs root and buildah, which `cargo xtask setup --tests` \
installs, and no network.",
    after_help = "\
Examples:
  cargo xtask image                                        for this machine's processor
  cargo xtask image --target aarch64-unknown-linux-gnu     for another one
  cargo xtask image --test                                 and run it in podman, built as tests are
  podman load --input target/dist/wsmon-*.oci.tar          localhost/wsmon:VERSION
  skopeo copy oci-archive:FILE docker://REGISTRY/wsmon     to a registry

Exit codes: 0 ok, 1 failure, 2 usage error, 3 something has to be installed first."
)]
pub(crate) struct Args {
    /// Target to build for [default: this machine's]
    #[arg(long, value_name = "TARGET", value_parser = cross::TARGETS.map(|target| target.name))]
    target: Option<String>,
    /// Build for this machine without optimization when linking, into target/dist-test, and test the image in podman
    #[arg(long, conflicts_with = "target")]
    test: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.test {
        return test(&[]);
    }
    let target = cross::given_or_native(args.target.as_deref())?;
    require_programs()?;
    let wsmon = release_build::build(target, Effort::Full)?;
    let image = build(target, &read(&wsmon)?, &Effort::Full.folder()?)?;
    let size = fs::metadata(&image).map_or(0, |metadata| metadata.len());
    println!("{}, {} KiB", image.display(), size / 1024);
    Ok(())
}

/// Why this machine can't test the image, if it is not for something that `cargo xtask setup` installs.
pub(crate) fn obstacle() -> Option<&'static str> {
    let has_dpkg = workspace::on_path("dpkg-query").is_some();
    (!has_dpkg).then_some("the image is made of Debian's C library")
}

/// Builds the image with the wsmon of other tests, twice to compare, and runs those of its tests whose name contains
/// one of `filter`.
///
/// # Errors
/// [`Prerequisite`](crate::root::Prerequisite) without root's rights or buildah, and if the build or a test fails.
pub(crate) fn test(filter: &[String]) -> Result<()> {
    let of_image = ["--test", TESTS];
    let built = executables(root_tests().args(["--quiet", "--no-run"]).args(of_image))?;
    let tests = built.iter().find(|built| built.name == TESTS);
    let tests = tests.context("cargo did not say where it put the tests of the image")?;
    let list = output(
        Command::new(&tests.path)
            .args(["--list", "--ignored"])
            .args(filter),
    )?;
    if !String::from_utf8_lossy(&list).contains(": test") {
        return Ok(());
    }
    require_programs()?;
    let target = cross::given_or_native(None)?;
    let wsmon = read(&release_build::build(target, Effort::Quick)?)?;
    let folder = Effort::Quick.folder()?;
    let image = build(target, &wsmon, &folder)?;
    let first = read(&image)?;
    build(target, &wsmon, &folder)?;
    ensure!(
        first == read(&image)?,
        "a second build of the same files gave another {}",
        image.display()
    );
    let mut tests = root_tests();
    tests.args(of_image).args(["--", "--ignored"]);
    workspace::run(tests.args(filter).env(IMAGE, image))
}

/// Builds the image with `wsmon`, the content of a release build for `target`; returns the path of its archive in
/// `folder`.
///
/// # Errors
/// [`Prerequisite`](crate::root::Prerequisite) without root's rights or buildah, and if a step fails.
pub(crate) fn build(target: &Target, wsmon: &[u8], folder: &Path) -> Result<PathBuf> {
    let created = source::date()?;
    let builder = Builder::new(target)?;
    let licences = rootfs::stage(&builder.rootfs(), target, wsmon, created)?;
    let labels = Labels {
        version: env!("CARGO_PKG_VERSION"),
        revision: source::revision()?,
        created,
        licences,
    };
    builder.build(&labels, folder)
}

/// A path in the image as one below the folder that becomes its root.
fn below_root(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}
