//! The routes and inhibitions for Alertmanager in deploy. A test in `monitor/tests/live/inhibitions.rs` runs them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    pages::{code, read, table_rows, yaml},
    rules::{list, rules, run, text},
};

const CONFIG: &str = "deploy/alertmanager/alertmanager.yml";

#[test]
fn alertmanager_accepts_its_configuration() {
    run("amtool", &["check-config"], &[CONFIG.to_owned()]);
}

#[test]
fn alertmanager_withholds_alerts_that_exist_by_labels_that_they_have() {
    let alerts = labels_of_alerts();
    let config = yaml(CONFIG);
    let inhibitions = list(&config["inhibit_rules"]);
    assert!(!inhibitions.is_empty());
    for rule in inhibitions {
        for side in ["source_matchers", "target_matchers"] {
            let matchers: Vec<_> = list(&rule[side])
                .iter()
                .map(|it| Matcher::parse(text(it)))
                .collect();
            let names = matchers.iter().find(|it| it.label == "alertname");
            let names = names.expect("a name of alerts").values();
            for name in names {
                let labels = alerts.get(name).unwrap_or_else(|| panic!("no {name}"));
                let equal = list(&rule["equal"]).iter().map(text);
                let used = matchers.iter().map(|it| it.label.as_str()).chain(equal);
                for label in used {
                    assert!(labels.contains(label), "{name} has no {label}: {rule}");
                }
            }
        }
    }
}

#[test]
fn matchers_are_read_as_alertmanager_reads_them() {
    let read = |text: &str| {
        let Matcher { label, op, value } = Matcher::parse(text);
        (label, op, value)
    };
    let expected = |label: &str, op, value: &str| (label.to_owned(), op, value.to_owned());
    assert_eq!(read("a=\"b\""), expected("a", "=", "b"));
    assert_eq!(read("a = b"), expected("a", "=", "b"));
    assert_eq!(read("job=\"\""), expected("job", "=", ""));
    assert_eq!(read("job!=\"\""), expected("job", "!=", ""));
    assert_eq!(read("a=~\"b|c\""), expected("a", "=~", "b|c"));
    assert_eq!(read("a!~\"b=c\""), expected("a", "!~", "b=c"));
}

/// One condition on a label.
struct Matcher {
    label: String,
    op: &'static str,
    /// Without quotes.
    value: String,
}

impl Matcher {
    fn parse(text: &str) -> Self {
        let end = text.find(['=', '!']).expect("an operator");
        let (label, rest) = text.split_at(end);
        let op = ["=~", "!~", "!=", "="]
            .into_iter()
            .find(|op| rest.starts_with(op))
            .expect("an operator");
        let value = rest[op.len()..].trim();
        let quoted = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
        Self {
            label: label.trim().to_owned(),
            op,
            value: quoted.unwrap_or(value).to_owned(),
        }
    }

    /// What it accepts, which has to be a list of words.
    fn values(&self) -> impl Iterator<Item = &str> {
        assert!(["=", "=~"].contains(&self.op), "{}", self.op);
        let is_word = |it: char| it.is_ascii_alphanumeric() || "_|".contains(it);
        assert!(self.value.chars().all(is_word), "{}", self.value);
        self.value.split('|')
    }
}

/// The labels of each alert, whether a rule or wsmon itself makes it.
fn labels_of_alerts() -> BTreeMap<String, BTreeSet<String>> {
    let mut alerts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for rule in rules() {
        let Some(name) = rule["alert"].as_str() else {
            continue;
        };
        let mut labels = BTreeSet::from(["alertname", "job"].map(str::to_owned));
        // An alert of the fleet is one for all hosts.
        let of_scope: &[&str] = match text(&rule["labels"]["scope"]) {
            "listener" => &["instance", "listener"],
            "fleet" => &["listener"],
            _ => &["instance"],
        };
        labels.extend(of_scope.iter().map(|label| (*label).to_owned()));
        labels.extend(rule["labels"].as_object().expect("labels").keys().cloned());
        alerts.insert(name.to_owned(), labels);
    }
    let page = read("docs/alert-log.md");
    let (_, section) = page.split_once("## Alertmanager").expect("the section");
    let (names, _) = section
        .split_once("`alertname` is ")
        .and_then(|(_, it)| it.split_once("\n\n"))
        .expect("a list of names");
    let rows = table_rows("docs/alert-log.md").into_iter();
    let documented = rows.filter_map(|row| code(row.first()?).first().cloned());
    // Without a job, which a matcher can require.
    let documented: BTreeSet<_> = documented.chain(["job".to_owned()]).collect();
    for name in code(names) {
        alerts.entry(name).or_default().extend(documented.clone());
    }
    alerts
}

#[test]
fn alerts_and_metrics_of_a_node_have_the_same_instance() {
    let text = read("deploy/kubernetes/wsmon.yaml");
    let manifests: Vec<Value> = serde_saphyr::from_multiple(&text).expect("manifests");
    let pods = manifests.iter().find(|it| it["kind"] == "DaemonSet");
    let pods = pods.expect("a DaemonSet");
    let variables = list(&pods["spec"]["template"]["spec"]["containers"][0]["env"]);
    let instance = variables.iter().find(|it| it["name"] == "WSMON_INSTANCE");
    let source = &instance.expect("WSMON_INSTANCE")["valueFrom"];
    assert_eq!(source["fieldRef"]["fieldPath"], "spec.nodeName");
    let endpoint = read("deploy/helm/wsmon/templates/_helpers.tpl");
    let relabeling =
        "- sourceLabels: [__meta_kubernetes_pod_node_name]\n      targetLabel: instance";
    assert!(endpoint.contains(relabeling), "{endpoint}");
}
