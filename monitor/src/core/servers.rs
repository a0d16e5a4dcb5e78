//! The listening sockets of this host: when the last one of a port is gone, and when there is one again.

use std::collections::{HashMap, HashSet};

use super::{
    event::ListeningSocket,
    facts::{ConnId, ListenerId},
    storm::ServerChange,
    time::Ktime,
};

#[derive(Debug, Default)]
pub(super) struct Servers {
    /// Every socket that listens, and since when that is known.
    sockets: HashMap<ConnId, (Ktime, Port)>,
    /// How many there are: processes may share a port (`SO_REUSEPORT`).
    counts: HashMap<Port, usize>,
    /// Ended since the last look, which may have seen them before.
    ended: HashSet<ConnId>,
}

/// A port of one network namespace: containers may all have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Port {
    listener: ListenerId,
    netns: u32,
    port: u16,
}

impl Servers {
    /// A socket began to listen.
    pub(super) fn began(&mut self, at: Ktime, socket: &ListeningSocket) -> Option<ServerChange> {
        let port = Port::of(socket);
        if self.sockets.insert(socket.conn, (at, port)).is_some() {
            return None;
        }
        let count = self.counts.entry(port).or_default();
        *count += 1;
        (*count == 1).then_some(ServerChange::Listening)
    }

    /// A socket does not listen any more.
    pub(super) fn ended(&mut self, socket: &ListeningSocket) -> Option<ServerChange> {
        self.ended.insert(socket.conn);
        match self.sockets.remove(&socket.conn) {
            Some((_, port)) => self.take(port),
            // Nobody told of it. What others tell of listens on.
            None => {
                let others = self.counts.contains_key(&Port::of(socket));
                (!others).then_some(ServerChange::Gone)
            }
        }
    }

    /// A look at the sockets began at `at` and found these; `complete` if no other can have been there.
    /// Gives the listeners whose server went unheard: a record was lost.
    pub(super) fn seen(
        &mut self,
        at: Ktime,
        found: &[ListeningSocket],
        complete: bool,
    ) -> Vec<ListenerId> {
        let ended = std::mem::take(&mut self.ended);
        for socket in found.iter().filter(|s| !ended.contains(&s.conn)) {
            // That it was there before is no change.
            let _ = self.began(at, socket);
        }
        if !complete {
            return Vec::new();
        }
        let missing = |(conn, (since, port)): (&ConnId, &(Ktime, Port))| {
            let found = found.iter().any(|socket| socket.conn == *conn);
            // What began after the look is not missing.
            (!found && *since <= at).then_some((*conn, *port))
        };
        let missing: Vec<_> = self.sockets.iter().filter_map(missing).collect();
        let gone = missing.into_iter().filter_map(|(conn, port)| {
            self.sockets.remove(&conn);
            self.take(port).map(|_| port.listener)
        });
        gone.collect()
    }

    fn take(&mut self, port: Port) -> Option<ServerChange> {
        let count = self.counts.get_mut(&port)?;
        *count -= 1;
        if *count > 0 {
            return None;
        }
        self.counts.remove(&port);
        Some(ServerChange::Gone)
    }
}

impl Port {
    fn of(socket: &ListeningSocket) -> Self {
        Self {
            listener: socket.listener,
            netns: socket.netns,
            port: socket.port,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Ktime = Ktime(5);

    fn socket(conn: u64, netns: u32, port: u16) -> ListeningSocket {
        ListeningSocket {
            conn: ConnId(conn),
            listener: ListenerId(0),
            netns,
            port,
        }
    }

    #[test]
    fn a_server_is_gone_with_the_last_socket_of_its_port() {
        let mut servers = Servers::default();
        let [one, two] = [socket(1, 7, 80), socket(2, 7, 80)];
        assert_eq!(servers.began(AT, &one), Some(ServerChange::Listening));
        assert_eq!(servers.began(AT, &two), None);
        assert_eq!(servers.ended(&one), None);
        assert_eq!(servers.ended(&two), Some(ServerChange::Gone));
        assert_eq!(servers.began(AT, &one), Some(ServerChange::Listening));
    }

    #[test]
    fn a_socket_in_another_container_or_on_another_port_does_not_stand_in() {
        let mut servers = Servers::default();
        for there in [socket(1, 7, 80), socket(2, 8, 80), socket(3, 7, 81)] {
            assert_eq!(servers.began(AT, &there), Some(ServerChange::Listening));
        }
        assert_eq!(servers.ended(&socket(1, 7, 80)), Some(ServerChange::Gone));
    }

    #[test]
    fn the_end_of_a_socket_that_was_never_heard_of_counts_if_there_is_no_other() {
        let mut servers = Servers::default();
        assert_eq!(servers.ended(&socket(1, 7, 80)), Some(ServerChange::Gone));
        servers.began(AT, &socket(2, 7, 80));
        assert_eq!(servers.ended(&socket(1, 7, 80)), None);
    }

    #[test]
    fn a_complete_look_finds_what_was_missed_and_spares_what_came_after_it() {
        let mut servers = Servers::default();
        let [early, late, other] = [socket(1, 7, 80), socket(2, 7, 81), socket(3, 7, 82)];
        servers.began(AT, &early);
        servers.began(Ktime(20), &late);
        let look = Ktime(10);
        let found = std::slice::from_ref(&other);
        assert_eq!(servers.seen(look, found, false), []);
        assert_eq!(servers.seen(look, found, true), [ListenerId(0)]);
        assert_eq!(servers.ended(&late), Some(ServerChange::Gone));
        assert_eq!(servers.ended(&other), Some(ServerChange::Gone));
    }

    #[test]
    fn a_socket_that_ended_while_the_look_was_under_way_does_not_come_back() {
        let mut servers = Servers::default();
        let [old, new] = [socket(1, 7, 80), socket(2, 7, 80)];
        servers.began(AT, &old);
        servers.ended(&old);
        servers.began(AT, &new);
        servers.seen(AT, &[old, new], true);
        assert_eq!(servers.ended(&new), Some(ServerChange::Gone));
    }
}
