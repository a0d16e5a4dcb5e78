//! Looks up the owner and the TCP state of a connection when it is reported.

use std::{collections::HashMap, mem};

use tokio::task::{JoinError, JoinHandle};

use super::finished;
use crate::kernel::{
    owner_service::{FoundOwner, OwnerQuery, OwnerService},
    sock_diag::inet_diag::DiagSocket,
};
use monitor_core::{
    Alert, ConnId, ConnectionVerdict, Correlator, Subject,
    background::{Background, TcpAccount},
};

/// Completes alerts with the owners of their connections. Alerts keep their order.
#[derive(Debug)]
pub(super) struct OwnerLookup {
    owners: OwnerService,
    running: Option<JoinHandle<Vec<FoundOwner>>>,
    /// The alerts of the running search.
    searched: Vec<Alert>,
    /// Later alerts.
    waiting: Vec<Alert>,
    /// Connections with a reported, standing verdict. When they end, their socket can no longer be
    /// looked up.
    reported: HashMap<ConnId, Box<Background>>,
    /// Whether alerts may name the client behind a proxy.
    client_address: bool,
}

impl OwnerLookup {
    pub(super) fn new(owners: OwnerService, client_address: bool) -> Self {
        Self {
            owners,
            running: None,
            searched: Vec::new(),
            waiting: Vec::new(),
            reported: HashMap::new(),
            client_address,
        }
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
        let found = result.unwrap_or_else(|error| {
            log::error!("a search for owners ended early: {error}");
            Vec::new()
        });
        let mut alerts = mem::take(&mut self.searched);
        self.complete(&mut alerts, found);
        alerts.append(&mut self.start());
        alerts
    }

    /// Forgets connections that are gone and whose end is reported only in a count.
    pub(super) fn forget(&mut self, core: &Correlator) {
        // The end of such a connection may wait for a search.
        if !self.is_running() {
            self.reported
                .retain(|conn, _| core.standing(*conn).is_some());
        }
    }

    /// What was reported about a connection with a standing verdict.
    pub(super) fn reported(&self, conn: ConnId) -> Option<&Background> {
        self.reported.get(&conn).map(Box::as_ref)
    }

    /// Starts one search for all waiting alerts, or returns them if there is nothing to search for.
    fn start(&mut self) -> Vec<Alert> {
        if self.is_running() {
            return Vec::new();
        }
        let mut alerts = mem::take(&mut self.waiting);
        let firing = alerts.iter_mut().filter(|alert| alert.is_firing());
        let queries: Vec<_> = firing
            .flat_map(verdicts)
            .map(|verdict| OwnerQuery::from(&verdict.facts))
            .collect();
        if queries.is_empty() {
            self.complete(&mut alerts, Vec::new());
            return alerts;
        }
        self.searched = alerts;
        let owners = self.owners.clone();
        self.running = Some(tokio::spawn(async move { owners.found(queries).await }));
        Vec::new()
    }

    /// `found` has an entry for each firing verdict, or is empty.
    fn complete(&mut self, alerts: &mut [Alert], found: Vec<FoundOwner>) {
        let mut found = found.into_iter();
        for alert in alerts {
            let is_firing = alert.is_firing();
            for verdict in verdicts(alert) {
                let conn = verdict.facts.conn;
                verdict.background = if is_firing {
                    let known = verdict.background.take();
                    let FoundOwner { owner, socket } = found.next().unwrap_or_default();
                    let background = Box::new(Background {
                        owner,
                        client: known.and_then(|known| known.client),
                        tcp: socket.as_ref().and_then(tcp_account),
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
pub(super) struct SearchResult(Result<Vec<FoundOwner>, JoinError>);

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

fn tcp_account(socket: &DiagSocket) -> Option<TcpAccount> {
    let info = socket.info.as_ref()?;
    Some(TcpAccount {
        backoff: info.backoff,
        probes: info.probes,
        retransmission_timeout: info.retransmission_timeout,
        last_ack: info.last_ack_recv,
        unread_bytes: socket.receive_queue,
        unsent_bytes: info.notsent_bytes,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::records::alert;
    use monitor_core::{AlertResolution, Status};

    #[tokio::test]
    async fn an_end_waits_for_the_search_of_its_beginning_and_has_the_same_owner() {
        let core = Correlator::new(Vec::new(), std::time::Duration::ZERO);
        let owners = OwnerService::open(Path::new("/nowhere")).expect("a netlink socket");
        let mut lookup = OwnerLookup::new(owners, false);
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
