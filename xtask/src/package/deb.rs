//! The Debian package.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use super::{
    Package,
    install_tree::{CONFIGURATION, InstallTree, gzip},
    shared_libraries::GlibcVersion,
};
use crate::{
    files::{output, read, remove, write},
    source, workspace,
};

/// Where the copyright and the maintainer scripts are.
const SOURCES: &str = "deploy/package/debian";
const SCRIPTS: [&str; 3] = ["postinst", "postrm", "prerm"];
const MAINTAINER: &str = "The wsmon authors <wsmon@packages.invalid>";

/// Packs `tree` and what only Debian wants; returns the path of the package.
pub(super) fn build(package: &Package, mut tree: InstallTree) -> Result<PathBuf> {
    let sources = workspace::root().join(SOURCES);
    let version = version(package.revision);
    let changelog = gzip(changelog(&version, package.date)?.as_bytes())?;
    tree.add("usr/share/doc/wsmon/changelog.Debian.gz", changelog, 0o644);
    let copyright = read(&sources.join("copyright"))?;
    tree.add("usr/share/doc/wsmon/copyright", copyright, 0o644);

    let architecture = package.target.debian_architecture;
    let stage = package.folder.join(format!("stage.{architecture}.deb"));
    tree.write(&stage)?;
    let checksums = output(
        Command::new("md5sum")
            .arg("--")
            .args(tree.paths().filter(|path| !path.starts_with("etc")))
            .current_dir(&stage),
    )?;
    let configuration: String = CONFIGURATION.map(|path| format!("/{path}\n")).concat();
    let control = control(&version, architecture, package.glibc, tree.kibibytes());
    let parts = stage.join("DEBIAN");
    write(&parts.join("control"), control.as_bytes(), 0o644)?;
    write(&parts.join("conffiles"), configuration.as_bytes(), 0o644)?;
    write(&parts.join("md5sums"), &checksums, 0o644)?;
    for name in SCRIPTS {
        write(&parts.join(name), &read(&sources.join(name))?, 0o755)?;
    }

    let deb = package
        .folder
        .join(format!("wsmon_{version}_{architecture}.deb"));
    let mut command = Command::new("dpkg-deb");
    command
        // xz, because Debian's dpkg does not read zstd. One thread, because the output depends on their number.
        .args(["--root-owner-group", "-Zxz", "--build"])
        .arg(&stage)
        .arg(&deb)
        .env("SOURCE_DATE_EPOCH", package.date.to_string())
        .env("DPKG_DEB_THREADS_MAX", "1");
    output(&mut command)?;
    remove(&stage)?;
    Ok(deb)
}

/// The version of wsmon with that of its packaging.
fn version(revision: u32) -> String {
    format!("{}-{revision}", env!("CARGO_PKG_VERSION"))
}

/// The package's control file. Sizes are in KiB.
fn control(version: &str, architecture: &str, glibc: GlibcVersion, size: usize) -> String {
    format!(
        "Package: wsmon\n\
         Version: {version}\n\
         Architecture: {architecture}\n\
         Maintainer: {MAINTAINER}\n\
         Installed-Size: {size}\n\
         Depends: libc6 (>= {glibc}), libgcc-s1 (>= 4.2), systemd | systemd-standalone-sysusers | systemd-sysusers\n\
         Suggests: logrotate\n\
         Section: net\n\
         Priority: optional\n\
         Description: reports dead WebSocket connections\n \
         wsmon finds WebSocket connections that are dead although both ends believe\n \
         that they are open, and storms of clients that reconnect. It watches with\n \
         programs in the kernel and needs no change of the application.\n"
    )
}

/// Debian's changelog, with one entry: what changed in wsmon is in its own.
fn changelog(version: &str, date: u64) -> Result<String> {
    let date = source::timestamp(date)?.strftime("%a, %d %b %Y %H:%M:%S +0000");
    Ok(format!(
        "wsmon ({version}) unstable; urgency=medium\n\n  \
         * The changes of this version are in /usr/share/doc/wsmon/changelog.gz.\n\n \
         -- {MAINTAINER}  {date}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changelog_has_the_form_that_debian_wants() {
        assert_eq!(
            changelog("1.2.3-4", 0).unwrap(),
            "wsmon (1.2.3-4) unstable; urgency=medium\n\n  \
             * The changes of this version are in /usr/share/doc/wsmon/changelog.gz.\n\n \
             -- The wsmon authors <wsmon@packages.invalid>  Thu, 01 Jan 1970 00:00:00 +0000\n"
        );
    }
}
