//! Every query of every dashboard is answered with data.

use std::{fs, time::Duration};

use serde_json::Value;

use super::prometheus::Prometheus;

/// Checks panels, annotations and variables, over the whole scene, and lists all that have no data.
pub(super) fn assert_all_have_data(prometheus: &Prometheus, scene: Duration) {
    let mut checked = 0;
    let mut empty = Vec::new();
    for (name, dashboard) in all() {
        let annotations = dashboard["annotations"]["list"]
            .as_array()
            .expect("annotations");
        let panels = dashboard["panels"].as_array().expect("panels");
        let targets = panels
            .iter()
            .flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
        for target in annotations.iter().chain(targets) {
            let expr = target["expr"].as_str().expect("an expression");
            checked += 1;
            if prometheus.series_with_data(&with_everything_selected(expr, scene), scene) == 0 {
                empty.push(format!("{name}: {expr}"));
            }
        }
        for variable in dashboard["templating"]["list"]
            .as_array()
            .expect("variables")
        {
            let Some(query) = variable["query"]["query"].as_str() else {
                continue;
            };
            let arguments = query
                .strip_prefix("label_values(")
                .and_then(|it| it.strip_suffix(')'));
            let (series, label) = arguments
                .and_then(|it| it.rsplit_once(", "))
                .expect("label_values");
            checked += 1;
            let series = with_everything_selected(series, scene);
            if prometheus.label_values(label, &series).is_empty() {
                empty.push(format!("{name}: {query}"));
            }
        }
    }
    assert!(checked > 100, "only {checked} queries were found");
    assert!(
        empty.is_empty(),
        "{} of {checked} have no data:\n{}",
        empty.len(),
        empty.join("\n")
    );
    println!("{checked} queries of dashboards have data");
}

/// The file name and the content of each dashboard.
fn all() -> Vec<(String, Value)> {
    let folder = lab::workspace().join("deploy/grafana");
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    let read = |path: std::path::PathBuf| {
        let json = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        (
            path.file_name().unwrap().to_string_lossy().into_owned(),
            json,
        )
    };
    files.map(read).collect()
}

/// As Grafana sends it with every value of each variable selected. `$__rate_interval` is four times the interval
/// between scrapes.
fn with_everything_selected(expr: &str, scene: Duration) -> String {
    expr.replace("$__rate_interval", "2s")
        .replace("$__range", &format!("{}s", scene.as_secs()))
        .replace("$job", ".*")
        .replace("$instance", ".*")
        .replace("$listener", ".*")
}
