//! The rules for Prometheus and the dashboards for Grafana in deploy.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use monitor_core::VerdictKind;
use serde_json::Value;

use crate::{
    metrics::all_families,
    pages::{read, yaml},
};

const RULES: [&str; 3] = ["recording", "alerts", "fleet"];
const TESTS: [&str; 3] = ["recording", "firing", "silent"];
const DASHBOARDS: [&str; 3] = ["wsmon-fleet", "wsmon-listener", "wsmon-host"];

/// What the runbooks' addresses begin with.
const RUNBOOKS: &str = "https://wsmon.example/";

#[test]
fn prometheus_accepts_the_rules_and_their_tests_pass() {
    let rules = RULES.map(|name| format!("deploy/prometheus/rules/{name}.yml"));
    let tests = TESTS.map(|name| format!("deploy/prometheus/tests/{name}.yml"));
    let strings = |names: &[String]| names.to_vec();
    run("promtool", &["check", "rules"], &strings(&rules));
    run("promtool", &["test", "rules"], &strings(&tests));
    let config = "deploy/prometheus/prometheus.yml".to_owned();
    run("promtool", &["check", "config"], &[config]);
}

#[test]
fn each_alert_has_a_firing_and_a_silent_test_and_each_record_one() {
    let tests: Vec<_> = TESTS
        .map(|name| yaml(&format!("deploy/prometheus/tests/{name}.yml")))
        .into();
    let groups = tests.iter().flat_map(|file| list(&file["tests"]));
    let mut tested = BTreeSet::new();
    for group in groups {
        for case in list(&group["alert_rule_test"]) {
            let fires = !list(&case["exp_alerts"]).is_empty();
            tested.insert((text(&case["alertname"]), fires));
        }
        for case in list(&group["promql_expr_test"]) {
            tested.insert((text(&case["expr"]), !list(&case["exp_samples"]).is_empty()));
        }
    }
    for rule in rules() {
        match rule["alert"].as_str() {
            Some(alert) => {
                for fires in [true, false] {
                    assert!(tested.contains(&(alert, fires)), "{alert}, fires: {fires}");
                }
            }
            None => assert!(tested.contains(&(text(&rule["record"]), true)), "{rule}"),
        }
    }
}

#[test]
fn each_alert_has_labels_texts_and_a_runbook_that_exists() {
    let names: Vec<_> = rules()
        .iter()
        .filter_map(|rule| Some(rule["alert"].as_str()?.to_owned()))
        .collect();
    assert_eq!(
        names.iter().collect::<BTreeSet<_>>().len(),
        names.len(),
        "{names:?}"
    );
    for rule in rules().iter().filter(|rule| rule["alert"].is_string()) {
        let (labels, annotations) = (&rule["labels"], &rule["annotations"]);
        assert!(
            ["critical", "warning"].contains(&text(&labels["severity"])),
            "{rule}"
        );
        assert!(
            ["fleet", "listener", "wsmon"].contains(&text(&labels["scope"])),
            "{rule}"
        );
        for annotation in ["summary", "description"] {
            assert!(!text(&annotations[annotation]).is_empty(), "{rule}");
        }
        let runbook = text(&annotations["runbook_url"]);
        for kind in VerdictKind::zombies() {
            let runbook = runbook.replace("{{ $labels.kind }}", kind.as_str());
            let place = runbook
                .strip_prefix(RUNBOOKS)
                .expect("the common beginning");
            let (page, anchor) = place.split_once('#').expect("an anchor");
            assert!(anchors(&read(page)).contains(anchor), "{runbook}");
        }
    }
}

#[test]
fn rules_and_dashboards_use_only_metrics_and_labels_that_exist() {
    let mut known = all_families();
    for name in ["up", "scrape_duration_seconds", "scrape_samples_scraped"] {
        known.insert(name.to_owned(), BTreeSet::new());
    }
    // Of these, Prometheus and Alertmanager make the labels from the alerts'.
    let of_alerts = ["alertname", "alertstate", "severity", "listener"].map(str::to_owned);
    known.insert("ALERTS".to_owned(), of_alerts.into());
    for rule in rules() {
        if let Some(record) = rule["record"].as_str() {
            let (level, _) = record.split_once(':').expect("the labels it keeps");
            known.insert(
                record.to_owned(),
                level.split('_').map(str::to_owned).collect(),
            );
        }
    }
    let rules = rules();
    let mut expressions: Vec<_> = rules
        .iter()
        .map(|rule| text(&rule["expr"]).to_owned())
        .collect();
    for name in DASHBOARDS {
        let json = read(&format!("deploy/grafana/{name}.json"));
        collect_expressions(
            &serde_json::from_str(&json).expect("JSON"),
            &mut expressions,
        );
    }
    assert!(expressions.len() > 150, "{}", expressions.len());
    let any_label: BTreeSet<_> = known.values().flatten().cloned().collect();
    for expr in &expressions {
        for (name, labels) in selectors(expr) {
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .filter(|family| !known.contains_key(&name) && known.contains_key(*family))
                .unwrap_or(&name);
            let of_family = known
                .get(family)
                .unwrap_or_else(|| panic!("{name} in {expr}"));
            for label in labels {
                let everywhere = ["job", "instance", "le"].contains(&&*label);
                assert!(
                    everywhere || of_family.contains(&label),
                    "{label} of {name} in {expr}"
                );
            }
        }
        for label in grouped_labels(expr) {
            let everywhere = ["job", "instance", "le"].contains(&&*label);
            assert!(
                everywhere || any_label.contains(&label),
                "{label} in {expr}"
            );
        }
    }
}

#[test]
fn selectors_and_groupings_are_found_in_an_expression() {
    let expr = "sum by (job, le) (rate(wsmon_x_total{a=~\"b|{c}\",d!=\"e\"}[5m])) > on (job) up{}";
    let found = [
        (
            "wsmon_x_total".to_owned(),
            vec!["a".to_owned(), "d".to_owned()],
        ),
        ("up".to_owned(), vec![]),
    ];
    assert_eq!(selectors(expr), found);
    assert_eq!(grouped_labels(expr), ["job", "le", "job"]);
    assert_eq!(
        selectors("listener:wsmon_y:rate5m > 1"),
        [("listener:wsmon_y:rate5m".to_owned(), vec![])]
    );
}

/// Every metric's name in an expression, with the labels that are matched. A name contains `wsmon_`, is followed by a
/// brace, or is `up`.
fn selectors(expr: &str) -> Vec<(String, Vec<String>)> {
    let in_name = |letter: char| letter.is_ascii_alphanumeric() || "_:".contains(letter);
    let mut found = Vec::new();
    let mut rest = expr;
    while let Some(begin) = rest.find(|letter| in_name(letter) || letter == '"') {
        rest = &rest[begin..];
        if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted.split_once('"').expect("a string ends").1;
            continue;
        }
        let (name, after) =
            rest.split_at(rest.find(|letter| !in_name(letter)).unwrap_or(rest.len()));
        rest = after;
        let mut labels = Vec::new();
        if let Some(mut matchers) = after.strip_prefix('{') {
            while !matchers.starts_with('}') {
                let (label, value) = matchers.split_once('"').expect("a value");
                labels.push(label.trim_matches([' ', ',', '=', '~', '!']).to_owned());
                matchers = value.split_once('"').expect("a string ends").1;
            }
            rest = &matchers[1..];
        } else if !name.contains("wsmon_") && name != "up" {
            continue;
        }
        found.push((name.to_owned(), labels));
    }
    found
}

/// The labels in `by (…)` and `on (…)`.
fn grouped_labels(expr: &str) -> Vec<String> {
    let groups = ["by (", "on ("]
        .into_iter()
        .flat_map(|word| expr.split(word).skip(1));
    let lists = groups.filter_map(|group| Some(group.split_once(')')?.0));
    lists
        .flat_map(|list| list.split(','))
        .map(|label| label.trim().to_owned())
        .collect()
}

/// The expressions of panels and annotations, and the series from which variables have their values.
fn collect_expressions(json: &Value, found: &mut Vec<String>) {
    match json {
        Value::Object(object) => {
            found.extend(object.get("expr").map(|expr| text(expr).to_owned()));
            let definition = object.get("definition").map(text);
            let series =
                definition.and_then(|it| it.strip_prefix("label_values(")?.rsplit_once(", "));
            found.extend(series.map(|(series, _)| series.to_owned()));
            object
                .values()
                .for_each(|value| collect_expressions(value, found));
        }
        Value::Array(values) => values
            .iter()
            .for_each(|value| collect_expressions(value, found)),
        _ => {}
    }
}

/// All rules of all files.
pub(crate) fn rules() -> Vec<Value> {
    let files = RULES.map(|name| yaml(&format!("deploy/prometheus/rules/{name}.yml")));
    let groups = files.iter().flat_map(|file| list(&file["groups"]));
    groups
        .flat_map(|group| list(&group["rules"]).clone())
        .collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading
            .chars()
            .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        kept.collect::<String>().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

pub(crate) fn list(json: &Value) -> &Vec<Value> {
    static NONE: Vec<Value> = Vec::new();
    json.as_array().unwrap_or(&NONE)
}

pub(crate) fn text(json: &Value) -> &str {
    json.as_str()
        .unwrap_or_else(|| panic!("expected a text, found {json}"))
}

/// Runs a program of Debian's packages `prometheus` and `prometheus-alertmanager` on these files.
pub(crate) fn run(program: &str, arguments: &[&str], files: &[String]) {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(program)
        .args(arguments)
        .args(files)
        .current_dir(root)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; `cargo xtask setup` installs it"));
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

#[test]
fn no_rule_test_or_dashboard_is_left_out() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let mut expected = BTreeMap::new();
    expected.insert("prometheus/rules", RULES.map(|name| format!("{name}.yml")));
    expected.insert("prometheus/tests", TESTS.map(|name| format!("{name}.yml")));
    expected.insert("grafana", DASHBOARDS.map(|name| format!("{name}.json")));
    for (folder, names) in expected {
        assert_eq!(files(&root.join(folder)), names.into(), "{folder}");
    }
}

fn files(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    entries.map(|entry| name(entry.unwrap())).collect()
}
