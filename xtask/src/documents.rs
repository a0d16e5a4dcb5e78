//! The documents that users receive with wsmon, in archives and packages.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// Files at the top of the workspace that users need or must receive, and the pages that those link to.
const PAGES: [&str; 10] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE-APACHE",
    "LICENSE-GPL-2.0",
    "LICENSE-MIT",
    "LICENSE.md",
    "README.md",
    "RELEASE.md",
    "SECURITY.md",
];
/// Extensions of documentation files. The data behind the pictures stays in the repository.
const DOCUMENTATION: [&str; 2] = ["md", "svg"];
/// The sources of packages are of no use in a package.
const PACKAGE: &str = "deploy/package";

/// The documents as paths below `root`, the folder of the sources, sorted.
///
/// # Errors
/// If a folder cannot be listed.
pub(crate) fn documents(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<_> = PAGES.map(PathBuf::from).into();
    collect(root, Path::new("docs"), &mut files)?;
    files.retain(|file| {
        let kind = file.extension().unwrap_or_default();
        !file.starts_with("docs") || DOCUMENTATION.iter().any(|known| kind == *known)
    });
    collect(root, Path::new("deploy"), &mut files)?;
    files.retain(|file| !file.starts_with(PACKAGE));
    files.sort();
    Ok(files)
}

/// Adds the files of a folder and of those in it, as paths below `root`.
///
/// # Errors
/// If a folder cannot be listed.
pub(crate) fn collect(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let path = root.join(folder);
    let entries =
        fs::read_dir(&path).with_context(|| format!("could not list {}", path.display()))?;
    for entry in entries {
        let file = folder.join(entry?.file_name());
        // Also behind a symbolic link, such as those of the chart.
        match root.join(&file).is_dir() {
            true => collect(root, &file, files)?,
            false => files.push(file),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn licences_deploy_files_and_the_pages_a_user_needs_are_among_them() {
        let files = documents(&workspace::root()).unwrap();
        assert!(files.is_sorted());
        for file in &files {
            assert!(workspace::root().join(file).is_file(), "{}", file.display());
        }
        for promised in [
            "LICENSE.md",
            "README.md",
            "deploy/wsmon.service",
            "deploy/wsmon.toml",
            "docs/alerts.md",
            "docs/kernels.md",
            "docs/metrics.md",
            "docs/running.md",
        ] {
            assert!(files.contains(&promised.into()), "{promised} is missing");
        }
        let numbers = |file: &&PathBuf| {
            file.starts_with("docs") && file.extension().is_some_and(|kind| kind == "json")
        };
        assert_eq!(files.iter().find(numbers), None);
        assert!(!files.iter().any(|file| file.starts_with(PACKAGE)));
    }
}
