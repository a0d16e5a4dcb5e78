//! Packages of npm, at the versions that a lock file pins.

use std::{fs, path::Path, process::Command};

use anyhow::Result;

use crate::{bytecode_lock::sha256, files::read_text, setup::Steps};

/// The files that pin packages.
pub(crate) const LOCKS: [&str; 2] = ["package.json", "package-lock.json"];

/// Installs into `folder/node_modules` what the files in the folder `locks` pin.
///
/// # Errors
/// If npm fails.
pub(crate) fn ci(steps: &Steps, locks: &Path, folder: &Path) -> Result<()> {
    for name in LOCKS {
        steps.write(&folder.join(name), &read_text(&locks.join(name))?)?;
    }
    steps.step(
        Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund", "--loglevel=error"])
            .current_dir(folder),
    )
}

/// The same, unless the folder already has these packages.
///
/// # Errors
/// If npm fails.
pub(crate) fn ci_once(steps: &Steps, what: &str, locks: &Path, folder: &Path) -> Result<()> {
    let stamp = folder.join("stamp");
    let pinned = LOCKS.map(|name| read_text(&locks.join(name)));
    let wanted = sha256(pinned.into_iter().collect::<Result<String>>()?.as_bytes());
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        steps.there(what, &folder.display().to_string());
        return Ok(());
    }
    ci(steps, locks, folder)?;
    steps.write(&stamp, &wanted)
}
