//! The files that a package installs.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};

use crate::{
    documents::documents,
    files::{output, read, recreate, remove, write},
    third_party,
};

/// What distributions place differently.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    Debian,
    Rpm,
}

/// Configuration files, which belong to the administrator once they are installed.
pub(super) const CONFIGURATION: [&str; 2] = ["etc/logrotate.d/wsmon", "etc/wsmon.toml"];

/// Where rpm keeps licences.
const LICENCES: &str = "usr/share/licenses/wsmon";

/// What wsmon itself writes for packages.
pub(super) struct Generated {
    /// Man pages by file name.
    man: Vec<(String, Vec<u8>)>,
    bash: Vec<u8>,
    zsh: Vec<u8>,
    fish: Vec<u8>,
}

impl Generated {
    /// Runs `wsmon`. `date` is the date of the man pages.
    pub(super) fn by(wsmon: &Path, date: u64) -> Result<Self> {
        let folder = super::folder().join("man");
        recreate(&folder)?;
        output(
            Command::new(wsmon)
                .arg("man")
                .arg(&folder)
                .env("SOURCE_DATE_EPOCH", date.to_string()),
        )?;
        let mut man = Vec::new();
        for entry in fs::read_dir(&folder).context("could not list the man pages")? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            man.push((name, read(&entry.path())?));
        }
        remove(&folder)?;
        man.sort();
        let script = |shell| output(Command::new(wsmon).args(["completions", shell]));
        Ok(Self {
            man,
            bash: script("bash")?,
            zsh: script("zsh")?,
            fish: script("fish")?,
        })
    }
}

/// The files below `/`, each with its content and access mode.
pub(super) struct InstallTree {
    files: Vec<(PathBuf, Vec<u8>, u32)>,
}

impl InstallTree {
    /// `root` is the folder of the sources, `third_party` the licences of other crates.
    pub(super) fn new(
        layout: Layout,
        root: &Path,
        wsmon: &[u8],
        generated: &Generated,
        third_party: &str,
    ) -> Result<Self> {
        let mut tree = Self { files: Vec::new() };
        tree.add("usr/bin/wsmon", wsmon.to_vec(), 0o755);
        for (from, to) in [
            ("deploy/package/wsmon.toml", "etc/wsmon.toml"),
            ("deploy/wsmon.logrotate", "etc/logrotate.d/wsmon"),
            (
                "deploy/wsmon.service",
                "usr/lib/systemd/system/wsmon.service",
            ),
            ("deploy/wsmon.sysusers", "usr/lib/sysusers.d/wsmon.conf"),
        ] {
            tree.add(to, read(&root.join(from))?, 0o644);
        }
        for (name, page) in &generated.man {
            tree.add(format!("usr/share/man/man1/{name}.gz"), gzip(page)?, 0o644);
        }
        let zsh = match layout {
            Layout::Debian => "usr/share/zsh/vendor-completions/_wsmon",
            Layout::Rpm => "usr/share/zsh/site-functions/_wsmon",
        };
        for (path, script) in [
            (
                "usr/share/bash-completion/completions/wsmon",
                &generated.bash,
            ),
            (
                "usr/share/fish/vendor_completions.d/wsmon.fish",
                &generated.fish,
            ),
            (zsh, &generated.zsh),
        ] {
            tree.add(path, script.clone(), 0o644);
        }
        tree.add_documents(layout, root)?;
        let licences = match layout {
            Layout::Debian => "usr/share/doc/wsmon",
            Layout::Rpm => LICENCES,
        };
        let third_party_gz = format!("{licences}/{}.gz", third_party::FILE);
        tree.add(third_party_gz, gzip(third_party.as_bytes())?, 0o644);
        tree.files.sort();
        Ok(tree)
    }

    /// Adds a file, or replaces it.
    pub(super) fn add(&mut self, path: impl Into<PathBuf>, content: Vec<u8>, mode: u32) {
        self.files.push((path.into(), content, mode));
    }

    /// The documents keep their folders, so that their links lead somewhere.
    fn add_documents(&mut self, layout: Layout, root: &Path) -> Result<()> {
        for file in documents(root)? {
            let content = read(&root.join(&file))?;
            let name = file.to_string_lossy();
            let is_licence = name.starts_with("LICENSE");
            match layout {
                // The file copyright of the Debian package has them.
                Layout::Debian if is_licence => {}
                Layout::Debian if name == "CHANGELOG.md" => {
                    self.add("usr/share/doc/wsmon/changelog.gz", gzip(&content)?, 0o644);
                }
                Layout::Rpm if is_licence => {
                    self.add(Path::new(LICENCES).join(&file), content, 0o644);
                }
                _ => self.add(Path::new("usr/share/doc/wsmon").join(&file), content, 0o644),
            }
        }
        Ok(())
    }

    /// The paths below `/`, sorted.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, ..)| path.as_path())
    }

    /// Disk space in KiB as Debian's policy computes it: each file by its blocks of 1 KiB.
    pub(super) fn kibibytes(&self) -> usize {
        let sizes = self.files.iter().map(|(_, content, _)| content.len());
        sizes.map(|size| size.div_ceil(1024)).sum()
    }

    /// Writes the files into a new folder.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        recreate(folder)?;
        for (path, content, mode) in &self.files {
            write(&folder.join(path), content, *mode)?;
        }
        Ok(())
    }
}

/// Compresses without a name and a time.
pub(super) fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    encoder.write_all(content)?;
    Ok(encoder.finish()?)
}
