//! Which listening sockets have WebSockets, seen by watching their packets for a while.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use monitor_common::drop_reason::DropReason;
use tokio::time::sleep;

use crate::{
    cli::{
        exit::Failure,
        run::{refuse_missing, refused_cgroup},
    },
    config::listeners::{ListenerConfig, PortRange},
    decode,
    kernel::{
        bpf::{
            loader::{LoadError, LoadSettings, Loaded},
            maps::{Drops, Ring},
        },
        host::{cgroup, port_forwards::accepts},
        prerequisites,
        sock_diag::{socket_finder::SocketFinder, socket_query::SocketKey},
    },
    records::{listening_socket::ListeningSocketRecord, numbers::seconds},
};
use monitor_core::{
    Event, Facts, ListenerRules,
    facts::{Protocol, Role},
};

/// The ring holds 21,000 records.
const POLL: Duration = Duration::from_millis(50);

/// Fails if the kernel or the privileges are not sufficient for [`watch`].
pub(super) fn refuse_unable() -> Result<(), Failure> {
    refuse_missing(&prerequisites::survey(None))
}

/// Watches the ports of `sockets` for `duration`, or until Ctrl-C, and notes the protocols seen. Returns how
/// many openings may have been missed.
///
/// It loads its own programs, which a running daemon's do not notice. They are detached at the end.
pub(super) async fn watch(
    sockets: &mut [ListeningSocketRecord],
    duration: Duration,
) -> Result<u64, Failure> {
    let ports: BTreeSet<u16> = sockets.iter().map(|socket| socket.port).collect();
    let all = ListenerConfig {
        rules: ListenerRules::new("ports", None),
        ports: ports
            .into_iter()
            .map(|port| PortRange(port..=port))
            .collect(),
        remote: false,
    };
    let cgroup = cgroup::usable_cgroup2(None).map_err(|error| refused_cgroup(None, &error))?;
    let refused = |error: LoadError| Failure::prerequisite(error.to_string());
    let mut loaded = Loaded::new(&[all], &LoadSettings::default()).map_err(refused)?;
    let mut openings = Ring::vitals(&mut loaded).map_err(refused)?;
    let drops = Drops::take(&mut loaded).map_err(refused)?;
    let mut finder = SocketFinder::open().ok();
    loaded.attach(&cgroup.path).map_err(refused)?;
    let started = Instant::now();
    let mut is_over = false;
    while !is_over {
        let left = duration.saturating_sub(started.elapsed());
        is_over = tokio::select! {
            () = sleep(left.min(POLL)) => left <= POLL,
            interrupted = tokio::signal::ctrl_c() => interrupted.is_ok(),
        };
        while let Some(event) = openings.next(decode::vital) {
            if let Ok(Event::Opened(facts)) = event {
                note(sockets, &facts, |facts| netns_of(finder.as_mut()?, facts));
            }
        }
    }
    for socket in sockets {
        socket.watched_seconds = Some(seconds(started.elapsed()));
    }
    drops
        .read(DropReason::VitalsFull)
        .map_err(|error| Failure::failed(error.to_string()))
}

/// The inode of the network namespace of a connection; `None` if it has ended.
fn netns_of(finder: &mut SocketFinder, facts: &Facts) -> Option<u64> {
    let key = SocketKey::new(facts.conn.0, facts.local, facts.peer)?;
    let found = finder.find(&key).ok()??;
    Some(found.netns.inode)
}

/// Notes the protocol of a connection at the sockets that may have accepted it. `netns_of` is called only if
/// sockets of several namespaces may.
fn note(
    sockets: &mut [ListeningSocketRecord],
    facts: &Facts,
    netns_of: impl FnOnce(&Facts) -> Option<u64>,
) {
    let is_certain = match facts.protocol {
        Protocol::WebSocket => true,
        Protocol::Opaque => false,
        Protocol::Assumed => return,
    };
    if facts.role != Role::Server {
        return;
    }
    let (port, address) = (facts.local.port(), facts.local.ip());
    let by_ipv4: BTreeSet<_> = sockets
        .iter()
        .filter(|socket| socket.port == port && socket.local.is_ipv4())
        .filter(|socket| accepts(socket.local.ip(), address, || false))
        .map(|socket| socket.owner.netns)
        .collect();
    let accepts = |socket: &ListeningSocketRecord| {
        let by_ipv4 = || by_ipv4.contains(&socket.owner.netns);
        socket.port == port && accepts(socket.local.ip(), address, by_ipv4)
    };
    let is_new = |socket: &ListeningSocketRecord| match socket.protocol {
        None => true,
        Some(known) => is_certain && known != Protocol::WebSocket.as_str(),
    };
    let mut candidates: Vec<_> = sockets
        .iter_mut()
        .filter(|socket| accepts(socket))
        .collect();
    if !candidates.iter().any(|socket| is_new(socket)) {
        return;
    }
    let namespaces: BTreeSet<_> = candidates.iter().map(|socket| socket.owner.netns).collect();
    if namespaces.len() > 1
        && let Some(netns) = netns_of(facts)
    {
        candidates.retain(|socket| socket.owner.netns == Some(netns));
    }
    // A socket with the very address takes precedence over one for every address.
    let is_exact = |socket: &ListeningSocketRecord| socket.local.ip() == facts.local.ip();
    if candidates.iter().any(|socket| is_exact(socket)) {
        candidates.retain(|socket| is_exact(socket));
    }
    for socket in candidates.into_iter().filter(|socket| is_new(socket)) {
        socket.protocol = Some(facts.protocol.as_str());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ports::tests::{owner, socket};
    use monitor_core::{ConnId, Ktime, ListenerId};

    fn sockets(locals: &[(&str, u64)]) -> Vec<ListeningSocketRecord> {
        let sockets = locals.iter().map(|(local, netns)| {
            let mut owner = owner("node");
            owner.netns = Some(*netns);
            socket(local, owner)
        });
        sockets.collect()
    }

    fn opened(local: &str, role: Role, protocol: Protocol) -> Facts {
        Facts::new(
            Ktime(1),
            ConnId(1),
            ListenerId(0),
            role,
            protocol,
            local.parse().expect("an address"),
            ([10, 0, 0, 9], 40_000).into(),
        )
    }

    /// The protocols after these connections, of which the namespace is `netns`.
    fn noted(
        mut sockets: Vec<ListeningSocketRecord>,
        netns: Option<u64>,
        connections: &[(&str, Protocol)],
    ) -> Vec<Option<&'static str>> {
        for (local, protocol) in connections {
            let facts = opened(local, Role::Server, *protocol);
            note(&mut sockets, &facts, |_| netns);
        }
        sockets.iter().map(|socket| socket.protocol).collect()
    }

    const YES: Option<&str> = Some("websocket");

    #[test]
    fn the_socket_that_accepted_a_connection_is_found_by_address_and_namespace() {
        use Protocol::WebSocket;
        let found = |locals: &[(&str, u64)], netns, local| {
            noted(sockets(locals), netns, &[(local, WebSocket)])
        };
        let ports = [("0.0.0.0:80", 1), ("0.0.0.0:81", 1)];
        assert_eq!(found(&ports, None, "10.0.0.1:80"), [YES, None]);
        let exact = [("0.0.0.0:80", 1), ("10.0.0.1:80", 1), ("10.0.0.2:80", 1)];
        assert_eq!(found(&exact, None, "10.0.0.1:80"), [None, YES, None]);
        assert_eq!(found(&exact, None, "10.0.0.3:80"), [YES, None, None]);
        let dual = [("[::]:80", 1), ("[fd00::1]:80", 1)];
        assert_eq!(found(&dual, None, "10.0.0.1:80"), [YES, None]);
        let pair = [("0.0.0.0:80", 1), ("[::]:80", 1), ("[::]:80", 2)];
        assert_eq!(found(&pair, Some(1), "10.0.0.1:80"), [YES, None, None]);
        assert_eq!(found(&pair, Some(2), "10.0.0.1:80"), [None, None, YES]);
        assert_eq!(found(&pair, Some(1), "[fd00::1]:80"), [None, YES, None]);
        let workers = [("0.0.0.0:80", 1), ("0.0.0.0:80", 1)];
        assert_eq!(found(&workers, None, "10.0.0.1:80"), [YES, YES]);
        let containers = [("0.0.0.0:80", 1), ("0.0.0.0:80", 2)];
        assert_eq!(found(&containers, Some(2), "10.0.0.1:80"), [None, YES]);
        assert_eq!(found(&containers, None, "10.0.0.1:80"), [YES, YES], "ended");
    }

    #[test]
    fn a_websocket_is_noted_over_tls_and_never_the_other_way_round() {
        use Protocol::{Assumed, Opaque, WebSocket};
        let one = || sockets(&[("0.0.0.0:80", 1)]);
        let after = |protocols: &[Protocol]| {
            let connections: Vec<_> = protocols.iter().map(|it| ("10.0.0.1:80", *it)).collect();
            noted(one(), None, &connections)
        };
        assert_eq!(after(&[Assumed]), [None]);
        assert_eq!(after(&[Opaque]), [Some("opaque")]);
        assert_eq!(after(&[Opaque, WebSocket]), [YES]);
        assert_eq!(after(&[WebSocket, Opaque]), [YES]);
        let mut outgoing = one();
        let facts = opened("10.0.0.1:80", Role::Client, WebSocket);
        note(&mut outgoing, &facts, |_| None);
        assert_eq!(outgoing[0].protocol, None);
    }
}
