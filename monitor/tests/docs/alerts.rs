//! Alerts: kinds, terms, fields and examples.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use monitor_core::{
    CloseHow, VerdictKind,
    storm::{Cause, Pattern, StormPhase},
};
use serde_json::Value;

use crate::{
    pages::{code, examples, read, table_rows},
    written::written_alerts,
};

#[test]
fn every_verdict_and_every_resolution_is_documented() {
    let page = read("docs/alerts.md");
    for &kind in VerdictKind::ALL {
        let heading = format!("### `{}`\n", kind.as_str());
        assert!(page.contains(&heading), "{heading}");
    }
    let page = read("docs/alert-log.md");
    let ends = CloseHow::ALL.iter().map(|how| how.as_str());
    for end in ends.chain(["recovered", "superseded"]) {
        assert!(page.contains(&format!("| `{end}` |")), "{end}");
    }
}

#[test]
fn every_phase_pattern_and_cause_of_a_storm_is_documented() {
    let page = read("docs/storms.md");
    let causes = [
        Cause::ServerRestart,
        Cause::IdleTimeout(Duration::ZERO),
        Cause::Lifetime(Duration::ZERO),
        Cause::PeerNetwork,
        Cause::ProxyDeploy([127, 0, 0, 1].into()),
    ];
    let phases = StormPhase::ALL.iter().map(|phase| phase.as_str());
    let words = phases
        .chain(Pattern::ALL.iter().map(|pattern| pattern.as_str()))
        .chain(causes.map(Cause::as_str));
    for word in words {
        assert!(page.contains(&format!("| `{word}` |")), "{word}");
    }
    let page = read("docs/alerts.md");
    for alert in ["reconnect_storm", "thrash"] {
        assert!(page.contains(&format!("### `{alert}`\n")), "{alert}");
    }
}

#[test]
fn alert_fields_and_examples_match_the_log() {
    let documented: BTreeMap<_, _> = table_rows("docs/alert-log.md")
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

    let shown = examples("docs/alert-log.md");
    for example in shown.iter().chain(&examples("README.md")) {
        let known = written.iter().any(|line| has_the_fields_of(line, example));
        assert!(known, "no line of the log has these fields: {example:#}");
    }
    let alerts = |lines: &[Value]| -> BTreeSet<String> {
        lines.iter().map(|line| line["alert"].to_string()).collect()
    };
    assert_eq!(alerts(&shown), alerts(&written));
}

/// Whether `example`, which may omit fields, has only fields and types of `line`.
fn has_the_fields_of(line: &Value, example: &Value) -> bool {
    let fields = |line: &Value| types_of(line).into_keys().collect::<BTreeSet<_>>();
    line["alert"] == example["alert"]
        && fields(example).is_subset(&fields(line))
        && fields(&example["examples"][0]).is_subset(&fields(&line["examples"][0]))
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
