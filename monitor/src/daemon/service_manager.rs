//! What the service manager that started the daemon, such as systemd, learns of it: sd_notify(3).

use std::{
    collections::VecDeque,
    env,
    ffi::OsStr,
    fmt::Display,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sd_notify::NotifyState;

use crate::records::printable::printable;

/// systemd drops a message of more than 4,096 bytes.
const LONGEST_STATUS: usize = 2_000;

/// Messages that may wait for a service manager that does not read. Older ones are dropped, because the last ones
/// hold the whole current state.
const MAX_UNSENT: usize = 8;

/// The service manager. Without one, which is without `NOTIFY_SOCKET` in the environment, nothing is reported.
#[derive(Clone, Debug)]
pub struct ServiceManager(Option<Arc<Mutex<Reports>>>);

#[derive(Debug)]
struct Reports {
    status: Status,
    socket: NotifySocket,
}

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
        let Some(address) = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())
        else {
            return Self(None);
        };
        match NotifySocket::open(&address) {
            Ok(socket) => Self(Some(Arc::new(Mutex::new(Reports {
                status: Status::default(),
                socket,
            })))),
            Err(error) => {
                log::warn!("cannot reach the service manager at {address:?}: {error}");
                Self(None)
            }
        }
    }

    /// Reports what the daemon does before it watches, or why it ends.
    pub fn report(&self, status: &str) {
        if let Some(mut reports) = self.reports() {
            reports.socket.report_status(status);
        }
    }

    /// Reports that the daemon watches.
    pub(super) fn ready(&self, watched: impl FnOnce() -> String) {
        let Some(mut reports) = self.reports() else {
            return;
        };
        reports.status.watched = watched();
        reports.report_ready();
    }

    /// Reports what is watched, if that changed.
    pub(super) fn report_watched(&self, watched: impl FnOnce() -> String) {
        let Some(mut reports) = self.reports() else {
            return;
        };
        let watched = watched();
        if reports.status.watched == watched {
            reports.socket.send_unsent();
            return;
        }
        reports.status.watched = watched;
        let text = reports.status.text();
        reports.socket.report_status(&text);
    }

    /// Reports that the configuration is read again.
    pub fn reloading(&self) {
        let Some(mut reports) = self.reports() else {
            return;
        };
        let mut states = vec![NotifyState::Reloading];
        states.extend(NotifyState::monotonic_usec_now().ok());
        states.push(NotifyState::Status("reloading"));
        reports.socket.send(&states);
    }

    /// Reports that the configuration was read again, or why it stays as it was.
    pub fn reloaded(&self, failure: Option<&dyn Display>) {
        let Some(mut reports) = self.reports() else {
            return;
        };
        reports.status.not_reloaded = failure.map(ToString::to_string);
        reports.report_ready();
    }

    pub(super) fn stopping(&self) {
        if let Some(mut reports) = self.reports() {
            let states = [NotifyState::Stopping, NotifyState::Status("stopping")];
            reports.socket.send(&states);
        }
    }

    /// How long the service manager waits for a sign of life before it considers the daemon stuck; `None` if it
    /// sets no limit.
    pub(super) fn watchdog_limit(&self) -> Option<Duration> {
        self.0.as_ref()?;
        sd_notify::watchdog_enabled()
    }

    /// Reports that the daemon lives.
    pub(super) fn feed_watchdog(&self) {
        if let Some(mut reports) = self.reports() {
            reports.socket.feed_watchdog();
        }
    }

    fn reports(&self) -> Option<MutexGuard<'_, Reports>> {
        let reports = self.0.as_ref()?;
        Some(reports.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Reports {
    fn report_ready(&mut self) {
        let status = fitting(&self.status.text());
        let states = [NotifyState::Ready, NotifyState::Status(&status)];
        self.socket.send(&states);
    }
}

/// The socket of the service manager. It never blocks: a service manager that does not read must not stop the daemon.
#[derive(Debug)]
struct NotifySocket {
    socket: UnixDatagram,
    address: SocketAddr,
    /// Messages that did not fit into the queue of the service manager, oldest first. They are sent before the next
    /// message.
    unsent: VecDeque<String>,
}

impl NotifySocket {
    /// `address` is a path, or the name of an abstract socket after `@`.
    fn open(address: &OsStr) -> io::Result<Self> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => return Err(io::Error::other("neither a path nor an abstract socket")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            address,
            unsent: VecDeque::new(),
        })
    }

    /// Sends a status alone. It replaces one that is still unsent.
    fn report_status(&mut self, status: &str) {
        if self.unsent.back().is_some_and(|last| is_status_only(last)) {
            self.unsent.pop_back();
        }
        self.send(&[NotifyState::Status(&fitting(status))]);
    }

    fn send(&mut self, states: &[NotifyState<'_>]) {
        if self.unsent.len() == MAX_UNSENT {
            self.unsent.pop_front();
        }
        self.unsent.push_back(message(states));
        self.send_unsent();
    }

    /// A message that finds no room is dropped: the next one comes after half the limit.
    fn feed_watchdog(&mut self) {
        self.send_unsent();
        if self.unsent.is_empty() {
            self.try_send(&message(&[NotifyState::Watchdog]));
        }
    }

    fn send_unsent(&mut self) {
        while let Some(message) = self.unsent.front() {
            if !self.try_send(message) {
                break;
            }
            self.unsent.pop_front();
        }
    }

    /// Returns whether the message is done with: sent, or refused for another reason than a full queue.
    fn try_send(&self, message: &str) -> bool {
        match self.socket.send_to_addr(message.as_bytes(), &self.address) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                log::warn!("cannot reach the service manager: {error}");
                true
            }
        }
    }
}

/// One line for each state.
fn message(states: &[NotifyState<'_>]) -> String {
    states.iter().map(|state| format!("{state}\n")).collect()
}

fn is_status_only(message: &str) -> bool {
    message.starts_with("STATUS=") && message.lines().count() == 1
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

    /// A service manager that reads only on request, and a socket to it.
    fn service_manager(address: &OsStr, receiver: &SocketAddr) -> (UnixDatagram, NotifySocket) {
        let receiver = UnixDatagram::bind_addr(receiver).expect("a free address");
        receiver.set_nonblocking(true).expect("a socket");
        (receiver, NotifySocket::open(address).expect("an address"))
    }

    fn received(receiver: &UnixDatagram) -> Option<String> {
        let mut message = [0; 8192];
        let length = receiver.recv(&mut message).ok()?;
        Some(String::from_utf8(message[..length].to_vec()).expect("text"))
    }

    #[test]
    fn both_kinds_of_addresses_are_reached() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let name = format!("wsmon-test-{}", std::process::id());
        let pathname = SocketAddr::from_pathname(&path).expect("short");
        let abstract_name = SocketAddr::from_abstract_name(&name).expect("short");
        for (address, bound) in [
            (path.into_os_string(), pathname),
            (format!("@{name}").into(), abstract_name),
        ] {
            let (receiver, mut socket) = service_manager(&address, &bound);
            socket.send(&[NotifyState::Ready, NotifyState::Status("a")]);
            assert_eq!(received(&receiver).as_deref(), Some("READY=1\nSTATUS=a\n"));
        }
        let vsock = NotifySocket::open(OsStr::new("vsock:2:1234"));
        assert!(vsock.is_err(), "{vsock:?}");
    }

    #[test]
    fn a_service_manager_that_does_not_read_delays_messages_but_not_the_daemon() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let bound = SocketAddr::from_pathname(&path).expect("short");
        let (receiver, mut socket) = service_manager(path.as_os_str(), &bound);
        let (done, is_done) = std::sync::mpsc::channel();
        // On its own thread, so that a socket that blocks fails the test.
        std::thread::spawn(move || {
            let mut queued = 0;
            while socket.try_send("WATCHDOG=1\n") {
                queued += 1;
            }
            socket.report_status("first");
            socket.report_status("second");
            socket.feed_watchdog();
            socket.send(&[NotifyState::Ready, NotifyState::Status("third")]);
            socket.report_status("fourth");
            done.send((queued, socket)).expect("the test waits");
        });
        let (queued, mut socket) = is_done
            .recv_timeout(Duration::from_secs(10))
            .expect("nothing blocks");
        for _ in 0..queued {
            assert_eq!(received(&receiver).as_deref(), Some("WATCHDOG=1\n"));
        }
        assert_eq!(received(&receiver), None);
        socket.feed_watchdog();
        for expected in [
            "STATUS=second\n",
            "READY=1\nSTATUS=third\n",
            "STATUS=fourth\n",
            "WATCHDOG=1\n",
        ] {
            assert_eq!(received(&receiver).as_deref(), Some(expected));
        }
        assert_eq!(received(&receiver), None);
    }

    #[test]
    fn the_newest_messages_wait_for_the_service_manager() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let bound = SocketAddr::from_pathname(&path).expect("short");
        let (receiver, mut socket) = service_manager(path.as_os_str(), &bound);
        while socket.try_send("WATCHDOG=1\n") {}
        for number in 0..100 {
            socket.send(&[NotifyState::Reloading]);
            socket.send(&[
                NotifyState::Ready,
                NotifyState::Status(&format!("{number}")),
            ]);
        }
        while received(&receiver).is_some() {}
        socket.send_unsent();
        let messages: Vec<_> = std::iter::from_fn(|| received(&receiver)).collect();
        assert_eq!(messages.len(), MAX_UNSENT);
        assert_eq!(
            messages.last().map(String::as_str),
            Some("READY=1\nSTATUS=99\n")
        );
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
