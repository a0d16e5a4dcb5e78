//! Programs of this workspace that other commands run.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{artifacts::executables, workspace::cargo};

/// Builds wsmon in release mode and returns its path.
pub(crate) fn wsmon() -> Result<PathBuf> {
    let mut command = cargo(&["build", "--quiet", "--release"]);
    command.args(["--package", "monitor", "--bin", "wsmon"]);
    executables(&mut command)?
        .into_iter()
        .find_map(|made| (made.name == "wsmon").then_some(made.path))
        .context("cargo built wsmon but did not say where")
}
