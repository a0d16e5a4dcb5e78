//! The files that a package installs.

use std::{
    collections::BTreeMap,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Debian,
    Rpm,
}

impl Layout {
    /// Links in documents to files that are elsewhere in the package, and the links to write instead.
    const fn moved_links(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Debian => &[
                ("](LICENSE.md)", "](copyright)"),
                ("](CHANGELOG.md)", "](changelog.gz)"),
            ],
            Self::Rpm => &[("](LICENSE.md)", "](../../licenses/wsmon/LICENSE.md)")],
        }
    }
}

/// Configuration files, which belong to the administrator once they are installed.
pub(super) const CONFIGURATION: [&str; 2] = ["etc/logrotate.d/wsmon", EXAMPLE];

/// The configuration, which is an example at first.
const EXAMPLE: &str = "etc/wsmon.toml";

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
    /// Runs `wsmon`, which writes into a new folder in `folder`. `date` is the date of the man pages.
    pub(super) fn by(wsmon: &Path, date: u64, folder: &Path) -> Result<Self> {
        let folder = folder.join("man");
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
    files: BTreeMap<PathBuf, (Vec<u8>, u32)>,
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
        let mut tree = Self {
            files: BTreeMap::new(),
        };
        tree.add("usr/bin/wsmon", wsmon.to_vec(), 0o755);
        for (from, to) in [
            ("deploy/package/wsmon.toml", EXAMPLE),
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
        Ok(tree)
    }

    /// Adds a file, or replaces it.
    pub(super) fn add(&mut self, path: impl Into<PathBuf>, content: Vec<u8>, mode: u32) {
        self.files.insert(path.into(), (content, mode));
    }

    /// Adds a line at the end of the example of a configuration.
    pub(super) fn append_to_example(&mut self, line: &str) {
        if let Some((content, _)) = self.files.get_mut(Path::new(EXAMPLE)) {
            content.extend_from_slice(line.as_bytes());
        }
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
                _ => {
                    let content = match name.ends_with(".md") {
                        true => relink(content, layout)?,
                        false => content,
                    };
                    self.add(Path::new("usr/share/doc/wsmon").join(&file), content, 0o644);
                }
            }
        }
        Ok(())
    }

    /// The paths below `/`, sorted.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }

    /// Disk space in KiB as Debian's policy computes it: each file by its blocks of 1 KiB.
    pub(super) fn kibibytes(&self) -> usize {
        let sizes = self.files.values().map(|(content, _)| content.len());
        sizes.map(|size| size.div_ceil(1024)).sum()
    }

    /// Writes the files into a new folder.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        recreate(folder)?;
        for (path, (content, mode)) in &self.files {
            write(&folder.join(path), content, *mode)?;
        }
        Ok(())
    }
}

/// A Markdown page with the links that lead to the right place in a package.
fn relink(page: Vec<u8>, layout: Layout) -> Result<Vec<u8>> {
    let mut page = String::from_utf8(page)?;
    for (from, to) in layout.moved_links() {
        page = page.replace(from, to);
    }
    Ok(page.into_bytes())
}

/// Compresses without a name and a time.
pub(super) fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    encoder.write_all(content)?;
    Ok(encoder.finish()?)
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use super::*;
    use crate::workspace;

    #[test]
    fn links_in_documents_lead_to_files_of_the_package() {
        for layout in [Layout::Debian, Layout::Rpm] {
            let nothing = Generated {
                man: Vec::new(),
                bash: Vec::new(),
                zsh: Vec::new(),
                fish: Vec::new(),
            };
            let mut tree = InstallTree::new(layout, &workspace::root(), b"", &nothing, "").unwrap();
            if layout == Layout::Debian {
                // As the Debian package does.
                tree.add("usr/share/doc/wsmon/copyright", Vec::new(), 0o644);
            }
            let mut checked = 0;
            let is_page = |path: &Path| path.extension().is_some_and(|kind| kind == "md");
            for (page, (content, _)) in tree.files.iter().filter(|(path, _)| is_page(path)) {
                let text = String::from_utf8_lossy(content);
                let links = text.split("](").skip(1);
                for link in links.filter_map(|rest| Some(rest.split_once(')')?.0)) {
                    let file = link.split('#').next().unwrap_or_default();
                    // Data behind pictures stays in the repository.
                    if file.is_empty() || file.contains("://") || file.ends_with(".json") {
                        continue;
                    }
                    let target = normalized(&page.with_file_name(file));
                    assert!(
                        tree.paths().any(|path| path.starts_with(&target)),
                        "{layout:?}: {} links to {link}",
                        page.display()
                    );
                    checked += 1;
                }
            }
            assert!(checked > 100, "{checked}");
        }
    }

    /// Without `..`.
    fn normalized(path: &Path) -> PathBuf {
        let mut normalized = PathBuf::new();
        for component in path.components() {
            match component {
                Component::ParentDir => assert!(normalized.pop(), "{}", path.display()),
                other => normalized.push(other),
            }
        }
        normalized
    }

    #[test]
    fn a_path_is_there_once_and_paths_are_sorted() {
        let mut tree = InstallTree {
            files: BTreeMap::new(),
        };
        tree.add("usr/b", b"old".to_vec(), 0o755);
        tree.add("usr/a", vec![0; 1025], 0o644);
        tree.add("usr/b", b"new".to_vec(), 0o644);
        let paths: Vec<_> = tree.paths().collect();
        assert_eq!(paths, ["usr/a", "usr/b"].map(Path::new));
        assert_eq!(tree.files[Path::new("usr/b")], (b"new".to_vec(), 0o644));
        assert_eq!(tree.kibibytes(), 2 + 1);
    }
}
