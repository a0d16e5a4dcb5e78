//! Agreement between three tables: the core's connections, the published snapshots, and the sockets
//! that really exist.
//!
//! The kernel programs see every birth after the attach, so sock_diag is asked only for what is
//! older, and for seeds whose socket went away unseen.

use std::collections::HashSet;

use tokio::task::{JoinError, JoinHandle};

use crate::{
    core::{
        ConnId, Correlator, Event, Facts, Ktime,
        event::{ListeningSocket, ReceiveQueue},
    },
    kernel::{
        clock,
        maps::{SnapshotError, Snapshots},
        netns::NetNsError,
        seed::{self, Scan},
    },
    listeners::Listener,
};

/// A look at the sockets of this host that is under way.
pub type Look = JoinHandle<Looked>;

/// What a look at the sockets found.
pub type Looked = Result<Seen, NetNsError>;

/// The sockets on watched ports, as they were at one moment.
#[derive(Debug)]
pub struct Seen {
    /// Before the first of them was looked at.
    at: Ktime,
    /// No socket can have been overlooked.
    complete: bool,
    /// Filled if something is looked for.
    existing: HashSet<ConnId>,
    unread: Vec<ReceiveQueue>,
    listening: Vec<ListeningSocket>,
}

/// What the first look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seeded {
    pub connections: usize,
    /// Connections that found no room in the snapshots: nobody tells if they die in silence.
    pub untracked: usize,
    pub namespaces: usize,
    /// Namespaces that could not be entered: connections there are known from their next packet.
    pub refused: usize,
    /// Processes whose namespace is hidden from us; the same holds for what is in there.
    pub hidden: usize,
}

/// Keeps track of the flows that only sock_diag has told of.
#[derive(Debug, Default)]
pub struct Reconciler {
    /// Written by us and not yet seen to end. A flow stays here when packets come: it is then
    /// the kernel's too, and its death is reported like any other.
    seeds: HashSet<ConnId>,
    /// Upgrade requests without an answer whose end may have been in a lost record.
    doubtful: HashSet<ConnId>,
    /// Those of them that the look under way may find to be gone.
    looked_for: HashSet<ConnId>,
}

impl Reconciler {
    /// Tells of every connection older than the programs, once they are attached.
    pub fn seed(
        &mut self,
        listeners: &[Listener],
        snapshots: &mut Snapshots,
        core: &mut Correlator,
    ) -> Result<Seeded, NetNsError> {
        let scan = scan(listeners)?;
        let mut seeded = Seeded {
            connections: scan.sockets.len(),
            untracked: 0,
            namespaces: scan.namespaces,
            refused: scan.refused.len(),
            hidden: scan.hidden,
        };
        for facts in scan.sockets {
            match snapshots.seed(&facts) {
                Ok(true) => {
                    self.seeds.insert(facts.conn);
                    core.handle_event(Event::Seeded(Box::new(facts)));
                }
                // The kernel met it in between and knows more.
                Ok(false) => {}
                Err(SnapshotError::Full) => seeded.untracked += 1,
                Err(error) => log::warn!("socket {}: {error}", facts.conn.0),
            }
        }
        seeded.connections -= seeded.untracked;
        // A socket that closed between the scan and its seed left no trace but the seed.
        let seen = look(listeners, true)?;
        if seen.complete {
            self.drop_missing(&seen.existing, snapshots, core);
        }
        core.handle_event(Event::ListenersSeen {
            at: seen.at,
            sockets: seen.listening,
            complete: seen.complete,
        });
        Ok(seeded)
    }

    /// Starts to look which seeds and doubtful requests still have a socket, and what waits unread. On
    /// a host with a million sockets this takes seconds, so it runs beside the daemon's loop.
    pub fn look(&mut self, listeners: &[Listener]) -> Look {
        let search = !(self.seeds.is_empty() && self.doubtful.is_empty());
        self.looked_for = std::mem::take(&mut self.doubtful);
        let listeners = listeners.to_vec();
        tokio::task::spawn_blocking(move || look(&listeners, search))
    }

    /// Removes the seeds and requests whose socket a look did not find, and tells of what is unread.
    pub fn finish(
        &mut self,
        looked: Result<Looked, JoinError>,
        snapshots: &mut Snapshots,
        core: &mut Correlator,
    ) {
        let seen = match looked {
            Ok(Ok(seen)) => Some(seen),
            Ok(Err(error)) => {
                log::warn!("cannot look at the sockets of this host: {error}");
                None
            }
            Err(error) => {
                log::error!("the look at the sockets ended early: {error}");
                None
            }
        };
        let existing = seen
            .as_ref()
            .filter(|seen| seen.complete)
            .map(|seen| &seen.existing);
        match existing {
            Some(existing) => self.drop_missing(existing, snapshots, core),
            None => log::debug!("not every socket could be seen; nothing is given up"),
        }
        self.drop_unanswered(existing, core);
        if let Some(Seen {
            at,
            complete,
            mut unread,
            listening,
            ..
        }) = seen
        {
            core.handle_event(Event::ListenersSeen {
                at,
                sockets: listening,
                complete,
            });
            unread.retain(|queue| core.knows(queue.conn));
            core.handle_event(Event::QueuesSeen {
                at,
                unread,
                complete,
            });
        }
    }

    /// After a loss: what the kernel published is right, the core's table may not be.
    pub fn compare_with_snapshots(&mut self, snapshots: &Snapshots, core: &mut Correlator) {
        let known = core.conns();
        let conns = known.iter().copied().chain(snapshots.conns());
        for conn in conns.collect::<HashSet<_>>() {
            match snapshots.get(conn) {
                Ok(Some(facts)) => core.handle_event(Event::Seeded(Box::new(facts))),
                Ok(None) => {
                    let at = clock::now();
                    core.handle_event(Event::Gone { conn, at });
                }
                Err(error) => log::warn!("socket {}: {error}", conn.0),
            }
        }
        // Only the sockets can tell: the kernel publishes no connection before it is open.
        self.doubtful.extend(core.unanswered());
    }

    /// A connection ended or is none of ours. If it was seeded, its seed may have been written after
    /// the kernel removed what it had.
    pub fn forget(&mut self, conn: ConnId, snapshots: &mut Snapshots) -> Result<(), SnapshotError> {
        if self.seeds.remove(&conn) {
            snapshots.remove(conn)?;
        }
        Ok(())
    }

    /// Gives up the upgrade requests that were in doubt and whose socket is gone. What an incomplete
    /// look did not find stays in doubt.
    fn drop_unanswered(&mut self, existing: Option<&HashSet<ConnId>>, core: &mut Correlator) {
        let looked_for = std::mem::take(&mut self.looked_for);
        let Some(existing) = existing else {
            self.doubtful.extend(looked_for);
            return;
        };
        for conn in looked_for {
            if !existing.contains(&conn) && core.is_unanswered(conn) {
                let at = clock::now();
                core.handle_event(Event::Gone { conn, at });
            }
        }
    }

    fn drop_missing(
        &mut self,
        existing: &HashSet<ConnId>,
        snapshots: &mut Snapshots,
        core: &mut Correlator,
    ) {
        // A seed that has met a packet is the kernel's: it reports the death, whatever we see.
        self.seeds.retain(|conn| snapshots.is_seed(*conn));
        let gone: Vec<ConnId> = self.seeds.difference(existing).copied().collect();
        for conn in gone {
            if let Err(error) = self.forget(conn, snapshots) {
                log::warn!("socket {}: {error}", conn.0);
            }
            let at = clock::now();
            core.handle_event(Event::Gone { conn, at });
        }
    }
}

fn scan(listeners: &[Listener]) -> Result<Scan, NetNsError> {
    let scan = seed::scan(|local, peer| Listener::watching(listeners, local, peer))?;
    for refused in &scan.refused {
        log::warn!("network namespace {}: {}", refused.name, refused.error);
    }
    if scan.unparsed > 0 {
        log::warn!("{} sockets could not be understood", scan.unparsed);
    }
    Ok(scan)
}

/// A connection that is missing from an incomplete scan is not gone: it must not lose its verdict
/// because a namespace could not be entered for a moment.
fn look(listeners: &[Listener], search: bool) -> Looked {
    let at = clock::now();
    let scan = scan(listeners)?;
    let complete = scan.refused.is_empty() && scan.unparsed == 0 && scan.interrupted == 0;
    let conns = scan.sockets.iter().filter(|_| search);
    Ok(Seen {
        at,
        complete,
        existing: conns.map(|facts: &Facts| facts.conn).collect(),
        unread: scan.unread,
        listening: scan.listening,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::{
        ListenerId, ListenerRules, event::Asker, facts::Role, handshake::UpgradeRequest,
    };

    fn request(conn: u64) -> Event {
        Event::UpgradeRequested {
            of: Box::new(Asker {
                at: Ktime(1),
                conn: ConnId(conn),
                listener: ListenerId(0),
                role: Role::Server,
                local: ([127, 0, 0, 1], 8080).into(),
                peer: ([127, 0, 0, 1], 40_000).into(),
                established_at: None,
            }),
            request: Box::new(UpgradeRequest::parse(b"GET / HTTP/1.1\r\n\r\n")),
        }
    }

    #[test]
    fn requests_in_doubt_end_when_a_complete_look_does_not_find_their_socket() {
        let rules = vec![ListenerRules::new("web", None)];
        let mut core = Correlator::new(rules, Duration::ZERO);
        let mut reconciler = Reconciler::default();
        core.handle_event(request(1));
        core.handle_event(request(2));
        reconciler.looked_for.extend(core.unanswered());
        // It came after the look began.
        core.handle_event(request(3));

        reconciler.drop_unanswered(None, &mut core);
        assert_eq!(core.unanswered().len(), 3);
        assert_eq!(
            reconciler.doubtful.len(),
            2,
            "the next look is for them too"
        );

        reconciler.looked_for = std::mem::take(&mut reconciler.doubtful);
        reconciler.drop_unanswered(Some(&[ConnId(1)].into()), &mut core);
        let mut left = core.unanswered();
        left.sort();
        assert_eq!(left, [ConnId(1), ConnId(3)]);
        assert!(reconciler.doubtful.is_empty());
    }
}
