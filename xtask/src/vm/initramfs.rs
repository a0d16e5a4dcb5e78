//! The first and only file system of the guest: the tests, the programs and libraries they need,
//! and the kernel's modules.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{cpio::Archive, guest::Programs, kernel::Kernel};

const INIT: &str = include_str!("init.sh");
const MOUNT_POINTS: [&str; 4] = ["dev", "proc", "sys", "tmp"];
/// What the tests use and most kernels have as a module.
const MODULES: [&str; 2] = ["tun", "tcp_diag"];
/// Where the shell is, and the commands of it that the tests start.
const SHELL: [&str; 2] = ["bin/busybox", "sbin/ip"];

/// The archive for one guest.
///
/// # Errors
/// When something that belongs into it is missing.
pub(crate) fn archive(kernel: &Kernel, programs: &Programs, filter: &[String]) -> Result<Vec<u8>> {
    let architecture = kernel.name.architecture;
    let mut archive = Archive::default();
    for folder in MOUNT_POINTS {
        archive.folder(Path::new(folder));
    }
    archive.file(Path::new("init"), INIT.as_bytes());
    archive.file(Path::new("filter"), filter.join(" ").as_bytes());
    archive.file(
        Path::new("results"),
        line(architecture.results()).as_bytes(),
    );

    let mut order = String::new();
    for (name, content) in kernel.modules(&MODULES)? {
        archive.file(Path::new(&format!("modules/{name}.ko")), &content);
        order += &line(&name);
    }
    archive.file(Path::new("modules/order"), order.as_bytes());

    for place in SHELL {
        archive.file(Path::new(place), &read(&programs.shell)?);
    }
    let mut libraries: Vec<(PathBuf, PathBuf)> = architecture.libraries(&programs.shell)?;
    let mut order = String::new();
    for program in &programs.tests {
        order += &line(&program.name);
    }
    archive.file(Path::new("tests/order"), order.as_bytes());
    for program in programs.tests.iter().chain([&programs.wsmon]) {
        archive.file(
            &Path::new("tests").join(&program.name),
            &read(&program.path)?,
        );
        libraries.extend(architecture.libraries(&program.path)?);
    }
    libraries.sort();
    libraries.dedup();
    for (library, place) in libraries {
        archive.file(&place, &read(&library)?);
    }
    Ok(archive.finish())
}

fn line(word: &str) -> String {
    format!("{word}\n")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("could not read {}", path.display()))
}
