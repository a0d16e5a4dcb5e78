//! `xtask/kernels.lock`: which kernel packages are booted, pinned by hash.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::workspace;

const HEAD: &str = "\
# Debian's cloud kernels that `cargo xtask vm` boots: series, SHA-256 of the package, its place in
# the archive. `cargo xtask vm --update-pins` writes the newest that apt knows.
";
const FLAVOUR: &str = "-cloud-amd64";

/// One kernel package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    /// Major and minor version: `6.1`.
    pub(crate) series: String,
    /// SHA-256 of the package, in hexadecimal.
    pub(crate) sha256: String,
    /// Where the package is, below the archive's base.
    pub(crate) place: String,
}

impl Pin {
    /// The name of the package's file.
    pub(crate) fn file_name(&self) -> &str {
        self.place.rsplit('/').next().unwrap_or(&self.place)
    }

    /// Debian's version of the kernel: `6.1.192-2`.
    pub(crate) fn version(&self) -> &str {
        self.file_name()
            .split('_')
            .nth(1)
            .unwrap_or_else(|| self.file_name())
    }
}

/// All pinned kernels, oldest first.
///
/// # Errors
/// When the file is missing or malformed.
pub(crate) fn read() -> Result<Vec<Pin>> {
    let path = file();
    let text =
        fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    parse(&text).with_context(|| format!("in {}", path.display()))
}

/// The pinned kernel of a series.
///
/// # Errors
/// When there is none.
pub(crate) fn of_series(series: &str) -> Result<Pin> {
    let pins = read()?;
    let known: Vec<_> = pins.iter().map(|pin| pin.series.clone()).collect();
    pins.into_iter()
        .find(|pin| pin.series == series)
        .with_context(|| format!("the pinned kernels are {}", known.join(", ")))
}

/// Pins the newest packages that apt knows for the series that are pinned.
///
/// # Errors
/// When apt knows none for a series.
pub(crate) fn update() -> Result<()> {
    let mut pins = read()?;
    for pin in &mut pins {
        let newest = newest(&pin.series)?;
        if newest == *pin {
            println!("{}: {} is the newest", pin.series, pin.version());
        } else {
            println!("{}: {} -> {}", pin.series, pin.version(), newest.version());
        }
        *pin = newest;
    }
    fs::write(file(), written(&pins)).context("could not write the pins")
}

fn file() -> PathBuf {
    workspace::root().join("xtask/kernels.lock")
}

fn parse(text: &str) -> Result<Vec<Pin>> {
    let lines = text.lines().enumerate();
    let pins: Vec<_> = lines
        .filter(|(_, line)| !line.starts_with('#') && !line.is_empty())
        .map(|(index, line)| {
            pin(line)
                .with_context(|| format!("line {}: wanted series, SHA-256 and place", index + 1))
        })
        .collect::<Result<_>>()?;
    ensure!(!pins.is_empty(), "no kernel is pinned");
    Ok(pins)
}

fn pin(line: &str) -> Option<Pin> {
    let [series, sha256, place] = line.split_whitespace().collect::<Vec<_>>()[..] else {
        return None;
    };
    let is_hash = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_package = place.starts_with("pool/") && place.ends_with(".deb");
    (!series.is_empty() && is_hash && is_package).then(|| Pin {
        series: series.to_owned(),
        sha256: sha256.to_owned(),
        place: place.to_owned(),
    })
}

fn written(pins: &[Pin]) -> String {
    let mut text = HEAD.to_owned();
    for Pin {
        series,
        sha256,
        place,
    } in pins
    {
        text += &format!("{series} {sha256} {place}\n");
    }
    text
}

/// The newest package of a series in apt's lists, which carry the archive's signature.
fn newest(series: &str) -> Result<Pin> {
    let prefix = format!("linux-image-{series}.");
    let names = workspace::answer("apt-cache", &["pkgnames", &prefix]).unwrap_or_default();
    let names: Vec<_> = names
        .lines()
        .filter(|name| name.ends_with(FLAVOUR))
        .collect();
    let records = workspace::answer("apt-cache", &[&["show"], &names[..]].concat());
    let mut newest: Option<Pin> = None;
    for pin in packages(series, &records.unwrap_or_default()) {
        if match &newest {
            None => true,
            Some(best) => compare(pin.version(), best.version())? == Ordering::Greater,
        } {
            newest = Some(pin);
        }
    }
    newest.with_context(|| {
        format!(
            "apt knows no {prefix}*{FLAVOUR}; run `apt-get update` on a Debian whose archives have Linux {series}"
        )
    })
}

/// The packages in the records of `apt-cache show`.
fn packages(series: &str, records: &str) -> Vec<Pin> {
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
            Some(Pin {
                series: series.to_owned(),
                sha256: record.remove("SHA256")?,
                place: record.remove("Filename")?,
            })
        })
        .collect()
}

/// Debian's order of versions, as dpkg knows it.
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

    const PLACE: &str = "pool/main/l/linux/linux-image-6.1.0-50-cloud-amd64_6.1.176-1_amd64.deb";

    fn some_pin() -> Pin {
        Pin {
            series: "6.1".into(),
            sha256: "ab".repeat(32),
            place: PLACE.into(),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let pins = vec![
            some_pin(),
            Pin {
                series: "6.12".into(),
                ..some_pin()
            },
        ];
        assert_eq!(parse(&written(&pins)).unwrap(), pins);
    }

    #[test]
    fn the_committed_pins_are_two_kernels_with_their_versions() {
        let pins = read().unwrap();
        assert!(pins.iter().map(|pin| &pin.series).eq(["6.1", "6.12"]));
        for pin in pins {
            let series = format!("{}.", pin.series);
            assert!(pin.version().starts_with(&series), "{pin:?}");
            assert!(pin.file_name().contains(FLAVOUR), "{pin:?}");
        }
    }

    #[test]
    fn a_malformed_line_is_named() {
        for line in [
            "6.1",
            "6.1 abc pool/a.deb",
            &format!("6.1 {} http://host/a.deb", "0".repeat(64)),
            &format!("6.1 {} {PLACE} more", "0".repeat(64)),
        ] {
            let error = parse(&format!("# pins\n{line}\n")).unwrap_err();
            assert!(error.to_string().starts_with("line 2: "), "{line}: {error}");
        }
        assert!(parse("# nothing\n").is_err());
    }

    #[test]
    fn the_version_is_in_the_name_of_the_file() {
        assert_eq!(some_pin().version(), "6.1.176-1");
    }

    #[test]
    fn packages_are_read_from_apt_s_records() {
        let records = format!(
            "Package: a\nVersion: 1\nDescription: x\n y: z\nFilename: {PLACE}\nSHA256: {}\n\n\
             Package: not-in-an-archive\nVersion: 2\n",
            "ab".repeat(32)
        );
        assert_eq!(packages("6.1", &records), [some_pin()]);
    }
}
