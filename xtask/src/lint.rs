//! `cargo xtask lint`: the checks that CI runs before the tests.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{
    dashboards,
    workspace::{self, cargo},
};

/// Runs every check, even after a failure, so that one run shows everything to fix.
///
/// # Errors
/// If a check fails.
pub(crate) fn run() -> Result<()> {
    let mut kernel_programs = cargo(&["clippy", "--package", "monitor-ebpf"]);
    // clippy can check them natively, without an eBPF toolchain. Their panic handler requires an
    // aborting profile.
    kernel_programs
        .args(["--", "--deny", "warnings"])
        .env("CARGO_PROFILE_DEV_PANIC", "abort");
    let mut replay_alone = cargo(&["clippy", "--all-targets"]);
    replay_alone
        .args(REPLAY_ALONE)
        .args(["--", "--deny", "warnings"]);
    let mut docs = cargo(&["doc", "--no-deps", "--quiet"]);
    docs.env("RUSTDOCFLAGS", "--deny warnings");
    let checks = [
        cargo(&["fmt", "--all", "--check"]),
        cargo(&["clippy", "--all-targets", "--", "--deny", "warnings"]),
        replay_alone,
        kernel_programs,
        docs,
    ];
    let mut failures = Vec::new();
    for mut check in checks {
        failures.extend(workspace::run(&mut check).err());
    }
    failures.extend(replay_needs_no_aya().err());
    failures.extend(dashboards::check().err());
    match dependencies() {
        Ok(mut check) => failures.extend(workspace::run(&mut check).err()),
        Err(reason) => println!("skipped: cargo deny check: {reason}"),
    }
    if !failures.is_empty() {
        bail!(
            "{}",
            failures
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")
        );
    }
    Ok(())
}

/// The build of `wsmon` without the daemon.
const REPLAY_ALONE: [&str; 3] = ["--package", "monitor", "--no-default-features"];

/// Recordings are judged on hosts that cannot load kernel programs too.
///
/// # Errors
/// If the build without the daemon depends on aya.
fn replay_needs_no_aya() -> Result<()> {
    let mut tree = cargo(&["tree", "--prefix", "none", "--edges", "normal"]);
    let output = tree.args(REPLAY_ALONE).output()?;
    let tree = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || !tree.starts_with("monitor ") {
        bail!(
            "`cargo tree` failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    if let Some(aya) = tree.lines().find(|line| line.starts_with("aya")) {
        bail!("package monitor depends on {aya} without its default features");
    }
    Ok(())
}

/// The rules of `deny.toml` for dependencies. Known vulnerabilities are checked only if `cargo deny
/// fetch` has fetched their database before: a lint does not use the network.
///
/// # Errors
/// Why they can't be checked here.
fn dependencies() -> Result<Command, &'static str> {
    if workspace::on_path("cargo-deny").is_none() {
        return Err("not installed, `cargo install --locked cargo-deny` does that");
    }
    let mut command = cargo(&["deny", "--offline", "check"]);
    command.args(["bans", "licenses", "sources"]);
    if workspace::cargo_home().join("advisory-dbs").is_dir() {
        command.arg("advisories");
    } else {
        println!("skipped: advisories: no database, `cargo deny fetch` gets it");
    }
    Ok(command)
}
