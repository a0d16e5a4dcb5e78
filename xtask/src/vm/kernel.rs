//! A kernel on this machine: fetched if pinned, checked, and unpacked under `target/vm`.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    apt::{self, Download},
    architecture::Architecture,
    folder, module,
    pins::{Name, Package, Pin},
};
use crate::{
    bytecode_lock::sha256,
    files::{file_name, read},
    root::Prerequisite,
    workspace,
};

/// An unpacked kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) name: Name,
    /// The version of the package in its distribution's numbering.
    pub(crate) version: String,
    unpacked: Vec<PathBuf>,
}

/// No archive has the package.
#[derive(Debug)]
pub(crate) struct Gone {
    pub(crate) file_name: String,
}

impl Gone {
    /// Why a guest is skipped without it, and the remedy.
    pub(crate) fn reason(&self) -> String {
        format!(
            "no archive has {} any more: cargo xtask vm --update-pins",
            self.file_name
        )
    }
}

impl Kernel {
    /// A pinned kernel. Fetches and unpacks it if necessary.
    ///
    /// # Errors
    /// [`Prerequisite`] if the archives do not answer.
    pub(crate) fn pinned(pin: &Pin, archives: &[String]) -> Result<Result<Self, Gone>> {
        let mut unpacked = Vec::new();
        for package in &pin.packages {
            match get(package, archives)? {
                Ok(folder) => unpacked.push(folder),
                Err(gone) => return Ok(Err(gone)),
            }
        }
        Ok(Ok(Self {
            name: pin.name.clone(),
            version: pin.version().to_owned(),
            unpacked,
        }))
    }

    /// The kernel in these package files.
    ///
    /// # Errors
    /// If they are not packages, or contain no kernel.
    pub(crate) fn of_files(files: &[PathBuf]) -> Result<Self> {
        let first = files.first().context("no package is named")?;
        let field = |name: &str| {
            let file = first.to_string_lossy();
            workspace::answer("dpkg-deb", &["--field", &file, name])
                .with_context(|| format!("{file} is not a Debian package"))
        };
        let debian = field("Architecture")?;
        let architecture = Architecture::of_debian(&debian)
            .with_context(|| format!("{}: no guest for {debian}", first.display()))?;
        let mut unpacked = Vec::new();
        for file in files {
            unpacked.push(unpack(file, &sha256(&read(file)?))?);
        }
        let mut kernel = Self {
            name: Name {
                architecture,
                series: String::new(),
            },
            version: field("Version")?,
            unpacked,
        };
        kernel.name.series = kernel.release()?;
        Ok(kernel)
    }

    /// The file to boot.
    ///
    /// # Errors
    /// If the packages contain none.
    pub(crate) fn image(&self) -> Result<PathBuf> {
        let places = self.unpacked.iter().flat_map(|folder| {
            let releases = children(&folder.join("usr/lib/modules"));
            releases.into_iter().chain([folder.join("boot")])
        });
        places
            .flat_map(|place| children(&place))
            .find(|file| file_name(file).starts_with("vmlinuz"))
            .with_context(|| format!("no kernel is in the packages of {}", self.name))
    }

    /// The output of `uname -r`, from the path of the image.
    fn release(&self) -> Result<String> {
        let image = self.image()?;
        let release = match file_name(&image).strip_prefix("vmlinuz-") {
            Some(release) => release.to_owned(),
            None => image.parent().map(file_name).unwrap_or_default(),
        };
        ensure!(!release.is_empty(), "{} has no version", image.display());
        Ok(release)
    }

    /// The named modules and their dependencies, uncompressed, in load order. A module missing from
    /// the packages is skipped: the kernel may have it built in.
    ///
    /// # Errors
    /// If a module cannot be read.
    pub(crate) fn modules(&self, wanted: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = Vec::new();
        for folder in &self.unpacked {
            module_files(&folder.join("lib/modules"), &mut files)?;
            module_files(&folder.join("usr/lib/modules"), &mut files)?;
        }
        let file_of = |name: &str| {
            files
                .iter()
                .find(|file| module::name(file).as_deref() == Some(name))
        };
        let there: Vec<_> = wanted
            .iter()
            .copied()
            .filter(|name| file_of(name).is_some())
            .collect();
        module::in_order(&there, |name| {
            let file =
                file_of(name).with_context(|| format!("this kernel has no module {name}"))?;
            let content = uncompressed(file)?;
            let needed = module::dependencies(&content)
                .with_context(|| format!("could not read {}", file.display()))?;
            Ok((content, needed))
        })
    }
}

/// The folder of an unpacked package, which is fetched if necessary.
///
/// # Errors
/// [`Prerequisite`] if the archives do not answer.
pub(crate) fn get(package: &Package, archives: &[String]) -> Result<Result<PathBuf, Gone>> {
    // Only a complete and checked package gets this name.
    let unpacked = folder().join(&package.sha256[..16]);
    if unpacked.is_dir() {
        return Ok(Ok(unpacked));
    }
    let file = folder().join(package.file_name());
    if !is_intact(&file, package) {
        println!("fetching {}", package.file_name());
        if let Err(gone) = fetch(package, archives, &file)? {
            return Ok(Err(gone));
        }
    }
    let unpacked = unpack(&file, &package.sha256)?;
    fs::remove_file(&file).with_context(|| format!("could not remove {}", file.display()))?;
    Ok(Ok(unpacked))
}

fn is_intact(file: &Path, package: &Package) -> bool {
    fs::read(file).is_ok_and(|bytes| sha256(&bytes) == package.sha256)
}

/// Tries every archive: a package may move between them.
///
/// # Errors
/// [`Prerequisite`] if an archive failed.
pub(crate) fn fetch(
    package: &Package,
    archives: &[String],
    file: &Path,
) -> Result<Result<(), Gone>> {
    fs::create_dir_all(folder()).context("could not make target/vm")?;
    let mut failures = String::new();
    for archive in archives {
        match apt::download(archive, package, file) {
            Download::Complete if is_intact(file, package) => return Ok(Ok(())),
            Download::Complete => failures += "the file has another hash than the pin\n",
            Download::NotFound => {}
            Download::Failed(reason) => failures += &format!("{reason}\n"),
        }
    }
    if failures.is_empty() {
        return Ok(Err(Gone {
            file_name: package.file_name().to_owned(),
        }));
    }
    Err(Prerequisite {
        missing: format!(
            "could not fetch {} from any archive that apt is configured with\n{}",
            package.file_name(),
            failures.trim_end()
        ),
        remedy: vec![
            "check that the archives of apt answer: apt-get update".into(),
            format!(
                "elsewhere than on Debian: put that file into {}",
                folder().display()
            ),
        ],
    }
    .into())
}

/// Unpacks into a temporary folder and renames it, so that a partially unpacked package is never
/// taken as complete.
fn unpack(package: &Path, sha256: &str) -> Result<PathBuf> {
    let unpacked = folder().join(&sha256[..16]);
    if unpacked.is_dir() {
        return Ok(unpacked);
    }
    let partial = unpacked.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)
            .with_context(|| format!("could not remove {}", partial.display()))?;
    }
    workspace::run(
        Command::new("dpkg-deb")
            .arg("--extract")
            .args([package, &partial]),
    )?;
    fs::rename(&partial, &unpacked)
        .with_context(|| format!("could not make {}", unpacked.display()))?;
    Ok(unpacked)
}

/// The entries of a folder; none if it does not exist.
fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// All modules below a folder, which may be missing.
fn module_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let entries =
        fs::read_dir(folder).with_context(|| format!("could not list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            module_files(&path, files)?;
        } else if module::name(&path).is_some() {
            files.push(path);
        }
    }
    Ok(())
}

fn uncompressed(module: &Path) -> Result<Vec<u8>> {
    let program = match module.extension().and_then(OsStr::to_str) {
        Some("ko") => return read(module),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => bail!("no way to unpack {}", module.display()),
    };
    let output = Command::new(program)
        .args(["--decompress", "--stdout"])
        .arg(module)
        .output()
        .with_context(|| format!("could not start {program}"))?;
    ensure!(
        output.status.success(),
        "{program} could not unpack {}",
        module.display()
    );
    Ok(output.stdout)
}
