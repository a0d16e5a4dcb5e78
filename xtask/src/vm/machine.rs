//! One boot of a virtual machine, by QEMU.

use std::{
    fmt,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::architecture::Architecture;
use crate::{root::Prerequisite, workspace};

/// The exit status of `timeout` after a kill.
const KILLED: i32 = 137;
/// A hanging guest must not block the caller. Several times the duration under emulation.
const TIME_LIMIT_SECONDS: u32 = 900;
/// Mitigations against other guests: expensive under emulation, and irrelevant for wsmon.
const CHEAP: &str = "mitigations=off";
/// A guest's memory.
pub(crate) const MEMORY_MIB: u64 = 1024;
const PROBE_LIMIT_SECONDS: u32 = 10;

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// The processor itself.
    Kvm,
    /// QEMU's translator: slower, but works everywhere.
    Tcg,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "KVM",
            Self::Tcg => "emulation (no usable KVM)",
        })
    }
}

impl Accelerator {
    /// KVM if it boots this kernel up to its first output. The existence of `/dev/kvm` is not
    /// enough: inside other virtual machines it may fail at the first instructions.
    pub(crate) fn find(architecture: Architecture, image: &Path) -> Self {
        if !architecture.is_native() || !Path::new("/dev/kvm").exists() {
            return Self::Tcg;
        }
        let mut qemu = qemu(Self::Kvm, architecture, image, PROBE_LIMIT_SECONDS);
        // Without a file system the kernel panics, which ends the run.
        let output = qemu.args(["-serial", "stdio"]).output();
        match output {
            Ok(output) if String::from_utf8_lossy(&output.stdout).contains("Linux version") => {
                Self::Kvm
            }
            _ => Self::Tcg,
        }
    }
}

/// Fails unless the programs to boot these guests are installed, and `others`.
///
/// # Errors
/// [`Prerequisite`].
pub(crate) fn require(architectures: &[Architecture], others: &[&str]) -> Result<()> {
    let emulators = architectures.iter().map(|architecture| architecture.qemu());
    let missing: Vec<_> = emulators
        .chain(["busybox", "dpkg-deb", "setpriv", "xz"])
        .chain(others.iter().copied())
        .filter(|tool| workspace::on_path(tool).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Prerequisite {
        missing: format!("not installed: {}", missing.join(", ")),
        remedy: vec!["cargo xtask setup --tests".into()],
    }
    .into())
}

/// What a guest boots from, and where its console goes.
pub(crate) struct Boot<'a> {
    pub(crate) accelerator: Accelerator,
    pub(crate) architecture: Architecture,
    /// The kernel.
    pub(crate) image: &'a Path,
    pub(crate) initramfs: &'a Path,
    /// A disk image. What the guest writes to it is dropped at the end.
    pub(crate) disk: Option<&'a Path>,
    /// The file for the first serial port, the kernel's console.
    pub(crate) console: &'a Path,
}

/// Boots, passes every line of the second serial port to `line`, and waits for the end.
///
/// # Errors
/// If QEMU fails, or the guest does not end in time.
pub(crate) fn run(boot: &Boot<'_>, mut line: impl FnMut(&str)) -> Result<()> {
    let mut command = qemu(
        boot.accelerator,
        boot.architecture,
        boot.image,
        TIME_LIMIT_SECONDS,
    );
    command
        .arg("-initrd")
        .arg(boot.initramfs)
        .arg("-serial")
        .arg(format!("file:{}", boot.console.display()))
        .args(["-chardev", "stdio,id=results,signal=off"])
        .args(boot.architecture.results_port());
    if let Some(disk) = boot.disk {
        // QEMU separates options by commas. A doubled comma is a literal one.
        let disk = disk.to_string_lossy().replace(',', ",,");
        command.arg("-drive").arg(format!(
            "file={disk},format=raw,if=virtio,snapshot=on,cache=unsafe"
        ));
    }
    let mut qemu = command
        .stdout(Stdio::piped())
        .spawn()
        .context("could not start QEMU")?;
    let lines = qemu.stdout.take().context("QEMU has no output")?;
    for bytes in BufReader::new(lines).split(b'\n') {
        let bytes = bytes.context("could not read QEMU's output")?;
        line(String::from_utf8_lossy(&bytes).trim_end_matches('\r'));
    }
    let status = qemu.wait().context("could not wait for QEMU")?;
    match status.code() {
        Some(0) => Ok(()),
        Some(KILLED) => bail!("the guest was still running after {TIME_LIMIT_SECONDS} s"),
        _ => bail!("QEMU failed: {status}"),
    }
}

/// A guest that ends when it powers off, panics, exceeds the time limit, or loses its parent.
fn qemu(
    accelerator: Accelerator,
    architecture: Architecture,
    image: &Path,
    limit_seconds: u32,
) -> Command {
    let accelerator = match accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "tcg,thread=multi",
    };
    let mut command = bounded(limit_seconds, architecture.qemu());
    command
        .args(architecture.machine())
        .args(["-accel", accelerator, "-smp", "2"])
        .args(["-m", &MEMORY_MIB.to_string()])
        .args(["-no-user-config", "-nodefaults"])
        .args(["-display", "none", "-no-reboot", "-kernel"])
        .arg(image)
        .arg("-append")
        .arg(format!(
            "console={} panic=-1 oops=panic {CHEAP}",
            architecture.console()
        ))
        .stdin(Stdio::null());
    command
}

/// A program that is killed after a time limit, and when the thread that started it ends for any
/// reason: a killed parent drops nothing.
fn bounded(limit_seconds: u32, program: &str) -> Command {
    // From the parent to `timeout`, and from `timeout` to the program.
    const DIE_WITH_PARENT: [&str; 3] = ["setpriv", "--pdeathsig", "KILL"];
    let [setpriv, arguments @ ..] = DIE_WITH_PARENT;
    let mut command = Command::new(setpriv);
    command
        .args(arguments)
        .args(["timeout", "--foreground", "--signal=KILL"])
        .arg(limit_seconds.to_string())
        .args(DIE_WITH_PARENT)
        .arg(program);
    command
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn a_program_dies_with_the_thread_that_started_it() {
        let limit = Duration::from_secs(60);
        let begun = Instant::now();
        let start = move || {
            let mut child = bounded(limit.as_secs() as u32, "sh")
                .args(["-c", "echo started; exec sleep 60"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut output = BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            assert_eq!(line, "started\n");
            (child, output)
        };
        let (mut child, mut output) = thread::spawn(start).join().unwrap();
        // Ends when no process holds the other end of the pipe any more, the program included.
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(begun.elapsed() < limit, "the limit ended it");
    }
}
