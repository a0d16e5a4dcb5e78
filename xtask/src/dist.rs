//! `cargo xtask dist`: builds an installable archive of wsmon.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    artifacts::executables,
    bytecode_lock::sha256,
    cross,
    workspace::{self, cargo},
};

const PROGRAM: &str = "wsmon";
/// Files at the top of the workspace that users need or must receive.
const PAGES: [&str; 7] = [
    "CHANGELOG.md",
    "LICENSE-APACHE",
    "LICENSE-GPL-2.0",
    "LICENSE-MIT",
    "LICENSE.md",
    "README.md",
    "SECURITY.md",
];
/// Extensions of documentation files. The data behind the pictures stays in the repository.
const DOCUMENTATION: [&str; 2] = ["md", "svg"];
/// 1980-01-01: a fixed time that every tool accepts.
const MODIFIED: &str = "@315532800";

#[derive(clap::Args)]
#[command(
    long_about = "Builds wsmon in release mode and packs it with the licences, the documentation and \
deploy/ into target/dist/wsmon-VERSION-TARGET.tar.gz, with its SHA-256 next to it. The same files give \
the same archive, byte for byte. `cargo xtask setup --tests` installs what other processors need.",
    after_help = "\
Examples:
  cargo xtask dist                                        for this machine's processor
  cargo xtask dist --target aarch64-unknown-linux-gnu     for another one
  cd target/dist && sha256sum --check *.sha256            is the archive what was built?

Exit codes: 0 ok, 1 failure, 2 usage error, 3 something has to be installed first."
)]
pub(crate) struct Args {
    /// Target to build for [default: this machine's]
    #[arg(long, value_name = "TARGET", value_parser = cross::TARGETS.map(|target| target.name))]
    target: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let target = match &args.target {
        Some(target) => target,
        None => cross::native().context("wsmon is not built for this processor")?,
    };
    cross::require(target)?;
    let binary = build(target)?;
    let name = format!("{PROGRAM}-{}-{target}", env!("CARGO_PKG_VERSION"));
    let folder = workspace::root().join("target/dist");
    let stage = folder.join(&name);
    if stage.exists() {
        fs::remove_dir_all(&stage)
            .with_context(|| format!("could not remove {}", stage.display()))?;
    }
    copy(&binary, &stage.join(PROGRAM), 0o755)?;
    for file in files(&workspace::root())? {
        copy(&workspace::root().join(&file), &stage.join(&file), 0o644)?;
    }
    let archive = folder.join(format!("{name}.tar.gz"));
    pack(&folder, &name, &archive)?;
    fs::remove_dir_all(&stage).with_context(|| format!("could not remove {}", stage.display()))?;

    let bytes =
        fs::read(&archive).with_context(|| format!("could not read {}", archive.display()))?;
    let sum = folder.join(format!("{name}.tar.gz.sha256"));
    // In the format of sha256sum.
    fs::write(&sum, format!("{}  {name}.tar.gz\n", sha256(&bytes)))
        .with_context(|| format!("could not write {}", sum.display()))?;
    println!("{}, {} KiB", archive.display(), bytes.len() / 1024);
    println!("{}", sum.display());
    Ok(())
}

/// The release build of wsmon; for this machine's processor, the build that other commands use too.
fn build(target: &str) -> Result<PathBuf> {
    let mut command = cargo(&["build", "--quiet", "--release"]);
    command.args(["--package", "monitor", "--bin", PROGRAM]);
    if cross::native() != Some(target) {
        cross::configure(&mut command, target);
    }
    executables(&mut command)?
        .into_iter()
        .find_map(|made| (made.name == PROGRAM).then_some(made.path))
        .context("cargo built wsmon but did not say where")
}

/// All files except the program, as paths below the workspace, sorted.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<_> = PAGES.map(PathBuf::from).into();
    for folder in ["deploy", "docs"] {
        let path = root.join(folder);
        let entries =
            fs::read_dir(&path).with_context(|| format!("could not list {}", path.display()))?;
        for entry in entries {
            let file = Path::new(folder).join(entry?.file_name());
            let kind = file.extension().unwrap_or_default();
            if folder == "deploy" || DOCUMENTATION.iter().any(|known| kind == *known) {
                files.push(file);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    to.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::copy(from, to))
        .and_then(|_| fs::set_permissions(to, Permissions::from_mode(mode)))
        .with_context(|| format!("could not copy {} to {}", from.display(), to.display()))
}

/// Packs a folder independently of this machine: sorted, with a fixed time, without users, with
/// fixed access modes.
fn pack(folder: &Path, name: &str, archive: &Path) -> Result<()> {
    let tar = Command::new("tar")
        .arg("--directory")
        .arg(folder)
        .args([
            "--create",
            "--format=ustar",
            "--sort=name",
            "--mtime",
            MODIFIED,
        ])
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
    use super::*;

    #[test]
    fn the_archive_holds_licences_deploy_files_and_the_pages_a_user_needs() {
        let files = files(&workspace::root()).unwrap();
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
        let numbers = |file: &&PathBuf| file.extension().is_some_and(|kind| kind == "json");
        assert_eq!(files.iter().find(numbers), None);
    }

    #[test]
    fn the_same_files_give_the_same_archive_at_any_time_and_for_any_user() {
        let folder = workspace::root().join("target/dist/test");
        let packed = |mode: u32| {
            let stage = folder.join("some");
            for file in ["b", "a", "sub/c"] {
                let path = stage.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, file).unwrap();
                fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            }
            let archive = folder.join("some.tar.gz");
            pack(&folder, "some", &archive).unwrap();
            let bytes = fs::read(&archive).unwrap();
            fs::remove_dir_all(&folder).unwrap();
            bytes
        };
        assert_eq!(packed(0o644), packed(0o664));
    }
}
