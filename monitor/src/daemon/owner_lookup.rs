//! Looks up the owner and the TCP state of a connection at the moment it is reported, and only then.

use std::{collections::HashMap, path::PathBuf};

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
    Alert, ConnId, Correlator, Notice, Status,
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

    /// Completes the alerts in these notices, with one lookup for a whole burst.
    pub(super) fn complete(&mut self, notices: &mut [Notice], core: &Correlator) {
        let (firing, ended): (Vec<_>, Vec<_>) = notices
            .iter_mut()
            .flat_map(alerts_in)
            .partition(|alert| alert.status == Status::Firing);
        for alert in ended {
            // The TCP state is from when the verdict was reported.
            let reported = self.reported.remove(&alert.facts.conn);
            alert.background = reported.map(|mut background| {
                background.tcp = None;
                background
            });
        }
        let found: Vec<Option<FoundSocket>> = firing.iter().map(|alert| self.find(alert)).collect();
        let sockets: Vec<OwnedSocket> = found
            .iter()
            .map(|found| found.as_ref().map(OwnedSocket::from).unwrap_or_default())
            .collect();
        let owners = match sockets.is_empty() {
            true => Vec::new(),
            false => self.owners.of(&sockets),
        };
        for ((alert, found), owner) in firing.into_iter().zip(found).zip(owners) {
            let conn = alert.facts.conn;
            let mut background = background(owner, found.as_ref().map(|found| &found.socket));
            if self.client_address {
                let handshake = core.handshake(conn);
                background.client = handshake.and_then(|handshake| handshake.client);
            }
            let background = Box::new(background);
            self.reported.insert(conn, background.clone());
            alert.background = Some(background);
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

    fn find(&mut self, alert: &Alert) -> Option<FoundSocket> {
        let facts = &alert.facts;
        let key = SocketKey::new(facts.conn.0, facts.local, facts.peer)?;
        self.finder.find(&key).unwrap_or_else(|error| {
            log::debug!("socket {}: {error}", facts.conn.0);
            None
        })
    }
}

/// The single-connection alerts in a notice.
fn alerts_in(notice: &mut Notice) -> Box<dyn Iterator<Item = &mut Alert> + '_> {
    match notice {
        Notice::Connection(alert) => Box::new(std::iter::once(&mut **alert)),
        Notice::Group(group) => Box::new(group.examples.iter_mut()),
        Notice::Listener(_) | Notice::Storm(_) => Box::new(std::iter::empty()),
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
