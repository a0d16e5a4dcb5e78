//! The executables that a cargo command builds, and their paths.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::workspace;

/// One executable that cargo built or found up to date.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Executable {
    /// Name of its target: a program, or a file in a `tests` folder.
    pub(crate) name: String,
    /// Its path.
    pub(crate) path: PathBuf,
}

/// Runs a cargo command without arguments for the programs themselves, with its diagnostics
/// visible, and returns the executables it built.
///
/// # Errors
/// If the command fails.
pub(crate) fn executables(command: &mut Command) -> Result<Vec<Executable>> {
    let line = workspace::line(command);
    let output = command
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("could not start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed; cargo's errors are above");
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(executable)
        .collect())
}

/// The executable in one of cargo's messages; `None` for every other message.
fn executable(message: &str) -> Option<Executable> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    Some(Executable {
        name: message["target"]["name"].as_str()?.to_owned(),
        path: message["executable"].as_str()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_among_cargo_messages() {
        let library =
            r#"{"reason":"compiler-artifact","target":{"name":"monitor"},"executable":null}"#;
        let binary =
            r#"{"reason":"compiler-artifact","target":{"name":"wsmon"},"executable":"/t/wsmon"}"#;
        assert_eq!(executable(library), None);
        assert_eq!(
            executable(binary),
            Some(Executable {
                name: "wsmon".into(),
                path: "/t/wsmon".into()
            })
        );
        assert_eq!(executable("not json"), None);
    }
}
