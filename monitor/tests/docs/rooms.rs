//! The folders of `monitor/src` import from one another without a cycle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

type Imports = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_folder_imports_from_one_that_imports_from_it() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut imports = Imports::new();
    for entry in fs::read_dir(&sources).expect("the sources") {
        let path = entry.expect("an entry").path();
        let room = path.file_stem().expect("a name").to_string_lossy();
        if !["lib", "main"].contains(&&*room) {
            collect(&path, imports.entry(room.clone().into_owned()).or_default());
        }
    }
    assert!(imports["daemon"].contains("kernel"), "{imports:?}");
    let cycle = without_leaves(imports);
    assert!(cycle.is_empty(), "these import in a circle: {cycle:#?}");
}

#[test]
fn a_cycle_is_found_and_what_only_leads_to_it_is_too() {
    let text = "use crate::{a::{self, b}, c};\nlet x = crate::d::e();\npub(in crate::a) fn f() {}";
    assert_eq!(imported(text), ["a", "c", "d", "a"]);
    let rooms = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let imports = [
        ("a", rooms(&["b", "a"])),
        ("b", rooms(&["c"])),
        ("c", rooms(&[])),
    ];
    let mut imports: Imports = imports.map(|(name, from)| (name.to_owned(), from)).into();
    assert!(without_leaves(imports.clone()).is_empty());
    imports.insert("c".to_owned(), rooms(&["a"]));
    assert_eq!(without_leaves(imports).len(), 3);
}

/// Adds the imports of a file, or of all files of a folder.
fn collect(path: &PathBuf, imports: &mut BTreeSet<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            collect(&entry.expect("an entry").path(), imports);
        }
    } else {
        imports.extend(imported(&fs::read_to_string(path).expect("a source file")));
    }
}

/// The first name of each path that starts with `crate::`.
fn imported(text: &str) -> Vec<String> {
    let first_name = |path: &str| -> String {
        let is_name = |c: &char| c.is_alphanumeric() || *c == '_';
        path.trim_start().chars().take_while(is_name).collect()
    };
    let mut names = Vec::new();
    for path in text.split("crate::").skip(1) {
        let Some(group) = path.strip_prefix('{') else {
            names.push(first_name(path));
            continue;
        };
        // Without what is inside nested groups, commas separate the paths.
        let mut depth = 1;
        let paths: String = group
            .chars()
            .map_while(|c| {
                depth += i32::from(c == '{') - i32::from(c == '}');
                (depth > 0).then_some((c, depth))
            })
            .filter_map(|(c, depth)| (depth == 1).then_some(c))
            .collect();
        names.extend(paths.split(',').map(first_name));
    }
    names.retain(|name| !name.is_empty());
    names
}

/// What is left when rooms that import from no other one are removed, again and again.
fn without_leaves(mut imports: Imports) -> Imports {
    loop {
        let leaves: Vec<String> = imports
            .iter()
            .filter(|(room, from)| {
                let others = from.iter().filter(|name| name != room);
                others.clone().all(|name| !imports.contains_key(name))
            })
            .map(|(room, _)| room.clone())
            .collect();
        if leaves.is_empty() {
            return imports;
        }
        imports.retain(|room, _| !leaves.contains(room));
    }
}
