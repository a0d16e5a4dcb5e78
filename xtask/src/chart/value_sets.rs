//! The sets of values in the chart's folder `ci`, which must work, and those in `ci/refused`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::files::{file_name, read_text};

/// Values that must work.
pub(super) struct ValueSet {
    pub(super) name: String,
    /// In YAML.
    pub(super) values: String,
}

/// Values that must be refused.
pub(super) struct Refusal {
    pub(super) set: ValueSet,
    /// A part of the message, from the first line of the file.
    pub(super) message: String,
}

impl ValueSet {
    /// The defaults, and the sets of the folder.
    ///
    /// # Errors
    /// If there is none, or one cannot be read.
    pub(super) fn all(chart: &Path) -> Result<Vec<Self>> {
        let mut sets = vec![Self {
            name: "defaults".to_owned(),
            values: String::new(),
        }];
        sets.extend(read_all(&chart.join("ci"))?);
        Ok(sets)
    }
}

impl Refusal {
    /// All of the folder.
    ///
    /// # Errors
    /// If there is none, or one has no message.
    pub(super) fn all(chart: &Path) -> Result<Vec<Self>> {
        read_all(&chart.join("ci/refused"))?
            .into_iter()
            .map(|set| {
                let line = set.values.lines().next().unwrap_or_default();
                let message = line.strip_prefix("# refused: ").with_context(|| {
                    format!("{} does not begin with `# refused: MESSAGE`", set.name)
                })?;
                Ok(Self {
                    message: message.to_owned(),
                    set,
                })
            })
            .collect()
    }
}

/// The files of a folder, sorted by their names.
fn read_all(folder: &Path) -> Result<Vec<ValueSet>> {
    let list = || format!("could not list {}", folder.display());
    let mut files = fs::read_dir(folder)
        .with_context(list)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<PathBuf>>>()
        .with_context(list)?;
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    files.sort();
    ensure!(!files.is_empty(), "no values in {}", folder.display());
    files
        .into_iter()
        .map(|path| {
            Ok(ValueSet {
                name: file_name(&path),
                values: read_text(&path)?,
            })
        })
        .collect()
}
