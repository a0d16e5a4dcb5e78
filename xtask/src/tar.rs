//! Archives that are the same on every machine.

use std::{path::Path, process::Command};

use anyhow::Result;

use crate::workspace;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
}

/// Packs the files and folders `names` of a folder: sorted, with a fixed time, without users, with fixed access
/// modes. `date` is in seconds since 1970.
///
/// # Errors
/// If tar fails.
pub(crate) fn pack(
    folder: &Path,
    names: &[&str],
    date: u64,
    compression: Compression,
    archive: &Path,
) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.arg("--directory").arg(folder);
    tar.args(["--create", "--format=ustar", "--sort=name"]);
    tar.arg(format!("--mtime=@{date}"));
    tar.args(["--owner=0", "--group=0", "--numeric-owner"]);
    tar.arg("--mode=u=rwX,go=rX");
    if compression == Compression::Gzip {
        tar.arg("--use-compress-program=gzip --no-name -9");
    }
    workspace::run(tar.arg("--file").arg(archive).args(names))
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt as _,
        process,
    };

    use super::*;

    #[test]
    fn the_same_files_give_the_same_archive_at_any_time_and_for_any_user() {
        let folder = env::temp_dir().join(format!("wsmon-xtask-tar-{}", process::id()));
        let packed = |mode: u32, compression: Compression| {
            let stage = folder.join("some");
            for file in ["b", "a", "sub/c"] {
                let path = stage.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, file).unwrap();
                fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            }
            let archive = folder.join("some.tar");
            pack(&folder, &["some"], 315_532_800, compression, &archive).unwrap();
            let bytes = fs::read(&archive).unwrap();
            fs::remove_dir_all(&folder).unwrap();
            bytes
        };
        for compression in [Compression::None, Compression::Gzip] {
            assert_eq!(packed(0o644, compression), packed(0o664, compression));
        }
    }
}
