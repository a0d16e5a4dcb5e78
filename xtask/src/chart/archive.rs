//! The chart as Helm takes it from a repository or a file.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::CHART;
use crate::{
    documents::collect,
    files::{read, remove, write},
    tar::{self, Compression},
    workspace,
};

const NAME: &str = "wsmon";
/// As `.helmignore` says.
const IGNORED: &str = "ci";

/// Writes `wsmon-VERSION.tgz` into `folder` and returns its path. All files get the time `date`, in seconds since
/// 1970. Symbolic links become the files that they lead to.
///
/// # Errors
/// If a file cannot be read or written, or tar fails.
pub(crate) fn archive(folder: &Path, date: u64) -> Result<PathBuf> {
    let chart = workspace::root().join(CHART);
    let stage = folder.join(NAME);
    let mut files = Vec::new();
    collect(&chart, Path::new(""), &mut files)?;
    files.retain(|file| !file.starts_with(IGNORED));
    for file in files {
        write(&stage.join(&file), &read(&chart.join(&file))?, 0o644)?;
    }
    let archive = folder.join(format!("{NAME}-{}.tgz", env!("CARGO_PKG_VERSION")));
    tar::pack(folder, &[NAME], date, Compression::Gzip, &archive)?;
    remove(&stage)?;
    Ok(archive)
}
