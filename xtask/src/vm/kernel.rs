//! A pinned kernel on this machine: fetched through apt, checked, unpacked under `target/vm`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::{folder, module, pins::Pin};
use crate::bytecode_lock::sha256;
use crate::root::Prerequisite;
use crate::workspace;

/// apt's own downloader: it knows the proxy and the mirrors that apt is told to use.
const APT_HELPER: &str = "/usr/lib/apt/apt-helper";

/// An unpacked kernel package.
pub(crate) struct Kernel {
    /// What was pinned.
    pub(crate) pin: Pin,
    unpacked: PathBuf,
}

impl Kernel {
    /// Fetches and unpacks what is not there yet.
    ///
    /// # Errors
    /// [`Prerequisite`] when no archive has the pinned package.
    pub(crate) fn get(pin: &Pin) -> Result<Self> {
        // Only a complete and checked package ever gets this name.
        let unpacked = folder().join(&pin.sha256[..16]);
        if !unpacked.is_dir() {
            let package = folder().join(pin.file_name());
            if !is_intact(&package, pin) {
                println!("{}: fetching {}", pin.series, pin.file_name());
                fetch(pin, &package)?;
            }
            unpack(&package, &unpacked)?;
        }
        Ok(Self {
            pin: pin.clone(),
            unpacked,
        })
    }

    /// The file to boot.
    ///
    /// # Errors
    /// When the package has none.
    pub(crate) fn image(&self) -> Result<PathBuf> {
        let boot = self.unpacked.join("boot");
        let files = fs::read_dir(&boot)
            .with_context(|| format!("could not list {}", boot.display()))?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?;
        files
            .into_iter()
            .find(|file| {
                file.file_name()
                    .is_some_and(|name| name.as_encoded_bytes().starts_with(b"vmlinuz-"))
            })
            .with_context(|| format!("no kernel in {}", boot.display()))
    }

    /// The modules named and those they need, uncompressed, in the order to load them.
    ///
    /// # Errors
    /// When this kernel has no such module.
    pub(crate) fn modules(&self, wanted: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = Vec::new();
        module_files(&self.unpacked.join("lib/modules"), &mut files)?;
        module::in_order(wanted, |name| {
            let file = files
                .iter()
                .find(|file| module::name(file).as_deref() == Some(name))
                .with_context(|| format!("this kernel has no module {name}"))?;
            let content = uncompressed(file)?;
            let needed = module::dependencies(&content)
                .with_context(|| format!("could not read {}", file.display()))?;
            Ok((content, needed))
        })
    }
}

fn is_intact(package: &Path, pin: &Pin) -> bool {
    fs::read(package).is_ok_and(|bytes| sha256(&bytes) == pin.sha256)
}

/// Tries every archive that apt is configured with: which of them has a package changes.
fn fetch(pin: &Pin, package: &Path) -> Result<()> {
    let archives = workspace::answer("apt-get", &["indextargets", "--format", "$(REPO_URI)"]);
    let archives: BTreeSet<_> = archives.iter().flat_map(|list| list.lines()).collect();
    fs::create_dir_all(folder()).context("could not make target/vm")?;
    let mut told = String::new();
    for archive in archives {
        let output = Command::new(APT_HELPER)
            // Its own user could not write here.
            .args(["-o", "APT::Sandbox::User=root", "download-file"])
            .arg(format!("{archive}{}", pin.place))
            .arg(package)
            .arg(format!("SHA256:{}", pin.sha256))
            .output();
        match output {
            Ok(output) if output.status.success() && is_intact(package, pin) => return Ok(()),
            Ok(output) => told += &String::from_utf8_lossy(&output.stderr),
            Err(error) => told += &format!("could not start {APT_HELPER}: {error}\n"),
        }
    }
    Err(Prerequisite {
        missing: format!(
            "could not fetch {} from any archive that apt is configured with\n{}",
            pin.file_name(),
            told.trim_end()
        ),
        remedy: vec![
            "if the archives have replaced it: apt-get update, `cargo xtask vm --update-pins`, and commit xtask/kernels.lock".into(),
            format!("elsewhere than on Debian: put that file into {}", folder().display()),
        ],
    }
    .into())
}

/// Unpacks beside the place and moves it there, so that half an unpacked kernel is never taken for
/// a whole one.
fn unpack(package: &Path, unpacked: &Path) -> Result<()> {
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
    fs::rename(&partial, unpacked).with_context(|| format!("could not make {}", unpacked.display()))
}

/// All modules below a folder.
fn module_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
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
    match module.extension().and_then(OsStr::to_str) {
        Some("ko") => {
            fs::read(module).with_context(|| format!("could not read {}", module.display()))
        }
        Some("xz") => {
            let mut xz = Command::new("xz");
            let output = xz
                .args(["--decompress", "--stdout"])
                .arg(module)
                .output()
                .context("could not start xz")?;
            ensure!(
                output.status.success(),
                "xz could not unpack {}",
                module.display()
            );
            Ok(output.stdout)
        }
        _ => bail!("no way to unpack {}", module.display()),
    }
}
