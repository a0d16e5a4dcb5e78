//! `cargo xtask dashboards`: writes the Grafana dashboards in deploy/grafana.

mod dashboard;
mod fleet;
mod host;
mod listener;
mod panel;
mod types;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::workspace;
use dashboard::Dashboard;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail if a committed file differs
    #[arg(long)]
    check: bool,
    /// Write nothing; check them against the types that Grafana publishes, which npm installs
    #[arg(long, conflicts_with = "check")]
    types: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.check {
        return check();
    }
    if args.types {
        return types::check();
    }
    for dashboard in all() {
        let path = path(&dashboard);
        fs::write(&path, text(&dashboard))
            .with_context(|| format!("could not write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// Compares the committed files with what the code gives.
///
/// # Errors
/// Which file differs or is missing.
pub(crate) fn check() -> Result<()> {
    for dashboard in all() {
        let path = path(&dashboard);
        if fs::read_to_string(&path).ok() != Some(text(&dashboard)) {
            bail!(
                "{} is not what the code gives; run `cargo xtask dashboards`",
                path.display()
            );
        }
    }
    Ok(())
}

fn all() -> [Dashboard; 3] {
    [fleet::dashboard(), listener::dashboard(), host::dashboard()]
}

fn path(dashboard: &Dashboard) -> PathBuf {
    workspace::root()
        .join("deploy/grafana")
        .join(format!("{}.json", dashboard.uid))
}

fn text(dashboard: &Dashboard) -> String {
    format!("{:#}\n", dashboard.json())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn panels_fill_rows_of_24_columns_without_overlap() {
        for dashboard in all() {
            let json = dashboard.json();
            let mut taken = BTreeSet::new();
            let mut ids = BTreeSet::new();
            for panel in json["panels"].as_array().unwrap() {
                let title = &panel["title"];
                assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
                let [x, y, w, h] =
                    ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
                assert!(x + w <= 24, "{title}");
                for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                    assert!(taken.insert(cell), "{title} overlaps at {cell:?}");
                }
            }
        }
    }

    #[test]
    fn all_jobs_are_those_of_wsmon() {
        let rules = workspace::root().join("deploy/prometheus/rules/fleet.yml");
        let of_rules = r#"absent(up{job=~"(.*/)?wsmon"})"#;
        assert!(fs::read_to_string(rules).unwrap().contains(of_rules));
        for dashboard in all() {
            let json = dashboard.json();
            let mut variables = json["templating"]["list"].as_array().unwrap().iter();
            let job = variables.find(|variable| variable["name"] == "job");
            // The alert of the rule above has no job.
            assert_eq!(job.unwrap()["allValue"], "(.*/)?wsmon|");
            let panels = json["panels"].as_array().unwrap().iter();
            let targets =
                panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
            for target in targets {
                let expr = target["expr"].as_str().unwrap();
                assert!(expr.contains("job=~\"$job\""), "{expr}");
            }
        }
    }

    #[test]
    fn every_panel_says_what_it_shows() {
        for dashboard in all() {
            for panel in dashboard.json()["panels"].as_array().unwrap() {
                if panel["type"] != "row" {
                    let description = panel["description"].as_str().unwrap();
                    assert!(description.ends_with('.'), "{}", panel["title"]);
                }
            }
        }
    }
}
