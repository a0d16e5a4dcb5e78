//! `monitor/bpf/wsmon.bpf.lock`: the sources and the toolchain of the committed object.

use std::{
    fmt::{self, Write as _},
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, Error, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::{
    files::{read, read_text},
    toolchain::Identity,
};

/// The inputs of the build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BytecodeLock {
    /// The programs that built it.
    pub(crate) toolchain: Identity,
    /// SHA-256 of the object, in hexadecimal.
    pub(crate) object: String,
    /// SHA-256 of everything [`sources_hash`] covers, in hexadecimal.
    pub(crate) sources: String,
}

impl fmt::Display for BytecodeLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            toolchain:
                Identity {
                    rustc,
                    bpf_linker,
                    llvm,
                },
            object,
            sources,
        } = self;
        writeln!(
            f,
            "# Written by `cargo xtask build-ebpf`, together with the object."
        )?;
        writeln!(f, "rustc = {rustc}")?;
        writeln!(f, "bpf-linker = {bpf_linker}")?;
        writeln!(f, "llvm = {llvm}")?;
        writeln!(f, "object-sha256 = {object}")?;
        writeln!(f, "sources-sha256 = {sources}")
    }
}

impl FromStr for BytecodeLock {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let value = |key: &str| {
            text.lines()
                .filter_map(|line| line.split_once(" = "))
                .find_map(|(name, value)| (name == key).then(|| value.to_owned()))
                .with_context(|| format!("no `{key} = …` line"))
        };
        Ok(Self {
            toolchain: Identity {
                rustc: value("rustc")?,
                bpf_linker: value("bpf-linker")?,
                llvm: value("llvm")?,
            },
            object: value("object-sha256")?,
            sources: value("sources-sha256")?,
        })
    }
}

/// SHA-256 of `bytes`, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// SHA-256 over everything that determines the object, except for the toolchain: the kernel
/// programs, the crate they share with the daemon, aya's kernel-side crates as locked, the release
/// profile, and the compiler flags.
///
/// # Errors
/// If one of these cannot be read.
pub(crate) fn sources_hash(workspace: &Path, flags: &[&str]) -> Result<String> {
    let mut hash = Sha256::new();
    let mut add = |name: &str, content: &[u8]| {
        // Lengths separate neighbours: "a" + "bc" is not "ab" + "c".
        for part in [name.as_bytes(), content] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    };
    for path in source_files(workspace)? {
        let content = read(&workspace.join(&path))?;
        add(&path.to_string_lossy(), &content);
    }
    let lock = read_text(&workspace.join("Cargo.lock"))?;
    let manifest = read_text(&workspace.join("Cargo.toml"))?;
    add("Cargo.lock", locked_kernel_crates(&lock).as_bytes());
    add("Cargo.toml", release_profile(&manifest).as_bytes());
    add("flags", flags.join("\n").as_bytes());
    Ok(hexadecimal(&hash.finalize()))
}

/// The files of both crates, relative to the workspace, sorted.
fn source_files(workspace: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![
        PathBuf::from("monitor-ebpf/Cargo.toml"),
        PathBuf::from("monitor-common/Cargo.toml"),
    ];
    let mut folders = vec![
        PathBuf::from("monitor-ebpf/src"),
        PathBuf::from("monitor-common/src"),
    ];
    while let Some(folder) = folders.pop() {
        let absolute = workspace.join(&folder);
        let entries = fs::read_dir(&absolute)
            .with_context(|| format!("could not list {}", absolute.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    if workspace.join("monitor-ebpf/build.rs").exists() {
        bail!("monitor-ebpf/build.rs would be outside the source hash; name it in source_files");
    }
    files.sort();
    Ok(files)
}

/// Version and checksum of each aya crate that ends up in the object.
fn locked_kernel_crates(lock: &str) -> String {
    let in_object = |name: &str| {
        ["aya-ebpf", "aya-log-ebpf", "aya-log-common"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    let mut crates = String::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |key: &str| {
            package
                .lines()
                .filter_map(|line| line.split_once(" = "))
                .find_map(|(name, value)| (name == key).then_some(value.trim_matches('"')))
                .unwrap_or_default()
        };
        if in_object(field("name")) {
            let [name, version, checksum] = ["name", "version", "checksum"].map(field);
            let _ = writeln!(crates, "{name} {version} {checksum}");
        }
    }
    crates
}

/// The lines of the manifest's release profile, without comments and empty lines.
fn release_profile(manifest: &str) -> String {
    let mut inside = false;
    let mut profile = String::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.starts_with("[profile.release");
        }
        if inside && !line.is_empty() && !line.starts_with('#') {
            profile.push_str(line);
            profile.push('\n');
        }
    }
    profile
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> BytecodeLock {
        BytecodeLock {
            toolchain: Identity {
                rustc: "rustc 1.96.0 (ac68faa20 2026-05-25)".to_owned(),
                bpf_linker: "0.13.0".to_owned(),
                llvm: "22.1.8".to_owned(),
            },
            object: sha256(b"object"),
            sources: sha256(b"sources"),
        }
    }

    #[test]
    fn a_lock_is_unchanged_after_writing_and_reading() {
        assert_eq!(lock().to_string().parse::<BytecodeLock>().unwrap(), lock());
    }

    #[test]
    fn the_error_names_the_missing_field_of_a_lock() {
        let text = lock().to_string().replace("llvm = 22.1.8\n", "");
        let error = text.parse::<BytecodeLock>().unwrap_err();
        assert!(error.to_string().contains("llvm"), "{error}");
    }

    #[test]
    fn only_crates_that_end_up_in_the_object_count() {
        let lock = r#"
version = 4

[[package]]
name = "aya"
version = "0.14.0"
checksum = "11"

[[package]]
name = "aya-ebpf"
version = "0.2.1"
checksum = "22"
dependencies = [
 "aya-build",
]

[[package]]
name = "aya-ebpf-macros"
version = "0.2.0"
checksum = "33"
"#;
        assert_eq!(
            locked_kernel_crates(lock),
            "aya-ebpf 0.2.1 22\naya-ebpf-macros 0.2.0 33\n"
        );
    }

    #[test]
    fn the_release_profile_includes_its_package_overrides_and_nothing_else() {
        let manifest = "[workspace]\nmembers = []\n\n[profile.release]\n# why\nlto = \"thin\"\n\n\
                        [profile.release.package.monitor-ebpf]\nopt-level = 3\n\n[profile.dev]\nx = 1\n";
        assert_eq!(
            release_profile(manifest),
            "[profile.release]\nlto = \"thin\"\n[profile.release.package.monitor-ebpf]\nopt-level = 3\n"
        );
    }

    #[test]
    fn the_source_hash_is_stable_and_depends_on_the_flags() {
        let workspace = crate::workspace::root();
        let hash = sources_hash(&workspace, &["-O"]).unwrap();
        assert_eq!(hash, sources_hash(&workspace, &["-O"]).unwrap());
        assert_ne!(hash, sources_hash(&workspace, &["-g"]).unwrap());
    }
}
