//! What the service manager that started the daemon, such as systemd, learns of it: sd_notify(3).

use std::{
    env,
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sd_notify::NotifyState;

use crate::records::printable::printable;

/// systemd drops a message of more than 4,096 bytes.
const LONGEST_STATUS: usize = 2_000;

/// The service manager. Without one, which is without `NOTIFY_SOCKET` in the environment, nothing is reported.
#[derive(Clone, Debug)]
pub struct ServiceManager(Option<Arc<Mutex<Status>>>);

/// What the status says while the daemon runs.
#[derive(Debug, Default)]
struct Status {
    watched: String,
    /// Why the last reload changed nothing.
    not_reloaded: Option<String>,
}

impl Status {
    fn text(&self) -> String {
        match &self.not_reloaded {
            None => self.watched.clone(),
            // First, because the rest may be cut off.
            Some(failure) => format!("not reloaded: {failure}; {}", self.watched),
        }
    }
}

impl ServiceManager {
    /// The service manager that started this process, if any.
    pub fn from_env() -> Self {
        Self(env::var_os("NOTIFY_SOCKET").map(|_| Arc::default()))
    }

    /// Reports what the daemon does before it watches, or why it ends.
    pub fn report(&self, status: &str) {
        if self.0.is_some() {
            notify(&[NotifyState::Status(&fitting(status))]);
        }
    }

    /// Reports that the daemon watches.
    pub(super) fn ready(&self, watched: impl FnOnce() -> String) {
        let Some(mut status) = self.status() else {
            return;
        };
        status.watched = watched();
        notify(&[
            NotifyState::Ready,
            NotifyState::Status(&fitting(&status.text())),
        ]);
    }

    /// Reports what is watched, if that changed.
    pub(super) fn report_watched(&self, watched: impl FnOnce() -> String) {
        let Some(mut status) = self.status() else {
            return;
        };
        let watched = watched();
        if status.watched != watched {
            status.watched = watched;
            notify(&[NotifyState::Status(&fitting(&status.text()))]);
        }
    }

    /// Reports that the configuration is read again.
    pub fn reloading(&self) {
        if self.0.is_none() {
            return;
        }
        let mut states = vec![NotifyState::Reloading];
        states.extend(NotifyState::monotonic_usec_now().ok());
        states.push(NotifyState::Status("reloading"));
        notify(&states);
    }

    /// Reports that the configuration was read again, or why it stays as it was.
    pub fn reloaded(&self, failure: Option<&dyn Display>) {
        let Some(mut status) = self.status() else {
            return;
        };
        status.not_reloaded = failure.map(ToString::to_string);
        notify(&[
            NotifyState::Ready,
            NotifyState::Status(&fitting(&status.text())),
        ]);
    }

    pub(super) fn stopping(&self) {
        if self.0.is_some() {
            notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
        }
    }

    /// The time after which the service manager considers a daemon stuck that does not report that it lives; `None`
    /// if it does not care.
    pub(super) fn watchdog_limit(&self) -> Option<Duration> {
        self.0.as_ref()?;
        sd_notify::watchdog_enabled()
    }

    /// Reports that the daemon lives.
    pub(super) fn feed_watchdog(&self) {
        notify(&[NotifyState::Watchdog]);
    }

    fn status(&self) -> Option<MutexGuard<'_, Status>> {
        let status = self.0.as_ref()?;
        Some(status.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot reach the service manager: {error}");
    }
}

/// On one line of limited length that is safe to print.
fn fitting(status: &str) -> String {
    let words: Vec<_> = status.split_whitespace().collect();
    let mut line = printable(&words.join(" "));
    if line.len() > LONGEST_STATUS {
        line.truncate(line.floor_char_boundary(LONGEST_STATUS));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line_that_systemd_accepts() {
        let status = fitting("a: b\n       c:\td \u{1b}[2J\nREADY=1");
        assert_eq!(status, "a: b c: d \\u{1b}[2J READY=1");
        let long = fitting(&"ü".repeat(3_000));
        assert!(long.len() < 2_010 && long.ends_with("ü…"), "{}", long.len());
    }

    #[test]
    fn a_refused_reload_stays_in_the_status() {
        let mut status = Status {
            watched: "watching 2 connections on edge".to_owned(),
            not_reloaded: None,
        };
        assert_eq!(status.text(), "watching 2 connections on edge");
        status.not_reloaded = Some("wsmon.toml:4:39: time unit needed".to_owned());
        assert_eq!(
            status.text(),
            "not reloaded: wsmon.toml:4:39: time unit needed; watching 2 connections on edge"
        );
    }
}
