//! Looks up the owner and the TCP state of a connection at the moment it is reported, and only then.

use std::{collections::HashMap, path::PathBuf};

use crate::kernel::{
    cgroup,
    inet_diag::DiagSocket,
    owner::{OwnedSocket, OwnerMisses, Owners},
    socket_finder::{FindError, FoundSocket, SocketFinder},
    socket_query::SocketKey,
};
use monitor_core::{
    Alert, ConnId, ConnectionVerdict, Correlator, Subject,
    background::{Background, Owner, TcpAccount},
};

/// Looks up single sockets in the kernel.
#[derive(Debug)]
pub(super) struct OwnerLookup {
    pub(super) finder: SocketFinder,
    owners: Owners,
    /// Connections with a reported, standing verdict. When they end, their socket can no longer be
    /// looked up.
    reported: HashMap<ConnId, Box<Background>>,
    /// Whether alerts may name the client behind a proxy.
    client_address: bool,
}

impl OwnerLookup {
    pub(super) fn new(client_address: bool) -> Result<Self, FindError> {
        // Without a hierarchy no cgroup has a path.
        let cgroup_root =
            cgroup::find_cgroup2().unwrap_or_else(|_| PathBuf::from("/sys/fs/cgroup"));
        Ok(Self {
            finder: SocketFinder::open()?,
            owners: Owners::new(&cgroup_root),
            reported: HashMap::new(),
            client_address,
        })
    }

    /// Completes the verdicts in these alerts, with one lookup for a whole burst.
    pub(super) fn complete(&mut self, alerts: &mut [Alert], core: &Correlator) {
        let (mut firing, mut ended) = (Vec::new(), Vec::new());
        for alert in alerts {
            let verdicts = match alert.is_firing() {
                true => &mut firing,
                false => &mut ended,
            };
            match &mut alert.subject {
                Subject::Connection(verdict) => verdicts.push(&mut **verdict),
                Subject::Group(group) => {
                    let examples = group.examples.iter_mut();
                    verdicts.extend(examples.map(|example| &mut *example.subject));
                }
                Subject::Listener(_) | Subject::Storm(_) | Subject::Thrash(_) => {}
            }
        }
        for verdict in ended {
            // The TCP state is from when the verdict was reported.
            let reported = self.reported.remove(&verdict.facts.conn);
            verdict.background = reported.map(|mut background| {
                background.tcp = None;
                background
            });
        }
        let found: Vec<Option<FoundSocket>> =
            firing.iter().map(|verdict| self.find(verdict)).collect();
        let sockets: Vec<OwnedSocket> = found
            .iter()
            .map(|found| found.as_ref().map(OwnedSocket::from).unwrap_or_default())
            .collect();
        let owners = match sockets.is_empty() {
            true => Vec::new(),
            false => self.owners.of(&sockets),
        };
        for ((verdict, found), owner) in firing.into_iter().zip(found).zip(owners) {
            let conn = verdict.facts.conn;
            let mut background = background(owner, found.as_ref().map(|found| &found.socket));
            if self.client_address {
                let handshake = core.handshake(conn);
                background.client = handshake.and_then(|handshake| handshake.client);
            }
            let background = Box::new(background);
            self.reported.insert(conn, background.clone());
            verdict.background = Some(background);
        }
    }

    /// Forgets connections that are gone and whose end is reported only in a count.
    pub(super) fn forget(&mut self, core: &Correlator) {
        self.reported
            .retain(|conn, _| core.standing(*conn).is_some());
        self.finder.close_unused();
    }

    /// Lookups that failed since the start.
    pub(super) fn misses(&self) -> OwnerMisses {
        self.owners.misses()
    }

    fn find(&mut self, verdict: &ConnectionVerdict) -> Option<FoundSocket> {
        let facts = &verdict.facts;
        let key = SocketKey::new(facts.conn.0, facts.local, facts.peer)?;
        self.finder.find(&key).unwrap_or_else(|error| {
            log::debug!("socket {}: {error}", facts.conn.0);
            None
        })
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
