//! `cargo xtask lint`: what CI refuses before it runs a test.

use anyhow::Result;

use crate::workspace::{cargo, run as run_command};

pub(crate) fn run() -> Result<()> {
    run_command(&mut cargo(&["fmt", "--all", "--check"]))?;
    run_command(&mut cargo(&[
        "clippy",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]))?;
    // The kernel programs compile natively as far as clippy needs, without an eBPF toolchain. They
    // bring their own panic handler, which only an aborting profile accepts.
    run_command(
        cargo(&[
            "clippy",
            "--package",
            "monitor-ebpf",
            "--",
            "--deny",
            "warnings",
        ])
        .env("CARGO_PROFILE_DEV_PANIC", "abort"),
    )?;
    run_command(cargo(&["doc", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "--deny warnings"))
}
