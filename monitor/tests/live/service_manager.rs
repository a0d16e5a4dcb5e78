//! What the service manager learns of the daemon: sd_notify(3), with a socket of the test in place of systemd's.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use lab::{HttpClient, Manner, Process, fresh_port};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::stage::{SOON, Stage, WSMON};

/// On a busy machine with many sockets, the start takes long.
const LATE: Duration = Duration::from_secs(60);

/// The limit of the watchdog.
const LIMIT: Duration = Duration::from_millis(400);
/// For a median that a few late ones do not change.
const ENOUGH_FEEDS: usize = 10;

/// As the daemon feeds the watchdog.
const FEED: &str = "WATCHDOG=1";

/// A message, and when it came.
type Message = (Instant, String);

/// A daemon that a service manager started.
struct Service {
    process: Process,
    messages: Receiver<Message>,
    metrics_addr: SocketAddr,
    file: PathBuf,
    _folder: TempDir,
}

impl Service {
    fn start(configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [socket, file, control] =
            ["notify", "wsmon.toml", "control"].map(|name| folder.path().join(name));
        fs::write(&file, configuration).unwrap();
        let notified = UnixDatagram::bind(&socket).unwrap();
        let metrics_addr = SocketAddr::from((Ipv4Addr::LOCALHOST, fresh_port()));
        let mut command = Command::new(WSMON);
        command
            .args([
                "run",
                "--metrics-addr",
                &metrics_addr.to_string(),
                "--config",
            ])
            .arg(&file)
            .arg("--control")
            .arg(&control)
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", LIMIT.as_micros().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = Process::spawn(&mut command).unwrap();
        let (sender, messages) = channel();
        // It ends with the test's process, or when the test has ended and a message comes.
        thread::spawn(move || {
            let mut message = [0; 8192];
            while let Ok(length) = notified.recv(&mut message) {
                let text = String::from_utf8_lossy(&message[..length]).into_owned();
                if sender.send((Instant::now(), text)).is_err() {
                    break;
                }
            }
        });
        Self {
            process,
            messages,
            metrics_addr,
            file,
            _folder: folder,
        }
    }

    /// The next messages, as many as are enough.
    fn receive(&self, is_enough: impl Fn(&[Message]) -> bool) -> Vec<Message> {
        let deadline = Instant::now() + LATE;
        let mut messages = Vec::new();
        while !is_enough(&messages) {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(left);
            messages.push(message.unwrap_or_else(|error| panic!("{error} after {messages:#?}")));
        }
        messages
    }

    /// The lines of all messages up to one for which `wanted` is true, without the watchdog's.
    fn until(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let is_last = |messages: &[Message]| messages.last().is_some_and(|(_, text)| wanted(text));
        let messages = self.receive(is_last);
        let lines = messages.iter().flat_map(|(_, text)| text.lines());
        lines
            .filter(|line| *line != FEED)
            .map(str::to_owned)
            .collect()
    }

    /// Rewrites the file, reloads it, and returns the lines up to the end of the reload.
    fn reload(&mut self, configuration: &str) -> Vec<String> {
        fs::write(&self.file, configuration).unwrap();
        self.process.signal(Signal::HUP).unwrap();
        let mut lines = self.until(|text| text.contains("READY=1"));
        let begun = lines.iter().position(|line| line == "RELOADING=1");
        lines.split_off(begun.unwrap_or_else(|| panic!("{lines:#?}")))
    }
}

/// When the watchdog was fed.
fn feeds(messages: &[Message]) -> Vec<Instant> {
    let feeds = messages.iter().filter(|(_, text)| text.trim() == FEED);
    feeds.map(|(at, _)| *at).collect()
}

/// The middle one of the times between these moments.
fn median_gap(moments: &[Instant]) -> Duration {
    let gaps = moments.windows(2).map(|pair| pair[1] - pair[0]);
    let mut gaps: Vec<_> = gaps.collect();
    gaps.sort_unstable();
    gaps[gaps.len() / 2]
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn each_phase_is_reported_and_the_watchdog_is_fed() {
    let stage = Stage::new();
    let configuration = format!(
        "[[listener]]\nname = \"edge\"\nports = [\"{}\"]\n",
        stage.port()
    );
    let mut service = Service::start(&configuration);
    let started = service.until(|text| text.contains("READY=1"));
    assert_eq!(
        started,
        [
            "STATUS=checking the configuration and the kernel",
            "STATUS=loading the kernel programs",
            "STATUS=attaching the kernel programs",
            "STATUS=finding older connections",
            "READY=1",
            "STATUS=watching 0 connections on edge",
        ]
    );
    let ready = HttpClient::default().get(service.metrics_addr, "/readyz");
    assert_eq!(ready.unwrap(), "ready\n");

    let _client = stage.client(0, "/echo", Manner::Responsive);
    // With the next scan of the sockets, before or after the watchdog is fed often enough.
    let is_client = |(_, text): &Message| text.trim() == "STATUS=watching 1 connection on edge";
    let messages = service
        .receive(|messages| messages.iter().any(is_client) && feeds(messages).len() > ENOUGH_FEEDS);
    // Twice in the limit, unless a busy machine delays it. Not much more often, which would be a waste.
    let gap = median_gap(&feeds(&messages));
    assert!(gap > LIMIT / 4 && gap <= LIMIT, "{gap:?}");

    let reloaded = service.reload(&(configuration.clone() + "ping_timeout = \"9s\"\n"));
    let [reloading, since, status, ready, watching] = reloaded.as_slice() else {
        panic!("{reloaded:#?}");
    };
    assert_eq!(
        [reloading, status, ready, watching].map(String::as_str),
        [
            "RELOADING=1",
            "STATUS=reloading",
            "READY=1",
            "STATUS=watching 1 connection on edge"
        ]
    );
    let since = since.strip_prefix("MONOTONIC_USEC=").map(str::parse::<u64>);
    assert!(since.is_some_and(|since| since.is_ok()), "{reloaded:#?}");
    let refused = service.reload(&(configuration + "ping_timeout = \"soon\"\n"));
    assert_eq!(
        refused
            .last()
            .map(|status| status.contains(":4:16: ") && status.ends_with("on edge")),
        Some(true),
        "{refused:#?}"
    );

    assert_eq!(service.process.terminate(SOON).unwrap().code(), Some(0));
    let stopped = service.until(|text| text.contains("STOPPING=1"));
    assert!(
        stopped.ends_with(&["STOPPING=1".to_owned(), "STATUS=stopping".to_owned()]),
        "{stopped:#?}"
    );
}
