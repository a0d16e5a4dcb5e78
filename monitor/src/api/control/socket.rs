//! The unix socket: its permissions, and what happens to an existing one.

use std::{
    fmt,
    fs::{self, Metadata},
    io::{self, ErrorKind},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::{fs::Mode, process::umask};
use tokio::net::{UnixListener, UnixStream};

/// Owner and group may connect, nobody else, because responses name connections.
const MODE: u32 = 0o660;

/// A bound control socket. Dropping its [`Guard`] removes the file.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    guard: Guard,
}

/// Removes the socket's file on drop, if it is still the same file.
#[derive(Debug)]
pub struct Guard {
    path: PathBuf,
    identity: Identity,
}

/// Device, inode and birth time, because inode numbers are reused.
type Identity = (u64, u64, Option<SystemTime>);

/// The program that listens on a socket: another wsmon, unless the path is wrong.
#[derive(Debug)]
pub struct RunningDaemon {
    socket: PathBuf,
    /// Its process id and name, if they can be known.
    process: Option<(i32, String)>,
}

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("{0}; stop it, or give this one its own --control and --metrics-addr")]
    InUse(RunningDaemon),
    #[error("{0} exists and is not a socket; remove it, or choose another path with --control")]
    NoSocket(PathBuf),
    #[error(
        "cannot {what} {path}: {source}; choose a path that this user may write with --control, or \
         switch the socket off with --control none"
    )]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl ControlSocket {
    /// Binds `path`, and replaces the socket of a dead daemon.
    pub async fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| SocketError::Io { what, path, source }
        };
        clear(path).await?;
        // Set before the bind, so that others can never connect.
        let before = umask(Mode::from_raw_mode(0o777 & !MODE));
        let bound = UnixListener::bind(path);
        umask(before);
        let listener = bound.map_err(failed("listen on", path))?;
        let identity = fs::symlink_metadata(path).map_err(failed("inspect", path))?;
        Ok(Self {
            listener,
            guard: Guard {
                path: path.to_owned(),
                identity: identity_of(&identity),
            },
        })
    }

    /// The listener to serve, and the guard that removes the file.
    pub fn into_parts(self) -> (UnixListener, Guard) {
        (self.listener, self.guard)
    }
}

impl RunningDaemon {
    /// The program that listens on `path`, if one does and this user may connect to it.
    pub async fn on(path: &Path) -> Option<Self> {
        Self::connect(path).await.ok().flatten()
    }

    /// `None` if nobody listens.
    async fn connect(path: &Path) -> io::Result<Option<Self>> {
        let pid = match UnixStream::connect(path).await {
            Ok(stream) => stream.peer_cred().ok().and_then(|peer| peer.pid()),
            // A full backlog means that there is a listener, too.
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::NotFound
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // 0 is a process of another pid namespace.
        let process = pid.filter(|pid| *pid > 0).and_then(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            Some((pid, name.trim_end().escape_debug().to_string()))
        });
        Ok(Some(Self {
            socket: path.to_owned(),
            process,
        }))
    }
}

impl fmt::Display for RunningDaemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = self.socket.display();
        match &self.process {
            Some((pid, name)) if name.starts_with("wsmon") => {
                write!(f, "wsmon runs already, pid {pid} (control socket {socket})")
            }
            Some((pid, name)) => write!(f, "{name} (pid {pid}) listens on {socket}"),
            None => write!(f, "another program listens on {socket}"),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| identity_of(&found) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Removes the socket that a dead daemon left.
async fn clear(path: &Path) -> Result<(), SocketError> {
    let io = |what| {
        move |source| SocketError::Io {
            what,
            path: path.to_owned(),
            source,
        }
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("inspect")(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    let running = RunningDaemon::connect(path).await;
    match running.map_err(io("connect to the socket that is at"))? {
        Some(running) => Err(SocketError::InUse(running)),
        None => {
            log::info!("{} was left by an earlier daemon", path.display());
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(io("remove the old socket")(error))
                }
                _ => Ok(()),
            }
        }
    }
}

fn identity_of(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino(), metadata.created().ok())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, process};

    use super::*;

    #[test]
    fn a_running_daemon_is_named_by_its_process() {
        let shown = |process: Option<(i32, &str)>| {
            let daemon = RunningDaemon {
                socket: "/run/wsmon.sock".into(),
                process: process.map(|(pid, name)| (pid, name.to_owned())),
            };
            daemon.to_string()
        };
        assert_eq!(
            shown(Some((812, "wsmon"))),
            "wsmon runs already, pid 812 (control socket /run/wsmon.sock)"
        );
        assert_eq!(
            shown(Some((9, "node"))),
            "node (pid 9) listens on /run/wsmon.sock"
        );
        assert_eq!(shown(None), "another program listens on /run/wsmon.sock");
    }

    #[tokio::test]
    async fn a_missing_directory_is_not_created() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("missing/wsmon.sock");
        assert!(ControlSocket::bind(&path).await.is_err());
        assert!(!folder.path().join("missing").exists());
    }

    #[tokio::test]
    async fn the_socket_is_for_owner_and_group_and_is_removed_with_its_guard() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("wsmon.sock");
        let (listener, guard) = ControlSocket::bind(&path)
            .await
            .expect("bound")
            .into_parts();
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o7777, MODE);
        drop(listener);
        drop(guard);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("wsmon.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        assert!(path.exists(), "a socket outlives its listener");
        let socket = ControlSocket::bind(&path).await.expect("replaced");
        let error = ControlSocket::bind(&path)
            .await
            .expect_err("in use")
            .to_string();
        let expected = format!(
            "(pid {}) listens on {}; stop it",
            process::id(),
            path.display()
        );
        assert!(error.contains(&expected), "{error}");
        let connected = UnixStream::connect(&path).await;
        assert!(connected.is_ok(), "the refused bind leaves it untouched");
        drop(socket);
    }

    #[tokio::test]
    async fn a_file_that_is_not_a_socket_is_left_untouched() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("precious");
        fs::write(&path, "data").expect("written");
        let error = ControlSocket::bind(&path)
            .await
            .expect_err("a file")
            .to_string();
        assert!(error.contains("is not a socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("still there"), "data");
    }

    #[tokio::test]
    async fn the_socket_of_a_successor_survives_the_guard_of_its_predecessor() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("wsmon.sock");
        let (listener, guard) = ControlSocket::bind(&path)
            .await
            .expect("bound")
            .into_parts();
        drop(listener);
        let successor = ControlSocket::bind(&path)
            .await
            .expect("the first one is stale");
        drop(guard);
        assert!(path.exists());
        drop(successor);
    }
}
