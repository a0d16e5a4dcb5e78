//! The unix socket: its permissions, and what happens to an existing one.

use std::{
    fs::{self, DirBuilder, Metadata},
    io,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, MetadataExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::{fs::Mode, process::umask};
use tokio::net::UnixListener;

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

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("another wsmon listens on {0}; stop it, or choose another path with --control")]
    InUse(PathBuf),
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
    /// Binds `path`. Creates a missing directory, and replaces the socket of a dead daemon. Must be
    /// called within a tokio runtime.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| SocketError::Io { what, path, source }
        };
        if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty())
            && !directory.exists()
        {
            DirBuilder::new()
                .mode(0o755)
                .create(directory)
                .map_err(failed("make the directory", directory))?;
        }
        clear(path)?;
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
fn clear(path: &Path) -> Result<(), SocketError> {
    let io = |what| {
        move |source| SocketError::Io {
            what,
            path: path.to_owned(),
            source,
        }
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("inspect")(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        // Nobody listens.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            log::info!("{} was left by an earlier daemon", path.display());
            fs::remove_file(path).map_err(io("remove the old socket"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A full backlog means that there is a listener, too.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(SocketError::InUse(path.to_owned()))
        }
        Err(error) => Err(io("connect to the socket that is at")(error)),
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
    }
}

fn identity_of(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino(), metadata.created().ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn the_socket_is_for_owner_and_group_and_is_removed_with_its_guard() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("new/wsmon.sock");
        let (listener, guard) = ControlSocket::bind(&path).expect("bound").into_parts();
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
        let socket = ControlSocket::bind(&path).expect("replaced");
        let error = ControlSocket::bind(&path).expect_err("in use").to_string();
        assert!(error.starts_with("another wsmon listens on"), "{error}");
        let connected = UnixStream::connect(&path);
        assert!(connected.is_ok(), "the refused bind leaves it untouched");
        drop(socket);
    }

    #[tokio::test]
    async fn a_file_that_is_not_a_socket_is_left_untouched() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("precious");
        fs::write(&path, "data").expect("written");
        let error = ControlSocket::bind(&path).expect_err("a file").to_string();
        assert!(error.contains("is not a socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("still there"), "data");
    }

    #[tokio::test]
    async fn the_socket_of_a_successor_survives_the_guard_of_its_predecessor() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("wsmon.sock");
        let (listener, guard) = ControlSocket::bind(&path).expect("bound").into_parts();
        drop(listener);
        let successor = ControlSocket::bind(&path).expect("the first one is stale");
        drop(guard);
        assert!(path.exists());
        drop(successor);
    }
}
