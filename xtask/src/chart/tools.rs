//! Helm and the schemas of Kubernetes: packages of Python at the versions that `requirements.txt` pins.

use std::{fs, path::PathBuf};

use anyhow::Result;

use crate::{bytecode_lock::sha256, peers::virtual_environment, setup::Steps, workspace};

/// The packages, each with the digests of its files.
const REQUIREMENTS: &str = include_str!("requirements.txt");

/// Where they are installed.
pub(super) fn folder() -> PathBuf {
    workspace::root().join("target/chart")
}

/// The interpreter that finds them.
pub(super) fn python() -> PathBuf {
    venv().join("bin/python")
}

fn venv() -> PathBuf {
    folder().join("venv")
}

/// Installs the packages, unless they are there.
///
/// # Errors
/// If Python or pip fails.
pub(crate) fn install(steps: &Steps) -> Result<()> {
    let stamp = folder().join("stamp");
    // A virtual environment breaks when it is moved.
    let wanted = sha256(format!("{}\n{REQUIREMENTS}", venv().display()).as_bytes());
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        steps.there("Helm and the schemas of Kubernetes", "target/chart");
        return Ok(());
    }
    let requirements = folder().join("requirements.txt");
    steps.write(&requirements, REQUIREMENTS)?;
    virtual_environment(steps, &venv(), &requirements)?;
    steps.write(&stamp, &wanted)
}
