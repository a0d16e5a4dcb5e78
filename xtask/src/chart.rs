//! `cargo xtask chart`: renders the Helm chart and checks it.

mod archive;
mod engine;
mod tools;
mod value_sets;
mod values_table;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    artifacts::executables,
    workspace::{self, cargo},
};

use engine::{Engine, Release};
use value_sets::{Refusal, ValueSet};
use values_table::ValuesTable;

pub(crate) use archive::pack;
pub(crate) use tools::install;

/// The chart.
const CHART: &str = "deploy/helm/wsmon";
/// What it renders for `kubectl apply`.
const MANIFESTS: &str = "deploy/kubernetes/wsmon.yaml";
/// The page with its values.
const PAGE: &str = "docs/kubernetes.md";
/// The versions of Kubernetes whose schemas the manifests must match: the oldest one that the chart takes, a later
/// one, and the newest one that the validator knows.
const KUBERNETES: [&str; 3] = ["1.30", "1.34", "1.37"];
/// The values of [`MANIFESTS`].
const WITH_NAMESPACE: &str = "namespace: { create: true }\n";
const NAMESPACE: &str = "wsmon";

#[derive(clap::Args)]
#[command(
    long_about = "Renders the chart in deploy/helm/wsmon into deploy/kubernetes/wsmon.yaml, writes the table of its \
values in docs/kubernetes.md, and checks the chart: lint, sets of values that must work or be refused, the schemas of \
three versions of Kubernetes, and each configuration file with `wsmon config check`. Needs Python; `cargo xtask setup \
--tests` installs Helm and the schemas as packages of Python into target/chart.",
    after_help = "\
Examples:
  cargo xtask chart             after a change of the chart
  cargo xtask chart --check     also fail if the rendered files differ, as `cargo xtask test` does

Exit codes: 0 ok, 1 failure, 2 usage error, 3 something has to be installed first."
)]
pub(crate) struct Args {
    /// Write nothing; fail if the rendered manifests or the table are out of date
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    tools::install_quietly()?;
    let mut chart = Chart::open()?;
    let generated = chart.generated()?;
    for (file, content) in &generated {
        if args.check {
            up_to_date(file, content)?;
        } else {
            write(file, content)?;
        }
    }
    chart.check()
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
    values: String,
}

impl Chart {
    fn open() -> Result<Self> {
        let folder = workspace::root().join(CHART);
        Ok(Self {
            engine: Engine::start()?,
            values: read(&folder.join("values.yaml"))?,
            folder,
        })
    }

    /// The files that are written from the chart.
    fn generated(&mut self) -> Result<[(PathBuf, String); 2]> {
        let manifests = self.render(WITH_NAMESPACE)?;
        let manifests = format!(
            "# `cargo xtask chart` renders this file from {CHART}. docs/kubernetes.md explains it.\n{manifests}"
        );
        let table = ValuesTable::parse(&self.values)?;
        let schema = read(&self.folder.join("values.schema.json"))?;
        table.covers(&serde_json::from_str(&schema)?)?;
        let page = workspace::root().join(PAGE);
        let page_text = table
            .insert_into(&read(&page)?)
            .with_context(|| PAGE.to_owned())?;
        Ok([(workspace::root().join(MANIFESTS), manifests), (page, page_text)])
    }

    /// Runs every check, even after a failure.
    fn check(&mut self) -> Result<()> {
        let config = ConfigCheck::new()?;
        let mut failures = Vec::new();
        failures.extend(self.check_version().err());
        let mut sets = ValueSet::all(&self.folder)?;
        sets.push(ValueSet {
            name: "defaults".to_owned(),
            values: String::new(),
        });
        for set in &sets {
            let outcome = self.check_set(set, &config);
            failures.extend(outcome.err().map(|error| error.context(format!("values {}", set.name))));
        }
        let refusals = Refusal::all(&self.folder)?;
        for refusal in &refusals {
            failures.extend(self.check_refusal(refusal).err());
        }
        failures.extend(self.check_archive(&sets).err());
        if failures.is_empty() {
            println!(
                "{CHART}: {} sets of values for Kubernetes {}, {} refused",
                sets.len(),
                KUBERNETES.join(", "),
                refusals.len()
            );
            return Ok(());
        }
        for failure in &failures {
            println!("failed: {failure:#}");
        }
        bail!("{} checks of {CHART} failed", failures.len());
    }

    fn render(&mut self, values: &str) -> Result<String> {
        let release = Release {
            chart: &self.folder,
            values,
            namespace: NAMESPACE,
            kubernetes: KUBERNETES[0],
        };
        match self.engine.render(&release)? {
            Ok(manifests) => Ok(manifests),
            Err(refusal) => bail!("{refusal}"),
        }
    }
}
