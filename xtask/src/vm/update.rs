//! `--update-pins`: the newest packages of Debian's suites, for every pinned guest.

use anyhow::{Context as _, Result, ensure};

use super::{
    apt::{self, Apt, KEYRING, Offer, host_archives},
    folder,
    pins::{Name, Package, Pin, Pins},
};

/// Debian's suites with kernels, by the label of their archive.
const SUITES: [(&str, &[&str]); 2] = [
    (
        "Debian",
        &[
            "bookworm",
            "bookworm-backports",
            "trixie",
            "trixie-backports",
            "sid",
            "experimental",
        ],
    ),
    ("Debian-Security", &["bookworm-security", "trixie-security"]),
];
/// The package of a static shell.
const SHELL: &str = "busybox-static";

/// Pins the newest packages for all pinned guests and for guests with new names.
///
/// # Errors
/// If the archives do not answer, or have nothing for a new guest.
pub(crate) fn run(added: &[String]) -> Result<()> {
    let mut pins = Pins::read()?;
    for name in added {
        let name = Name::parse(name).with_context(|| {
            format!("{name:?} is not the name of a guest, which is like x86_64/7.3")
        })?;
        if !pins.kernels.iter().any(|pin| pin.name == name) {
            pins.kernels.push(Pin {
                name,
                packages: Vec::new(),
            });
        }
    }
    let apt = Apt::new(&folder().join("apt"), &sources()?)?;
    for pin in &mut pins.kernels {
        match kernel(&apt, &pin.name)? {
            Some(packages) if packages == pin.packages => {
                println!("{}: {} is the newest", pin.name, pin.version());
            }
            Some(packages) => {
                let old = pin.version().to_owned();
                pin.packages = packages;
                println!("{}: {old} -> {}", pin.name, pin.version());
            }
            None => {
                ensure!(
                    !pin.packages.is_empty(),
                    "{}: Debian has no such kernel",
                    pin.name
                );
                println!(
                    "{}: no archive has one any more, kept {}",
                    pin.name,
                    pin.version()
                );
            }
        }
    }
    for (architecture, package) in &mut pins.shells {
        let offers = apt.offers(SHELL, *architecture)?;
        let newest = apt::newest(&offers)?.with_context(|| format!("no archive has {SHELL}"))?;
        *package = newest.package.clone();
    }
    pins.write()
}

/// Lines of a sources.list: this machine's mirrors with all suites.
fn sources() -> Result<Vec<String>> {
    let archives = host_archives()?;
    let mut sources = Vec::new();
    for (label, suites) in SUITES {
        let (base, _) = archives
            .iter()
            .find(|(_, its)| *its == label)
            .with_context(|| {
                format!("apt is configured with no archive that is labelled {label}")
            })?;
        for suite in suites {
            sources.push(format!("deb [signed-by={KEYRING}] {base} {suite} main"));
        }
    }
    Ok(sources)
}

/// The packages of a series' newest kernel: the image, and from about 6.16 on the modules. Archives
/// may drop the modules first.
fn kernel(apt: &Apt, name: &Name) -> Result<Option<Vec<Package>>> {
    let (series, flavour) = match name.series.split_once('-') {
        Some((series, variant)) => (series, format!("{}-{variant}", name.architecture.debian())),
        None => (
            name.series.as_str(),
            format!("cloud-{}", name.architecture.debian()),
        ),
    };
    let offers = |kind: &str| -> Result<Vec<Offer>> {
        apt.offers(
            &format!("linux-{kind}-{series}.*-{flavour}"),
            name.architecture,
        )
    };
    // If the image has a separate package, `linux-image` is an empty package that depends on it.
    let mut images = offers("binary")?;
    let newer = ["binary", "image"].map(|kind| format!("linux-{kind}-"));
    let release = |offer: &Offer| {
        newer
            .iter()
            .find_map(|prefix| offer.name.strip_prefix(prefix))
            .map(str::to_owned)
    };
    let alone: Vec<_> = images.iter().map(release).collect();
    images.extend(
        offers("image")?
            .into_iter()
            .filter(|image| !alone.contains(&release(image))),
    );
    let modules = offers("modules")?;
    let belongs = |image: &Offer, modules: &Offer| {
        modules.version == image.version
            && modules.name.strip_prefix("linux-modules-") == release(image).as_deref()
    };
    let (complete, incomplete): (Vec<_>, Vec<_>) = images.into_iter().partition(|image| {
        image.name.starts_with(&newer[1]) || modules.iter().any(|m| belongs(image, m))
    });
    let newest = match apt::newest(&complete)? {
        Some(image) => Some(image),
        None => apt::newest(&incomplete)?,
    };
    Ok(newest.map(|image| {
        let modules = modules.iter().find(|modules| belongs(image, modules));
        let packages = [Some(image), modules].into_iter().flatten();
        packages.map(|offer| offer.package.clone()).collect()
    }))
}
