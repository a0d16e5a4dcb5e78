//! wsmon as it is packed.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    artifacts::executables,
    cross::{self, Target},
    workspace::{self, cargo},
};

pub(crate) const PROGRAM: &str = "wsmon";

/// How much a build of wsmon takes and gives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// For users: linked with optimization, and the same bytes in every folder.
    Full,
    /// For tests: for this machine's processor the build that is measured too.
    Quick,
}

impl Effort {
    /// The folder of packages, archives and images with such a build, which this creates. Those of tests have the
    /// names of a release's files, and must not get among them.
    ///
    /// # Errors
    /// If it cannot be created.
    pub(crate) fn folder(self) -> Result<PathBuf> {
        let folder = workspace::root().join(match self {
            Self::Full => "target/dist",
            Self::Quick => "target/dist-test",
        });
        fs::create_dir_all(&folder)
            .with_context(|| format!("could not create {}", folder.display()))?;
        Ok(folder)
    }
}

/// Builds wsmon and returns its path.
///
/// # Errors
/// If this machine cannot build for `target`, or the build fails.
pub(crate) fn build(target: &Target, effort: Effort) -> Result<PathBuf> {
    cross::require(target.name)?;
    let mut command = cargo(&["build", "--quiet", "--release"]);
    command.args(["--package", "monitor", "--bin", PROGRAM]);
    match effort {
        Effort::Full => {
            // What is packed is what the commit says.
            command.arg("--locked");
            command.env("CARGO_ENCODED_RUSTFLAGS", flags_without_paths());
            // For this machine's processor too. Otherwise the flags would apply to build scripts, and a build
            // without them would start anew.
            cross::configure(&mut command, target.name);
        }
        Effort::Quick => {
            workspace::skip_lto(&mut command);
            if !target.is_native() {
                cross::configure(&mut command, target.name);
            }
        }
    }
    executables(&mut command)?
        .into_iter()
        .find_map(|made| (made.name == PROGRAM).then_some(made.path))
        .context("cargo built wsmon but did not say where")
}

/// The user's flags for rustc, and those that keep this machine's paths out of the program. Panic messages name the
/// files of the sources.
fn flags_without_paths() -> OsString {
    let given = env::var("RUSTFLAGS").unwrap_or_default();
    let mut flags: Vec<OsString> = given.split_whitespace().map(OsString::from).collect();
    for (path, name) in [
        (workspace::root(), "/wsmon"),
        (workspace::cargo_home(), "/cargo"),
    ] {
        flags.push(remap(&path, name));
    }
    flags.join(std::ffi::OsStr::new("\u{1f}"))
}

fn remap(path: &Path, name: &str) -> OsString {
    let mut flag = OsString::from("--remap-path-prefix=");
    flag.push(path);
    flag.push("=");
    flag.push(name);
    flag
}
