//! Finds the owners of connections for all outputs: alerts, lists, the ends of connections.
//!
//! A search may walk through `/proc`, so it runs on a thread of its own. What it found stays known, so a
//! connection that has ended can still be named, without a search.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    time::{Duration, Instant},
};

use caps::{CapSet, Capability};
use tokio::task::spawn_blocking;

use super::{
    host::{
        cgroup,
        generations::Generations,
        owner::{OwnedSocket, OwnerMisses, Owners},
    },
    sock_diag::{
        inet_diag::DiagSocket,
        socket_finder::{FindError, FoundSocket, SocketFinder},
        socket_query::SocketKey,
    },
};
use monitor_core::{ConnId, Facts, background::Owner};

/// Sockets and cgroups whose owner is remembered; at most twice as many. The names of the largest are
/// about 16 MB, those of a usual host 1 MB.
const SOCKETS: usize = 32_768;
const CGROUPS: usize = 8_192;

/// How long a process that was found is not searched again. A socket can be passed on.
const FRESH: Duration = Duration::from_secs(60);

/// A connection whose owner is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerQuery {
    pub conn: ConnId,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// `None` if only the socket knows it.
    pub cgroup_id: Option<u64>,
    /// Whether the socket may still exist. Otherwise the process is the one found earlier.
    pub is_open: bool,
}

impl From<&Facts> for OwnerQuery {
    /// For an open connection.
    fn from(facts: &Facts) -> Self {
        Self {
            conn: facts.conn,
            local: facts.local,
            peer: facts.peer,
            cgroup_id: None,
            is_open: true,
        }
    }
}

/// The owner of a connection, and its socket if it was looked up and exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundOwner {
    pub owner: Owner,
    pub socket: Option<DiagSocket>,
}

/// What the path of a cgroup names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupOwner {
    pub owner: Owner,
    /// Whether a later search may find more: a walk was put off or cut.
    pub is_incomplete: bool,
}

/// A handle; all clones share one search and what it found.
#[derive(Clone, Debug)]
pub struct OwnerService {
    /// Locked during a search.
    search: Arc<Mutex<OwnerSearch>>,
    /// Never locked for long.
    known: Arc<Mutex<KnownOwners>>,
}

#[derive(Debug)]
struct OwnerSearch {
    finder: SocketFinder,
    owners: Owners,
    pod_logs: PathBuf,
    /// What was logged, once.
    reported: Reported,
}

#[derive(Debug, Default)]
struct Reported {
    hidden_processes: bool,
    unreadable_pods: bool,
}

/// The results of earlier searches.
#[derive(Debug)]
struct KnownOwners {
    /// What is known only by the socket: process, namespace and cgroup.
    sockets: Generations<ConnId, KnownSocket>,
    /// What the cgroup names.
    cgroups: Generations<u64, Arc<Owner>>,
    misses: OwnerMisses,
}

#[derive(Debug)]
struct KnownSocket {
    cgroup_id: Option<u64>,
    pid: Option<u32>,
    comm: Option<String>,
    netns: Option<u64>,
    /// When its process was found.
    at: Instant,
}

impl OwnerService {
    /// `pod_logs` is where the kubelet keeps the logs of pods.
    pub fn open(pod_logs: &Path) -> Result<Self, FindError> {
        Ok(Self {
            search: Arc::new(Mutex::new(OwnerSearch {
                finder: SocketFinder::open()?,
                owners: Owners::new(&cgroup::cgroup2_root(), pod_logs),
                pod_logs: pod_logs.to_owned(),
                reported: Reported::default(),
            })),
            known: Arc::default(),
        })
    }

    /// The owners of these connections, in their order. Pass many at once, a few hundred: their processes
    /// are found in one walk of at most 0.1 s. If that is not due yet, the process remains unknown, which
    /// is counted. Runs in the background.
    pub async fn owners(&self, queries: Vec<OwnerQuery>) -> Vec<Owner> {
        let found = self.searched(queries, false).await;
        found.into_iter().map(|found| found.owner).collect()
    }

    /// The same, with the sockets as they are now.
    pub async fn found(&self, queries: Vec<OwnerQuery>) -> Vec<FoundOwner> {
        self.searched(queries, true).await
    }

    async fn searched(&self, queries: Vec<OwnerQuery>, with_sockets: bool) -> Vec<FoundOwner> {
        let (service, count) = (self.clone(), queries.len());
        if count == 0 {
            return Vec::new();
        }
        let searched = spawn_blocking(move || service.search(&queries, with_sockets)).await;
        searched.unwrap_or_else(|error| {
            log::error!("a search for owners ended early: {error}");
            vec![FoundOwner::default(); count]
        })
    }

    /// What the paths of these cgroups name, in their order. Runs in the background.
    pub async fn of_cgroups(&self, cgroups: Vec<u64>) -> Vec<CgroupOwner> {
        let service = self.clone();
        let searched = spawn_blocking(move || service.search_cgroups(&cgroups)).await;
        searched.unwrap_or_else(|error| {
            log::error!("a search for the owners of cgroups ended early: {error}");
            Vec::new()
        })
    }

    /// What earlier searches found about a connection, open or closed. Returns at once: for the loop.
    pub fn known(&self, conn: ConnId, cgroup_id: Option<u64>) -> Owner {
        lock(&self.known).owner(conn, cgroup_id)
    }

    /// Lookups that failed since the start.
    pub fn misses(&self) -> OwnerMisses {
        lock(&self.known).misses
    }

    /// Closes the namespaces that were not searched lately, unless a search is running.
    pub fn close_unused(&self) {
        match self.search.try_lock() {
            Ok(mut search) => search.finder.close_unused(),
            Err(TryLockError::Poisoned(error)) => error.into_inner().finder.close_unused(),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn search(&self, queries: &[OwnerQuery], with_sockets: bool) -> Vec<FoundOwner> {
        let mut search = lock(&self.search);
        let now = Instant::now();
        let known = lock(&self.known);
        let wanted: Vec<_> = queries
            .iter()
            .map(|query| with_sockets || !known.is_fresh(query.conn, now))
            .collect();
        drop(known);
        let each = queries.iter().zip(wanted);
        let sockets: Vec<_> = each
            .map(|(query, wanted)| wanted.then(|| search.find(query))?)
            .collect();
        let owned: Vec<_> = queries
            .iter()
            .zip(&sockets)
            .map(|(query, found)| owned_socket(query, found.as_ref()))
            .collect();
        let before = search.owners.misses();
        let owners = search.owners.of(&owned);
        let misses = search.owners.misses();
        search.report(before, misses);

        let mut known = lock(&self.known);
        known.misses = misses;
        let each = queries.iter().zip(sockets).zip(owned).zip(owners);
        each.map(|(((query, found), socket), owner)| {
            known.remember(query.conn, &socket, &owner, now);
            FoundOwner {
                owner: known.complete(query.conn, owner),
                socket: found.map(|found| found.socket),
            }
        })
        .collect()
    }

    fn search_cgroups(&self, cgroups: &[u64]) -> Vec<CgroupOwner> {
        let mut search = lock(&self.search);
        let before = search.owners.misses();
        let found: Vec<_> = cgroups.iter().map(|id| search.of_cgroup(*id)).collect();
        let misses = search.owners.misses();
        search.report(before, misses);

        let mut known = lock(&self.known);
        known.misses = misses;
        for (id, CgroupOwner { owner, .. }) in cgroups.iter().zip(&found) {
            known.remember_cgroup(*id, owner);
        }
        found
    }
}

fn owned_socket(query: &OwnerQuery, found: Option<&FoundSocket>) -> OwnedSocket {
    let socket = found.map(OwnedSocket::from).unwrap_or_default();
    OwnedSocket {
        cgroup_id: query.cgroup_id.or(socket.cgroup_id),
        ..socket
    }
}

impl OwnerSearch {
    fn find(&mut self, query: &OwnerQuery) -> Option<FoundSocket> {
        let key = SocketKey::new(query.conn.0, query.local, query.peer);
        let key = key.filter(|_| query.is_open)?;
        self.finder.find(&key).unwrap_or_else(|error| {
            log::debug!("socket {}: {error}", key.cookie());
            None
        })
    }

    fn of_cgroup(&mut self, id: u64) -> CgroupOwner {
        let before = self.owners.misses();
        let socket = OwnedSocket {
            cgroup_id: Some(id),
            ..OwnedSocket::default()
        };
        let owner = self.owners.of(&[socket]).pop().unwrap_or_default();
        let after = self.owners.misses();
        let walks = |misses: OwnerMisses| misses.walks_put_off + misses.walks_cut;
        CgroupOwner {
            owner,
            is_incomplete: walks(after) > walks(before),
        }
    }

    /// Logs what was not found out and why, each cause once. All are counted.
    fn report(&mut self, before: OwnerMisses, after: OwnerMisses) {
        let refused = after.processes_refused - before.processes_refused;
        // A walk that was cut may have missed the process instead.
        let is_hidden = refused > 0
            && after.processes_unknown > before.processes_unknown
            && after.walks_cut == before.walks_cut;
        // Some hosts hide a process even from root. Then there is nothing to grant, and the count is enough.
        let missing = missing_capabilities();
        if is_hidden && !missing.is_empty() && !self.reported.hidden_processes {
            self.reported.hidden_processes = true;
            log::warn!(
                "the process of a socket was not found, and the open files of {refused} processes are \
                 hidden; grant {}; wsmon_owner_gaps_total counts both",
                missing.join(" and ")
            );
        }
        if let Some(error) = self.owners.pods_failure()
            && !self.reported.unreadable_pods
        {
            self.reported.unreadable_pods = true;
            log::warn!(
                "cannot read the names of pods from {}: {error}; name the directory of their logs with \
                 --pod-logs",
                self.pod_logs.display()
            );
        }
    }
}

impl Default for KnownOwners {
    fn default() -> Self {
        Self {
            sockets: Generations::new(SOCKETS),
            cgroups: Generations::new(CGROUPS),
            misses: OwnerMisses::default(),
        }
    }
}

impl KnownOwners {
    /// Whether the process of this connection was found lately.
    fn is_fresh(&self, conn: ConnId, now: Instant) -> bool {
        let known = self.sockets.get(&conn).filter(|known| known.pid.is_some());
        known.is_some_and(|known| now.saturating_duration_since(known.at) < FRESH)
    }

    fn remember(&mut self, conn: ConnId, socket: &OwnedSocket, owner: &Owner, now: Instant) {
        if owner.pid.is_some() || owner.netns.is_some() {
            let earlier = self.sockets.get(&conn);
            let earlier = earlier.filter(|_| owner.pid.is_none());
            let process = earlier.map(|earlier| (earlier.pid, earlier.comm.clone(), earlier.at));
            let (pid, comm, at) = process.unwrap_or_else(|| (owner.pid, owner.comm.clone(), now));
            let known = KnownSocket {
                cgroup_id: socket.cgroup_id,
                pid,
                comm,
                netns: owner.netns,
                at,
            };
            self.sockets.insert(conn, known);
        }
        if let Some(id) = socket.cgroup_id {
            self.remember_cgroup(id, owner);
        }
    }

    fn remember_cgroup(&mut self, id: u64, owner: &Owner) {
        if owner.cgroup.is_some() {
            let names = Owner {
                pid: None,
                comm: None,
                netns: None,
                ..owner.clone()
            };
            self.cgroups.insert(id, Arc::new(names));
        }
    }

    /// Adds what only earlier searches found.
    fn complete(&self, conn: ConnId, owner: Owner) -> Owner {
        let Some(earlier) = self.sockets.get(&conn) else {
            return owner;
        };
        let (pid, comm) = match owner.pid {
            Some(_) => (owner.pid, owner.comm.clone()),
            None => (earlier.pid, earlier.comm.clone()),
        };
        let owner = Owner {
            pid,
            comm,
            netns: owner.netns.or(earlier.netns),
            ..owner
        };
        match (&owner.cgroup, earlier.cgroup_id) {
            (None, Some(id)) => self.with_names(owner, id),
            _ => owner,
        }
    }

    fn owner(&self, conn: ConnId, cgroup_id: Option<u64>) -> Owner {
        let owner = self.complete(conn, Owner::default());
        match (&owner.cgroup, cgroup_id) {
            (None, Some(id)) => self.with_names(owner, id),
            _ => owner,
        }
    }

    fn with_names(&self, owner: Owner, cgroup_id: u64) -> Owner {
        let names = self.cgroups.get(&cgroup_id);
        Owner {
            pid: owner.pid,
            comm: owner.comm,
            netns: owner.netns,
            ..names.map(|names| Owner::clone(names)).unwrap_or_default()
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // A search that panics leaves at worst less known.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The capabilities that show the open files of all processes and that this process does not have.
fn missing_capabilities() -> Vec<String> {
    [Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH]
        .into_iter()
        .filter(|capability| !caps::has_cap(None, CapSet::Effective, *capability).unwrap_or(false))
        .map(|capability| capability.to_string())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{Connection, key_of, wait_for};

    fn query(connection: &Connection, is_open: bool) -> OwnerQuery {
        let key = key_of(&connection.server);
        OwnerQuery {
            conn: ConnId(key.cookie()),
            local: key.local(),
            peer: key.peer(),
            cgroup_id: None,
            is_open,
        }
    }

    #[test]
    #[ignore = "needs root: reads other users' processes"]
    fn the_owner_of_a_closed_connection_is_the_one_found_while_it_was_open() {
        let service = OwnerService::open(Path::new("/nowhere")).unwrap();
        let connection = Connection::new("127.0.0.1:0", "127.0.0.1:0");
        let open = query(&connection, true);
        assert_eq!(service.known(open.conn, None), Owner::default());
        let owner = wait_for("the process", || {
            let found = service.search(&[open], false).remove(0);
            found.owner.pid.is_some().then_some(found.owner)
        });
        assert_eq!(owner.pid, Some(std::process::id()));
        assert!(owner.cgroup.is_some(), "{owner:?}");

        let closed = query(&connection, false);
        drop(connection);
        assert_eq!(service.known(open.conn, None), owner);
        let misses = service.misses();
        assert_eq!(service.search(&[closed], false)[0].owner, owner);
        assert_eq!(service.misses(), misses, "nothing was searched");
    }

    #[test]
    #[ignore = "needs root: reads other users' processes"]
    fn the_socket_is_looked_up_again_only_if_it_is_wanted() {
        let service = OwnerService::open(Path::new("/nowhere")).unwrap();
        let connection = Connection::new("127.0.0.1:0", "127.0.0.1:0");
        let query = query(&connection, true);
        wait_for("the process", || {
            service.search(&[query], true)[0].owner.pid
        });
        let known = service.search(&[query], false).remove(0);
        assert!(known.socket.is_none() && known.owner.pid.is_some());
        assert!(service.search(&[query], true)[0].socket.is_some());
        let later = Instant::now() + FRESH;
        assert!(!lock(&service.known).is_fresh(query.conn, later));
    }

    #[test]
    fn a_process_that_was_not_found_again_gets_older() {
        let mut known = KnownOwners::default();
        let (conn, socket, begun) = (ConnId(1), OwnedSocket::default(), Instant::now());
        let found = Owner {
            pid: Some(7),
            netns: Some(1),
            ..Owner::default()
        };
        let not_found = Owner {
            pid: None,
            ..found.clone()
        };
        known.remember(conn, &socket, &found, begun);
        known.remember(conn, &socket, &not_found, begun + FRESH / 2);
        assert_eq!(known.owner(conn, None).pid, Some(7));
        assert!(known.is_fresh(conn, begun + FRESH / 2));
        assert!(!known.is_fresh(conn, begun + FRESH));
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut known = KnownOwners::default();
        let (sockets, cgroups) = (3 * SOCKETS as u64, 3 * CGROUPS as u64);
        let owner = Owner {
            cgroup: Some("/a".to_owned()),
            pid: Some(1),
            ..Owner::default()
        };
        for number in 0..sockets {
            let socket = OwnedSocket {
                cgroup_id: Some(number % cgroups),
                ..OwnedSocket::default()
            };
            known.remember(ConnId(number), &socket, &owner, Instant::now());
        }
        assert!(known.sockets.get(&ConnId(0)).is_none());
        assert!(
            known
                .cgroups
                .get(&(sockets - 1).rem_euclid(cgroups))
                .is_some()
        );
        assert_eq!(known.owner(ConnId(sockets - 1), None), owner);
        // Of a connection that was never searched, the cgroup is known by its number.
        let cgroup_only = known.owner(ConnId(u64::MAX), Some((sockets - 1) % cgroups));
        assert_eq!((cgroup_only.cgroup, cgroup_only.pid), (owner.cgroup, None));
    }
}
