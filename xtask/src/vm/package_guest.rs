//! The guest with Debian, in which the packages are installed, used, upgraded and removed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{
    architecture::Architecture,
    archive::Archive,
    debian, folder, initramfs,
    kernel::Kernel,
    machine::{self, Accelerator},
    pins::Pins,
    run::{Run, Setup},
};
use crate::{
    artifacts::executables,
    cross,
    files::{output, read, read_text, recreate, remove},
    package::Package,
    release_build::Effort,
    workspace::{self, cargo},
};

/// What to call the guest, its files, and what it runs.
pub(crate) const NAME: &str = "package";
const INIT: &str = include_str!("package_guest/init.sh");
const TEST: &str = include_str!("package_guest/test.sh");
const MOUNT_POINTS: [&str; 2] = ["dev", "debian"];
/// Drivers of the disk and its file system, and what lists sockets. Some kernels have some built in.
const MODULES: [&str; 5] = [
    "virtio_pci",
    "virtio_blk",
    "crc32c_generic",
    "ext4",
    "tcp_diag",
];
/// The last line of the configuration that the newer packages ship.
const NEWER_LINE: &str = "# newer\n";
/// The program with the connection to watch.
const PEERS: &str = "silent_pair";

/// What is tested, and with what.
pub(crate) struct PackageGuest {
    kernel: Kernel,
    accelerator: Accelerator,
    deb: PathBuf,
    rpm: PathBuf,
    /// The same with a higher release and another example of a configuration.
    newer_rpm: PathBuf,
    peers: PathBuf,
}

impl PackageGuest {
    /// Finds the kernel of Debian's release, and builds the package from the binary that the other
    /// tests use too. The inner error says why the package can't be tested.
    ///
    /// # Errors
    /// If a build fails; a `Prerequisite` if something is not installed.
    pub(crate) fn build(archives: &[String]) -> Result<Result<Self, String>> {
        let mut known = Architecture::ALL.into_iter();
        let native = known.find(|architecture| architecture.is_native());
        let native = native.context("no guest has this machine's processor")?;
        machine::require(&[native], &[])?;
        let selection = format!("{native}/{}", debian::KERNEL_SERIES);
        let pins = Pins::read()?.select(&[selection])?;
        let pin = pins.first().context("no kernel is selected")?;
        let kernel = match Kernel::pinned(pin, archives)? {
            Ok(kernel) => kernel,
            Err(gone) => return Ok(Err(gone.reason())),
        };
        println!("{NAME}: building it");
        let package = Package::build(cross::given_or_native(None)?, Effort::Quick, 1)?;
        let mut command = cargo(&["build", "--release", "--quiet"]);
        // Both packages, as for the other tests, so that nothing is compiled twice.
        command.args([
            "--package",
            "monitor",
            "--package",
            "lab",
            "--example",
            PEERS,
        ]);
        workspace::skip_lto(&mut command);
        let mut built = executables(&mut command)?.into_iter();
        let peers = built.find(|executable| executable.name == PEERS);
        Ok(Ok(Self {
            accelerator: Accelerator::find(native, &kernel.image()?),
            kernel,
            deb: package.deb()?,
            rpm: package.rpm()?,
            newer_rpm: package.next_rpm(NEWER_LINE)?,
            peers: peers
                .context("cargo did not say where it put the peers")?
                .path,
        }))
    }

    /// Boots the guest. `news` receives progress lines for a waiting person. The inner error says
    /// why there is no guest.
    ///
    /// # Errors
    /// If the guest cannot be built; failures inside it are part of the result.
    pub(crate) fn run(self, news: impl Fn(&str)) -> Result<Result<Run, String>> {
        let architecture = self.kernel.name.architecture;
        let disk = match debian::image(architecture)? {
            Ok(disk) => disk,
            Err(why) => return Ok(Err(why)),
        };
        let setup = Setup {
            name: NAME.to_owned(),
            file_stem: NAME.to_owned(),
            initramfs: self.initramfs()?,
            disk: Some(disk),
            expected: vec![NAME.to_owned()],
            kernel: self.kernel,
        };
        Run::of(setup, self.accelerator, news).map(Ok)
    }

    fn initramfs(&self) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        for folder in MOUNT_POINTS {
            archive.folder(Path::new(folder))?;
        }
        let shell = workspace::on_path("busybox").context("busybox is not installed")?;
        let results = self.kernel.name.architecture.results();
        for (place, content) in [
            ("init", INIT.as_bytes()),
            ("bin/busybox", &read(&shell)?),
            ("test/test.sh", TEST.as_bytes()),
            ("test/results", format!("{results}\n").as_bytes()),
            ("test/silent_pair", &read(&self.peers)?),
            ("test/wsmon.deb", &read(&self.deb)?),
            ("test/newer.deb", &read(&newer(&self.deb)?)?),
            ("test/wsmon.rpm", &read(&self.rpm)?),
            ("test/newer.rpm", &read(&self.newer_rpm)?),
        ] {
            archive.file(Path::new(place), content)?;
        }
        initramfs::add_modules(&mut archive, &self.kernel, &MODULES)?;
        archive.finish().context("could not write the archive")
    }
}

/// The run in one line.
pub(crate) fn summary(run: &Run) -> String {
    let (passed, failed) = run
        .results
        .targets
        .first()
        .map(|target| target.tally())
        .unwrap_or_default();
    format!(
        "{NAME} on Debian with Linux {}: {passed} passed, {failed} failed, {:.0} s",
        run.kernel.version, run.seconds
    )
}

/// The same package with a higher version, and with another example of a configuration, so that the
/// upgrade has to decide between that and the administrator's file.
fn newer(deb: &Path) -> Result<PathBuf> {
    let stage = folder().join("newer");
    recreate(&stage)?;
    output(
        Command::new("dpkg-deb")
            .arg("--raw-extract")
            .args([deb, &stage]),
    )?;
    let edit = |place: &str, change: &dyn Fn(&str) -> String| -> Result<()> {
        let file = stage.join(place);
        fs::write(&file, change(&read_text(&file)?))
            .with_context(|| format!("could not write {}", file.display()))
    };
    edit("DEBIAN/control", &|control| {
        let lines = control
            .lines()
            .map(|line| match line.strip_prefix("Version: ") {
                Some(version) => format!("Version: {version}+newer\n"),
                None => format!("{line}\n"),
            });
        lines.collect()
    })?;
    edit("etc/wsmon.toml", &|config| format!("{config}{NEWER_LINE}"))?;
    let newer = folder().join("newer.deb");
    output(
        Command::new("dpkg-deb")
            .args(["--build", "--root-owner-group", "-Znone"])
            .args([&stage, &newer]),
    )?;
    remove(&stage)?;
    Ok(newer)
}
