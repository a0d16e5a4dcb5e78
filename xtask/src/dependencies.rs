//! The crates that are compiled into wsmon.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Command,
};

use anyhow::Result;
use serde_json::Value;

use crate::{
    files::{output, read_text},
    workspace::{self, cargo},
};

/// The packages that become the program: the daemon, and the kernel programs inside it.
const ROOTS: [&str; 2] = ["monitor", "monitor-ebpf"];

/// A crate inside wsmon.
#[derive(Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) version: String,
    /// An SPDX expression, if the crate has one.
    pub(crate) license: Option<String>,
    pub(crate) repository: Option<String>,
    /// SHA-256 of the crate's file in the registry; `None` for crates of this workspace.
    pub(crate) checksum: Option<String>,
    /// The folder of its sources.
    pub(crate) folder: PathBuf,
    /// The crates that it uses, by [`reference`](Self::reference).
    pub(crate) uses: Vec<String>,
}

impl Dependency {
    /// Its name in a list of all, which is also its package URL for crates of the registry.
    pub(crate) fn reference(&self) -> String {
        reference(&self.name, &self.version)
    }

    /// Whether it is part of this workspace.
    pub(crate) fn is_own(&self) -> bool {
        self.checksum.is_none()
    }
}

fn reference(name: &str, version: &str) -> String {
    // Version metadata contains a plus sign, which a package URL encodes.
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

/// All of them for `target`, by name and version. Procedural macros and build scripts are not among them, because
/// they run while wsmon is compiled.
///
/// # Errors
/// If cargo fails.
pub(crate) fn of(target: &str) -> Result<Vec<Dependency>> {
    let mut linked = BTreeSet::new();
    for root in ROOTS {
        let mut tree = cargo(&["tree", "--locked", "--prefix", "none", "--format", "{p}"]);
        tree.args(["--edges", "normal,no-proc-macro", "--target", target]);
        linked.extend(names_and_versions(&text(tree.args(["--package", root]))?));
    }
    let mut metadata = cargo(&["metadata", "--locked", "--format-version", "1"]);
    let metadata: Value =
        serde_json::from_str(&text(metadata.args(["--filter-platform", target]))?)?;
    let lock = read_text(&workspace::root().join("Cargo.lock"))?;
    Ok(described(&metadata, &checksums(&lock), &linked))
}

fn text(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8(output(command)?)?)
}

/// The packages in the output of `cargo tree`, whose lines are like `libc v0.2.180 (*)`.
fn names_and_versions(tree: &str) -> BTreeSet<(String, String)> {
    let packages = tree.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let name = words.next()?;
        let version = words.next()?.strip_prefix('v')?;
        Some((name.to_owned(), version.to_owned()))
    });
    packages.collect()
}

/// The checksums in a Cargo.lock, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let value = |package: &str, key: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim_start_matches(" = ").trim_matches('"').to_owned())
    };
    let packages = lock.split("[[package]]").filter_map(|package| {
        let package = package.trim_start();
        let name = value(package, "name")?;
        Some((
            (name, value(package, "version")?),
            value(package, "checksum")?,
        ))
    });
    packages.collect()
}

/// The `linked` packages of cargo's metadata.
fn described(
    metadata: &Value,
    checksums: &BTreeMap<(String, String), String>,
    linked: &BTreeSet<(String, String)>,
) -> Vec<Dependency> {
    let of_id: BTreeMap<&str, &Value> = array(&metadata["packages"])
        .filter_map(|package| Some((package["id"].as_str()?, package)))
        .collect();
    let key = |id: &str| {
        let package = of_id.get(id)?;
        let key = (string(&package["name"])?, string(&package["version"])?);
        linked.contains(&key).then_some(key)
    };
    let nodes = array(&metadata["resolve"]["nodes"]);
    let dependencies = nodes.filter_map(|node| {
        let id = node["id"].as_str()?;
        let (name, version) = key(id)?;
        let package = of_id.get(id)?;
        let is_normal =
            |used: &&Value| array(&used["dep_kinds"]).any(|kind| kind["kind"].is_null());
        let used = array(&node["deps"]).filter(is_normal);
        let used = used.filter_map(|used| key(used["pkg"].as_str()?));
        let mut uses: Vec<_> = used
            .map(|(name, version)| reference(&name, &version))
            .collect();
        uses.sort();
        let manifest = PathBuf::from(package["manifest_path"].as_str()?);
        Some(Dependency {
            license: package["license"].as_str().map(spdx),
            repository: string(&package["repository"]),
            checksum: checksums.get(&(name.clone(), version.clone())).cloned(),
            folder: manifest.parent()?.to_owned(),
            uses,
            name,
            version,
        })
    });
    let mut dependencies: Vec<_> = dependencies.collect();
    dependencies.sort_by_key(Dependency::reference);
    dependencies
}

/// The licence of a crate as an SPDX expression. Before these, crates wrote `MIT/Apache-2.0`.
fn spdx(license: &str) -> String {
    let parts: Vec<_> = license.split('/').map(str::trim).collect();
    parts.join(" OR ")
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn string(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_lists_of_licences_become_expressions() {
        for license in ["MIT/Apache-2.0", "MIT / Apache-2.0", "MIT OR Apache-2.0"] {
            assert_eq!(spdx(license), "MIT OR Apache-2.0");
        }
    }

    #[test]
    fn the_program_contains_the_loader_and_the_crates_of_the_kernel_programs_but_no_macros() {
        let all = of(crate::cross::TARGETS[0].name).unwrap();
        let find = |name: &str| all.iter().find(|dependency| dependency.name == name);
        let aya = find("aya").expect("the loader");
        assert_eq!(aya.checksum.as_ref().map(String::len), Some(64));
        assert!(aya.folder.join("Cargo.toml").is_file());
        assert!(aya.license.is_some() && !aya.is_own());
        assert!(
            aya.uses
                .iter()
                .any(|used| used.starts_with("pkg:cargo/aya-obj@"))
        );
        let daemon = find("monitor").expect("the daemon");
        assert!(daemon.is_own() && daemon.uses.contains(&aya.reference()));
        assert!(find("aya-ebpf").is_some());
        for other in ["serde_derive", "lab", "xtask", "tempfile"] {
            assert!(find(other).is_none(), "{other}");
        }
        for dependency in &all {
            for used in &dependency.uses {
                assert!(all.iter().any(|other| other.reference() == *used), "{used}");
            }
        }
    }
}
