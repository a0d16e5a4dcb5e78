//! A disk image with Debian 12 and systemd, built with mmdebstrap from the mirror that apt is configured with.
//!
//! It stays in the user's cache, because a build takes longer than the tests in it, and a fresh clone has no
//! `target` folder. Whatever defines an image is in the name of its file.

use std::{
    env,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{
    apt::{self, Download, KEYRING},
    architecture::Architecture,
    folder,
};
use crate::{bytecode_lock::sha256, workspace};

/// The series of its kernel, which is pinned like those of the other guests.
pub(crate) const KERNEL_SERIES: &str = "6.1";
/// The programs that build an image.
pub(crate) const TOOLS: [&str; 3] = ["mmdebstrap", "genext2fs", "resize2fs"];
const SUITE: &str = "bookworm";
/// How the archive labels itself.
const ARCHIVE: &str = "Debian";
/// Installed in addition to apt and what Debian calls essential.
const PACKAGES: &str = "logrotate,passwd,rpm,systemd,systemd-sysv";
/// How mmdebstrap builds it. A suite of a stable release changes only with its point releases.
const OPTIONS: [&str; 8] = [
    "--mode=auto",
    "--variant=apt",
    // The kernel's ext4 reads it, and it can be written without mounting it.
    "--format=ext2",
    // Pages that no test reads. The package under test is installed without this exception.
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    // A machine without an identity would ask for one at its first boot.
    "--customize-hook=rm $1/etc/dpkg/dpkg.cfg.d/99mmdebstrap \
     && echo 77736d6f6e0000000000000000000000 >$1/etc/machine-id",
];
/// Its size, most of it free.
const SIZE: &str = "512M";
const EXTENSION: &str = "ext2";

/// A file with the image; built if it is not in the cache. The inner error says why there is none.
///
/// # Errors
/// If the build fails though the mirror answers.
pub(crate) fn image(architecture: Architecture) -> Result<Result<PathBuf, String>> {
    let definition = format!("{SUITE} {PACKAGES} {OPTIONS:?} {SIZE} {architecture}");
    let cache = cache()?;
    let name = format!(
        "{SUITE}-{}.{EXTENSION}",
        &sha256(definition.as_bytes())[..16]
    );
    let image = cache.join(&name);
    fs::create_dir_all(&cache).with_context(|| format!("could not make {}", cache.display()))?;
    let lock = cache.join("lock");
    // Held until the end of this function, so that nothing is built twice at once.
    let lock = File::create(&lock).with_context(|| format!("could not make {}", lock.display()))?;
    lock.lock().context("could not lock the cache")?;
    if image.is_file() {
        return Ok(Ok(image));
    }
    let archives = apt::host_archives()?;
    let Some((mirror, _)) = archives.iter().find(|(_, label)| *label == ARCHIVE) else {
        return Ok(Err(format!(
            "apt is configured with no archive that is labelled {ARCHIVE}"
        )));
    };
    let partial = image.with_extension("partial");
    if let Err(error) = build(architecture, mirror, &partial) {
        let release = format!("{mirror}dists/{SUITE}/InRelease");
        return match apt::fetch(&release, None, &folder().join("InRelease")) {
            Download::Complete => Err(error),
            Download::NotFound | Download::Failed(_) => Ok(Err(format!(
                "{mirror} does not answer, and no image is in {}",
                cache.display()
            ))),
        };
    }
    remove_images(&cache)?;
    fs::rename(&partial, &image).with_context(|| format!("could not make {}", image.display()))?;
    Ok(Ok(image))
}

fn build(architecture: Architecture, mirror: &str, image: &Path) -> Result<()> {
    println!("building an image of Debian 12 from {mirror}, for about a minute");
    fs::create_dir_all(folder()).context("could not make target/vm")?;
    let log = folder().join("mmdebstrap.log");
    let output =
        File::create(&log).with_context(|| format!("could not write {}", log.display()))?;
    // If it fails, it sends SIGHUP to its process group. If this thread ends, it stops and cleans up.
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "TERM", "mmdebstrap"])
        .process_group(0)
        .args(OPTIONS)
        .arg(format!("--architectures={}", architecture.debian()))
        .arg(format!("--include={PACKAGES}"))
        .arg(SUITE)
        .arg(image)
        .arg(format!("deb [signed-by={KEYRING}] {mirror} {SUITE} main"))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()
        .context("could not start mmdebstrap")?;
    if !status.success() {
        print!("{}", fs::read_to_string(&log).unwrap_or_default());
        bail!("mmdebstrap failed: {status}");
    }
    let mut resize = Command::new(workspace::on_path("resize2fs").context("no resize2fs")?);
    workspace::run(
        resize
            .arg(image)
            .arg(SIZE)
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    )
}

/// Removes the images of earlier definitions.
fn remove_images(cache: &Path) -> Result<()> {
    for entry in
        fs::read_dir(cache).with_context(|| format!("could not list {}", cache.display()))?
    {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == EXTENSION)
        {
            fs::remove_file(&path)
                .with_context(|| format!("could not remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// The folder of `wsmon` in the user's cache.
fn cache() -> Result<PathBuf> {
    let folder = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute())
        .or_else(|| Some(env::home_dir()?.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(folder.join("wsmon"))
}
