//! Output files of the measuring commands.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

/// Writes `NAME.json`, and `NAME.svg` if there is a picture, into a folder, which is created if necessary.
///
/// # Errors
/// If one of them cannot be written; the message names it.
pub(crate) fn write(
    folder: &Path,
    name: &str,
    json: &serde_json::Value,
    picture: Option<String>,
) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let picture = picture.map(|picture| ("svg", picture));
    let json = ("json", format!("{json:#}\n"));
    for (kind, content) in [json].into_iter().chain(picture) {
        let path = folder.join(format!("{name}.{kind}"));
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}
