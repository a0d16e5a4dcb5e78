//! Observers of the traffic: wsmon and its alternatives.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use lab::{Daemon, Metrics, Process, find_program, wait_until};

use super::{
    ring::RingReader,
    traffic::{PORT, Traffic},
};

/// Also the shortest interval at which Prometheus could scrape it.
const SS_INTERVAL: Duration = Duration::from_secs(1);

const STOP_LIMIT: Duration = Duration::from_secs(10);

/// tcpdump's output stays in memory: the newest twice this many million bytes.
const CAPTURE_MEGABYTES: &str = "64";

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Observer {
    /// No observer: how far two windows differ
    Nobody,
    /// `wsmon run`
    Wsmon,
    /// The same, while `wsmon frames` shows every frame
    WsmonFrames,
    /// `tcpdump -w` on the port
    Tcpdump,
    /// An AF_PACKET ring (TPACKET_V3) with a filter in the kernel
    Ring,
    /// `ss -tin` every second
    Ss,
}

impl Observer {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody (control)",
            Self::Wsmon => "wsmon",
            Self::WsmonFrames => "wsmon, frames open",
            Self::Tcpdump => "tcpdump -w",
            Self::Ring => "AF_PACKET ring",
            Self::Ss => "ss -tin every second",
        }
    }

    /// The missing prerequisite, with the remedy.
    pub(super) fn missing(self) -> Option<&'static str> {
        let (program, remedy) = match self {
            Self::Tcpdump => ("tcpdump", "tcpdump is not installed: cargo xtask setup"),
            Self::Ss => ("ss", "ss is not installed: apt-get install iproute2"),
            Self::Nobody | Self::Wsmon | Self::WsmonFrames | Self::Ring => return None,
        };
        find_program(program).is_none().then_some(remedy)
    }

    /// Starts it, and waits until it observes.
    pub(super) fn start(self, wsmon: &Path, traffic: &Traffic) -> Result<Watch> {
        Ok(match self {
            Self::Nobody => Watch::Nobody,
            Self::Wsmon => Watch::Wsmon(Wsmon::start(wsmon, false)?.into()),
            Self::WsmonFrames => Watch::Wsmon(Wsmon::start(wsmon, true)?.into()),
            Self::Tcpdump => Watch::Tcpdump(Tcpdump::start(traffic)?),
            Self::Ring => Watch::Ring(RingReader::start(traffic.namespace(), PORT)?),
            Self::Ss => Watch::Ss(Ss::start(traffic)),
        })
    }
}

/// A running observer. Dropping it ends it.
pub(super) enum Watch {
    Nobody,
    Wsmon(Box<Wsmon>),
    Tcpdump(Tcpdump),
    Ring(RingReader),
    Ss(Ss),
}

impl Watch {
    /// Marks the start of the windows; `frames` have passed so far.
    pub(super) fn begin(&mut self, frames: u64) -> Result<()> {
        match self {
            Self::Wsmon(wsmon) => wsmon.begin(frames),
            Self::Nobody | Self::Tcpdump(_) | Self::Ring(_) | Self::Ss(_) => Ok(()),
        }
    }

    /// Marks the end of the windows. Ends the observer, and returns what it has seen, if it should
    /// see everything.
    pub(super) fn end(self, frames: u64) -> Result<Option<Seen>> {
        match self {
            Self::Nobody => Ok(None),
            Self::Wsmon(wsmon) => wsmon.end(frames).map(Some),
            Self::Tcpdump(tcpdump) => tcpdump.end().map(Some),
            Self::Ring(reader) => {
                let taken = reader.stop()?;
                Ok(Some(Seen::of(taken.packets.into(), taken.dropped.into())))
            }
            Self::Ss(ss) => ss.end().map(|()| None),
        }
    }
}

/// What an observer has seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// The share of the traffic.
    pub(super) share: f64,
    /// Its own count of losses: packets, frames or events.
    pub(super) lost: f64,
}

impl Seen {
    fn of(passed: f64, lost: f64) -> Self {
        Self {
            share: (passed - lost) / passed.max(1.0),
            lost,
        }
    }
}

pub(super) struct Wsmon {
    daemon: Daemon,
    viewer: Option<Process>,
    before: Option<(u64, Metrics)>,
}

impl Wsmon {
    fn start(wsmon: &Path, frames: bool) -> Result<Self> {
        let port = PORT.to_string();
        let daemon = Daemon::start(wsmon, ["--port", &port, "--lb-timeout", "60s"])?;
        let viewer = frames.then(|| {
            let mut command = Command::new(wsmon);
            command.args(["frames", "--json", "--control"]);
            Process::spawn(quiet(command.arg(daemon.control())))
        });
        let viewer = viewer.transpose()?;
        wait_until("the frames to be open", STOP_LIMIT, || {
            let viewers = daemon
                .metrics()
                .map_or(0.0, |metrics| metrics.sum("wsmon_frame_viewers", &[]));
            viewers == f64::from(u8::from(frames))
        })?;
        Ok(Self {
            daemon,
            viewer,
            before: None,
        })
    }

    fn begin(&mut self, frames: u64) -> Result<()> {
        self.before = Some((frames, self.daemon.metrics()?));
        Ok(())
    }

    /// The frames that it counted, or displayed if `wsmon frames` runs.
    fn end(mut self, frames: u64) -> Result<Seen> {
        let now = self.daemon.metrics()?;
        let (frames_before, before) = self.before.take().context("the windows never began")?;
        let grown =
            |name, labels: &[(&str, &str)]| now.sum(name, labels) - before.sum(name, labels);
        let passed = (frames - frames_before) as f64;
        let lost = grown("wsmon_events_lost_total", &[]);
        let mut seen = grown("wsmon_frames_total", &[]);
        if let Some(mut viewer) = self.viewer.take() {
            viewer.kill()?;
            seen -= grown("wsmon_events_lost_total", &[("ring", "samples")]);
        }
        let status = self.daemon.terminate(STOP_LIMIT)?;
        if !status.success() {
            bail!("wsmon ended with {status}:\n{}", self.daemon.log());
        }
        Ok(Seen {
            share: seen / passed,
            lost,
        })
    }
}

/// `tcpdump -w` to files in memory.
pub(super) struct Tcpdump {
    process: Process,
    folder: PathBuf,
}

impl Tcpdump {
    fn start(traffic: &Traffic) -> Result<Self> {
        // Memory if there is such a folder: the disk is not measured.
        let shared = Path::new("/dev/shm");
        let parent = if shared.is_dir() {
            shared.to_owned()
        } else {
            std::env::temp_dir()
        };
        let folder = parent.join(format!("wsmon-bench-{}", process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut command = traffic.namespace().command("tcpdump");
        command
            .args([
                "-i",
                "lo",
                "-n",
                "-Z",
                "root",
                "-C",
                CAPTURE_MEGABYTES,
                "-W",
                "2",
                "-w",
            ])
            .arg(folder.join("capture"))
            .args(["tcp", "port", &PORT.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let process = Process::spawn(&mut command)?;
        let capture = Self { process, folder };
        wait_until("tcpdump to capture", STOP_LIMIT, || {
            let first = fs::read_dir(&capture.folder).ok();
            let first = first.and_then(|mut files| files.next()?.ok()?.metadata().ok());
            first.is_some_and(|file| file.len() > 0)
        })?;
        Ok(capture)
    }

    /// The packets its buffer had room for, from its final output.
    fn end(mut self) -> Result<Seen> {
        self.process.terminate(STOP_LIMIT)?;
        let mut words = String::new();
        if let Some(stderr) = &mut self.process.child_mut().stderr {
            stderr.read_to_string(&mut words)?;
        }
        let number = |what: &str| {
            let line = words.lines().find(|line| line.contains(what))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        let received = number("received by filter");
        let dropped = number("dropped by kernel");
        let (Some(received), Some(dropped)) = (received, dropped) else {
            bail!("tcpdump did not say what it dropped: {words}");
        };
        Ok(Seen::of(received, dropped))
    }
}

impl Drop for Tcpdump {
    fn drop(&mut self) {
        // Files left in memory would stay there.
        if let Err(error) = self
            .process
            .kill()
            .map_err(anyhow::Error::from)
            .and_then(|_| {
                fs::remove_dir_all(&self.folder).context("cannot remove what tcpdump wrote")
            })
        {
            eprintln!("bench: {error:#}");
        }
    }
}

/// Dumps all sockets from the kernel every second.
pub(super) struct Ss {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Ss {
    fn start(traffic: &Traffic) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let mut command = traffic.namespace().command("ss");
        quiet(command.arg("-tin"));
        let thread = thread::spawn(move || {
            let mut due = Instant::now();
            while !stopping.load(Ordering::Relaxed) {
                if Instant::now() < due {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                }
                due += SS_INTERVAL;
                let status = command.status().context("cannot start ss")?;
                ensure!(status.success(), "ss failed: {status}");
            }
            Ok(())
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    fn end(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("ended once already")?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Ss {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its error would hide the first one.
            let _ = thread.join();
        }
    }
}

/// Discards its output.
fn quiet(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
}
