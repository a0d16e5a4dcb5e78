//! What `wsmon run` writes to a terminal, and who runs it.

use std::{
    fs::{self, File},
    io::Read,
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use lab::{Manner, Process, fresh_port, wait_until};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::stage::{SOON, Stage, WSMON};

/// A daemon whose stderr is a terminal, and what appeared there.
struct OnTerminal {
    process: Process,
    shown: Arc<Mutex<String>>,
}

impl OnTerminal {
    fn start(command: &mut Command) -> Self {
        let (screen, stderr) = terminal();
        let process = Process::spawn(command.stderr(Stdio::from(stderr))).unwrap();
        // The command has the last end of the terminal besides the process.
        command.stderr(Stdio::null());
        let shown = Arc::new(Mutex::new(String::new()));
        let sink = shown.clone();
        thread::spawn(move || {
            let (mut screen, mut bytes) = (File::from(screen), [0; 4096]);
            // EIO ends it when the process has closed its end.
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]);
                sink.lock().unwrap().push_str(&text);
            }
        });
        Self { process, shown }
    }

    fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    /// Waits until a line appears that contains `text`, and returns it.
    fn line(&self, text: &str) -> String {
        let find = || {
            let shown = self.shown();
            let line = shown.lines().find(|line| line.contains(text));
            line.map(str::to_owned)
        };
        lab::wait_for(text, SOON, find).unwrap_or_else(|error| panic!("{error}: {}", self.shown()))
    }
}

/// Both ends of a new terminal.
fn terminal() -> (OwnedFd, OwnedFd) {
    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&screen).unwrap();
    unlockpt(&screen).unwrap();
    let name = ptsname(&screen, Vec::new()).unwrap();
    let program = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    (screen, program.into())
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_terminal_gets_alerts_and_warnings_as_text() {
    let stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("precious");
    fs::write(&foreign, "precious").unwrap();
    let socket = folder.path().join("wsmon.sock");
    let metrics = format!("127.0.0.1:{},[::1]:{}", fresh_port(), fresh_port());
    let mut daemon = OnTerminal::start(
        Command::new(WSMON)
            .args(["run", "--lb-timeout", "1s", "--metrics-addr", &metrics])
            .arg("--control")
            .arg(&socket)
            .arg("--state")
            .arg(&foreign)
            .env("WSMON_PORT", stage.port())
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .env_remove("RUST_LOG"),
    );
    let next = daemon.line("next: ");
    assert!(
        next.contains(&format!("wsmon top --control {}", socket.display())),
        "{next}"
    );
    let warning = daemon.line("not a state file");
    assert!(warning.starts_with("wsmon: warning: "), "{warning}");

    let idle = stage.client(0, "/quiet", Manner::Responsive);
    let alert = daemon.line("zombie/expired");
    let colored = format!(
        " \x1b[33msuspected zombie/expired\x1b[0m {}",
        idle.local_addr()
    );
    assert!(alert.contains(&colored), "{alert}");
    assert!(alert.contains("idle 1."), "{alert}");

    // Another daemon names this one.
    let second = Command::new(WSMON)
        .args(["run", "--port", "80", "--control"])
        .arg(&socket)
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(second.stderr).unwrap(),
        format!(
            "wsmon: wsmon runs already, pid {} (control socket {}); stop it, or give this one its own \
             --control and --metrics-addr\n",
            daemon.process.id(),
            socket.display()
        )
    );
    daemon.process.terminate(SOON).unwrap();
    daemon.line("wsmon: stopped");
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_quiet_daemon_without_a_metrics_server_writes_alerts_alone() {
    let stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("wsmon.sock");
    let mut daemon = OnTerminal::start(
        Command::new(WSMON)
            .args(["run", "-q", "--lb-timeout", "1s", "--metrics-addr", "none"])
            .args([
                "--alert-format",
                "json",
                "--port",
                stage.port(),
                "--control",
            ])
            .arg(&socket)
            .env_remove("RUST_LOG"),
    );
    wait_until("the control socket", SOON, || socket.exists()).unwrap();
    let idle = stage.client(0, "/quiet", Manner::Responsive);
    let alert = daemon.line("\"firing\"");
    assert!(alert.starts_with('{') && alert.ends_with('}'), "{alert}");
    assert!(alert.contains(&idle.local_addr().to_string()), "{alert}");
    daemon.process.terminate(SOON).unwrap();
    let shown = daemon.shown();
    assert!(shown.lines().all(|line| line.starts_with('{')), "{shown}");
}
