//! The folders of `monitor/src` import only from those below them in the table of ARCHITECTURE.md, so
//! there is no cycle.

use std::{collections::BTreeSet, fs, path::Path};

use crate::pages::{code, table_rows};

#[test]
fn each_folder_imports_only_from_those_below_it() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let entries = fs::read_dir(&sources).expect("the sources");
    let folders: BTreeSet<String> = entries
        .map(|entry| entry.expect("an entry").path().with_extension(""))
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .filter(|name| !["lib", "main"].contains(&name.as_str()))
        .collect();
    let rows = table_rows("ARCHITECTURE.md").into_iter();
    let layers: Vec<String> = rows
        .filter(|row| row[0].starts_with('`'))
        .flat_map(|row| code(&row[0]))
        .filter(|name| folders.contains(name))
        .collect();
    assert_eq!(layers.iter().cloned().collect::<BTreeSet<_>>(), folders);
    assert_eq!(layers.len(), folders.len(), "each once");
    for (index, folder) in layers.iter().enumerate() {
        let mut imports = BTreeSet::new();
        collect(&sources.join(format!("{folder}.rs")), &mut imports);
        collect(&sources.join(folder), &mut imports);
        let (above, below) = (&layers[..index], &layers[index + 1..]);
        assert!(
            folder != "daemon" || imports.contains("kernel"),
            "{imports:?}"
        );
        for import in imports {
            assert!(!above.contains(&import), "{folder} imports from {import}");
            assert!(import == *folder || below.contains(&import), "{import}");
        }
    }
}

/// Adds the imports of a file, or of all files of a folder.
fn collect(path: &Path, imports: &mut BTreeSet<String>) {
    if let Ok(entries) = fs::read_dir(path) {
        for entry in entries {
            collect(&entry.expect("an entry").path(), imports);
        }
    } else if let Ok(text) = fs::read_to_string(path) {
        imports.extend(imported(&text));
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

#[test]
fn a_path_and_each_path_of_a_group_is_an_import() {
    let text = "use crate::{\n    a::{self, b::{c, d}},\n    e,\n};\nlet x = crate::f::g();";
    assert_eq!(imported(text), ["a", "e", "f"]);
}
