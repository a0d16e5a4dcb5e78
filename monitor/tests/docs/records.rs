//! docs/records.md: every record, its fields, their types and units, and the examples.

use std::collections::{BTreeMap, BTreeSet};

use monitor::records::frames::{FrameLayout, FrameRecord, FrameRow};
use serde_json::Value;

use crate::{
    pages::{code, examples_in, read, sections, table_rows_in},
    samples,
};

const PAGE: &str = "docs/records.md";

/// Objects whose fields are listed once: a record, a path in it, and where its fields are.
const SHARED: [(&str, &str, &str, &str); 11] = [
    ("alert", "examples[].conn.", "alert", "conn."),
    ("alert", "examples[].evidence.", "alert", "evidence."),
    ("alert", "examples[].", "client", ""),
    ("connection", "tx.", "connection", "rx."),
    ("connection", "rates.tx.", "connection", "rates.rx."),
    ("group", "rates.tx.", "group", "rates.rx."),
    ("status", "listeners[].zombies.", "status", "zombies."),
    (
        "connection_summary",
        "handshake.",
        "connection",
        "handshake.",
    ),
    ("connection_summary", "owner.", "connection", "owner."),
    ("connection_summary", "tx.", "connection_summary", "rx."),
    ("recording_summary", "tx.", "recording_summary", "rx."),
];

type Types = BTreeMap<String, BTreeSet<String>>;

#[test]
fn the_page_lists_every_field_of_every_record_and_no_others() {
    let page = documented();
    let written = written();
    assert_eq!(
        page.keys().collect::<Vec<_>>(),
        written.keys().collect::<Vec<_>>(),
        "the records"
    );
    for (record, fields) in &written {
        let listed = &page[record];
        let mut own = Types::new();
        for (path, types) in fields {
            match shared(record, path).filter(|_| !listed.contains_key(path)) {
                Some((of, there)) => {
                    let known = page[of].get(&placeholder(&there, &page[of]));
                    assert!(
                        known.is_some_and(|known| types.is_subset(known)),
                        "{record}: {path}, as {there} of {of}: {types:?}, documented {known:?}"
                    );
                }
                None => drop(own.insert(path.clone(), types.clone())),
            }
        }
        assert_eq!(
            (without(listed, &own), without(&own, listed)),
            (Types::new(), Types::new()),
            "{record}: fields of the page only, and of the program only"
        );
    }
}

#[test]
fn units_follow_from_the_names_of_fields() {
    for (record, text) in records() {
        for row in fields_in(&text) {
            let field = &code(&row[0])[0];
            let name = field.rsplit('.').next().unwrap_or(field);
            let unit = match name {
                "ts" => "time",
                "length" => "bytes",
                name if name.ends_with("_at") => "time",
                name if name.ends_with("_seconds") => "s",
                name if name.ends_with("_bytes") => "bytes",
                _ => "",
            };
            assert_eq!(row[2], unit, "{record}: {field}");
            assert!(
                row[3].chars().count() <= 80,
                "{record}: {field}: {}",
                row[3]
            );
        }
    }
}

#[test]
fn examples_have_the_fields_and_types_that_the_program_writes() {
    let (page, written) = (documented(), written());
    let fits = |example: &Value, record: &str, from: &str| {
        for (path, types) in types_of(example) {
            let path = placeholder(&path, &page[record]);
            let known = written[record].get(&path);
            assert!(
                known.is_some_and(|known| types.is_subset(known)),
                "{from}: {path} of {record}: {types:?}, written {known:?}"
            );
        }
    };
    for (record, text) in records() {
        let examples = examples_in(&text);
        assert!(!examples.is_empty(), "{record}");
        for example in examples {
            assert_eq!(example["type"], record);
            fits(&without_type(example), &record, PAGE);
        }
    }
    let mut alerts = BTreeSet::new();
    for page in [PAGE, "docs/alert-log.md", "README.md"] {
        for example in examples_in(&read(page)) {
            if example["alert"].is_string() {
                alerts.insert(example["alert"].to_string());
                let line = without_type(example);
                let known = samples::alerts().into_iter().any(|known| {
                    known["alert"] == line["alert"]
                        && has_the_fields_of(&without_type(known), &line)
                });
                assert!(known, "no line of the log has these fields: {line:#}");
            }
        }
    }
    let written = samples::alerts().into_iter();
    let written: BTreeSet<_> = written.map(|line| line["alert"].to_string()).collect();
    assert_eq!(alerts, written);
}

#[test]
fn the_example_of_a_frame_is_also_shown_as_a_line_of_text() {
    let (_, text) = records()
        .into_iter()
        .find(|(record, _)| record == "frame")
        .expect("a frame");
    let example = examples_in(&text).remove(0);
    let frame: FrameRecord = serde_json::from_value(example).expect("a frame");
    let page = read("docs/frames.md");
    let table: Vec<&str> = page
        .lines()
        .skip_while(|line| !line.starts_with("TIME "))
        .take_while(|line| *line != "```")
        .collect();
    let layout = FrameLayout::Narrow;
    assert_eq!(table[0], layout.head());
    let frame = &frame;
    let line = FrameRow { frame, layout }.to_string();
    assert!(table.contains(&line.as_str()), "{line}");
}

#[test]
fn every_trigger_is_documented() {
    let (_, text) = records()
        .into_iter()
        .find(|(record, _)| record == "transition")
        .expect("transitions");
    let documented: BTreeSet<_> = table_rows_in(&text)
        .into_iter()
        .filter(|row| row.len() == 3)
        .filter_map(|row| code(&row[0]).into_iter().next())
        .filter(|name| name != "trigger.kind")
        .collect();
    let written: BTreeSet<_> = samples::all()["transition"]
        .iter()
        .filter_map(|transition| Some(transition["trigger"]["kind"].as_str()?.to_owned()))
        .collect();
    assert_eq!(documented, written);
}

/// The sections of the page about one record each, by its `type`.
fn records() -> Vec<(String, String)> {
    sections(&read(PAGE))
        .into_iter()
        .filter_map(|(heading, text)| {
            let name = heading.strip_prefix('`')?.strip_suffix('`')?;
            Some((name.to_owned(), text))
        })
        .collect()
}

/// The rows of the table of fields.
fn fields_in(section: &str) -> Vec<Vec<String>> {
    table_rows_in(section)
        .into_iter()
        .filter(|row| row.len() == 4 && row[0].starts_with('`'))
        .collect()
}

/// The types of the fields of each record on the page.
fn documented() -> BTreeMap<String, Types> {
    records()
        .into_iter()
        .map(|(record, text)| {
            let fields = fields_in(&text).into_iter().map(|row| {
                let types = row[1].split(" or ").map(str::to_owned).collect();
                (code(&row[0])[0].clone(), types)
            });
            (record, fields.collect())
        })
        .collect()
}

/// The types of the fields of each record that the program writes.
fn written() -> BTreeMap<String, Types> {
    let page = documented();
    let unlisted = Types::new();
    samples::all()
        .into_iter()
        .map(|(record, samples)| {
            let listed = page.get(record).unwrap_or(&unlisted);
            let mut fields = Types::new();
            for sample in samples {
                assert_eq!(sample["type"], record);
                for (field, types) in types_of(&without_type(sample)) {
                    let field = placeholder(&field, listed);
                    fields.entry(field).or_default().extend(types);
                }
            }
            (record.to_owned(), fields)
        })
        .collect()
}

/// The fields of `some` that `others` lacks or has with other types.
fn without(some: &Types, others: &Types) -> Types {
    let differs = |(field, types): &(&String, &_)| others.get(*field) != Some(*types);
    let fields = some.iter().filter(differs);
    fields
        .map(|(field, types)| (field.clone(), types.clone()))
        .collect()
}

/// Every record has it, and its section is named after it.
fn without_type(mut record: Value) -> Value {
    record.as_object_mut().map(|fields| fields.remove("type"));
    record
}

/// A path whose last name is a key of a map, such as an opcode, as the page lists it: with a placeholder
/// in capitals.
fn placeholder(path: &str, listed: &Types) -> String {
    let Some((parent, _)) = path.rsplit_once('.').filter(|_| !listed.contains_key(path)) else {
        return path.to_owned();
    };
    listed
        .keys()
        .find(|known| {
            known.rsplit_once('.').is_some_and(|(of, name)| {
                of == parent && name.chars().all(|letter| letter.is_ascii_uppercase())
            })
        })
        .map_or_else(|| path.to_owned(), Clone::clone)
}

/// Where the page lists the field, if it is one of another object.
fn shared(record: &str, path: &str) -> Option<(&'static str, String)> {
    SHARED
        .into_iter()
        .filter(|(of, ..)| *of == record)
        .find_map(|(_, object, of, there)| {
            let rest = path.strip_prefix(object)?;
            Some((of, format!("{there}{rest}")))
        })
}

/// Whether `example`, which may omit fields, has only fields of `line`.
fn has_the_fields_of(line: &Value, example: &Value) -> bool {
    let fields = |line: &Value| types_of(line).into_keys().collect::<BTreeSet<_>>();
    fields(example).is_subset(&fields(line))
}

/// The JSON types of each field, by its path.
fn types_of(value: &Value) -> Types {
    fn visit(path: &str, value: &Value, types: &mut Types) {
        let kind = match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    let path = [path, name].join(if path.is_empty() { "" } else { "." });
                    visit(&path, field, types);
                }
                "object"
            }
            Value::Array(items) => {
                for item in items.iter().filter(|item| item.is_object()) {
                    visit(&format!("{path}[]"), item, types);
                }
                "array"
            }
            Value::Null => "null",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Bool(_) => "boolean",
        };
        if !path.is_empty() && !path.ends_with("[]") {
            let kinds = types.entry(path.to_owned()).or_default();
            kinds.insert(kind.to_owned());
        }
    }
    let mut types = Types::new();
    visit("", value, &mut types);
    types
}
