//! Checks the dashboards against the types that Grafana publishes for them.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use super::{all, text};
use crate::{files::read_text, setup, workspace};

/// # Errors
/// If the types cannot be installed, or a dashboard does not have them.
pub(super) fn check() -> Result<()> {
    let folder = setup::dashboard_types_quietly()?;
    let types = workspace::root().join("testdata/grafana/types.ts");
    let mut source = read_text(&types)?;
    for (number, dashboard) in all().iter().enumerate() {
        source += &format!(
            "export const dashboard{number}: Checked = {};\n",
            text(dashboard)
        );
    }
    fs::write(folder.join("dashboards.ts"), source)
        .with_context(|| format!("could not write to {}", folder.display()))?;
    let mut compiler = Command::new(folder.join("node_modules/.bin/tsc"));
    compiler
        .args([
            "--noEmit",
            "--strict",
            "--skipLibCheck",
            "--target",
            "es2022",
        ])
        .args([
            "--module",
            "esnext",
            "--moduleResolution",
            "bundler",
            "dashboards.ts",
        ])
        .current_dir(folder);
    workspace::run(&mut compiler)
}
