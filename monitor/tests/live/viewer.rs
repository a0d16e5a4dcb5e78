//! wsmon's client commands, run as processes.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use lab::{Process, wait_for};
use serde_json::Value;

use crate::stage::{SOON, WSMON};

/// Runs a command to its end.
pub(crate) fn query(control: &Path, args: &[&str]) -> Output {
    command(control, args).output().unwrap()
}

/// The output of a command, which must succeed.
pub(crate) fn reported(control: &Path, args: &[&str]) -> String {
    let output = query(control, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// A command that runs until it ends or is dropped.
pub(crate) struct Viewer {
    process: Process,
    lines: Option<Receiver<Value>>,
}

impl Viewer {
    /// Starts `wsmon frames --json` and reads its output.
    pub(crate) fn start(control: &Path, args: &[&str]) -> Self {
        let mut viewer = Self::stuck(control, args);
        viewer.read();
        viewer
    }

    /// Starts `wsmon frames --json` without reading its output.
    pub(crate) fn stuck(control: &Path, args: &[&str]) -> Self {
        Self::run(control, &[&["frames", "--json"], args].concat())
    }

    /// Starts a command without reading its output.
    pub(crate) fn run(control: &Path, args: &[&str]) -> Self {
        let process = Process::spawn(&mut command(control, args)).unwrap();
        Self {
            process,
            lines: None,
        }
    }

    /// Starts reading its output.
    pub(crate) fn read(&mut self) {
        let (sender, lines) = channel();
        let stdout = self.child().stdout.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Fails if the test no longer listens and has dropped the receiver.
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        self.lines = Some(lines);
    }

    /// The next line.
    pub(crate) fn next(&self) -> Value {
        let lines = self.lines.as_ref().expect("its output is read");
        lines.recv_timeout(SOON).expect("another line")
    }

    /// The next line, if one comes within `limit`.
    pub(crate) fn next_within(&self, limit: Duration) -> Option<Value> {
        let lines = self.lines.as_ref().expect("its output is read");
        lines.recv_timeout(limit).ok()
    }

    /// Closes the reading end of its standard output.
    pub(crate) fn stop_listening(&mut self) {
        drop(self.child().stdout.take());
    }

    /// Waits until it ends; also returns its stderr.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let ended = wait_for("the viewer to end", SOON, || {
            self.process.try_wait().unwrap()
        });
        let mut said = String::new();
        let mut stderr = self.child().stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        (ended.unwrap(), said)
    }

    fn child(&mut self) -> &mut Child {
        self.process.child_mut()
    }
}

fn command(control: &Path, args: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(WSMON);
    command
        .args(args)
        .arg("--control")
        .arg(control)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}
