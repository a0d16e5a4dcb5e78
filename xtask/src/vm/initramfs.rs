//! The guest's only file system: the tests, the programs and libraries they need, and the kernel's
//! modules.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{archive::Archive, guest::Programs, kernel::Kernel};
use crate::files::read;

const INIT: &str = include_str!("init.sh");
const MOUNT_POINTS: [&str; 4] = ["dev", "proc", "sys", "tmp"];
/// Needed by the tests, and a module on most kernels.
const MODULES: [&str; 2] = ["tun", "tcp_diag"];
/// The path of the shell, and its commands that the tests run.
const SHELL: [&str; 2] = ["bin/busybox", "sbin/ip"];

/// The archive for one guest.
///
/// # Errors
/// If a part is missing.
pub(crate) fn archive(kernel: &Kernel, programs: &Programs, filter: &[String]) -> Result<Vec<u8>> {
    let architecture = kernel.name.architecture;
    let mut archive = Archive::default();
    for folder in MOUNT_POINTS {
        archive.folder(Path::new(folder))?;
    }
    archive.file(Path::new("init"), INIT.as_bytes())?;
    archive.file(Path::new("filter"), filter.join(" ").as_bytes())?;
    archive.file(
        Path::new("results"),
        line(architecture.results()).as_bytes(),
    )?;

    add_modules(&mut archive, kernel, &MODULES)?;
    for place in SHELL {
        archive.file(Path::new(place), &read(&programs.shell)?)?;
    }
    let mut libraries: Vec<(PathBuf, PathBuf)> = architecture.libraries(&programs.shell)?;
    let mut order = String::new();
    for program in &programs.tests {
        order += &line(&program.name);
    }
    archive.file(Path::new("tests/order"), order.as_bytes())?;
    for program in programs.tests.iter().chain([&programs.wsmon]) {
        archive.file(
            &Path::new("tests").join(&program.name),
            &read(&program.path)?,
        )?;
        libraries.extend(architecture.libraries(&program.path)?);
    }
    libraries.sort();
    libraries.dedup();
    for (library, place) in libraries {
        archive.file(&place, &read(&library)?)?;
    }
    archive.finish().context("could not write the archive")
}

/// Adds the kernel's modules with these names to `/modules`, with the order in which to load them and
/// what they depend on.
///
/// # Errors
/// If one cannot be read.
pub(crate) fn add_modules(archive: &mut Archive, kernel: &Kernel, names: &[&str]) -> Result<()> {
    let mut order = String::new();
    for (name, content) in kernel.modules(names)? {
        archive.file(Path::new(&format!("modules/{name}.ko")), &content)?;
        order += &line(&name);
    }
    archive.file(Path::new("modules/order"), order.as_bytes())?;
    Ok(())
}

fn line(word: &str) -> String {
    format!("{word}\n")
}
