//! Finds a connection known to the kernel programs in any network namespace.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{SockDiag, SockDiagError, inet_diag::DiagSocket, socket_query::SocketKey};
use crate::kernel::host::{
    duty_cycle::{self, DutyCycle},
    netns::{self, NetNs, NetNsError, NetNsId},
    owner::OwnedSocket,
};

/// Namespaces whose sock_diag socket is kept open: a descriptor each, of the 1,024 that a process has
/// by default. A connection in any other namespace is found by a scan of the namespaces, as in a new
/// one.
const MAX_OPEN: usize = 256;

/// [`SocketFinder::close_unused`] closes a namespace without a hit for this long.
const UNUSED: Duration = Duration::from_secs(60);

/// Finds one socket in any network namespace.
///
/// It keeps a sock_diag socket for each namespace it has searched, the one of the last hit first: if
/// all connections are in one namespace, a search is one request and its response. A socket found in
/// none of them is searched in the namespaces created since, for at most one part in twenty of the
/// time.
///
/// A namespace that is held open here outlives its container, until
/// [`close_unused`](Self::close_unused) closes it.
#[derive(Debug)]
pub struct SocketFinder {
    /// The last hit first.
    open: Vec<Namespace>,
    own: NetNsId,
    duty_cycle: DutyCycle,
    /// The longest that a scan of the namespaces may take.
    longest_scan: Duration,
    coverage: Coverage,
}

#[derive(Debug)]
struct Namespace {
    id: NetNsId,
    sock_diag: SockDiag,
    last_hit: Instant,
}

/// A socket and its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundSocket {
    pub socket: DiagSocket,
    pub netns: NetNsId,
}

impl From<&FoundSocket> for OwnedSocket {
    fn from(found: &FoundSocket) -> Self {
        Self {
            inode: found.socket.inode,
            cgroup_id: found.socket.cgroup_id,
            netns: Some(found.netns),
        }
    }
}

/// What a search does not reach, as of the last scan of the namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Namespaces that could not be entered or queried.
    pub refused: usize,
    /// Processes whose namespace is hidden from us; see [`netns::NetNsList::refused`].
    pub hidden: usize,
    /// Namespaces left for a later scan, because a hit or the time limit ended this one.
    pub unsearched: usize,
}

/// Why the sockets of a namespace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    #[error(transparent)]
    SockDiag(#[from] SockDiagError),
}

impl SocketFinder {
    /// Opens our own namespace; the others are opened when needed.
    pub fn open() -> Result<Self, FindError> {
        let own = NetNs::own().map_err(NetNsError::Proc)?.id();
        Ok(Self {
            // In a sandbox without AF_NETLINK this fails, and each search reports why.
            open: Namespace::open_here(own).into_iter().collect(),
            own,
            duty_cycle: DutyCycle::default(),
            longest_scan: duty_cycle::LONGEST,
            coverage: Coverage::default(),
        })
    }

    /// The connection; `None` if no accessible namespace has it.
    ///
    /// # Errors
    ///
    /// Why a namespace could not be queried, if no other has the socket.
    pub fn find(&mut self, key: &SocketKey) -> Result<Option<FoundSocket>, FindError> {
        let hit = self.search(|sock_diag| sock_diag.find(key))?;
        Ok(hit.map(|(netns, socket)| FoundSocket { socket, netns }))
    }

    /// The first response to `query`, and the namespace that gave it.
    pub(super) fn search<T: Send>(
        &mut self,
        mut query: impl FnMut(&mut SockDiag) -> Result<Option<T>, SockDiagError> + Send,
    ) -> Result<Option<(NetNsId, T)>, FindError> {
        let now = Instant::now();
        let mut failure = None;
        let mut index = 0;
        while let Some(namespace) = self.open.get_mut(index) {
            match query(&mut namespace.sock_diag) {
                Ok(Some(response)) => {
                    namespace.last_hit = now;
                    let id = namespace.id;
                    self.open[..=index].rotate_right(1);
                    return Ok(Some((id, response)));
                }
                Ok(None) => index += 1,
                // The rest of its queue would be read as the next response, so a new socket is opened.
                Err(error) => {
                    self.open.remove(index);
                    failure = Some(error.into());
                }
            }
        }
        if self.duty_cycle.is_due(now) {
            let hit = self.scan_namespaces(now, query);
            self.duty_cycle.took(now, Instant::now());
            match hit {
                Ok(None) => {}
                hit => return hit,
            }
        }
        failure.map_or(Ok(None), Err)
    }

    /// Queries the namespaces that are not open, and keeps open those for which there is room.
    fn scan_namespaces<T: Send>(
        &mut self,
        started: Instant,
        mut query: impl FnMut(&mut SockDiag) -> Result<Option<T>, SockDiagError> + Send,
    ) -> Result<Option<(NetNsId, T)>, FindError> {
        let list = netns::enumerate()?;
        if list.cut.is_none() {
            let exists = |id| list.found.iter().any(|found| found.id() == id);
            self.open.retain(|namespace| exists(namespace.id));
        }
        self.coverage = Coverage {
            hidden: list.refused,
            ..Coverage::default()
        };
        let new: Vec<_> = list
            .found
            .iter()
            .filter(|found| !self.open.iter().any(|open| open.id == found.id()))
            .collect();
        let cut = list
            .cut
            .map_or(Ok(None), |cut| Err(NetNsError::from(cut).into()));
        if new.is_empty() {
            return cut;
        }
        let (open, coverage) = (&mut self.open, &mut self.coverage);
        let longest_scan = self.longest_scan;
        coverage.unsearched = new.len();
        let hit = netns::in_each(&new, |netns, entered| {
            if started.elapsed() >= longest_scan {
                return ControlFlow::Break(None);
            }
            coverage.unsearched -= 1;
            let response = entered.map_err(FindError::from).and_then(|()| {
                let mut namespace = Namespace::open_here(netns.id())?;
                let response = query(&mut namespace.sock_diag)?;
                Ok((namespace, response))
            });
            match response {
                Ok((namespace, Some(response))) => {
                    open.truncate(MAX_OPEN - 1);
                    open.insert(0, namespace);
                    return ControlFlow::Break(Some((netns.id(), response)));
                }
                Ok((namespace, None)) if open.len() < MAX_OPEN => open.push(namespace),
                Ok(_) => {}
                Err(_) => coverage.refused += 1,
            }
            ControlFlow::Continue(())
        })?;
        hit.flatten().map_or(cut, |hit| Ok(Some(hit)))
    }

    /// Closes the namespaces without a hit for a minute, except our own. Should be called every few
    /// minutes at least.
    pub fn close_unused(&mut self) {
        self.close_unused_since(Instant::now());
    }

    fn close_unused_since(&mut self, now: Instant) {
        let own = self.own;
        self.open.retain(|namespace| {
            namespace.id == own || now.saturating_duration_since(namespace.last_hit) < UNUSED
        });
    }

    pub fn coverage(&self) -> Coverage {
        self.coverage
    }
}

impl Namespace {
    /// The calling thread's namespace, whose id is `id`.
    fn open_here(id: NetNsId) -> Result<Self, SockDiagError> {
        Ok(Self {
            id,
            sock_diag: SockDiag::open()?,
            last_hit: Instant::now(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{Connection, Namespace, key_of, wait_for, with_cookie};

    /// Finds it now, or once a scan of the namespaces is due.
    fn found(finder: &mut SocketFinder, key: &SocketKey) -> FoundSocket {
        wait_for("the socket", || finder.find(key).unwrap())
    }

    fn ids(finder: &SocketFinder) -> Vec<NetNsId> {
        finder.open.iter().map(|namespace| namespace.id).collect()
    }

    /// However busy this machine is, its scans reach all namespaces.
    fn unhurried() -> SocketFinder {
        SocketFinder {
            longest_scan: Duration::from_secs(60),
            ..SocketFinder::open().unwrap()
        }
    }

    #[test]
    fn a_connection_of_our_own_namespace_needs_no_scan() {
        let mut finder = SocketFinder::open().unwrap();
        let connection = Connection::new("127.0.0.1:0", "127.0.0.1:0");
        let key = key_of(&connection.server);
        let found = finder.find(&key).unwrap().unwrap();
        assert_eq!(found.socket.cookie, key.cookie());
        assert_eq!(found.netns, NetNs::own().unwrap().id());
        assert_eq!(ids(&finder), [found.netns]);
    }

    #[test]
    fn a_failing_namespace_is_reopened_and_its_failure_reported() {
        let mut finder = unhurried();
        let own = finder.own;
        let mut calls = 0;
        let error = finder.search(|_| -> Result<Option<()>, _> {
            calls += 1;
            if calls == 1 {
                Err(SockDiagError::Overrun)
            } else {
                Ok(None)
            }
        });
        assert!(matches!(
            error,
            Err(FindError::SockDiag(SockDiagError::Overrun))
        ));
        assert!(ids(&finder).contains(&own));
    }

    #[test]
    #[ignore = "needs root: makes network namespaces"]
    fn a_socket_is_found_in_its_namespace_which_then_comes_first() {
        let mut finder = SocketFinder::open().unwrap();
        // Created after the finder.
        let namespace = Namespace::new();
        let id = namespace.netns().id();
        for (listen, server) in [
            ("127.0.0.1:18201", "127.0.0.1:0"),
            ("[::1]:18202", "[::1]:0"),
            ("[::]:18203", "127.0.0.1:0"),
        ] {
            let connection = namespace.connect(listen, server);
            let key = key_of(&connection.server);
            let found = found(&mut finder, &key);
            assert_eq!((found.socket.cookie, found.netns), (key.cookie(), id));
            assert_eq!(ids(&finder)[0], id);
            assert!(ids(&finder).contains(&finder.own));
        }
    }

    #[test]
    #[ignore = "needs root: makes network namespaces"]
    fn the_cookie_selects_one_of_two_sockets_with_the_same_addresses() {
        let mut finder = SocketFinder::open().unwrap();
        let namespaces = [Namespace::new(), Namespace::new()];
        let connections = namespaces.each_ref().map(|namespace| {
            namespace.enter(|| Connection::between("127.0.0.1:28211", "127.0.0.1:18211"))
        });
        for (namespace, connection) in namespaces.iter().zip(&connections) {
            let key = key_of(&connection.server);
            assert_eq!(found(&mut finder, &key).netns, namespace.netns().id());
            let nobodys = with_cookie(&key, 1);
            assert_eq!(finder.find(&nobodys).unwrap(), None);
        }
    }

    #[test]
    #[ignore = "needs root: makes network namespaces"]
    fn a_namespace_is_closed_when_it_is_unused_and_when_it_is_gone() {
        let mut finder = SocketFinder::open().unwrap();
        let namespace = Namespace::new();
        let connection = namespace.connect("127.0.0.1:18221", "127.0.0.1:0");
        let key = key_of(&connection.server);
        let id = found(&mut finder, &key).netns;

        finder.close_unused_since(Instant::now());
        assert!(ids(&finder).contains(&id));
        finder.close_unused_since(Instant::now() + UNUSED);
        assert_eq!(ids(&finder), [finder.own]);

        assert_eq!(found(&mut finder, &key).netns, id);
        drop((namespace, connection));
        let nowhere = with_cookie(&key, 1);
        wait_for("the namespace to be let go", || {
            assert_eq!(finder.find(&nowhere).unwrap(), None);
            (!ids(&finder).contains(&id)).then_some(())
        });
    }

    #[test]
    #[ignore = "needs root: makes network namespaces, drops capabilities"]
    fn an_inaccessible_namespace_is_counted_and_is_not_an_error() {
        let namespace = Namespace::new();
        let connection = namespace.connect("127.0.0.1:18231", "127.0.0.1:0");
        let key = key_of(&connection.server);
        // Capabilities belong to a thread and the threads it starts.
        let (found, coverage) = std::thread::spawn(move || {
            let mut finder = unhurried();
            caps::drop(
                None,
                caps::CapSet::Effective,
                caps::Capability::CAP_SYS_ADMIN,
            )
            .unwrap();
            (finder.find(&key).unwrap(), finder.coverage())
        })
        .join()
        .unwrap();
        assert_eq!(found, None);
        assert!(coverage.refused > 0, "{coverage:?}");
    }

    #[test]
    #[ignore = "needs root: makes network namespaces"]
    fn a_scan_of_many_namespaces_is_bounded() {
        let mut finder = SocketFinder::open().unwrap();
        let namespaces: Vec<_> = (0..20).map(|_| Namespace::new()).collect();
        let connection = namespaces[19].connect("127.0.0.1:18241", "127.0.0.1:0");
        let key = key_of(&connection.server);
        let started = Instant::now();
        let first = finder.find(&key).unwrap();
        println!(
            "first scan: {:?}, {:?}",
            started.elapsed(),
            finder.coverage()
        );
        assert!(first.is_some() || finder.coverage().unsearched > 0);
        found(&mut finder, &key);
        let started = Instant::now();
        finder.find(&key).unwrap().unwrap();
        println!("then: {:?}", started.elapsed());
        assert!(finder.open.len() <= MAX_OPEN);
    }
}
