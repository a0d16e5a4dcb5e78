//! `xtask/kernels.lock`: the packages of the guests, pinned by hash.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::architecture::Architecture;
use crate::{files::read_text, workspace};

const HEAD: &str = "\
# Debian's packages for the guests of `cargo xtask vm`, one a line: processor/series of the guest,
# SHA-256 of the package, its place in the archive. A kernel in two packages has two lines, and
# processor/busybox is the shell of another processor's guests.
# `cargo xtask vm --update-pins` writes the newest packages.
";
/// Takes the place of a series in a line about a shell.
const BUSYBOX: &str = "busybox";

/// One package of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// SHA-256 of the package, in hexadecimal.
    pub(crate) sha256: String,
    /// Path of the package below the archive's base.
    pub(crate) place: String,
}

impl Package {
    /// The name of the package's file.
    pub(crate) fn file_name(&self) -> &str {
        self.place.rsplit('/').next().unwrap_or(&self.place)
    }

    /// Debian's version of the package: `6.1.192-2`.
    pub(crate) fn version(&self) -> &str {
        let mut parts = self.file_name().split('_');
        parts.nth(1).unwrap_or_else(|| self.file_name())
    }
}

/// A guest's kernel: its name, and its packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    pub(crate) name: Name,
    /// The package with the image, and the package with the modules if they are separate.
    pub(crate) packages: Vec<Package>,
}

impl Pin {
    /// Debian's version of the kernel: `6.1.192-2`.
    pub(crate) fn version(&self) -> &str {
        self.packages.first().map_or("?", Package::version)
    }
}

/// Processor and kernel series: `x86_64/6.1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) architecture: Architecture,
    /// Major and minor version, and the variant if there is one: `6.1`, `6.12-16k`.
    pub(crate) series: String,
}

impl Name {
    /// Parses the format of [`Display`](std::fmt::Display).
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (architecture, series) = text.split_once('/')?;
        let architecture = Architecture::ALL
            .into_iter()
            .find(|known| known.name() == architecture)?;
        let is_series = series.starts_with(|first: char| first.is_ascii_digit());
        (is_series || series == BUSYBOX).then(|| Self {
            architecture,
            series: series.to_owned(),
        })
    }

    /// Whether `selection` includes this kernel.
    pub(crate) fn is_selected(&self, selection: &str) -> bool {
        [self.architecture.name(), &self.series, &self.to_string()].contains(&selection)
    }

    /// The name of its files in `target/vm`, without extension.
    pub(crate) fn file_stem(&self) -> String {
        format!("{}-{}", self.architecture, self.series)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.architecture, self.series)
    }
}

/// All pins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pins {
    /// The kernels, in the order of the file.
    pub(crate) kernels: Vec<Pin>,
    /// The shells for processors other than this machine's.
    pub(crate) shells: Vec<(Architecture, Package)>,
}

impl Pins {
    /// Reads `xtask/kernels.lock`.
    ///
    /// # Errors
    /// If the file is missing or malformed.
    pub(crate) fn read() -> Result<Self> {
        let path = file();
        Self::parse(&read_text(&path)?).with_context(|| format!("in {}", path.display()))
    }

    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn write(&self) -> Result<()> {
        fs::write(file(), self.written()).context("could not write the pins")
    }

    /// The kernels that match one of these selections; all without selections.
    ///
    /// # Errors
    /// If a selection matches no kernel.
    pub(crate) fn select(&self, selections: &[String]) -> Result<Vec<Pin>> {
        for selection in selections {
            let known: Vec<_> = self
                .kernels
                .iter()
                .map(|pin| pin.name.to_string())
                .collect();
            ensure!(
                self.kernels
                    .iter()
                    .any(|pin| pin.name.is_selected(selection)),
                "no kernel {selection:?} is pinned, only {}",
                known.join(", ")
            );
        }
        let is_selected = |pin: &&Pin| {
            selections.is_empty() || selections.iter().any(|s| pin.name.is_selected(s))
        };
        Ok(self.kernels.iter().filter(is_selected).cloned().collect())
    }

    fn parse(text: &str) -> Result<Self> {
        let mut pins = Self::default();
        for (index, line) in text.lines().enumerate() {
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            let (name, package) = parse_line(line).with_context(|| {
                format!(
                    "line {}: expected processor/series, SHA-256 and place",
                    index + 1
                )
            })?;
            if name.series == BUSYBOX {
                pins.shells.push((name.architecture, package));
                continue;
            }
            match pins.kernels.iter_mut().find(|pin| pin.name == name) {
                Some(pin) => pin.packages.push(package),
                None => pins.kernels.push(Pin {
                    name,
                    packages: vec![package],
                }),
            }
        }
        ensure!(!pins.kernels.is_empty(), "no kernel is pinned");
        Ok(pins)
    }

    fn written(&self) -> String {
        let kernels = self.kernels.iter().flat_map(|pin| {
            let name = pin.name.to_string();
            pin.packages
                .iter()
                .map(move |package| (name.clone(), package))
        });
        let shells = self
            .shells
            .iter()
            .map(|(architecture, package)| (format!("{architecture}/{BUSYBOX}"), package));
        let mut text = HEAD.to_owned();
        for (name, Package { sha256, place }) in kernels.chain(shells) {
            text += &format!("{name} {sha256} {place}\n");
        }
        text
    }
}

fn file() -> PathBuf {
    workspace::root().join("xtask/kernels.lock")
}

fn parse_line(line: &str) -> Option<(Name, Package)> {
    let [name, sha256, place] = line.split_whitespace().collect::<Vec<_>>()[..] else {
        return None;
    };
    let is_hash = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_package = place.starts_with("pool/") && place.ends_with(".deb");
    let package = (is_hash && is_package).then(|| Package {
        sha256: sha256.to_owned(),
        place: place.to_owned(),
    })?;
    Some((Name::parse(name)?, package))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: &str = "pool/main/l/linux/linux-image-6.1.0-50-cloud-amd64_6.1.176-1_amd64.deb";

    fn some_package() -> Package {
        Package {
            sha256: "ab".repeat(32),
            place: PLACE.into(),
        }
    }

    fn pin(name: &str, packages: usize) -> Pin {
        Pin {
            name: Name::parse(name).unwrap(),
            packages: vec![some_package(); packages],
        }
    }

    fn some_pins() -> Pins {
        Pins {
            kernels: vec![
                pin("x86_64/6.1", 1),
                pin("x86_64/7.3", 2),
                pin("aarch64/6.1", 1),
                pin("aarch64/6.1-16k", 1),
            ],
            shells: vec![(Architecture::Aarch64, some_package())],
        }
    }

    #[test]
    fn pins_are_unchanged_after_writing_and_reading() {
        let pins = some_pins();
        assert_eq!(Pins::parse(&pins.written()).unwrap(), pins);
    }

    #[test]
    fn the_committed_pins_are_packages_of_their_series_and_processor() {
        let pins = Pins::read().unwrap();
        for pin in &pins.kernels {
            let (series, variant) = pin
                .name
                .series
                .split_once('-')
                .unwrap_or((&pin.name.series, "cloud"));
            let debian = pin.name.architecture.debian();
            assert!(pin.version().starts_with(&format!("{series}.")), "{pin:?}");
            for package in &pin.packages {
                assert_eq!(package.version(), pin.version(), "{pin:?}");
                let file = package.file_name();
                assert!(file.contains(variant), "{pin:?}");
                assert!(file.ends_with(&format!("_{debian}.deb")), "{pin:?}");
            }
        }
        let of = |series: &str| pins.select(&[series.into()]).unwrap().len();
        assert_eq!([of("6.1"), of("6.12"), of("6.12-16k")], [2, 2, 1]);
        assert!(of("x86_64") >= 6);
    }

    #[test]
    fn a_malformed_line_is_reported_by_number() {
        let hash = "0".repeat(64);
        for line in [
            "x86_64/6.1",
            "x86_64/6.1 abc pool/a.deb",
            &format!("x86_64/6.1 {hash} http://host/a.deb"),
            &format!("x86_64/6.1 {hash} {PLACE} more"),
            &format!("vax/6.1 {hash} {PLACE}"),
            &format!("6.1 {hash} {PLACE}"),
        ] {
            let error = Pins::parse(&format!("# pins\n{line}\n")).unwrap_err();
            assert!(error.to_string().starts_with("line 2: "), "{line}: {error}");
        }
        assert!(Pins::parse("# nothing\n").is_err());
    }

    #[test]
    fn the_version_is_in_the_name_of_the_file() {
        assert_eq!(some_package().version(), "6.1.176-1");
    }

    #[test]
    fn kernels_are_selected_by_series_by_processor_and_by_both() {
        let pins = some_pins();
        let selected = |selections: &[&str]| -> Vec<String> {
            let selections: Vec<_> = selections.iter().map(|&s| s.to_owned()).collect();
            let selected = pins.select(&selections).unwrap();
            selected.iter().map(|pin| pin.name.to_string()).collect()
        };
        assert_eq!(selected(&["6.1"]), ["x86_64/6.1", "aarch64/6.1"]);
        assert_eq!(selected(&["aarch64/6.1"]), ["aarch64/6.1"]);
        assert_eq!(selected(&["aarch64"]), ["aarch64/6.1", "aarch64/6.1-16k"]);
        assert_eq!(selected(&[]).len(), 4);
        let error = pins.select(&["6.2".into()]).unwrap_err().to_string();
        assert!(error.contains("\"6.2\""), "{error}");
        assert!(error.contains("x86_64/7.3"), "{error}");
    }
}
