//! The configuration file and the profiles that it refers to.

use std::{collections::BTreeSet, path::Path};

use monitor::config::{Config, profiles, web_config::WebConfig};
use serde_json::Value;

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

/// The keys that the chart sets itself, or whose values would not work in a pod.
const SET_BY_THE_CHART: [&str; 8] = [
    "[alerts] instance",
    "[alerts] log",
    "[daemon] cgroup",
    "[daemon] control",
    "[daemon] metrics_addr",
    "[daemon] pod_logs",
    "[daemon] state",
    "[daemon] web_config",
];

#[test]
fn the_values_of_the_chart_have_exactly_the_keys_of_the_configuration_file() {
    let schema: Value =
        serde_json::from_str(&read("deploy/helm/wsmon/values.schema.json")).expect("JSON");
    let mut taken: BTreeSet<_> = SET_BY_THE_CHART.map(str::to_owned).into();
    let mut keys = BTreeSet::new();
    for (table, around) in TABLES {
        let place = match table {
            "[[listener]]" => "/definitions/listener".to_owned(),
            "[[listener.route]]" => "/definitions/listener/properties/route/items".to_owned(),
            "[[listener]] path" => "/definitions/hop".to_owned(),
            table => format!("/properties/{}", table.trim_matches(['[', ']'])),
        };
        let object = schema.pointer(&place).expect("an object of the schema");
        assert_eq!(object["additionalProperties"], false, "{place}");
        for key in object["properties"].as_object().expect("properties").keys() {
            assert!(taken.insert(format!("{table} {key}")), "{table} {key}");
        }
        keys.extend(
            keys_of(around)
                .into_iter()
                .map(|key| format!("{table} {key}")),
        );
    }
    assert_eq!(taken, keys);
}

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
fn exactly_the_supported_keys_of_the_web_configuration_are_documented() {
    // They are refused with a remedy.
    const UNSUPPORTED: [&str; 5] = [
        "client_allowed_sans",
        "curve_preferences",
        "cert",
        "key",
        "client_ca",
    ];
    let refusal = |text: &str| {
        let problem = WebConfig::parse(text, Path::new("")).expect_err("a wrong key");
        let mut keys = code(&problem.message).into_iter();
        assert_eq!(keys.next().as_deref(), Some("wrong"), "{problem}");
        keys.collect::<Vec<_>>()
    };
    let mut keys = BTreeSet::new();
    for table in refusal("wrong: 1") {
        match table.as_str() {
            "basic_auth_users" => {}
            table => {
                let inside = refusal(&format!("{table}: {{ wrong: 1 }}")).into_iter();
                let supported = inside.filter(|key| !UNSUPPORTED.contains(&key.as_str()));
                keys.extend(supported.map(|key| format!("{table}.{key}")));
            }
        }
        keys.insert(table);
    }
    let documented: BTreeSet<_> = table_rows("docs/scraping.md")
        .into_iter()
        .filter_map(|row| code(row.first()?).first().cloned())
        .filter(|key| key.starts_with(char::is_lowercase))
        .collect();
    assert_eq!(documented, keys);
}

#[test]
fn every_web_configuration_on_the_page_is_valid() {
    let page = read("docs/scraping.md");
    let blocks = page.split("```yaml\n").skip(1);
    let blocks = blocks.filter_map(|block| block.split("```").next());
    let found: Vec<_> = blocks
        .filter(|text| text.starts_with("tls_server_config"))
        .map(|text| WebConfig::parse(text, Path::new("")).unwrap_or_else(|it| panic!("{it}")))
        .collect();
    let [shown] = found.as_slice() else {
        panic!("not one: {found:?}");
    };
    assert_eq!(shown.users.len(), 1);
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
