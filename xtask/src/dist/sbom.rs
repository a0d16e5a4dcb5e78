//! The software bill of materials: which crates are inside wsmon, in the JSON form of CycloneDX 1.5.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{
    dependencies::{self, Dependency},
    files,
    release_build::PROGRAM,
    source, workspace,
};

/// Writes `NAME.cdx.json` for wsmon on `target` into `folder`, and returns its path. `date` is in seconds since 1970.
///
/// # Errors
/// If cargo fails, or the file cannot be written.
pub(crate) fn write(folder: &Path, name: &str, target: &str, date: u64) -> Result<PathBuf> {
    let compiler = workspace::answer("rustc", &["--version"]).context("rustc does not run")?;
    let document = document(&dependencies::of(target)?, &compiler, date)?;
    let path = folder.join(format!("{name}.cdx.json"));
    let text = serde_json::to_string_pretty(&document)? + "\n";
    files::write(&path, text.as_bytes(), 0o644)?;
    Ok(path)
}

fn document(dependencies: &[Dependency], compiler: &str, date: u64) -> Result<Value> {
    let date = source::timestamp(date)?;
    let version = env!("CARGO_PKG_VERSION");
    let components = dependencies.iter().map(component);
    // `rustc 1.95.0 (hash date)`
    let standard_library = compiler.split(' ').nth(1).unwrap_or(compiler);
    let standard_library = json!({
        "type": "library",
        "bom-ref": "std",
        "name": "std",
        "description": "Rust's standard library",
        "version": standard_library,
        "licenses": [{ "expression": "MIT OR Apache-2.0" }],
    });
    let edges = dependencies
        .iter()
        .map(|dependency| json!({ "ref": dependency.reference(), "dependsOn": dependency.uses }));
    let own = dependencies.iter().filter(|dependency| dependency.is_own());
    let mut inside: Vec<_> = own.map(Dependency::reference).collect();
    inside.push("std".to_owned());
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": date.to_string(),
            "component": {
                "type": "application",
                "bom-ref": PROGRAM,
                "name": PROGRAM,
                "version": version,
                "licenses": [{ "expression": "(MIT OR Apache-2.0) AND (MIT OR GPL-2.0-only)" }],
            },
        },
        "components": components.chain([standard_library]).collect::<Vec<_>>(),
        "dependencies": edges
            .chain([json!({ "ref": PROGRAM, "dependsOn": inside })])
            .collect::<Vec<_>>(),
    }))
}

fn component(dependency: &Dependency) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": dependency.reference(),
        "name": dependency.name,
        "version": dependency.version,
    });
    if let Some(license) = &dependency.license {
        component["licenses"] = json!([{ "expression": license }]);
    }
    // No registry has the crates of this workspace.
    if let Some(checksum) = &dependency.checksum {
        component["purl"] = json!(dependency.reference());
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    if let Some(repository) = &dependency.repository {
        component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_of_the_registry_has_its_checksum_and_licence_and_an_own_one_no_package_url() {
        let dependency = |name: &str, checksum: Option<&str>| Dependency {
            name: name.to_owned(),
            version: "1.0.0+extra".to_owned(),
            license: Some("MIT OR Apache-2.0".to_owned()),
            repository: None,
            checksum: checksum.map(str::to_owned),
            folder: PathBuf::new(),
            uses: Vec::new(),
        };
        let all = [dependency("own", None), dependency("other", Some("ab"))];
        let document = document(&all, "rustc 1.95.0 (hash)", 0).unwrap();
        let [own, other, std] = [0, 1, 2].map(|at| &document["components"][at]);
        assert_eq!(own["purl"], Value::Null);
        assert_eq!(other["purl"], "pkg:cargo/other@1.0.0%2Bextra");
        assert_eq!(other["hashes"][0]["content"], "ab");
        assert_eq!(other["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(std["version"], "1.95.0");
        assert_eq!(document["metadata"]["timestamp"], "1970-01-01T00:00:00Z");
        let edges = document["dependencies"].as_array().unwrap();
        assert_eq!(
            edges.last().unwrap()["dependsOn"],
            json!(["pkg:cargo/own@1.0.0%2Bextra", "std"])
        );
    }
}
