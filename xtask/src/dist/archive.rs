//! An archive of wsmon and its documents, to install without a package manager.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    documents::documents,
    files::{self, read, remove},
    package::Package,
    release_build::PROGRAM,
    tar::{self, Compression},
    third_party, workspace,
};

/// Writes the archive into the folder of the package, with everything in a folder of the same name, and returns its
/// path.
///
/// # Errors
/// If a file cannot be read or written, or tar fails.
pub(super) fn write(package: &Package) -> Result<PathBuf> {
    let folder = package.folder();
    let name = package.name();
    let stage = folder.join(&name);
    files::write(&stage.join(PROGRAM), package.wsmon(), 0o755)?;
    let third_party = package.third_party().as_bytes();
    files::write(&stage.join(third_party::FILE), third_party, 0o644)?;
    let root = workspace::root();
    for file in documents(&root)? {
        files::write(&stage.join(&file), &read(&root.join(&file))?, 0o644)?;
    }
    let archive = folder.join(format!("{name}.tar.gz"));
    let date = package.date();
    tar::pack(folder, &[&name], date, Compression::Gzip, &archive)?;
    remove(&stage)?;
    Ok(archive)
}
