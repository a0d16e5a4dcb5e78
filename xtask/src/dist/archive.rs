//! An archive of wsmon and its documents, to install without a package manager.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    documents::documents,
    files::{read, remove, write},
    package::Package,
    release_build::PROGRAM,
    third_party, workspace,
};

/// Writes `NAME.tar.gz` into `folder`, with everything in a folder NAME, and returns its path. All files get the time
/// `date`, in seconds since 1970.
///
/// # Errors
/// If a file cannot be read or written, or tar fails.
pub(super) fn archive(folder: &Path, name: &str, package: &Package, date: u64) -> Result<PathBuf> {
    let stage = folder.join(name);
    write(&stage.join(PROGRAM), package.wsmon(), 0o755)?;
    write(
        &stage.join(third_party::FILE),
        package.third_party().as_bytes(),
        0o644,
    )?;
    let root = workspace::root();
    for file in documents(&root)? {
        write(&stage.join(&file), &read(&root.join(&file))?, 0o644)?;
    }
    let archive = folder.join(format!("{name}.tar.gz"));
    pack(folder, name, date, &archive)?;
    remove(&stage)?;
    Ok(archive)
}

/// Packs a folder independently of this machine: sorted, with a fixed time, without users, with
/// fixed access modes.
fn pack(folder: &Path, name: &str, date: u64, archive: &Path) -> Result<()> {
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
