//! A terminal to type on and to look at: tmux without its user's configuration.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use lab::wait_for;
use tempfile::TempDir;

use crate::stage::SOON;

/// One session with one pane. Dropping it ends the programs in it.
pub(crate) struct Tmux {
    directory: TempDir,
}

impl Tmux {
    /// Runs a script of the shell on a terminal of this size.
    pub(crate) fn start(width: u16, height: u16, script: &str) -> Self {
        let tmux = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let [width, height] = [width, height].map(|size| size.to_string());
        let size = ["-x", &width, "-y", &height];
        let start = [&["new-session", "-d"][..], &size, &["sh", "-c", script]].concat();
        tmux.command(&start);
        tmux
    }

    /// Presses keys, named as in tmux(1).
    pub(crate) fn press(&self, keys: &[&str]) {
        self.command(&[&["send-keys"], keys].concat());
    }

    pub(crate) fn resize(&self, width: u16, height: u16) {
        let [width, height] = [width, height].map(|size| size.to_string());
        self.command(&["resize-window", "-x", &width, "-y", &height]);
    }

    /// What is on the screen, without blanks at the end of lines.
    pub(crate) fn screen(&self) -> String {
        self.command(&["capture-pane", "-p"])
    }

    /// The same with escape sequences for colours and the like.
    pub(crate) fn styled_screen(&self) -> String {
        self.command(&["capture-pane", "-p", "-e"])
    }

    /// A variable of the pane, as in tmux(1).
    pub(crate) fn variable(&self, name: &str) -> String {
        let shown = self.command(&["display-message", "-p", &format!("#{{{name}}}")]);
        shown.trim_end().to_owned()
    }

    /// Waits until the screen is as wanted, and returns it.
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let found = wait_for(what, SOON, || {
            let screen = self.screen();
            wanted(&screen).then_some(screen)
        });
        found.unwrap_or_else(|error| panic!("{error}; the screen is:\n{}", self.screen()))
    }

    fn command(&self, args: &[&str]) -> String {
        let output = command(self.directory.path(), args).output();
        let output =
            output.unwrap_or_else(|error| panic!("tmux: {error}; run `cargo xtask setup`"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // It may have ended with its programs.
        let end = command(self.directory.path(), &["kill-server"])
            .stderr(Stdio::null())
            .status();
        drop(end);
    }
}

fn command(directory: &Path, args: &[&str]) -> Command {
    let socket: PathBuf = directory.join("tmux");
    let mut command = Command::new("tmux");
    command
        .arg("-u")
        .arg("-S")
        .arg(socket)
        .args(["-f", "/dev/null"])
        .args(args)
        .env("LC_ALL", "C.UTF-8")
        .env_remove("NO_COLOR")
        .env_remove("TMUX")
        .stdin(Stdio::null());
    command
}
