//! apt with its own state, to read other suites and processors than this machine's without touching
//! its configuration.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{architecture::Architecture, pins::Package};
use crate::workspace;

/// apt's own downloader: it uses the proxy of apt's configuration.
const APT_HELPER: &str = "/usr/lib/apt/apt-helper";
/// The keys of Debian's archives.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// How apt reports a file that an archive does not have.
const NOT_FOUND: &str = "404 ";

/// One package that an archive offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) package: Package,
}

/// The base addresses and labels of the archives in this machine's apt configuration.
///
/// # Errors
/// If there is no apt here, or it has no package lists.
pub(crate) fn host_archives() -> Result<BTreeMap<String, String>> {
    let targets = ["indextargets", "--format", "$(REPO_URI) $(LABEL)"];
    let lines = workspace::answer("apt-get", &targets).unwrap_or_default();
    let archives: BTreeMap<_, _> = lines
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(base, label)| (base.to_owned(), label.to_owned()))
        .collect();
    ensure!(
        !archives.is_empty(),
        "apt knows no archive; run `apt-get update` on a Debian"
    );
    Ok(archives)
}

/// Result of a download.
pub(crate) enum Download {
    Complete,
    /// The archive does not have the file.
    NotFound,
    /// Any other failure, with apt's message.
    Failed(String),
}

/// Downloads a package and checks its hash.
pub(crate) fn download(archive: &str, package: &Package, file: &Path) -> Download {
    let address = format!("{archive}{}", package.place);
    fetch(&address, Some(&package.sha256), file)
}

/// Downloads a file, and checks its SHA-256 if one is given.
pub(crate) fn fetch(address: &str, sha256: Option<&str>, file: &Path) -> Download {
    let output = Command::new(APT_HELPER)
        // apt's own user could not write here.
        .args(["-o", "APT::Sandbox::User=root", "download-file", address])
        .arg(file)
        .args(sha256.map(|sha256| format!("SHA256:{sha256}")))
        .output();
    match output {
        Ok(output) if output.status.success() => Download::Complete,
        Ok(output) => {
            let words = [output.stdout, output.stderr].concat();
            let words = String::from_utf8_lossy(&words).trim_end().to_owned();
            if words.contains(NOT_FOUND) {
                Download::NotFound
            } else {
                Download::Failed(words)
            }
        }
        Err(error) => Download::Failed(format!("could not start {APT_HELPER}: {error}")),
    }
}

/// apt with its own sources, lists and processors.
pub(crate) struct Apt {
    configuration: PathBuf,
}

impl Apt {
    /// apt that knows only `sources`, lines of a sources.list, and keeps its state below `folder`.
    /// Fetches the lists of packages.
    ///
    /// # Errors
    /// If an archive does not answer, or its signature is invalid.
    pub(crate) fn new(folder: &Path, sources: &[String]) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part)
                .with_context(|| format!("could not make {}", part.display()))?;
        }
        let write = |name: &str, content: &str| {
            let file = folder.join(name);
            fs::write(&file, content)
                .with_context(|| format!("could not write {}", file.display()))
                .map(|()| file)
        };
        write("status", "")?;
        write("sources.list", &(sources.join("\n") + "\n"))?;
        let folder = folder.display();
        let architectures = Architecture::ALL.map(|arch| format!("{:?};", arch.debian()));
        let text = format!(
            "Dir::State \"{folder}\";\n\
             Dir::State::status \"{folder}/status\";\n\
             Dir::Cache \"{folder}/cache\";\n\
             Dir::Cache::pkgcache \"pkgcache.bin\";\n\
             Dir::Cache::srcpkgcache \"srcpkgcache.bin\";\n\
             Dir::Etc::sourcelist \"{folder}/sources.list\";\n\
             Dir::Etc::sourceparts \"-\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
             Acquire::Languages \"none\";\n\
             APT::Sandbox::User \"root\";\n\
             APT::Architectures {{ {} }};\n",
            architectures.join(" "),
        );
        let apt = Self {
            configuration: write("apt.conf", &text)?,
        };
        let mut update = apt.command("apt-get");
        workspace::run(update.args(["update", "--quiet", "--error-on=any"]))?;
        Ok(apt)
    }

    /// The base addresses of the archives.
    ///
    /// # Errors
    /// If apt does not start.
    pub(crate) fn archives(&self) -> Result<BTreeSet<String>> {
        let lines = self.answer("apt-get", &["indextargets", "--format", "$(REPO_URI)"])?;
        Ok(lines.lines().map(str::to_owned).collect())
    }

    /// All packages for a processor whose names match a pattern with at most one `*`.
    ///
    /// # Errors
    /// If apt does not start.
    pub(crate) fn offers(&self, pattern: &str, architecture: Architecture) -> Result<Vec<Offer>> {
        let (prefix, _) = pattern.split_once('*').unwrap_or((pattern, ""));
        let names = self.answer("apt-cache", &["pkgnames", prefix])?;
        let mut arguments = vec!["show".to_owned()];
        arguments.extend(
            names
                .lines()
                .filter(|name| matches(pattern, name))
                .map(|name| format!("{name}:{}", architecture.debian())),
        );
        if arguments.len() == 1 {
            return Ok(Vec::new());
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        // If only other processors have a name, apt-cache fails, but only after it has printed the
        // rest.
        let output = self
            .command("apt-cache")
            .args(&arguments)
            .output()
            .context("could not start apt-cache")?;
        Ok(offers(&String::from_utf8_lossy(&output.stdout)))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.configuration);
        command
    }

    fn answer(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self
            .command(program)
            .args(arguments)
            .output()
            .with_context(|| format!("could not start {program}"))?;
        ensure!(
            output.status.success(),
            "{program} failed: {}",
            output.status
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The offer with the highest version.
///
/// # Errors
/// If dpkg cannot compare.
pub(crate) fn newest(offers: &[Offer]) -> Result<Option<&Offer>> {
    let mut newest: Option<&Offer> = None;
    for offer in offers {
        if match newest {
            None => true,
            Some(best) => compare(&offer.version, &best.version)? == Ordering::Greater,
        } {
            newest = Some(offer);
        }
    }
    Ok(newest)
}

/// The packages in the records of `apt-cache show`.
fn offers(records: &str) -> Vec<Offer> {
    let fields = |record: &str| -> BTreeMap<String, String> {
        let lines = record.lines().filter_map(|line| line.split_once(": "));
        lines
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    records
        .split("\n\n")
        .map(fields)
        .filter_map(|mut record| {
            Some(Offer {
                name: record.remove("Package")?,
                version: record.remove("Version")?,
                package: Package {
                    sha256: record.remove("SHA256")?,
                    place: record.remove("Filename")?,
                },
            })
        })
        .collect()
}

/// Whether a name matches a pattern with at most one `*`.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((prefix, suffix)) => name
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.ends_with(suffix)),
    }
}

/// Debian's version order, as implemented by dpkg.
fn compare(a: &str, b: &str) -> Result<Ordering> {
    for (word, order) in [("gt", Ordering::Greater), ("eq", Ordering::Equal)] {
        let mut dpkg = Command::new("dpkg");
        let status = dpkg
            .args(["--compare-versions", a, word, b])
            .status()
            .context("could not start dpkg")?;
        match status.code() {
            Some(0) => return Ok(order),
            Some(1) => {}
            _ => bail!("dpkg cannot compare the versions {a} and {b}"),
        }
    }
    Ok(Ordering::Less)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_read_from_apt_records() {
        let place = "pool/main/l/linux/linux-image-6.1.0-50-cloud-amd64_6.1.176-1_amd64.deb";
        let hash = "ab".repeat(32);
        let records = format!(
            "Package: a\nVersion: 1\nDescription: x\n y: z\nFilename: {place}\nSHA256: {hash}\n\n\
             Package: not-in-an-archive\nVersion: 2\n",
        );
        let expected = Offer {
            name: "a".into(),
            version: "1".into(),
            package: Package {
                sha256: hash,
                place: place.into(),
            },
        };
        assert_eq!(offers(&records), [expected]);
    }

    #[test]
    fn a_star_stands_for_anything() {
        assert!(matches(
            "linux-image-5.15.0-*-generic",
            "linux-image-5.15.0-204-generic"
        ));
        assert!(!matches(
            "linux-image-5.15.0-*-generic",
            "linux-image-5.15.0-204-kvm"
        ));
        assert!(!matches(
            "linux-image-5.15.0-*-generic",
            "linux-image-6.8.0-1-generic"
        ));
        assert!(matches("busybox-static", "busybox-static"));
        assert!(!matches("busybox-static", "busybox"));
    }
}
