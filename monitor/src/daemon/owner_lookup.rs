//! Looks up the owner and the TCP state of a connection when it is reported, and only then.

use std::{
    collections::HashMap,
    mem,
    path::{Path, PathBuf},
};

use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use super::finished;
use crate::kernel::{
    host::{
        cgroup,
        owner::{OwnedSocket, OwnerMisses, Owners},
    },
    sock_diag::{
        inet_diag::DiagSocket,
        socket_finder::{FindError, FoundSocket, SocketFinder},
        socket_query::SocketKey,
    },
};
use monitor_core::{
    Alert, ConnId, ConnectionVerdict, Correlator, Subject,
    background::{Background, Owner, TcpAccount},
};

/// Completes alerts with the owners of their connections. The search runs in the background, because a
/// walk through all processes takes up to 0.1 s. Alerts keep their order.
#[derive(Debug, Default)]
pub(super) struct OwnerLookup {
    /// `None` while it runs.
    search: Option<Box<OwnerSearch>>,
    running: Option<JoinHandle<(Box<OwnerSearch>, Vec<Background>)>>,
    /// The alerts of the running search.
    searched: Vec<Alert>,
    /// Later alerts.
    waiting: Vec<Alert>,
    /// Connections with a reported, standing verdict. When they end, their socket can no longer be
    /// looked up.
    reported: HashMap<ConnId, Box<Background>>,
    misses: OwnerMisses,
    /// Whether alerts may name the client behind a proxy.
    client_address: bool,
    pod_logs: PathBuf,
}

impl OwnerLookup {
    pub(super) fn new(client_address: bool, pod_logs: &Path) -> Result<Self, FindError> {
        Ok(Self {
            search: Some(OwnerSearch::open(pod_logs)?),
            pod_logs: pod_logs.to_owned(),
            client_address,
            ..Self::default()
        })
    }

    /// Takes alerts and returns those that are complete. The others are returned by
    /// [`OwnerLookup::finish`].
    pub(super) fn submit(&mut self, mut alerts: Vec<Alert>, core: &Correlator) -> Vec<Alert> {
        if self.client_address {
            for alert in alerts.iter_mut().filter(|alert| alert.is_firing()) {
                for verdict in verdicts(alert) {
                    let handshake = core.handshake(verdict.facts.conn);
                    verdict.background = Some(Box::new(Background {
                        client: handshake.and_then(|handshake| handshake.client),
                        ..Background::default()
                    }));
                }
            }
        }
        self.waiting.append(&mut alerts);
        self.start()
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Waits for the current search; pends forever if there is none.
    pub(super) async fn searched(&mut self) -> SearchResult {
        SearchResult(finished(&mut self.running).await)
    }

    /// Takes the result of a search, returns the completed alerts, and starts the next search.
    pub(super) fn finish(&mut self, SearchResult(result): SearchResult) -> Vec<Alert> {
        self.running = None;
        let found = match result {
            Ok((search, found)) => {
                self.misses = search.owners.misses();
                self.search = Some(search);
                found
            }
            Err(error) => {
                log::error!("a search for owners ended early: {error}");
                self.search = OwnerSearch::open(&self.pod_logs).ok();
                Vec::new()
            }
        };
        let mut alerts = mem::take(&mut self.searched);
        self.complete(&mut alerts, found);
        alerts.append(&mut self.start());
        alerts
    }

    /// Forgets connections that are gone and whose end is reported only in a count.
    pub(super) fn forget(&mut self, core: &Correlator) {
        if let Some(search) = &mut self.search {
            search.finder.close_unused();
            self.reported
                .retain(|conn, _| core.standing(*conn).is_some());
        }
    }

    /// Lookups that failed since the start.
    pub(super) fn misses(&self) -> OwnerMisses {
        self.misses
    }

    /// Starts one search for all waiting alerts, or returns them if there is nothing to search for.
    fn start(&mut self) -> Vec<Alert> {
        if self.is_running() {
            return Vec::new();
        }
        let mut alerts = mem::take(&mut self.waiting);
        let firing = alerts.iter_mut().filter(|alert| alert.is_firing());
        let keys: Vec<_> = firing
            .flat_map(verdicts)
            .map(|ConnectionVerdict { facts, .. }| {
                SocketKey::new(facts.conn.0, facts.local, facts.peer)
            })
            .collect();
        let Some(mut search) = self.search.take_if(|_| !keys.is_empty()) else {
            self.complete(&mut alerts, Vec::new());
            return alerts;
        };
        self.searched = alerts;
        self.running = Some(spawn_blocking(move || {
            let found = search.backgrounds(&keys);
            (search, found)
        }));
        Vec::new()
    }

    /// `found` has an entry for each firing verdict, or is empty.
    fn complete(&mut self, alerts: &mut [Alert], found: Vec<Background>) {
        let mut found = found.into_iter();
        for alert in alerts {
            let is_firing = alert.is_firing();
            for verdict in verdicts(alert) {
                let conn = verdict.facts.conn;
                verdict.background = if is_firing {
                    let known = verdict.background.take();
                    let background = Box::new(Background {
                        client: known.and_then(|known| known.client),
                        ..found.next().unwrap_or_default()
                    });
                    self.reported.insert(conn, background.clone());
                    Some(background)
                } else {
                    // The TCP state is from when the verdict was reported.
                    let reported = self.reported.remove(&conn);
                    reported.map(|reported| {
                        Box::new(Background {
                            tcp: None,
                            ..*reported
                        })
                    })
                };
            }
        }
    }
}

/// The result of a search, for [`OwnerLookup::finish`].
pub(super) struct SearchResult(Result<(Box<OwnerSearch>, Vec<Background>), JoinError>);

/// Looks up single sockets in the kernel, and their owners.
#[derive(Debug)]
struct OwnerSearch {
    finder: SocketFinder,
    owners: Owners,
}

impl OwnerSearch {
    fn open(pod_logs: &Path) -> Result<Box<Self>, FindError> {
        // Without a hierarchy no cgroup has a path.
        let cgroup_root =
            cgroup::find_cgroup2().unwrap_or_else(|_| PathBuf::from("/sys/fs/cgroup"));
        Ok(Box::new(Self {
            finder: SocketFinder::open()?,
            owners: Owners::new(&cgroup_root, pod_logs),
        }))
    }

    /// The background of each socket, with one lookup for all.
    fn backgrounds(&mut self, keys: &[Option<SocketKey>]) -> Vec<Background> {
        let found: Vec<_> = keys.iter().map(|key| self.find(key.as_ref()?)).collect();
        let sockets: Vec<OwnedSocket> = found
            .iter()
            .map(|found| found.as_ref().map(OwnedSocket::from).unwrap_or_default())
            .collect();
        let owners = self.owners.of(&sockets);
        let pairs = owners.into_iter().zip(&found);
        pairs
            .map(|(owner, found)| background(owner, found.as_ref().map(|found| &found.socket)))
            .collect()
    }

    fn find(&mut self, key: &SocketKey) -> Option<FoundSocket> {
        self.finder.find(key).unwrap_or_else(|error| {
            log::debug!("socket {}: {error}", key.cookie());
            None
        })
    }
}

/// The verdicts on single connections in an alert.
fn verdicts(alert: &mut Alert) -> Vec<&mut ConnectionVerdict> {
    match &mut alert.subject {
        Subject::Connection(verdict) => vec![verdict],
        Subject::Group(group) => {
            let examples = group.examples.iter_mut();
            examples.map(|example| &mut *example.subject).collect()
        }
        Subject::Listener(_) | Subject::Storm(_) | Subject::Thrash(_) => Vec::new(),
    }
}

fn background(owner: Owner, socket: Option<&DiagSocket>) -> Background {
    let tcp = socket.and_then(|socket| {
        let info = socket.info.as_ref()?;
        Some(TcpAccount {
            backoff: info.backoff,
            probes: info.probes,
            retransmission_timeout: info.retransmission_timeout,
            last_ack: info.last_ack_recv,
            unread_bytes: socket.receive_queue,
            unsent_bytes: info.notsent_bytes,
        })
    });
    Background {
        owner,
        client: None,
        tcp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::alert;
    use monitor_core::{AlertResolution, Status};

    #[tokio::test]
    async fn an_end_waits_for_the_search_of_its_beginning_and_has_the_same_owner() {
        let core = Correlator::new(Vec::new(), std::time::Duration::ZERO);
        let mut lookup = OwnerLookup::new(false, Path::new("/nowhere")).expect("a netlink socket");
        let firing: Alert = alert::tests::alert().into();
        let ended = Alert {
            status: Status::Resolved(AlertResolution::Recovered),
            ..firing.clone()
        };
        assert_eq!(lookup.submit(vec![firing], &core), []);
        assert_eq!(lookup.submit(vec![ended], &core), []);
        let result = lookup.searched().await;
        let mut complete = lookup.finish(result);
        assert!(!lookup.is_running(), "an end needs no search");
        let [firing, ended] = complete.as_mut_slice() else {
            panic!("{complete:?}");
        };
        assert!(firing.is_firing() && !ended.is_firing());
        let owner = |alert| {
            let background = verdicts(alert).remove(0).background.clone();
            background.map(|background| background.owner)
        };
        let found = owner(firing);
        assert!(found.is_some(), "it was searched");
        assert_eq!(owner(ended), found);
    }
}
