use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Builds wsmon in release mode and says where cargo put it.
pub(super) fn wsmon() -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--release"])
        .args(["--package", "monitor", "--bin", "wsmon"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo to build wsmon")?;
    if !output.status.success() {
        bail!("building wsmon failed; cargo's words are above");
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(executable)
        .context("cargo built wsmon but did not say where")
}

/// The path in cargo's message about the binary `wsmon`; `None` for every other message.
fn executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["reason"] != "compiler-artifact" || message["target"]["name"] != "wsmon" {
        return None;
    }
    message["executable"].as_str().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_found_among_cargo_s_messages() {
        let library =
            r#"{"reason":"compiler-artifact","target":{"name":"monitor"},"executable":null}"#;
        let binary =
            r#"{"reason":"compiler-artifact","target":{"name":"wsmon"},"executable":"/t/wsmon"}"#;
        assert_eq!(executable(library), None);
        assert_eq!(executable(binary), Some(PathBuf::from("/t/wsmon")));
        assert_eq!(executable("not json"), None);
    }
}
