//! A running tcpdump.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{ChildStderr, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use lab::{Namespace, Process};

use crate::SOON;

/// How tcpdump captures, and how its file is converted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// The interface's own link type.
    Tcpdump,
    /// Timestamps in nanoseconds.
    Nanoseconds,
    /// All interfaces, `LINKTYPE_LINUX_SLL`.
    Cooked,
    /// All interfaces, `LINKTYPE_LINUX_SLL2`.
    CookedV2,
    /// Converted to pcapng by editcap. dumpcap is not used: it records the processor and kernel it
    /// ran on.
    PcapNg,
}

pub(crate) struct Capture {
    process: Process,
    stderr: BufReader<ChildStderr>,
    tool: Tool,
    file: PathBuf,
}

impl Capture {
    /// Returns once it captures. `file` has no extension.
    ///
    /// # Errors
    /// If tcpdump does not start.
    pub(crate) fn start(
        namespace: &Namespace,
        interface: &str,
        tool: Tool,
        file: &Path,
    ) -> Result<Self> {
        let mut command = namespace.command("tcpdump");
        // Writes every packet at once. The file keeps root as its owner; the buffer has room for a
        // burst.
        command.args(["--immediate-mode", "--packet-buffered"]);
        command.args(["-Z", "root", "-B", "16384"]);
        match tool {
            Tool::Tcpdump | Tool::PcapNg => &mut command,
            Tool::Nanoseconds => command.arg("--time-stamp-precision=nano"),
            Tool::Cooked => command.args(["-y", "LINUX_SLL"]),
            Tool::CookedV2 => command.args(["-y", "LINUX_SLL2"]),
        };
        let interface = match tool {
            Tool::Cooked | Tool::CookedV2 => "any",
            _ => interface,
        };
        let file = file.with_extension("pcap");
        command.args(["-i", interface, "-w"]).arg(&file).arg("tcp");
        let mut process = Process::spawn(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped()),
        )?;
        let stderr = process.child_mut().stderr.take();
        let mut stderr = BufReader::new(stderr.context("the capture's stderr is a pipe")?);
        let mut said = String::new();
        while !said.contains("listening on") {
            if stderr.read_line(&mut said)? == 0 {
                bail!("the capture on {interface} did not start: {said}");
            }
        }
        Ok(Self {
            process,
            stderr,
            tool,
            file,
        })
    }

    /// Waits until the file stops growing and ends the capture.
    ///
    /// # Errors
    /// As [`end`](Self::end), or if the file does not stop growing.
    pub(crate) fn finish(self) -> Result<()> {
        const REST: Duration = Duration::from_millis(500);
        let size = || fs::metadata(&self.file).map(|data| data.len());
        let begin = Instant::now();
        let mut last = size()?;
        loop {
            thread::sleep(REST);
            let now = size()?;
            if now == last {
                break;
            }
            if begin.elapsed() > SOON {
                bail!("{} does not stop growing", self.file.display());
            }
            last = now;
        }
        self.end()
    }

    /// Ends the capture.
    ///
    /// # Errors
    /// If packets were dropped.
    pub(crate) fn end(mut self) -> Result<()> {
        self.process.terminate(SOON)?;
        let mut said = String::new();
        self.stderr.read_to_string(&mut said)?;
        if !said.contains("\n0 packets dropped by kernel") {
            bail!("{} may lack packets: {said}", self.file.display());
        }
        if self.tool == Tool::PcapNg {
            let status = Command::new("editcap")
                .args(["-F", "pcapng"])
                .arg(&self.file)
                .arg(self.file.with_extension("pcapng"))
                .status()?;
            ensure!(status.success(), "editcap failed: {status}");
            fs::remove_file(&self.file)?;
        }
        Ok(())
    }
}
