//! `wsmon replay`: applies the daemon's rules to a recording.

use std::{
    fmt::Display,
    fs::{File, Metadata},
    io::{self, BufWriter, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use super::{
    exit::{CommandResult, Failure},
    format_args::FormatArgs,
    watch::WatchArgs,
};
use crate::{
    config::{
        listeners::{ListenerConfig, PortRange},
        profiles,
    },
    diagnostics::stderr_line,
    records::{recording_summary::RecordingSummary, skipped::Skip},
    replay::{self, Capture, CaptureError, Replay},
};

mod interrupt;
mod json;
mod source;
mod text;

use interrupt::Interrupt;
use source::{CaptureSource, ReadProgress};

/// Apply the rules of `wsmon run` to a packet recording.
///
/// Reads pcap and pcapng, also compressed with gzip, xz or zstd. Needs no privileges. Without --port,
/// --remote-port and --config, every port with a WebSocket upgrade in the recording is watched, and to
/// find them, the file is read twice.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  wsmon replay capture.pcap
      every frame, alert and connection on the ports that upgrade to WebSocket
  wsmon replay --no-frames --lb-timeout 60s capture.pcapng
      which connections a load balancer with a 60 s limit has forgotten
  wsmon replay --port 8080 --json capture.pcap | jq 'select(.alert)'
      one JSON object a line; here the alerts
  tcpdump -i eth0 -s 512 -w - tcp port 8080 | wsmon replay --port 8080 -
      packets as they arrive; 512 bytes hold frame headers and most handshakes

Exit status: 0 after the recording was judged, also if it is cut off or Ctrl-C
stopped it (with a warning), 1 on a failure, 2 for invalid input or a file
that is not a recording.")]
pub struct ReplayArgs {
    #[command(flatten)]
    pub watch: WatchArgs,

    /// Print alerts, connections and the summary, without a line per frame and state change
    #[arg(long)]
    pub no_frames: bool,

    #[command(flatten)]
    pub format: FormatArgs,

    /// Recording, pcap or pcapng; - is stdin, with --port or --remote-port
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Reports the results of a replay.
trait Report {
    fn record(&mut self, replay: &Replay, record: &replay::ReplayRecord) -> io::Result<()>;
    fn warning(&mut self, message: &str) -> io::Result<()>;
    fn summary(&mut self, replay: &Replay) -> io::Result<()>;
    fn flush(&mut self) -> io::Result<()>;
}

/// Judges the recording and prints the result.
pub fn run(args: &ReplayArgs) -> CommandResult {
    let job = Job {
        args,
        interrupt: Interrupt::watch()
            .map_err(|error| Failure::failed(format!("cannot handle signals: {error}")))?,
    };
    let named = args.watch.listeners(&args.watch.file()?)?;
    let outcome = if named.is_empty() {
        job.find_listeners()
            .map_err(Stop::Failure)
            .and_then(|found| job.print(found, true))
    } else {
        job.print(named, false)
    };
    match outcome {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // The reader of the pipe has exited.
        Err(Stop::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(ExitCode::SUCCESS)
        }
        Err(Stop::Output(error)) => Err(Failure::failed(format!("cannot print: {error}"))),
        Err(Stop::Failure(failure)) => Err(failure),
    }
}

enum Stop {
    Output(io::Error),
    Failure(Failure),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

struct Job<'a> {
    args: &'a ReplayArgs,
    interrupt: Interrupt,
}

impl Job<'_> {
    fn print(&self, listeners: Vec<ListenerConfig>, found: bool) -> Result<(), Stop> {
        let file = self.args.file.display();
        let mut report = self.report();
        let warn = |report: &mut dyn Report, message: String| {
            stderr_line!("wsmon: {message}");
            report.warning(&message)
        };
        let finds_nothing = found && listeners.is_empty();
        let mut capture = self.open("judging").map_err(Stop::Failure)?;
        let mut replay = Replay::new(listeners);
        replay.set_known_hops(profiles::known_hops());
        let end = replay::play(&mut capture, &mut replay, |replay, record| {
            report.record(replay, &record)
        })?;
        drop(capture);
        if finds_nothing {
            let why = match nothing_readable(replay.summary()) {
                Some(why) => why,
                None => "no WebSocket upgrade in this recording; if it begins later or uses TLS, \
                         name the server's port with --port"
                    .to_owned(),
            };
            warn(&mut *report, format!("{file}: {why}"))?;
        }
        let end = match end {
            _ if self.interrupt.is_raised() => Some("interrupted".to_owned()),
            Some(error) => {
                let failed = matches!(error, CaptureError::Io(_));
                let message = format!("{file}: {error}");
                if failed {
                    report.summary(&replay)?;
                    report.flush()?;
                    return Err(Stop::Failure(Failure::failed(message)));
                }
                Some(message)
            }
            None => None,
        };
        if let Some(why) = end {
            warn(
                &mut *report,
                format!("{why}; judged up to the packet before"),
            )?;
        }
        report.summary(&replay)?;
        report.flush()?;
        Ok(())
    }

    fn report(&self) -> Box<dyn Report> {
        let stdout = io::stdout();
        // A stream is shown as it arrives, so only the output of a file is buffered.
        let out: Box<dyn Write> = if self.is_file() && !stdout.is_terminal() {
            Box::new(BufWriter::with_capacity(OUTPUT_BUFFER, stdout.lock()))
        } else {
            Box::new(stdout.lock())
        };
        let frames = !self.args.no_frames;
        if self.args.format.is_json() {
            Box::new(json::Json::new(out, frames))
        } else {
            Box::new(text::TextReport::new(out, frames))
        }
    }

    /// One listener for each port with an upgrade to WebSocket.
    fn find_listeners(&self) -> Result<Vec<ListenerConfig>, Failure> {
        let path = &self.args.file;
        if !self.is_file() && !path.is_dir() && (is_stdin(path) || path.exists()) {
            return Err(Failure::usage(format!(
                "{} can be read only once, so its ports cannot be detected; name them with --port",
                path.display()
            )));
        }
        let mut capture = self.open("looking for WebSocket ports")?;
        let ports = replay::websocket_ports(&mut capture);
        if self.interrupt.is_raised() {
            return Err(Failure::failed(
                "interrupted while looking for WebSocket ports",
            ));
        }
        let listener = |port| self.args.watch.listener(PortRange(port..=port));
        ports.into_iter().map(listener).collect()
    }

    fn open(&self, doing: &'static str) -> Result<Capture<Box<dyn Read>>, Failure> {
        let path = &self.args.file;
        let refused = |error: &dyn Display| {
            Failure::usage(format!("cannot replay {}: {error}", path.display()))
        };
        if !is_stdin(path) && path.is_dir() {
            return Err(refused(&"it is a directory; name a recording in it"));
        }
        let bytes: Box<dyn Read> = if is_stdin(path) {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path).map_err(|error| refused(&error))?)
        };
        let size = path.metadata().ok().filter(Metadata::is_file);
        // Lines on the same terminal show progress already.
        let is_quiet = self.args.no_frames || !io::stdout().is_terminal();
        let progress = (is_quiet && io::stderr().is_terminal())
            .then(|| ReadProgress::new(doing, size.map(|meta| meta.len())));
        let source = CaptureSource::new(bytes, self.interrupt.clone(), progress);
        let unpacked = replay::unpacked(source).map_err(|error| refused(&error))?;
        Capture::open(unpacked).map_err(|error| refused(&error))
    }

    fn is_file(&self) -> bool {
        let path = &self.args.file;
        !is_stdin(path) && path.metadata().is_ok_and(|meta| meta.is_file())
    }
}

/// Why no packet of a recording could be read as TCP; `None` if at least one could.
fn nothing_readable(summary: &RecordingSummary) -> Option<String> {
    let unread: u64 = UNREADABLE
        .into_iter()
        .map(|reason| summary.skipped.get(reason))
        .sum();
    if summary.packets == 0 || unread < summary.packets {
        return None;
    }
    let mut reasons: Vec<String> = UNREADABLE
        .into_iter()
        .map(|reason| (reason, summary.skipped.get(reason)))
        .filter(|(reason, packets)| *packets > 0 && *reason != Skip::LinkType)
        .map(|(reason, packets)| format!("{packets} {}", reason.as_str()))
        .collect();
    let links = summary.unread_links.iter();
    reasons.extend(links.map(|(link, packets)| format!("{packets} of link type {link}")));
    Some(format!(
        "no packet in this recording can be read as TCP: {}",
        reasons.join(", ")
    ))
}

/// Reasons to skip a packet before its ports are known.
const UNREADABLE: [Skip; 7] = [
    Skip::LinkType,
    Skip::NotIp,
    Skip::NotTcp,
    Skip::Fragment,
    Skip::ExtensionHeader,
    Skip::TruncatedHeader,
    Skip::Malformed,
];

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

const OUTPUT_BUFFER: usize = 64 << 10;
