//! The rpm.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use super::{Package, install_tree::InstallTree};
use crate::{
    files::{output, recreate, remove},
    workspace,
};

const SPEC: &str = "deploy/package/wsmon.spec";

/// Packs `tree`; returns the path of the package.
pub(super) fn build(package: &Package, tree: &InstallTree) -> Result<PathBuf> {
    let architecture = package.target.rpm_architecture();
    let [stage, work] =
        ["stage", "work"].map(|what| package.folder.join(format!("{what}.{architecture}.rpm")));
    tree.write(&stage)?;
    recreate(&work)?;
    let (version, release) = (env!("CARGO_PKG_VERSION"), package.revision);
    let definitions = [
        ("package_version", version),
        ("package_release", &release.to_string()),
        ("stage", &stage.to_string_lossy()),
        ("_topdir", &work.to_string_lossy()),
        // The same bytes at any time on any machine.
        ("_buildhost", "reproducible"),
        ("use_source_date_epoch_as_buildtime", "1"),
        ("clamp_mtime_to_source_date_epoch", "1"),
        // One thread, because the output depends on their number.
        ("_binary_payload", "w6.xzdio"),
    ];
    let mut command = Command::new("rpmbuild");
    command
        .args(["-bb", "--quiet", "--target", architecture])
        .env("SOURCE_DATE_EPOCH", package.date.to_string());
    for (name, value) in definitions {
        command.arg("--define").arg(format!("{name} {value}"));
    }
    output(command.arg(workspace::root().join(SPEC)))?;

    let name = format!("wsmon-{version}-{release}.{architecture}.rpm");
    let rpm = package.folder.join(&name);
    let built = work.join("RPMS").join(architecture).join(&name);
    std::fs::rename(&built, &rpm)
        .with_context(|| format!("could not move {} to {}", built.display(), rpm.display()))?;
    remove(&work)?;
    remove(&stage)?;
    Ok(rpm)
}
