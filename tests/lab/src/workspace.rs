//! The workspace that this program was built in.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::LabError;

/// The workspace's top folder. Read from cargo's environment at run time, because a copied target
/// folder may hold a binary that was compiled elsewhere.
pub fn workspace() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let is_top = |folder: &&Path| folder.join("Cargo.lock").is_file();
    let top = package.ancestors().find(is_top).unwrap_or(&package);
    top.to_owned()
}

/// The `NODE_PATH` with which node finds `ws`, once `cargo xtask setup --tests` has installed it.
pub fn node_modules() -> PathBuf {
    workspace().join("target/peers/node_modules")
}

/// Builds wsmon with the release profile and returns its path.
///
/// # Errors
/// [`LabError::Build`] if cargo fails.
pub fn build_wsmon() -> Result<PathBuf, LabError> {
    build("--bin", "wsmon")
}

/// Builds an example of the package `monitor` with the release profile and returns its path.
///
/// # Errors
/// [`LabError::Build`] if cargo fails.
pub fn build_example(name: &'static str) -> Result<PathBuf, LabError> {
    build("--example", name)
}

fn build(kind: &str, name: &'static str) -> Result<PathBuf, LabError> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", "monitor"])
        .args([kind, name, "--message-format=json-render-diagnostics"])
        .current_dir(workspace())
        .stderr(Stdio::inherit())
        .output()
        .map_err(LabError::io("start cargo"))?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .filter(|_| output.status.success())
        .ok_or(LabError::Build { name })
}
