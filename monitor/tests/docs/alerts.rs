//! Alerts: kinds, words, fields and examples.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use monitor::core::{
    CloseHow, VerdictKind,
    storm::{Cause, Pattern, Phase},
};
use serde_json::Value;

use crate::{
    pages::{code, read, table_rows},
    written::written_alerts,
};

#[test]
fn every_verdict_and_every_end_of_one_is_documented() {
    let page = read("docs/alerts.md");
    for kind in VerdictKind::ALL {
        let heading = format!("### `{}`\n", kind.as_str());
        assert!(page.contains(&heading), "{heading}");
    }
    let ends = CloseHow::ALL.map(CloseHow::as_str);
    for end in ends.into_iter().chain(["recovered", "superseded"]) {
        assert!(page.contains(&format!("| `{end}` |")), "{end}");
    }
}

#[test]
fn every_phase_pattern_and_cause_of_a_storm_is_documented() {
    let page = read("docs/alerts.md");
    let causes = [
        Cause::ServerRestart,
        Cause::IdleTimeout(Duration::ZERO),
        Cause::Lifetime(Duration::ZERO),
        Cause::PeerNetwork,
        Cause::ProxyDeploy([127, 0, 0, 1].into()),
    ];
    let words = Phase::ALL
        .map(Phase::as_str)
        .into_iter()
        .chain(Pattern::ALL.map(Pattern::as_str))
        .chain(causes.map(Cause::as_str));
    for word in words {
        assert!(page.contains(&format!("| `{word}` |")), "{word}");
    }
    for alert in ["reconnect_storm", "thrash"] {
        assert!(page.contains(&format!("### `{alert}`\n")), "{alert}");
    }
}

#[test]
fn alert_fields_and_examples_are_what_the_log_writes() {
    let page = read("docs/alerts.md");
    let documented: BTreeMap<_, _> = table_rows("docs/alerts.md")
        .into_iter()
        .filter_map(|row| {
            let types: BTreeSet<_> = row.get(1)?.split(" or ").map(str::to_owned).collect();
            let known = types.iter().all(|kind| {
                ["array", "boolean", "object", "string", "number", "null"].contains(&kind.as_str())
            });
            known.then_some((code(&row[0]).first()?.clone(), types))
        })
        .collect();
    let written = written_alerts();
    let mut fields: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (field, kinds) in written.iter().flat_map(types_of) {
        fields.entry(field).or_default().extend(kinds);
    }
    assert_eq!(documented, fields);

    let examples: Vec<Value> = page
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).expect("an example is JSON"))
        .collect();
    assert_eq!(
        examples.iter().map(shape).collect::<BTreeSet<_>>(),
        written.iter().map(shape).collect::<BTreeSet<_>>()
    );
}

/// The fields of a line, and those of the first example in it.
fn shape(line: &Value) -> (BTreeSet<String>, BTreeSet<String>) {
    let names = |line: &Value| types_of(line).into_keys().collect();
    (names(line), names(&line["examples"][0]))
}

/// The JSON type of each field, by its path.
fn types_of(value: &Value) -> BTreeMap<String, BTreeSet<String>> {
    fn visit(path: &str, value: &Value, types: &mut BTreeMap<String, BTreeSet<String>>) {
        let kind = match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    let path = [path, name].join(if path.is_empty() { "" } else { "." });
                    visit(&path, field, types);
                }
                if path.is_empty() {
                    return;
                }
                "object"
            }
            Value::Array(_) => "array",
            Value::Null => "null",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Bool(_) => "boolean",
        };
        let kinds = types.entry(path.to_owned()).or_default();
        kinds.insert(kind.to_owned());
    }
    let mut types = BTreeMap::new();
    visit("", value, &mut types);
    types
}
