//! Obstacles on a host: containers, other programs on the same hook, sandboxes, and kernels that
//! refuse a program.
//!
//! Programs of these tests are attached to cgroups created for them. Only `workloads` also attaches to the root,
//! because older connections are searched for nowhere else.

mod container;
mod group;
mod neighbours;
mod peer;
mod program;
mod refusal;
mod sandbox;
mod workloads;

use std::{
    path::Path,
    process::{Command, Output},
};

/// The binary under test.
fn wsmon() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_wsmon"))
}

/// Exit status 3: the kernel or the privileges are insufficient.
const PREREQUISITE: i32 = 3;

/// Flags of a `wsmon run` that will be refused; they conflict with no other daemon.
const RUN: [&str; 7] = [
    "run",
    "--port",
    "80",
    "--metrics-addr",
    "127.0.0.1:0",
    "--control",
    "none",
];

/// The only line on stderr of a command that exits with this status.
#[track_caller]
fn only_line(output: &Output, status: i32) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    let lines: Vec<_> = stderr.lines().collect();
    let [line] = lines[..] else {
        panic!("not one line:\n{stderr}");
    };
    line.to_owned()
}

/// Runs `wsmon` with these arguments to its end.
fn output(arguments: &[&str]) -> Output {
    Command::new(wsmon()).args(arguments).output().unwrap()
}
