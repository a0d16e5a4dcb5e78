//! A process of `engine.py`: Helm, and the schemas of Kubernetes.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::tools;

const SCRIPT: &str = include_str!("engine.py");
/// The schemas of the Prometheus Operator's kinds.
const MONITORING: &str = include_str!("monitoring.json");

/// A folder or an archive with a chart, and its values in YAML.
#[derive(Clone, Copy)]
pub(super) struct Release<'a> {
    pub(super) chart: &'a Path,
    pub(super) values: &'a str,
    pub(super) namespace: &'a str,
}

pub(super) struct Engine {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// What Python and Helm write to stderr.
    log: PathBuf,
    monitoring: Value,
}

impl Engine {
    /// # Errors
    /// If Python cannot be started.
    pub(super) fn start() -> Result<Self> {
        let log = tools::folder().join("engine.log");
        let stderr =
            File::create(&log).with_context(|| format!("could not write {}", log.display()))?;
        let mut child = Command::new(tools::python())
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .context("could not start Python")?;
        Ok(Self {
            requests: child.stdin.take().context("no pipe to Python")?,
            answers: BufReader::new(child.stdout.take().context("no pipe from Python")?),
            child,
            log,
            monitoring: serde_json::from_str(MONITORING)?,
        })
    }

    /// Warnings and errors of `helm lint`.
    ///
    /// # Errors
    /// If it cannot read the values, or Python fails.
    pub(super) fn lint(&mut self, release: Release<'_>, kubernetes: &str) -> Result<Vec<String>> {
        let Release {
            chart,
            values,
            namespace,
        } = release;
        self.accepted(&json!({
            "operation": "lint", "chart": chart, "values": values, "namespace": namespace,
            "kubernetes": format!("v{kubernetes}.0"),
        }))
    }

    /// The manifests, as `helm template` prints them; or why the chart refuses the values.
    ///
    /// # Errors
    /// If Python fails.
    pub(super) fn render(&mut self, release: Release<'_>) -> Result<Result<String, String>> {
        let Release {
            chart,
            values,
            namespace,
        } = release;
        self.request(&json!({
            "operation": "render", "chart": chart, "values": values, "namespace": namespace,
        }))
    }

    /// What is wrong with manifests.
    ///
    /// # Errors
    /// If Python fails.
    pub(super) fn validate(&mut self, manifests: &str, kubernetes: &str) -> Result<Vec<String>> {
        let request = json!({
            "operation": "validate", "manifests": manifests, "kubernetes": kubernetes,
            "resources": self.monitoring,
        });
        self.accepted(&request)
    }

    /// The configuration file of wsmon in manifests.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn config_file(&mut self, manifests: &str) -> Result<String> {
        self.accepted(&json!({ "operation": "config_file", "manifests": manifests }))
    }

    fn accepted<T: DeserializeOwned>(&mut self, request: &Value) -> Result<T> {
        match self.request(request)? {
            Ok(answer) => Ok(answer),
            Err(refusal) => bail!("{refusal}"),
        }
    }

    fn request<T: DeserializeOwned>(&mut self, request: &Value) -> Result<Result<T, String>> {
        let mut answer = String::new();
        let sent = writeln!(self.requests, "{request}");
        if sent.is_err() || self.answers.read_line(&mut answer)? == 0 {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            bail!("Python failed: {}", log.trim_end());
        }
        let mut answer: Value = serde_json::from_str(&answer)?;
        Ok(match answer["refused"].as_str() {
            Some(refusal) => Err(refusal.to_owned()),
            None => Ok(serde_json::from_value(answer["ok"].take())?),
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Nothing is sent to it any more. An error means that it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
