//! Holds packets that were recorded before those that they answer. Two CPUs deliver the packets, and
//! one recorder writes them.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
};

use super::{capture::Packet, engine::Tuple};

/// How long a packet waits for what it acknowledges, nanoseconds. The CPUs of one host are much less
/// apart; anything later was not recorded.
const TIMEOUT: u64 = 20_000_000;

/// Maximum number of waiting packets, on one connection and in total.
const OF_ONE: usize = 64;
const OF_ALL: usize = 1_024;

/// Waiting packets, by connection.
#[derive(Debug, Default)]
pub(super) struct Early {
    waiting: HashMap<Tuple, EarlyPacket>,
    /// The oldest first; an entry's packet may have left already.
    due: VecDeque<(u64, Tuple)>,
    packets: usize,
}

/// The packets of one connection, all from one side.
#[derive(Debug)]
struct EarlyPacket {
    from: SocketAddr,
    until: u64,
    packets: VecDeque<Held>,
}

/// A copy of a packet.
#[derive(Debug)]
pub(super) struct Held {
    link: Option<u32>,
    bytes: Box<[u8]>,
    len: u32,
}

impl Held {
    pub(super) fn packet(&self) -> Packet<'_> {
        Packet {
            at: None,
            link: self.link,
            bytes: &self.bytes,
            len: self.len,
        }
    }
}

impl Early {
    /// The end whose packets wait on this connection. Later packets from there must wait as well.
    pub(super) fn waits(&self, tuple: Tuple) -> Option<SocketAddr> {
        self.waiting.get(&tuple).map(|waiting| waiting.from)
    }

    pub(super) fn store(&mut self, now: u64, tuple: Tuple, from: SocketAddr, packet: &Packet<'_>) {
        let until = now.saturating_add(TIMEOUT);
        let waiting = self.waiting.entry(tuple).or_insert_with(|| {
            self.due.push_back((until, tuple));
            EarlyPacket {
                from,
                until,
                packets: VecDeque::new(),
            }
        });
        waiting.packets.push_back(Held {
            link: packet.link,
            bytes: packet.bytes.into(),
            len: packet.len,
        });
        self.packets += 1;
    }

    /// The packet of a connection that has waited longest, without removing it.
    pub(super) fn first(&self, tuple: Tuple) -> Option<&Held> {
        self.waiting.get(&tuple)?.packets.front()
    }

    /// Removes it.
    pub(super) fn take(&mut self, tuple: Tuple) -> Option<Held> {
        let waiting = self.waiting.get_mut(&tuple)?;
        let held = waiting.packets.pop_front();
        self.packets -= usize::from(held.is_some());
        if waiting.packets.is_empty() {
            self.waiting.remove(&tuple);
        }
        held
    }

    /// A connection whose packets must not wait any longer at `now`: their time is over, or there are
    /// too many.
    pub(super) fn overdue(&mut self, now: u64) -> Option<Tuple> {
        while let Some((until, tuple)) = self.due.front().copied() {
            match self.waiting.get(&tuple) {
                Some(waiting) if waiting.until == until => {
                    let is_over = until <= now || self.packets > OF_ALL;
                    return is_over.then_some(tuple);
                }
                _ => drop(self.due.pop_front()),
            }
        }
        None
    }

    /// Whether a connection has the maximum number of waiting packets.
    pub(super) fn is_full(&self, tuple: Tuple) -> bool {
        self.waiting
            .get(&tuple)
            .is_some_and(|waiting| waiting.packets.len() >= OF_ONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(n: u16) -> (Tuple, SocketAddr) {
        let server = SocketAddr::from(([10, 0, 0, 1], 80));
        let client = SocketAddr::from(([10, 0, 0, 2], n));
        (Tuple(server, client), server)
    }

    fn packet() -> Packet<'static> {
        Packet {
            at: None,
            link: Some(1),
            bytes: &[1, 2, 3],
            len: 3,
        }
    }

    #[test]
    fn packets_leave_in_order_and_when_their_time_is_over() {
        let mut early = Early::default();
        let (one, server) = tuple(1);
        early.store(5, one, server, &packet());
        early.store(6, one, server, &packet());
        assert_eq!(early.waits(one), Some(server));
        assert_eq!(early.overdue(5 + TIMEOUT - 1), None);
        assert_eq!(early.overdue(5 + TIMEOUT), Some(one));
        assert!(early.take(one).is_some() && early.take(one).is_some());
        assert!(early.take(one).is_none());
        assert_eq!(early.overdue(u64::MAX), None);
        // Stored again, after the previous entry has left.
        early.store(9, one, server, &packet());
        assert_eq!(early.overdue(5 + TIMEOUT), None);
    }

    #[test]
    fn the_packets_of_one_connection_and_of_all_are_bounded() {
        let mut early = Early::default();
        let (one, server) = tuple(1);
        for _ in 0..OF_ONE {
            assert!(!early.is_full(one));
            early.store(1, one, server, &packet());
        }
        assert!(early.is_full(one));
        for n in 0..2 * OF_ALL as u16 {
            let (other, server) = tuple(1_000 + n);
            early.store(2, other, server, &packet());
            while let Some(overdue) = early.overdue(2) {
                while early.take(overdue).is_some() {}
            }
            assert!(early.packets <= OF_ALL);
        }
        assert!(early.due.len() <= OF_ALL + 1, "{}", early.due.len());
    }
}
