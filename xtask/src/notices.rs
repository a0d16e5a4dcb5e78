//! The licences of the crates inside wsmon.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::dependencies::{self, Dependency};

/// Names of files with the text of a licence or a notice that must go with it, at the top of a crate.
const FILES: [&str; 6] = [
    "licence",
    "license",
    "copying",
    "copyright",
    "notice",
    "unlicense",
];

/// The crates of others that are inside wsmon, with the texts of their licences.
#[derive(Debug)]
pub(crate) struct Notices {
    crates: Vec<(Dependency, Vec<String>)>,
}

impl Notices {
    /// Those of wsmon for `target`.
    ///
    /// # Errors
    /// If cargo fails, or a crate names no licence.
    pub(crate) fn of_wsmon(target: &str) -> Result<Self> {
        let crates = dependencies::of(target)?
            .into_iter()
            .filter(|dependency| !dependency.is_own())
            .map(|dependency| {
                let texts = texts(&dependency.folder)?;
                Ok((dependency, texts))
            });
        Ok(Self {
            crates: crates.collect::<Result<_>>()?,
        })
    }

    /// The SPDX expression of each crate.
    ///
    /// # Errors
    /// If a crate has none.
    pub(crate) fn licences(&self) -> Result<Vec<String>> {
        let crates = self.crates.iter();
        crates.map(|(dependency, _)| licence(dependency)).collect()
    }

    /// All crates, and the texts of their licences, each once.
    ///
    /// # Errors
    /// If a crate names no licence.
    pub(crate) fn text(&self) -> Result<String> {
        let mut text = String::from(
            "Licences of the crates inside wsmon\n\n\
             Rust's standard library is inside too: MIT OR Apache-2.0, https://www.rust-lang.org.\n\n",
        );
        let mut users: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (dependency, texts) in &self.crates {
            let Dependency {
                name,
                version,
                repository,
                ..
            } = dependency;
            let licence = licence(dependency)?;
            let place = repository.as_deref().unwrap_or("no repository named");
            writeln!(text, "{name} {version}: {licence}, {place}")?;
            if texts.is_empty() {
                writeln!(text, "    comes without a text; LICENSE-MIT and the others next to this file have it")?;
            }
            for licence in texts {
                users.entry(licence).or_default().push(format!("{name} {version}"));
            }
        }
        for (licence, users) in users {
            let rule = "=".repeat(80);
            write!(text, "\n{rule}\n{}\n\n{licence}\n", users.join(", "))?;
        }
        Ok(text)
    }
}

fn licence(dependency: &Dependency) -> Result<String> {
    let Dependency {
        name,
        version,
        license,
        ..
    } = dependency;
    let licence = license.as_deref();
    let licence = licence.with_context(|| format!("{name} {version} names no licence"))?;
    // Before SPDX expressions, crates wrote MIT/Apache-2.0.
    Ok(licence.replace('/', " OR "))
}

/// The texts of licences in the folder of a crate.
fn texts(folder: &Path) -> Result<Vec<String>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("could not list {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if entry.file_type()?.is_file() && FILES.iter().any(|known| name.starts_with(known)) {
            files.push(entry.path());
        }
    }
    files.sort();
    let read = |file: &PathBuf| {
        let bytes = fs::read(file).with_context(|| format!("could not read {}", file.display()))?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    files.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cross;

    #[test]
    fn every_crate_is_named_with_its_licence_and_most_come_with_its_text() {
        for target in &cross::TARGETS {
            let notices = Notices::of_wsmon(target.name).unwrap();
            assert_eq!(notices.licences().unwrap().len(), notices.crates.len());
            // What has no text must be under a licence whose text is in the image anyway.
            for (dependency, texts) in &notices.crates {
                let licence = licence(dependency).unwrap();
                let is_known = licence.contains("MIT") || licence.contains("Apache-2.0");
                assert!(!texts.is_empty() || is_known, "{dependency:?}");
            }
            let text = notices.text().unwrap();
            assert!(text.contains("\ntokio 1."), "{text}");
            assert!(text.contains("Permission is hereby granted"), "{text}");
            assert!(!text.contains("\nmonitor "), "{text}");
        }
    }
}
