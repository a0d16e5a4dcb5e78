//! One boot of a virtual machine, by QEMU.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::root::Prerequisite;
use crate::workspace;

const QEMU: &str = "qemu-system-x86_64";
/// What `timeout` reports when it had to kill.
const KILLED: i32 = 137;
/// A guest that hangs must not hang the caller. Several times what emulation takes.
const TIME_LIMIT_SECONDS: u32 = 600;
const PROBE_LIMIT_SECONDS: u32 = 10;

/// Who executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// The processor itself.
    Kvm,
    /// QEMU's translator: slower, and works everywhere.
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
    /// KVM if it boots this kernel up to its first words. That `/dev/kvm` is there says little:
    /// inside other virtual machines it may fail at the first instructions.
    pub(crate) fn find(image: &Path) -> Self {
        if !Path::new("/dev/kvm").exists() {
            return Self::Tcg;
        }
        let mut qemu = qemu(Self::Kvm, image, PROBE_LIMIT_SECONDS);
        // Without a file system it panics, and so ends.
        let output = qemu.args(["-serial", "stdio"]).output();
        match output {
            Ok(output) if String::from_utf8_lossy(&output.stdout).contains("Linux version") => {
                Self::Kvm
            }
            _ => Self::Tcg,
        }
    }
}

/// Fails unless QEMU is installed.
///
/// # Errors
/// [`Prerequisite`].
pub(crate) fn require() -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err(Prerequisite {
            missing: "the pinned kernels are for x86_64, and this is another processor".into(),
            remedy: vec!["run `cargo xtask vm` on an x86_64 machine".into()],
        }
        .into());
    }
    let tools = [QEMU, "busybox", "dpkg-deb", "ip", "xz"];
    let missing: Vec<_> = tools
        .into_iter()
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

/// Boots, shows `line` every line of the second serial port, and waits for the end. The first one,
/// the kernel's console, goes to a file.
///
/// # Errors
/// When QEMU fails, or the guest does not end in time.
pub(crate) fn run(
    accelerator: Accelerator,
    image: &Path,
    initramfs: &Path,
    console: &Path,
    mut line: impl FnMut(&str),
) -> Result<()> {
    let mut command = qemu(accelerator, image, TIME_LIMIT_SECONDS);
    command
        .arg("-initrd")
        .arg(initramfs)
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-serial", "stdio"]);
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

/// A guest that ends when it powers off, panics, or is too slow: even if nobody waits any more.
fn qemu(accelerator: Accelerator, image: &Path, limit_seconds: u32) -> Command {
    let accelerator = match accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "tcg",
    };
    let mut command = Command::new("timeout");
    command
        .args(["--foreground", "--signal=KILL"])
        .arg(limit_seconds.to_string())
        .arg(QEMU)
        .args(["-accel", accelerator, "-cpu", "max", "-smp", "2"])
        .args(["-m", "1024", "-no-user-config", "-nodefaults"])
        .args(["-display", "none", "-no-reboot", "-kernel"])
        .arg(image)
        .args(["-append", "console=ttyS0 panic=-1 oops=panic"])
        .stdin(Stdio::null());
    command
}
