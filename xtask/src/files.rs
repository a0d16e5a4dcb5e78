//! Files and programs, with errors that name them.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::workspace;

/// # Errors
/// If it cannot be read.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("could not read {}", path.display()))
}

/// # Errors
/// If it cannot be read, or is not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))
}

/// The last part of a path; empty if there is none.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Writes a file with these access rights, and its folders.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let parent = path.parent().map_or(Ok(()), create_folder);
    parent
        .and_then(|()| fs::write(path, content))
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .with_context(|| format!("could not write {}", path.display()))
}

/// An empty folder.
pub(crate) fn recreate(folder: &Path) -> Result<()> {
    if folder.exists() {
        remove(folder)?;
    }
    create_folder(folder).with_context(|| format!("could not create {}", folder.display()))
}

/// Creates a folder and those above it, unless they exist. Everyone may read them, whatever the umask, because
/// packages contain them.
fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        create_folder(parent)?;
    }
    fs::create_dir(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o755))
}

pub(crate) fn remove(folder: &Path) -> Result<()> {
    fs::remove_dir_all(folder).with_context(|| format!("could not remove {}", folder.display()))
}

/// The standard output of a program that succeeds.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let line = workspace::line(command);
    let output = command
        .output()
        .with_context(|| format!("could not start `{line}`"))?;
    ensure!(
        output.status.success(),
        "`{line}` failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use super::*;

    #[test]
    fn everyone_may_read_new_folders() {
        let top = env::temp_dir().join(format!("wsmon-xtask-folders-{}", process::id()));
        write(&top.join("a/b/file"), b"", 0o600).unwrap();
        recreate(&top.join("c")).unwrap();
        let mode = |name: &str| {
            let metadata = fs::metadata(top.join(name)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        assert_eq!(
            ["", "a", "a/b", "c"].map(mode),
            [0o755; 4],
            "folders in {}",
            top.display()
        );
        assert_eq!(mode("a/b/file"), 0o600);
        remove(&top).unwrap();
    }

    /// In a process of its own, because all threads share the umask.
    #[test]
    fn the_umask_does_not_matter() {
        let tests = env::current_exe().unwrap();
        let mut again = Command::new("sh");
        again.args(["-c", "umask 077; exec \"$0\" --exact \"$1\""]);
        let said = output(
            again
                .arg(tests)
                .arg("files::tests::everyone_may_read_new_folders"),
        );
        let said = String::from_utf8(said.unwrap()).unwrap();
        assert!(said.contains("test result: ok. 1 passed"), "{said}");
    }
}
