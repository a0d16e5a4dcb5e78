//! The workspace's path, and how to run other programs in it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// The workspace's top folder. Read from cargo's environment at run time, because a copied target
/// folder may hold a binary that was compiled elsewhere.
pub(crate) fn root() -> PathBuf {
    let xtask = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    xtask.parent().map_or_else(|| xtask.clone(), Path::to_owned)
}

/// The cargo that started this program, in the workspace's top folder.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(cargo_path());
    command.current_dir(root()).args(arguments);
    command
}

/// Makes release builds of this cargo link without optimization. For tests, where it takes more time than
/// it saves.
pub(crate) fn skip_lto(cargo: &mut Command) {
    cargo.env("CARGO_PROFILE_RELEASE_LTO", "off");
}

/// The cargo that started this program.
pub(crate) fn cargo_path() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// Where cargo keeps its registry and installed programs.
pub(crate) fn cargo_home() -> PathBuf {
    let default = || env::home_dir().unwrap_or_default().join(".cargo");
    env::var_os("CARGO_HOME").map_or_else(default, PathBuf::from)
}

/// Runs a command with its output visible.
///
/// # Errors
/// If it cannot start or does not exit with 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    run_as(&line(command), command)
}

/// As [`run`], with `line` for the command in errors.
///
/// # Errors
/// If it cannot start or does not exit with 0.
pub(crate) fn run_as(line: &str, command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("could not start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// A command's standard output, trimmed; `None` if it is not installed or fails.
pub(crate) fn answer(program: impl AsRef<Path>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program.as_ref())
        .args(arguments)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| text.trim().to_owned())
}

/// A command as typed in a shell.
pub(crate) fn line(command: &Command) -> String {
    let name = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
    let mut parts = vec![
        Path::new(command.get_program())
            .file_name()
            .map_or_else(String::new, name),
    ];
    parts.extend(command.get_args().map(name));
    parts.join(" ")
}

/// Finds a program on PATH, or in the folders of system programs that a user's PATH often lacks.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}
