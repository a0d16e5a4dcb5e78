//! An archive of wsmon and its documents, to install without a package manager.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    documents::documents,
    files::{self, read, remove},
    package::Package,
    release_build::PROGRAM,
    third_party, workspace,
};

/// Writes the archive into `folder`, with everything in a folder of the same name, and returns its path.
///
/// # Errors
/// If a file cannot be read or written, or tar fails.
pub(super) fn write(folder: &Path, package: &Package) -> Result<PathBuf> {
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
    pack(folder, &name, package.date(), &archive)?;
    remove(&stage)?;
    Ok(archive)
}

/// Packs a folder independently of this machine: sorted, with a fixed time, without users, with
/// fixed access modes. The time is in seconds since 1970.
///
/// # Errors
/// If tar fails.
pub(crate) fn pack(folder: &Path, name: &str, date: u64, archive: &Path) -> Result<()> {
    let tar = Command::new("tar")
        .arg("--directory")
        .arg(folder)
        .args(["--create", "--format=ustar", "--sort=name"])
        .arg(format!("--mtime=@{date}"))
        .args(["--owner=0", "--group=0", "--numeric-owner"])
        .args([
            "--mode=u=rwX,go=rX",
            "--use-compress-program=gzip --no-name -9",
            "--file",
        ])
        .arg(archive)
        .arg(name)
        .status()
        .context("could not start tar")?;
    ensure!(
        tar.success(),
        "tar could not write {}: {tar}",
        archive.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt as _,
    };

    use super::*;

    #[test]
    fn the_same_files_give_the_same_archive_at_any_time_and_for_any_user() {
        let folder = workspace::root().join("target/dist-test");
        let packed = |mode: u32| {
            let stage = folder.join("some");
            for file in ["b", "a", "sub/c"] {
                let path = stage.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, file).unwrap();
                fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            }
            let archive = folder.join("some.tar.gz");
            pack(&folder, "some", 315_532_800, &archive).unwrap();
            let bytes = fs::read(&archive).unwrap();
            fs::remove_dir_all(&folder).unwrap();
            bytes
        };
        assert_eq!(packed(0o644), packed(0o664));
    }
}
