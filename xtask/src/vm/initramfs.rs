//! The first and only file system of the guest: the tests, what they need of this machine, and the
//! kernel's modules.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::cpio::Archive;
use super::kernel::Kernel;
use crate::artifacts::Executable;
use crate::workspace;

const INIT: &str = include_str!("init.sh");
const MOUNT_POINTS: [&str; 4] = ["dev", "proc", "sys", "tmp"];
/// What the tests need and Debian builds as a module.
const MODULES: [&str; 1] = ["tun"];
/// Programs of this machine that the tests start.
const PROGRAMS: [&str; 1] = ["ip"];

/// The archive for one kernel.
///
/// # Errors
/// When something that belongs into it is missing.
pub(crate) fn archive(kernel: &Kernel, tests: &[Executable], filter: &[String]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in MOUNT_POINTS {
        archive.folder(Path::new(folder));
    }
    archive.file(Path::new("init"), INIT.as_bytes());
    archive.file(Path::new("filter"), filter.join(" ").as_bytes());

    let mut order = String::new();
    for (name, content) in kernel.modules(&MODULES)? {
        archive.file(Path::new(&format!("modules/{name}.ko")), &content);
        order += &format!("{name}\n");
    }
    archive.file(Path::new("modules/order"), order.as_bytes());

    let mut programs = vec![(found("busybox")?, PathBuf::from("bin/busybox"))];
    for program in PROGRAMS {
        programs.push((found(program)?, Path::new("sbin").join(program)));
    }
    for test in tests {
        programs.push((test.path.clone(), Path::new("tests").join(&test.name)));
    }
    let mut libraries = Vec::new();
    for (program, place) in programs {
        archive.file(&place, &read(&program)?);
        libraries.extend(libraries_of(&program));
    }
    libraries.sort();
    libraries.dedup();
    for library in libraries {
        archive.file(&library, &read(&library)?);
    }
    Ok(archive.finish())
}

fn found(program: &str) -> Result<PathBuf> {
    workspace::on_path(program).with_context(|| format!("{program} is not installed"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("could not read {}", path.display()))
}

/// The shared libraries of a program, and their loader. ldd refuses a static program, which has
/// none.
fn libraries_of(program: &Path) -> Vec<PathBuf> {
    let list = workspace::answer("ldd", &[&program.to_string_lossy()]);
    libraries(&list.unwrap_or_default())
}

/// The paths in what ldd prints: `name => /path (address)`, or `/path (address)` for the loader.
fn libraries(list: &str) -> Vec<PathBuf> {
    list.lines()
        .filter_map(|line| {
            let path = line.rsplit(" => ").next()?.trim();
            let path = path.split(" (").next()?;
            path.starts_with('/').then(|| path.into())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_in_what_ldd_prints() {
        let list = "\tlinux-vdso.so.1 (0x00007ffc1b5f2000)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1a2c000000)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f1a2c400000)\n";
        assert_eq!(
            libraries(list),
            [
                Path::new("/lib/x86_64-linux-gnu/libc.so.6"),
                Path::new("/lib64/ld-linux-x86-64.so.2")
            ]
        );
    }
}
