//! Parses the pages.

use std::{fs, path::PathBuf};

use serde_json::Value;

/// The cells of every table row of a page.
pub(crate) fn table_rows(path: &str) -> Vec<Vec<String>> {
    table_rows_in(&read(path))
}

/// The cells of every table row of a text.
pub(crate) fn table_rows_in(text: &str) -> Vec<Vec<String>> {
    text.lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix('|'))
        .map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// The texts in backticks.
pub(crate) fn code(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

pub(crate) fn read(path: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A YAML file.
pub(crate) fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The sections of a page: the heading of each, and its text.
pub(crate) fn sections(page: &str) -> Vec<(String, String)> {
    page.split("\n## ")
        .skip(1)
        .filter_map(|section| section.split_once('\n'))
        .map(|(heading, text)| (heading.to_owned(), text.to_owned()))
        .collect()
}

/// The JSON examples of a text. `…` stands for omitted fields.
pub(crate) fn examples_in(text: &str) -> Vec<Value> {
    text.split("```json\n")
        .skip(1)
        .map(|block| {
            let (text, _) = block.split_once("```").expect("a block ends");
            let text = text.replace(", …", "").replace("{ … }", "{}");
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
        })
        .collect()
}

/// The source files that ARCHITECTURE.md names, with the folders that it shortens written out.
fn named_sources() -> Vec<String> {
    let rooms = [
        "alerting",
        "api",
        "cli",
        "config",
        "daemon",
        "decode",
        "diagnostics",
        "kernel",
        "metrics",
        "records",
        "replay",
    ];
    code(&read("ARCHITECTURE.md").replace("```", ""))
        .into_iter()
        .filter(|name| name.ends_with(".rs"))
        .map(|name| match name.split_once('/') {
            Some(("core", rest)) => format!("monitor/core/src/{rest}"),
            Some((room, _)) if rooms.contains(&room) => format!("monitor/src/{name}"),
            _ => name,
        })
        .collect()
}

#[test]
fn every_path_of_a_source_file_in_architecture_exists() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let paths: Vec<_> = named_sources()
        .into_iter()
        .filter(|name| name.matches('/').count() > 1)
        .collect();
    assert!(paths.len() > 20, "{paths:?}");
    for path in paths {
        assert!(root.join(&path).is_file(), "{path}");
    }
}
