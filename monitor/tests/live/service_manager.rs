//! What the service manager learns of the daemon: sd_notify(3), with a socket of the test in place of systemd's.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use lab::{Manner, Process, fresh_port};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::stage::{SOON, Stage, WSMON};

/// On a busy machine with many sockets, the start takes long.
const LATE: Duration = Duration::from_secs(60);

/// The limit of the watchdog.
const LIMIT: Duration = Duration::from_millis(400);

/// A daemon that a service manager started.
struct Service {
    process: Process,
    messages: Receiver<(Instant, String)>,
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

    /// The lines of all messages up to one for which `wanted` is true, without the watchdog's.
    fn until(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let message = self.messages.recv_timeout(LATE);
            let (_, text) = message.unwrap_or_else(|error| panic!("{error} after {lines:#?}"));
            let is_last = wanted(&text);
            lines.extend(
                text.lines()
                    .filter(|line| *line != "WATCHDOG=1")
                    .map(str::to_owned),
            );
            if is_last {
                return lines;
            }
        }
    }

    /// Rewrites the file, reloads it, and returns the lines up to the end of the reload.
    fn reload(&mut self, configuration: &str) -> Vec<String> {
        fs::write(&self.file, configuration).unwrap();
        self.process.signal(Signal::HUP).unwrap();
        let mut lines = self.until(|text| text.contains("READY=1"));
        let begun = lines.iter().position(|line| line == "RELOADING=1");
        lines.split_off(begun.unwrap_or_else(|| panic!("{lines:#?}")))
    }

    /// The status line of the response to `GET /readyz`.
    fn readiness(&self) -> String {
        let mut server = TcpStream::connect(self.metrics_addr).unwrap();
        server
            .write_all(b"GET /readyz HTTP/1.1\r\nHost: wsmon\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut response = String::new();
        server.read_to_string(&mut response).unwrap();
        response.lines().next().unwrap_or_default().to_owned()
    }
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
    assert_eq!(service.readiness(), "HTTP/1.1 200 OK");

    let _client = stage.client(0, "/echo", Manner::Responsive);
    let feeds = || {
        let (at, text) = service.messages.recv_timeout(LATE).unwrap();
        (text.trim() == "WATCHDOG=1").then_some(at)
    };
    let feeds: Vec<_> = std::iter::repeat_with(feeds).flatten().take(11).collect();
    // 2 s, unless a busy machine delays the first or the last.
    let elapsed = feeds[10].duration_since(feeds[0]);
    assert!(elapsed > LIMIT / 2 * 5, "{elapsed:?}");
    // With the next scan of the sockets.
    service.until(|text| text.trim() == "STATUS=watching 1 connection on edge");

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
