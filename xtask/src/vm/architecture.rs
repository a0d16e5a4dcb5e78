//! The guests' processors and their differences.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::workspace;

/// A guest's processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Architecture {
    X86_64,
    Aarch64,
}

impl Architecture {
    pub(crate) const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The name used by Rust and the kernel.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// The name used by Debian.
    pub(crate) const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The architecture that Debian calls `name`.
    pub(crate) fn of_debian(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|arch| arch.debian() == name)
    }

    /// The target that its programs are compiled for.
    pub(crate) const fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Whether this machine runs its programs.
    pub(crate) fn is_native(self) -> bool {
        self.name() == std::env::consts::ARCH
    }

    pub(crate) const fn qemu(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86_64",
            Self::Aarch64 => "qemu-system-aarch64",
        }
    }

    /// QEMU's options for the machine.
    pub(crate) const fn machine(self) -> &'static [&'static str] {
        match self {
            Self::X86_64 => &["-cpu", "max"],
            // The default algorithm of pointer authentication takes most of an emulator's time.
            Self::Aarch64 => &["-M", "virt,gic-version=3", "-cpu", "max,pauth-impdef=on"],
        }
    }

    /// QEMU's options for a second serial port on the character device `results`.
    pub(crate) const fn results_port(self) -> [&'static str; 2] {
        match self {
            Self::X86_64 => ["-device", "isa-serial,chardev=results"],
            // The machine `virt` has only one port.
            Self::Aarch64 => ["-device", "pci-serial,chardev=results"],
        }
    }

    /// The kernel's console: the first serial port.
    pub(crate) const fn console(self) -> &'static str {
        match self {
            Self::X86_64 => "ttyS0",
            Self::Aarch64 => "ttyAMA0",
        }
    }

    /// The terminal of the second serial port.
    pub(crate) const fn results(self) -> &'static str {
        match self {
            Self::X86_64 => "ttyS1",
            Self::Aarch64 => "ttyS0",
        }
    }

    /// The shared libraries of a program for this processor, and their loader: their paths here,
    /// and the paths where the program looks for them.
    ///
    /// # Errors
    /// If one is not installed.
    /// When one is not installed.
    pub(crate) fn libraries(self, program: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
        if self.is_native() {
            let list = workspace::answer("ldd", &[&program.to_string_lossy()]);
            let found = libraries(&list.unwrap_or_default());
            return Ok(found.into_iter().map(|path| (path.clone(), path)).collect());
        }
        let folder = Path::new("/usr").join(format!("{}-linux-gnu/lib", self.name()));
        let loader = match self {
            Self::X86_64 => "lib64/ld-linux-x86-64.so.2",
            Self::Aarch64 => "lib/ld-linux-aarch64.so.1",
        };
        // The libraries that Debian's cross compiler links a Rust program to.
        [
            loader,
            "lib/libc.so.6",
            "lib/libm.so.6",
            "lib/libgcc_s.so.1",
        ]
        .into_iter()
        .map(|place| {
            let place = Path::new("/").join(place);
            let name = place.file_name().context("a library without a name")?;
            Ok((folder.join(name), place))
        })
        .collect()
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The paths in ldd's output: `name => /path (address)`, or `/path (address)` for the loader. ldd
/// refuses a static program, which needs none.
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
    fn libraries_are_found_in_the_output_of_ldd() {
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
