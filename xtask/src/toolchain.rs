//! The compiler and linker for the kernel programs.
//!
//! `core` has to be built for `bpfel-unknown-none`, so the compiler must come with the sources of
//! its library. Two kinds do: rustup's nightly with `rust-src`, and the distribution's rustc. Both
//! need bpf-linker, whose LLVM must be at least as new as the compiler's.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{root::Prerequisite, workspace};

/// The bpf-linker release that the project builds with.
pub(crate) const BPF_LINKER: &str = "0.13.0";
/// The LLVM version of bpf-linker, and so the newest that a compiler may use.
pub(crate) const LLVM_MAJOR: u32 = 22;

/// The programs that build the object: the same three versions give the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The output of `rustc --version`.
    pub(crate) rustc: String,
    /// bpf-linker's version.
    pub(crate) bpf_linker: String,
    /// Version of the LLVM with which bpf-linker generates code.
    pub(crate) llvm: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rustc,
            bpf_linker,
            llvm,
        } = self;
        write!(f, "{rustc}, bpf-linker {bpf_linker}, LLVM {llvm}")
    }
}

/// A compiler with a matching linker.
pub(crate) struct Toolchain {
    /// The compiler.
    pub(crate) compiler: Compiler,
    /// Its versions.
    pub(crate) identity: Identity,
}

impl Toolchain {
    /// The toolchain named `preferred` if it is here, else the first that works.
    ///
    /// # Errors
    /// If there is no compiler with sources or no matching bpf-linker.
    pub(crate) fn find(preferred: Option<&Identity>) -> Result<Self, Prerequisite> {
        let missing = |what: &str| Prerequisite {
            missing: format!("no eBPF toolchain: {what}"),
            remedy: vec!["cargo xtask setup --ebpf".to_owned()],
        };
        let linker = Linker::find()
            .filter(Linker::fits)
            .ok_or_else(|| missing(&format!("bpf-linker {BPF_LINKER} is not on PATH")))?;
        let mut toolchains: Vec<_> = Compiler::all()
            .into_iter()
            .map(|compiler| Self {
                identity: Identity {
                    rustc: compiler.version.clone(),
                    bpf_linker: linker.version.clone(),
                    llvm: linker.llvm.clone(),
                },
                compiler,
            })
            .collect();
        if toolchains.is_empty() {
            return Err(missing("no compiler with the sources of core"));
        }
        let chosen = toolchains
            .iter()
            .position(|toolchain| Some(&toolchain.identity) == preferred)
            .unwrap_or(0);
        Ok(toolchains.swap_remove(chosen))
    }

    /// A cargo command in the workspace that compiles with this toolchain.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(&self.compiler.cargo);
        command
            .current_dir(workspace::root())
            .env("RUSTC", &self.compiler.rustc)
            // Lets a stable compiler take `-Z build-std`.
            .env("RUSTC_BOOTSTRAP", "1")
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .env_remove("RUSTFLAGS");
        command
    }
}

/// A compiler that comes with the sources of `core`.
pub(crate) struct Compiler {
    /// Where it comes from, for people.
    pub(crate) origin: &'static str,
    /// The output of `rustc --version`.
    pub(crate) version: String,
    /// The folder that holds `lib/rustlib`.
    pub(crate) sysroot: PathBuf,
    rustc: PathBuf,
    cargo: PathBuf,
}

impl Compiler {
    /// Every usable compiler on this machine, rustup's nightly first.
    pub(crate) fn all() -> Vec<Self> {
        [Self::nightly(), Self::system()]
            .into_iter()
            .flatten()
            .collect()
    }

    /// rustup's nightly with its own cargo: `-Z build-std` must match the library.
    fn nightly() -> Option<Self> {
        let sysroot = nightly_sysroot()?;
        let rustc = sysroot.join("bin/rustc");
        let cargo = sysroot.join("bin/cargo");
        Self::with_sources("rustup nightly with rust-src", rustc, cargo)
    }

    /// The distribution's compiler with this process's cargo: Debian's cargo is older than this
    /// workspace's edition.
    fn system() -> Option<Self> {
        let rustc = PathBuf::from("/usr/bin/rustc");
        Self::with_sources("the distribution's rustc", rustc, workspace::cargo_path())
    }

    fn with_sources(origin: &'static str, rustc: PathBuf, cargo: PathBuf) -> Option<Self> {
        let verbose = workspace::answer(&rustc, &["--version", "--verbose"])?;
        let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name));
        let sysroot = PathBuf::from(workspace::answer(&rustc, &["--print", "sysroot"])?);
        let new_enough =
            version_pair(field("release: ")?) >= version_pair(env!("CARGO_PKG_RUST_VERSION"));
        let fits_linker = version_pair(field("LLVM version: ")?)?.0 <= LLVM_MAJOR;
        (new_enough && fits_linker && has_library(&sysroot)).then(|| Self {
            origin,
            version: verbose.lines().next().unwrap_or_default().to_owned(),
            sysroot,
            rustc,
            cargo,
        })
    }
}

/// The sysroot of rustup's nightly, with or without sources. Reads the list of toolchains first,
/// because `rustc +nightly` may start a download.
pub(crate) fn nightly_sysroot() -> Option<PathBuf> {
    let toolchains = workspace::answer("rustup", &["toolchain", "list"])?;
    if !toolchains.lines().any(|name| name.starts_with("nightly-")) {
        return None;
    }
    workspace::answer("rustup", &["run", "nightly", "rustc", "--print", "sysroot"])
        .map(PathBuf::from)
}

/// The bpf-linker on PATH.
pub(crate) struct Linker {
    /// Its own version.
    pub(crate) version: String,
    /// Its LLVM's version.
    pub(crate) llvm: String,
}

impl Linker {
    /// Queries the versions of the bpf-linker on PATH.
    pub(crate) fn find() -> Option<Self> {
        let version = workspace::answer("bpf-linker", &["--version"])?;
        // LLVM handles `--version` before it opens anything: the two paths are never read.
        let llvm = workspace::answer(
            "bpf-linker",
            &["--llvm-args=--version", "--output=/dev/null", "/dev/null"],
        )?;
        let after = |text: &str, word: &str| {
            let rest = text.split_once(word)?.1;
            Some(rest.split_whitespace().next()?.to_owned())
        };
        Some(Self {
            version: after(&version, "bpf-linker ")?,
            llvm: after(&llvm, "LLVM version ")?,
        })
    }

    /// Whether it is the release the project builds with, on a new enough LLVM.
    pub(crate) fn fits(&self) -> bool {
        self.version == BPF_LINKER
            && version_pair(&self.llvm).is_some_and(|(major, _)| major >= LLVM_MAJOR)
    }
}

fn has_library(sysroot: &Path) -> bool {
    sysroot
        .join("lib/rustlib/src/rust/library/core/src/lib.rs")
        .is_file()
}

/// Major and minor version of `1.96.0`, `1.95` or `1.97.0-nightly`.
fn version_pair(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number_and_not_by_text() {
        assert!(version_pair("1.100.0") > version_pair("1.95"));
        assert_eq!(version_pair("1.97.0-nightly"), Some((1, 97)));
        assert_eq!(version_pair("unknown"), None);
    }
}
