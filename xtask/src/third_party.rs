//! The licences of the crates inside wsmon, which must go where the program goes.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{
    dependencies::{self, Dependency},
    files::read,
};

/// The name of the file with these licences.
pub(crate) const FILE: &str = "THIRD-PARTY.txt";

/// The beginnings of the names of files with a licence or a copyright.
const NAMES: [&str; 6] = [
    "copying",
    "copyright",
    "licence",
    "license",
    "notice",
    "unlicense",
];

/// All crates in wsmon for `target` with their licences, and each different text of a licence once.
///
/// # Errors
/// If cargo fails, or a file cannot be read.
pub(crate) fn licences(target: &str) -> Result<String> {
    let mut crates = String::new();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let all = dependencies::of(target)?;
    for dependency in all.iter().filter(|dependency| !dependency.is_own()) {
        let Dependency {
            name,
            version,
            license,
            ..
        } = dependency;
        let license = license.as_deref().unwrap_or("see below");
        writeln!(crates, "{name} {version}: {license}")?;
        for (file, text) in texts_in(&dependency.folder)? {
            texts
                .entry(text)
                .or_default()
                .push(format!("{name} {version}, {file}"));
        }
    }
    let mut page =
        format!("wsmon contains these crates of others, under these licences.\n\n{crates}");
    for (text, sources) in texts {
        let rule = "=".repeat(80);
        write!(page, "\n{rule}\n{}\n{rule}\n\n{text}\n", sources.join("\n"))?;
    }
    Ok(page)
}

/// The names and texts of the licences in a crate's folder.
fn texts_in(folder: &Path) -> Result<Vec<(String, String)>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("could not list {}", folder.display()))?;
    let mut texts = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let lower = name.to_lowercase();
        if entry.file_type()?.is_file() && NAMES.iter().any(|known| lower.starts_with(known)) {
            let text = read(&entry.path())?;
            let text = String::from_utf8_lossy(&text).replace('\r', "");
            texts.push((name, text.trim_end().to_owned()));
        }
    }
    texts.sort();
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_is_listed_and_the_same_text_comes_once() {
        let page = licences(crate::cross::TARGETS[0].name).unwrap();
        assert!(page.contains("\naya 0.14.0: MIT OR Apache-2.0\n"), "aya");
        assert!(
            page.contains("\nwebpki-roots ") || page.contains("\nrustls "),
            "TLS"
        );
        assert!(
            !page.contains("monitor-core"),
            "own crates are not of others"
        );
        let apache = page
            .matches("TERMS AND CONDITIONS FOR USE, REPRODUCTION")
            .count();
        assert!((1..30).contains(&apache), "{apache}");
    }
}
