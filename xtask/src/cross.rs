//! Builds for other processors than this machine's.

use std::{env, path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::{root::Prerequisite, workspace};

/// The targets that wsmon is built and tested for.
pub(crate) const TARGETS: [Target; 2] = [
    Target {
        name: "x86_64-unknown-linux-gnu",
        debian_architecture: "amd64",
        linker: "x86_64-linux-gnu-gcc",
        linker_package: "gcc-x86-64-linux-gnu",
        library_package: "libc6-dev-amd64-cross",
    },
    Target {
        name: "aarch64-unknown-linux-gnu",
        debian_architecture: "arm64",
        linker: "aarch64-linux-gnu-gcc",
        linker_package: "gcc-aarch64-linux-gnu",
        library_package: "libc6-dev-arm64-cross",
    },
];

/// A target, and the packages with which Debian builds programs for it on other processors.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) debian_architecture: &'static str,
    pub(crate) linker: &'static str,
    pub(crate) linker_package: &'static str,
    pub(crate) library_package: &'static str,
}

impl Target {
    /// Whether this machine runs its programs.
    pub(crate) fn is_native(&self) -> bool {
        is_native(self.name)
    }

    /// The processor, as Rust and rpm name it.
    pub(crate) fn rpm_architecture(&self) -> &'static str {
        self.name
            .split_once('-')
            .map_or(self.name, |(processor, _)| processor)
    }
}

/// The target of this name, or else this machine's.
///
/// # Errors
/// If wsmon is not built for it.
pub(crate) fn given_or_native(name: Option<&str>) -> Result<&'static Target> {
    let found = TARGETS.iter().find(|target| match name {
        Some(name) => target.name == name,
        None => target.is_native(),
    });
    found.context("wsmon is not built for this processor")
}

/// Fails unless this machine can build for `target`.
///
/// # Errors
/// [`Prerequisite`] with what is missing.
pub(crate) fn require(target: &str) -> Result<()> {
    let mut missing = Vec::new();
    let mut remedy = Vec::new();
    if !has_standard_library(target) {
        missing.push(format!("Rust's standard library for {target}"));
        remedy.push(format!("rustup target add {target}"));
    }
    if let Some(linker) = linker(target)
        && workspace::on_path(&linker).is_none()
    {
        missing.push(format!("the linker {linker}"));
        remedy.push("cargo xtask setup --tests".to_owned());
        remedy.push(format!("or name another one: {}=PROGRAM", variable(target)));
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Prerequisite {
        missing: format!("not installed: {}", missing.join(", ")),
        remedy,
    }
    .into())
}

/// Makes a cargo command build for `target`, with its linker.
pub(crate) fn configure(command: &mut Command, target: &str) {
    command.args(["--target", target]);
    if let Some(linker) = linker(target) {
        command.env(variable(target), linker);
    }
}

/// Whether rustc has the standard library for `target`.
pub(crate) fn has_standard_library(target: &str) -> bool {
    workspace::answer("rustc", &["--print", "target-libdir", "--target", target])
        .is_some_and(|folder| Path::new(&folder).is_dir())
}

/// The linker for another processor's programs; `None` for this machine's own.
fn linker(target: &str) -> Option<String> {
    if is_native(target) {
        return None;
    }
    let known = TARGETS.iter().find(|known| known.name == target);
    env::var(variable(target))
        .ok()
        .or_else(|| known.map(|known| known.linker.to_owned()))
}

fn is_native(target: &str) -> bool {
    target
        .strip_prefix(env::consts::ARCH)
        .is_some_and(|rest| rest.starts_with('-'))
}

/// The environment variable that sets cargo's linker for `target`.
fn variable(target: &str) -> String {
    let target = target.to_uppercase().replace('-', "_");
    format!("CARGO_TARGET_{target}_LINKER")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_named_as_cargo_names_it() {
        assert_eq!(
            variable("aarch64-unknown-linux-gnu"),
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER"
        );
    }

    #[test]
    fn only_a_foreign_target_needs_a_separate_linker() {
        let [own, other] = TARGETS.map(|target| (target.is_native(), linker(target.name)));
        let (own, other) = if own.0 { (own, other) } else { (other, own) };
        assert_eq!(own, (true, None));
        assert!(other.1.is_some());
    }

    #[test]
    fn an_unknown_target_is_refused_with_the_remedy() {
        let error = require("vax-dec-ultrix").unwrap_err().to_string();
        assert!(
            error.contains("rustup target add vax-dec-ultrix"),
            "{error}"
        );
    }
}
