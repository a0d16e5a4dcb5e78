use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{self, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{HttpClient, LabError, Metrics, Process, connection::lock, fresh_port, wait_until};

const READY_LIMIT: Duration = Duration::from_secs(60);

/// One line of the alert log.
#[derive(Debug, Clone)]
pub struct Alert {
    /// When the line was read.
    pub at: Instant,
    pub json: Value,
}

impl Alert {
    /// The text at a JSON pointer (RFC 6901) such as `/conn/peer`; empty if there is none.
    pub fn text(&self, pointer: &str) -> &str {
        self.json
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The number at a JSON pointer such as `/evidence/idle_seconds`.
    pub fn number(&self, pointer: &str) -> Option<f64> {
        self.json.pointer(pointer)?.as_f64()
    }

    /// The remote address of the alert's connection; a v4-mapped address as IPv4.
    pub fn peer(&self) -> Option<SocketAddr> {
        let peer: SocketAddr = self.text("/conn/peer").parse().ok()?;
        Some(SocketAddr::new(peer.ip().to_canonical(), peer.port()))
    }

    /// Number of verdicts in this alert: one, or the size of its group.
    pub fn count(&self) -> f64 {
        self.number("/count").unwrap_or(1.0)
    }

    /// Whether this alert reports a new zombie.
    pub fn is_firing_zombie(&self) -> bool {
        self.text("/alert") == "zombie" && self.text("/status") == "firing"
    }
}

/// A running `wsmon run`, killed when the value is dropped.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    alerts: Receiver<Alert>,
    log: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    metrics_addr: SocketAddr,
    control: PathBuf,
    http: HttpClient,
}

impl Daemon {
    /// Starts `wsmon run` with `arguments`, a free metrics port on loopback and its own control
    /// socket, and waits until `/readyz` reports that it is attached.
    ///
    /// # Errors
    /// [`LabError::DaemonEnded`] or [`LabError::DaemonNotReady`], each with the daemon's output.
    pub fn start<A: AsRef<OsStr>>(
        wsmon: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self, LabError> {
        Self::start_within(READY_LIMIT, wsmon, arguments)
    }

    /// Like [`start`](Self::start), with `limit` as the time to become ready: with very many
    /// connections the first scan takes longer.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_within<A: AsRef<OsStr>>(
        limit: Duration,
        wsmon: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self, LabError> {
        let metrics_addr = SocketAddr::from((Ipv4Addr::LOCALHOST, fresh_port()));
        let control = fresh_socket_path();
        let mut process = Process::spawn(
            Command::new(wsmon)
                .arg("run")
                .args(arguments)
                .args(["--metrics-addr", &metrics_addr.to_string()])
                .arg("--control")
                .arg(&control)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        )?;
        let (sender, alerts) = channel();
        let log = Arc::default();
        let child = process.child_mut();
        let readers = [
            child
                .stdout
                .take()
                .map(|pipe| read_lines(pipe, &sender, &log)),
            child
                .stderr
                .take()
                .map(|pipe| read_lines(pipe, &sender, &log)),
        ];
        let mut daemon = Self {
            process,
            alerts,
            log,
            readers: readers.into_iter().flatten().collect(),
            metrics_addr,
            control,
            http: HttpClient::default(),
        };
        daemon.wait_until_ready(limit)?;
        Ok(daemon)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub fn metrics_addr(&self) -> SocketAddr {
        self.metrics_addr
    }

    /// Its control socket.
    pub fn control(&self) -> &Path {
        &self.control
    }

    /// The alerts as they arrive; disconnected once the daemon has ended.
    pub fn alerts(&self) -> &Receiver<Alert> {
        &self.alerts
    }

    /// Its output so far, both streams, without the alerts.
    pub fn log(&self) -> String {
        lock(&self.log).clone()
    }

    /// Kills it, and returns the warnings and errors in its log that contain none of the `expected`
    /// texts.
    ///
    /// # Errors
    /// [`LabError::Io`] if the kernel refuses.
    pub fn complaints(&mut self, expected: &[&str]) -> Result<Vec<String>, LabError> {
        self.kill()?;
        self.read_to_the_end();
        Ok(complaints(&self.log(), expected))
    }

    /// Scrapes `/metrics`.
    ///
    /// # Errors
    /// [`LabError::Scrape`] or [`LabError::MetricsLine`].
    pub fn metrics(&self) -> Result<Metrics, LabError> {
        self.get("/metrics")?.parse()
    }

    /// What it serves at this path of the metrics address.
    ///
    /// # Errors
    /// [`LabError::Scrape`].
    pub fn get(&self, path: &str) -> Result<String, LabError> {
        self.http.get(self.metrics_addr, path)
    }

    /// The exit status, if the daemon has ended.
    ///
    /// # Errors
    /// [`LabError::Io`] if the kernel does not report it.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, LabError> {
        self.process.try_wait()
    }

    /// Notifies it that its alert log was moved away (SIGUSR1).
    ///
    /// # Errors
    /// [`LabError::Io`] if the kernel refuses.
    pub fn rotate(&mut self) -> Result<(), LabError> {
        self.process.signal(Signal::USR1)
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// [`LabError::Timeout`] if it still runs after `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus, LabError> {
        self.process.terminate(limit)
    }

    /// Ends it with SIGKILL.
    ///
    /// # Errors
    /// [`LabError::Io`] if the kernel refuses.
    pub fn kill(&mut self) -> Result<ExitStatus, LabError> {
        self.process.kill()
    }

    fn wait_until_ready(&mut self, limit: Duration) -> Result<(), LabError> {
        let mut ended = None;
        let waited = wait_until("wsmon to be ready", limit, || {
            ended = self.process.try_wait().ok().flatten();
            let is_ready = || self.get("/readyz").is_ok();
            // It writes what it watches before it is ready, but the pipe's reader may be late.
            ended.is_some() || is_ready() && self.log().contains("metrics at http://")
        });
        if let Some(status) = ended {
            self.read_to_the_end();
            return Err(LabError::DaemonEnded {
                status,
                log: self.log(),
            });
        }
        waited.map_err(|_| LabError::DaemonNotReady {
            waited: limit,
            log: self.log(),
        })
    }

    /// Only after the process has ended: its streams end with it.
    fn read_to_the_end(&mut self) {
        for reader in self.readers.drain(..) {
            // A reader has no reason to panic, and its lines so far are in the log anyway.
            let _ = reader.join();
        }
    }
}

/// Reads a stream to its end: alerts go to the channel, everything else to the log.
fn read_lines(
    pipe: impl Read + Send + 'static,
    alerts: &Sender<Alert>,
    log: &Arc<Mutex<String>>,
) -> JoinHandle<()> {
    let (alerts, log) = (alerts.clone(), Arc::clone(log));
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let at = Instant::now();
            match serde_json::from_str::<Value>(&line) {
                Ok(json) if json.get("alert").is_some() => {
                    // Fails if the test no longer listens and has dropped the receiver.
                    let _ = alerts.send(Alert { at, json });
                }
                _ => {
                    let mut log = lock(&log);
                    log.push_str(&line);
                    log.push('\n');
                }
            }
        }
    })
}

/// See [`Daemon::complaints`]. A line begins like `[2026-11-24T08:14:56Z WARN  monitor::daemon]`.
fn complaints(log: &str, expected: &[&str]) -> Vec<String> {
    let is_complaint = |line: &&str| {
        let level = line.split(' ').nth(1);
        line.starts_with('[') && matches!(level, Some("WARN" | "ERROR"))
    };
    log.lines()
        .filter(is_complaint)
        .filter(|line| !expected.iter().any(|text| line.contains(text)))
        .map(str::to_owned)
        .collect()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A killed daemon leaves its socket behind. If it is already gone, that is fine.
        let _ = self.process.kill();
        let _ = fs::remove_file(&self.control);
    }
}

/// In the temporary folder: a socket's path is limited to 107 bytes.
fn fresh_socket_path() -> PathBuf {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
    env::temp_dir().join(format!("wsmon-lab-{}-{taken}.sock", process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_distinguished_from_other_lines() {
        let printed = "watching 8080\n{\"alert\":\"zombie\",\"status\":\"firing\",\
            \"conn\":{\"peer\":\"[::ffff:10.77.1.11]:5000\"},\"evidence\":{\"idle_seconds\":6.5}}\n\
            {\"level\":\"info\"}\n{broken\n";
        let (sender, alerts) = channel();
        let log = Arc::default();
        let reader = read_lines(printed.as_bytes(), &sender, &log);
        reader.join().unwrap();
        drop(sender);
        let alerts: Vec<Alert> = alerts.iter().collect();
        assert_eq!(alerts.len(), 1);
        assert!(alerts[0].is_firing_zombie());
        assert_eq!(alerts[0].peer(), Some("10.77.1.11:5000".parse().unwrap()));
        assert_eq!(alerts[0].number("/evidence/idle_seconds"), Some(6.5));
        assert_eq!(alerts[0].text("/reason"), "");
        assert_eq!(alerts[0].count(), 1.0);
        assert_eq!(
            *lock(&log),
            "watching 8080\n{\"level\":\"info\"}\n{broken\n"
        );
    }

    #[test]
    fn warnings_and_errors_are_complaints_unless_expected() {
        let log = "wsmon 0.1.0 watches\n\
            [2026-11-24T08:14:56Z WARN  monitor::daemon] socket 7: bad\n\
            [2026-11-24T08:14:56Z WARN  monitor::daemon::reaper] reap: would abort\n\
            [2026-11-24T08:14:56Z INFO  monitor::sink] WARN is not its level\n\
            [2026-11-24T08:14:56Z ERROR monitor::tap] worse\n";
        let found = complaints(log, &["would abort"]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].ends_with("socket 7: bad"));
        assert!(found[1].ends_with("worse"));
    }

    #[test]
    fn a_daemon_that_ends_early_is_reported_with_its_log() {
        // A shell interprets `run` as the name of a script, which does not exist.
        let error = Daemon::start(Path::new("/bin/sh"), ["--port", "8080"]).unwrap_err();
        let LabError::DaemonEnded { status, log } = error else {
            panic!("expected an early end, got {error:?}");
        };
        assert!(!status.success());
        assert!(log.contains("run"), "{log}");
    }
}
