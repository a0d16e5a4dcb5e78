//! `cargo xtask chart`: renders the Helm chart and checks it.

mod archive;
mod config_check;
mod engine;
mod tools;
mod value_sets;
mod values_table;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    files::{self, read_text},
    setup, workspace,
};

use config_check::ConfigCheck;
use engine::{Engine, Release};
use value_sets::{Refusal, ValueSet};
use values_table::ValuesTable;

pub(crate) use archive::archive;
pub(crate) use tools::install;

/// The chart.
const CHART: &str = "deploy/helm/wsmon";
/// What it renders for `kubectl apply`.
const MANIFESTS: &str = "deploy/kubernetes/wsmon.yaml";
/// The values of these manifests.
const MANIFEST_VALUES: &str = "namespace: { create: true }\n";
/// The page with the values of the chart.
const PAGE: &str = "docs/kubernetes.md";
const NAMESPACE: &str = "wsmon";
/// The versions of Kubernetes whose schemas the manifests must match: the oldest one of the chart's `kubeVersion`,
/// a later one, and the newest one that the schemas have.
const KUBERNETES: [&str; 3] = ["1.30", "1.34", "1.37"];

#[derive(clap::Args)]
#[command(
    long_about = "Renders the chart in deploy/helm/wsmon into deploy/kubernetes/wsmon.yaml, writes the table of its \
values in docs/kubernetes.md, and checks it: lint, sets of values that must work or be refused, the schemas of three \
versions of Kubernetes, each configuration file with `wsmon config check`, and the packed chart. Helm and the schemas \
are packages of Python, which it installs into target/chart.",
    after_help = "\
Examples:
  cargo xtask chart             after a change of the chart
  cargo xtask chart --check     also refuse files that were not rendered anew, as `cargo xtask test` does

Exit codes: 0 ok, 1 failure, 2 usage error, 3 something has to be installed first."
)]
pub(crate) struct Args {
    /// Write nothing, and fail if the rendered manifests or the table are out of date
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::chart_quietly()?;
    let mut chart = Chart::open()?;
    let mut failures = Vec::new();
    for (file, content) in [chart.manifests()?, chart.page()?] {
        if args.check {
            failures.extend(up_to_date(&file, &content).err());
        } else {
            files::write(&file, content.as_bytes(), 0o644)?;
        }
    }
    failures.extend(chart.checks()?);
    for failure in &failures {
        println!("failed: {failure:#}");
    }
    ensure!(
        failures.is_empty(),
        "failed checks of {CHART}: {}",
        failures.len()
    );
    Ok(())
}

/// As `cargo xtask chart --check`.
///
/// # Errors
/// If a check fails.
pub(crate) fn run_check() -> Result<()> {
    run(&Args { check: true })
}

struct Chart {
    engine: Engine,
    folder: PathBuf,
}

impl Chart {
    fn open() -> Result<Self> {
        Ok(Self {
            engine: Engine::start()?,
            folder: workspace::root().join(CHART),
        })
    }

    /// The file of plain manifests.
    fn manifests(&mut self) -> Result<(PathBuf, String)> {
        let manifests = self.render(MANIFEST_VALUES)?;
        let text = format!(
            "# `cargo xtask chart` renders this file from {CHART}. docs/kubernetes.md explains it.\n{manifests}"
        );
        Ok((workspace::root().join(MANIFESTS), text))
    }

    /// The page with the table of values.
    fn page(&self) -> Result<(PathBuf, String)> {
        let table = ValuesTable::parse(&read_text(&self.folder.join("values.yaml"))?)?;
        let schema = read_text(&self.folder.join("values.schema.json"))?;
        table.covers(&serde_json::from_str(&schema)?)?;
        let path = workspace::root().join(PAGE);
        let page = table.insert_into(&read_text(&path)?).context(PAGE)?;
        Ok((path, page))
    }

    /// Runs every check, even after a failure, and returns the failures.
    fn checks(&mut self) -> Result<Vec<anyhow::Error>> {
        let config = ConfigCheck::build()?;
        let sets = ValueSet::all(&self.folder)?;
        let refusals = Refusal::all(&self.folder)?;
        let mut failures = Vec::new();
        failures.extend(self.has_the_version_of_wsmon().err());
        for set in &sets {
            let outcome = self.works(set, &config);
            failures.extend(
                outcome
                    .with_context(|| format!("values {}", set.name))
                    .err(),
            );
        }
        for refusal in &refusals {
            let outcome = self.is_refused(refusal);
            failures.extend(
                outcome
                    .with_context(|| format!("values {}", refusal.set.name))
                    .err(),
            );
        }
        failures.extend(self.packs(&sets).err());
        println!(
            "{CHART}: {} sets of values, {} that are refused; Kubernetes {}",
            sets.len(),
            refusals.len(),
            KUBERNETES.join(", ")
        );
        Ok(failures)
    }

    fn has_the_version_of_wsmon(&self) -> Result<()> {
        let text = read_text(&self.folder.join("Chart.yaml"))?;
        for key in ["version", "appVersion"] {
            let line = format!("{key}: {}", env!("CARGO_PKG_VERSION"));
            ensure!(
                text.lines().any(|found| found == line),
                "no line {line:?} in Chart.yaml"
            );
        }
        Ok(())
    }

    /// Values that must work do: for Helm, for Kubernetes and for wsmon.
    fn works(&mut self, set: &ValueSet, config: &ConfigCheck) -> Result<()> {
        let release = Release {
            chart: &self.folder,
            values: &set.values,
            namespace: NAMESPACE,
        };
        let mut problems = self.engine.lint(release, KUBERNETES[0])?;
        let manifests = self.render(&set.values)?;
        for version in KUBERNETES {
            let found = self.engine.validate(&manifests, version)?.into_iter();
            problems.extend(found.map(|problem| format!("Kubernetes {version}: {problem}")));
        }
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        config.accepts(&self.engine.config_file(&manifests)?)
    }

    fn is_refused(&mut self, refusal: &Refusal) -> Result<()> {
        let release = Release {
            chart: &self.folder,
            values: &refusal.set.values,
            namespace: NAMESPACE,
        };
        match self.engine.render(release)? {
            Ok(_) => bail!("not refused"),
            Err(reason) => ensure!(
                reason.contains(&refusal.message),
                "refused with {reason:?}, expected {:?}",
                refusal.message
            ),
        }
        Ok(())
    }

    /// The packed chart renders the same, and is the same when it is packed again.
    fn packs(&mut self, sets: &[ValueSet]) -> Result<()> {
        let folder = tools::folder().join("packed");
        let mut packed = Vec::new();
        for name in ["first", "second"] {
            let folder = folder.join(name);
            files::recreate(&folder)?;
            packed.push(archive(&folder, 0)?);
        }
        ensure!(
            files::read(&packed[0])? == files::read(&packed[1])?,
            "the packed chart is not reproducible"
        );
        for set in sets {
            let manifests = self.engine.render(Release {
                chart: &packed[0],
                values: &set.values,
                namespace: NAMESPACE,
            })?;
            ensure!(
                manifests == Ok(self.render(&set.values)?),
                "the packed chart renders {} differently",
                set.name
            );
        }
        files::remove(&folder)
    }

    fn render(&mut self, values: &str) -> Result<String> {
        let rendered = self.engine.render(Release {
            chart: &self.folder,
            values,
            namespace: NAMESPACE,
        })?;
        rendered.map_err(|refusal| anyhow::anyhow!("refused: {}", refusal.trim_end()))
    }
}

fn up_to_date(file: &Path, content: &str) -> Result<()> {
    ensure!(
        read_text(file)? == content,
        "{} is out of date; `cargo xtask chart` writes it",
        file.display()
    );
    Ok(())
}
