//! The configuration file and the profiles that it refers to.

use std::collections::BTreeSet;

use monitor::config::{Config, profiles};

use crate::pages::{code, read, table_rows};

#[test]
fn exactly_the_existing_keys_of_the_configuration_file_are_documented() {
    let documented: BTreeSet<_> = table_rows("docs/running.md")
        .into_iter()
        .filter_map(|row| code(row.first()?).first().cloned())
        .filter(|cell| cell.starts_with('['))
        .collect();
    let mut keys = BTreeSet::new();
    for (table, around) in TABLES {
        for key in keys_of(around) {
            keys.insert(format!("{table} {key}"));
        }
    }
    assert_eq!(documented, keys);
}

/// The tables of a configuration file by their names on the page, each with a file that has a wrong key
/// in it.
const TABLES: [(&str, &str); 7] = [
    ("[daemon]", "[daemon]\nwrong = 1"),
    ("[alerts]", "[alerts]\nwrong = 1"),
    ("[reap]", "[reap]\nwrong = 1"),
    ("[privacy]", "[privacy]\nwrong = 1"),
    ("[[listener]]", "[[listener]]\nwrong = 1"),
    (
        "[[listener.route]]",
        "[[listener]]\n[[listener.route]]\nwrong = 1",
    ),
    ("[[listener]] path", "[[listener]]\npath = [{ wrong = 1 }]"),
];

/// The valid keys, from the refusal of an invalid one.
fn keys_of(text: &str) -> Vec<String> {
    let problems = Config::parse(text).expect_err("a wrong key");
    let problem = problems
        .iter()
        .find(|problem| problem.message.starts_with("unknown key"))
        .expect("an unknown key");
    let mut keys = code(&problem.message).into_iter();
    assert_eq!(keys.next().as_deref(), Some("wrong"), "{problem}");
    keys.collect()
}

#[test]
fn every_configuration_file_on_the_pages_is_valid() {
    let mut found = 0;
    for page in ["README.md", "docs/running.md"] {
        let page = read(page);
        for block in page.split("```toml\n").skip(1) {
            let text = block.split("```").next().expect("a block");
            let config = Config::parse(text);
            assert!(
                config.is_ok_and(|config| config.warnings.is_empty()),
                "{text}"
            );
            found += 1;
        }
    }
    assert!(found > 0, "no page shows a file");
}

#[test]
fn the_file_of_the_packages_watches_nothing_until_its_example_is_uncommented() {
    let file = read("deploy/package/wsmon.toml");
    let config = Config::parse(&file).expect("a valid file");
    assert!(config.listeners.is_empty());
    let is_key = |rest: &&str| rest.starts_with(|c: char| c == '[' || c.is_alphabetic());
    let lines = file.lines();
    let uncommented = lines.filter_map(|line| line.strip_prefix('#').filter(is_key));
    let uncommented: Vec<_> = uncommented.collect();
    let config = Config::parse(&uncommented.join("\n")).expect("a valid file");
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.warnings, []);
}

#[test]
fn every_value_in_the_profiles_is_explained() {
    let page = read("docs/running.md");
    for profile in profiles::all() {
        for word in [
            profile.on_expiry.as_str(),
            profile.activity.as_str(),
            profile.direction.as_str(),
        ] {
            assert!(
                page.contains(&format!("`{word}`")),
                "{word} of {}",
                profile.name
            );
        }
    }
}
