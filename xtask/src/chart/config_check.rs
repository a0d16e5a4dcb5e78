//! wsmon's own check of the configuration files that the chart renders.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::tools;
use crate::{artifacts::executables, workspace::cargo};

/// Where a pod has its web configuration.
const MOUNTED_WEB_CONFIG: &str = "/etc/wsmon-web/web.yml";

pub(super) struct ConfigCheck {
    wsmon: PathBuf,
}

impl ConfigCheck {
    /// # Errors
    /// If wsmon cannot be built.
    pub(super) fn build() -> Result<Self> {
        let mut command = cargo(&["build", "--quiet", "--package", "monitor", "--bin", "wsmon"]);
        let wsmon = executables(&mut command)?
            .into_iter()
            .find(|made| made.name == "wsmon")
            .context("cargo built wsmon but did not say where")?;
        Ok(Self { wsmon: wsmon.path })
    }

    /// # Errors
    /// What is wrong with the file. Probable mistakes count too.
    pub(super) fn accepts(&self, text: &str) -> Result<()> {
        // In the place of the Secret.
        let web_config = tools::folder().join("web.yml");
        fs::write(&web_config, "{}\n")
            .with_context(|| format!("could not write {}", web_config.display()))?;
        let text = text.replace(MOUNTED_WEB_CONFIG, &web_config.display().to_string());
        let file = tools::folder().join("wsmon.toml");
        fs::write(&file, text).with_context(|| format!("could not write {}", file.display()))?;
        let output = Command::new(&self.wsmon)
            .args(["config", "check"])
            .arg(&file)
            .output()
            .context("could not start wsmon")?;
        ensure!(
            output.status.success() && output.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        Ok(())
    }
}
