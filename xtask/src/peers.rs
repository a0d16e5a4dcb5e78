//! The WebSocket implementations that live tests talk to, at the versions locked in
//! `testdata/peers`: node's `ws` in `target/peers/node_modules`, Python's `websockets` in
//! `target/peers/venv`. The latter also has Prometheus' Python client, whose parser checks expositions.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{bytecode_lock::sha256, files::read, npm, setup::Steps, workspace};

/// Installs both, unless this folder already has the same locked versions.
///
/// # Errors
/// If npm or pip fails.
pub(crate) fn install(steps: &Steps) -> Result<()> {
    let locks = workspace::root().join("testdata/peers");
    let folder = workspace::root().join("target/peers");
    let stamp = folder.join("stamp");
    let wanted = fingerprint(&locks, &folder)?;
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        steps.there("packages of node and Python", "target/peers");
        return Ok(());
    }
    npm::ci(steps, &locks, &folder)?;
    virtual_environment(steps, &folder.join("venv"), &locks.join("requirements.txt"))?;
    steps.write(&stamp, &wanted)
}

/// The virtual environment in `target/peers` with the packages for `cargo xtask record` only.
const RECORDING_VENV: &str = "recording";

/// Installs the packages locked in `testdata/recordings/scripts` in addition to [`install`].
///
/// # Errors
/// If npm or pip fails.
pub(crate) fn install_for_recording(steps: &Steps) -> Result<()> {
    install(steps)?;
    let lock = workspace::root().join("testdata/recordings/scripts/requirements.txt");
    let venv = workspace::root().join("target/peers").join(RECORDING_VENV);
    virtual_environment(steps, &venv, &lock)
}

/// Makes a virtual environment of Python, with the packages of a requirements file.
///
/// # Errors
/// If Python or pip fails.
pub(crate) fn virtual_environment(steps: &Steps, venv: &Path, requirements: &Path) -> Result<()> {
    // A dry run gets here before python3 is installed.
    let python = python().unwrap_or_else(|| PathBuf::from("python3"));
    steps.step(
        Command::new(python)
            .args(["-m", "venv", "--clear"])
            .arg(venv),
    )?;
    steps.step(
        Command::new(venv.join("bin/python"))
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            // As root, pip prints a warning even inside a venv.
            .env("PIP_ROOT_USER_ACTION", "ignore")
            .arg("--requirement")
            .arg(requirements),
    )
}

/// A python3 that can create virtual environments and is new enough for the locked `websockets`.
pub(crate) fn python() -> Option<PathBuf> {
    const PROBE: &str = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))";
    workspace::on_path("python3")
        .into_iter()
        .chain([PathBuf::from("/usr/bin/python3")])
        .find(|python| workspace::answer(python, &["-c", PROBE]).is_some())
}

/// The locks and the path: a virtual environment breaks when it is moved.
fn fingerprint(locks: &Path, folder: &Path) -> Result<String> {
    let mut all = folder.as_os_str().as_encoded_bytes().to_vec();
    for name in npm::LOCKS.into_iter().chain(["requirements.txt"]) {
        all.extend(read(&locks.join(name))?);
    }
    Ok(sha256(&all))
}
