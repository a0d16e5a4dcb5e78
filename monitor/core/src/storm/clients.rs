//! The clients with the most attempts, in bounded memory (Metwally's Space-Saving).
//!
//! A client without a row replaces the one with the least weight, and inherits that weight as its
//! error. Therefore each client with more than one in [`CAPACITY`] attempts has a row. A count is
//! never too low, and at most too high by the inherited weight. Weights are halved every half
//! minute, so that formerly heavy clients make room.

use std::net::IpAddr;

use hashbrown::HashTable;

use super::{finding::ClientRow, minute::Minute, regular};
use crate::time::Ktime;

#[derive(Debug)]
pub(super) struct Clients {
    rows: Vec<CandidateRow>,
    /// The indices of rows by the hash of their client.
    index: HashTable<u16>,
    /// The indices of rows: a heap with the least weight on top.
    heap: Vec<u16>,
    /// The half minute of the last halving.
    halved: u64,
}

#[derive(Debug)]
struct CandidateRow {
    client: IpAddr,
    hash: u64,
    /// The value that is compared, halved every half minute.
    weight: u32,
    /// The index in the heap.
    position: u16,
    attempts: u64,
    over: u64,
    accepted: u64,
    refused: u64,
    short_lived: u64,
    /// The times of the latest attempts in ms since boot, the latest one at the end.
    times: [u64; TIMES],
    /// How many of them are known.
    known: u8,
    /// The number of recent attempts.
    lately: Minute,
    /// The ends of the latest short connections.
    ends: [u64; ENDS],
    /// The recently ended connections, short ones and others.
    short: Minute,
    longer: Minute,
    /// The largest number open at once.
    most_open: u64,
    /// It counts as thrashing until a minute after this.
    thrashed: Option<Ktime>,
}

impl Clients {
    pub(super) fn new() -> Self {
        Self {
            rows: Vec::new(),
            index: HashTable::new(),
            heap: Vec::new(),
            halved: 0,
        }
    }

    /// Counts an attempt of a client that has `open` connections.
    pub(super) fn arrive(&mut self, at: Ktime, client: IpAddr, hash: u64, open: u64) {
        self.age(at);
        let slot = match self.find(client, hash) {
            Some(slot) => slot,
            None if self.rows.len() < CAPACITY => self.insert(client, hash),
            None => self.replace(client, hash),
        };
        let row = &mut self.rows[slot];
        row.weight = row.weight.saturating_add(1);
        row.attempts += 1;
        row.times.rotate_left(1);
        row.times[TIMES - 1] = millis(at);
        row.known = (row.known + 1).min(TIMES as u8);
        row.lately.add(at);
        row.most_open = row.most_open.max(open);
        let position = row.position;
        self.sink(position.into());
    }

    pub(super) fn settle(&mut self, client: IpAddr, hash: u64, accepted: bool) {
        if let Some(slot) = self.find(client, hash) {
            let row = &mut self.rows[slot];
            match accepted {
                true => row.accepted += 1,
                false => row.refused += 1,
            }
        }
    }

    /// A connection of the client ended; `short` if its life was short, and `open` remain. True if
    /// the client has had `thrash` short ones in a minute, and these are the majority of its
    /// connections.
    pub(super) fn depart(
        &mut self,
        at: Ktime,
        (client, hash): (IpAddr, u64),
        short: bool,
        open: u64,
        thrash: usize,
    ) -> bool {
        let Some(slot) = self.find(client, hash) else {
            return false;
        };
        let row = &mut self.rows[slot];
        row.most_open = row.most_open.max(open + 1);
        if !short {
            row.longer.add(at);
            return false;
        }
        row.short.add(at);
        row.short_lived += 1;
        row.ends.rotate_left(1);
        row.ends[ENDS - 1] = millis(at);
        let thrash = thrash.clamp(1, ENDS);
        let first = row.ends[ENDS - thrash];
        let thrashes = row.short_lived >= thrash as u64
            && millis(at).saturating_sub(first) <= MINUTE
            // Many clients may share the address, and some of them always leave at once.
            && row.short.sum(at) > row.longer.sum(at) + open as f64;
        if thrashes {
            row.thrashed = Some(at);
        }
        thrashes
    }

    /// The rows of the clients that thrashed in the minute before `now`, heaviest first.
    pub(super) fn thrashing(&self, now: Ktime) -> Vec<ClientRow> {
        let recent = |row: &&CandidateRow| {
            row.thrashed
                .is_some_and(|at| now.since(at).as_millis() <= u128::from(MINUTE))
        };
        self.sorted(self.rows.iter().filter(recent), usize::MAX)
    }

    /// The heaviest clients first, at most `most`.
    pub(super) fn heaviest(&self, most: usize) -> Vec<ClientRow> {
        self.sorted(self.rows.iter(), most)
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<CandidateRow>()
            + self.heap.capacity() * size_of::<u16>()
            + self.index.allocation_size()
    }

    fn sorted<'a>(
        &self,
        rows: impl Iterator<Item = &'a CandidateRow>,
        most: usize,
    ) -> Vec<ClientRow> {
        let mut rows: Vec<&CandidateRow> = rows.collect();
        rows.sort_by_key(|row| (std::cmp::Reverse(row.weight), row.client));
        rows.into_iter()
            .take(most)
            .map(CandidateRow::show)
            .collect()
    }

    fn find(&self, client: IpAddr, hash: u64) -> Option<usize> {
        let is_it = |slot: &u16| self.rows[usize::from(*slot)].client == client;
        self.index.find(hash, is_it).map(|slot| usize::from(*slot))
    }

    fn insert(&mut self, client: IpAddr, hash: u64) -> usize {
        let slot = self.rows.len();
        let position = self.heap.len() as u16;
        self.rows.push(CandidateRow::new(client, hash, position));
        self.heap.push(slot as u16);
        // It has no weight yet, so no row above it is lighter.
        self.rise(position.into());
        self.enter(hash, slot);
        slot
    }

    /// Reuses the row of the lightest client for another.
    fn replace(&mut self, client: IpAddr, hash: u64) -> usize {
        let slot = usize::from(self.heap[0]);
        let (old, inherited) = (self.rows[slot].hash, self.rows[slot].weight);
        if let Ok(entry) = self
            .index
            .find_entry(old, |other| usize::from(*other) == slot)
        {
            entry.remove();
        }
        let row = CandidateRow::new(client, hash, 0);
        self.rows[slot] = CandidateRow {
            weight: inherited,
            attempts: inherited.into(),
            over: inherited.into(),
            ..row
        };
        self.enter(hash, slot);
        slot
    }

    fn enter(&mut self, hash: u64, slot: usize) {
        let rows = &self.rows;
        self.index
            .insert_unique(hash, slot as u16, |slot| rows[usize::from(*slot)].hash);
    }

    fn weight(&self, position: usize) -> u32 {
        self.rows[usize::from(self.heap[position])].weight
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        for position in [one, other] {
            self.rows[usize::from(self.heap[position])].position = position as u16;
        }
    }

    fn rise(&mut self, mut position: usize) {
        while position > 0 && self.weight(position) < self.weight((position - 1) / 2) {
            self.swap(position, (position - 1) / 2);
            position = (position - 1) / 2;
        }
    }

    fn sink(&mut self, mut position: usize) {
        loop {
            let children = [position * 2 + 1, position * 2 + 2];
            let lightest = children
                .into_iter()
                .filter(|child| *child < self.heap.len())
                .min_by_key(|child| self.weight(*child));
            let Some(child) = lightest.filter(|child| self.weight(*child) < self.weight(position))
            else {
                return;
            };
            self.swap(position, child);
            position = child;
        }
    }

    /// Halves all weights for each half minute since the last time; their order stays the same.
    fn age(&mut self, at: Ktime) {
        let half_minute = at.0 / HALF_LIFE;
        if half_minute <= self.halved {
            return;
        }
        let halvings = (half_minute - self.halved).min(31) as u32;
        self.halved = half_minute;
        for row in &mut self.rows {
            row.weight >>= halvings;
        }
    }
}

impl CandidateRow {
    fn new(client: IpAddr, hash: u64, position: u16) -> Self {
        Self {
            client,
            hash,
            weight: 0,
            position,
            attempts: 0,
            over: 0,
            accepted: 0,
            refused: 0,
            short_lived: 0,
            times: [0; TIMES],
            known: 0,
            lately: Minute::default(),
            ends: [0; ENDS],
            short: Minute::default(),
            longer: Minute::default(),
            most_open: 0,
            thrashed: None,
        }
    }

    fn show(&self) -> ClientRow {
        let times = &self.times[TIMES - usize::from(self.known)..];
        let last = Ktime(self.times[TIMES - 1].saturating_mul(1_000_000));
        let mut row = ClientRow {
            client: self.client,
            attempts: self.attempts,
            at_most_over: self.over,
            accepted: self.accepted,
            refused: self.refused,
            short_lived: self.short_lived,
            attempts_per_minute: self.lately.sum(last),
            interval: None,
            open: 0,
            most_open: self.most_open,
            last,
        };
        // For an address of many clients, the times between attempts mean nothing.
        if !row.is_shared() {
            row.interval = regular::interval(times);
        }
        row
    }
}

fn millis(at: Ktime) -> u64 {
    at.0 / 1_000_000
}

/// A client with more than a thousandth of the attempts has a row. A row is about 300 bytes.
pub(super) const CAPACITY: usize = 1_024;
/// Eight gaps, because a robust statistic needs five.
const TIMES: usize = 9;
/// The largest number of short connections that can be required.
const ENDS: usize = 8;
/// Milliseconds.
const MINUTE: u64 = 60_000;
/// Nanoseconds.
const HALF_LIFE: u64 = 30_000_000_000;

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, net::Ipv4Addr};

    use proptest::prelude::*;

    use super::*;

    fn arrive(clients: &mut Clients, ms: u64, client: u32) {
        let hash = u64::from(client).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        clients.arrive(
            Ktime(ms * 1_000_000),
            Ipv4Addr::from(client).into(),
            hash,
            0,
        );
    }

    #[test]
    fn the_heaviest_clients_are_found_among_many_that_come_once() {
        let mut clients = Clients::new();
        for n in 0..200_000_u32 {
            arrive(&mut clients, u64::from(n / 10), 1_000 + n);
            if n % 100 == 0 {
                arrive(&mut clients, u64::from(n / 10), n / 100 % 5);
            }
        }
        let heaviest: Vec<ClientRow> = clients.heaviest(5);
        for row in &heaviest {
            let IpAddr::V4(client) = row.client else {
                panic!("{row:?}");
            };
            assert!(u32::from(client) < 5, "{row:?}");
            assert!(
                (400..=400 + row.at_most_over).contains(&row.attempts),
                "{row:?}"
            );
        }
        assert_eq!(clients.heaviest(usize::MAX).len(), CAPACITY);
    }

    #[test]
    fn a_formerly_heavy_client_makes_room() {
        let mut clients = Clients::new();
        for n in 0..10_000 {
            arrive(&mut clients, n, 7);
        }
        for n in 0..2_000 {
            arrive(&mut clients, 3_600_000 + u64::from(n), 100 + n);
        }
        let old = Ipv4Addr::from(7);
        assert!(
            clients
                .heaviest(usize::MAX)
                .iter()
                .all(|row| row.client != IpAddr::V4(old))
        );
    }

    #[test]
    fn a_row_has_a_rate_and_an_interval() {
        let mut clients = Clients::new();
        for n in 0..20 {
            arrive(&mut clients, 5_000 + n * 2_000, 1);
        }
        let row = &clients.heaviest(1)[0];
        assert_eq!((row.attempts, row.at_most_over), (20, 0));
        assert_eq!(row.interval, Some(std::time::Duration::from_secs(2)));
        assert_eq!(row.attempts_per_minute, 20.0, "all within a minute");
        assert_eq!(row.last, Ktime(43_000_000_000));
    }

    proptest! {
        /// Within one half minute, so that no weight is halved.
        #[test]
        fn a_count_is_never_too_low_and_its_excess_never_exceeds_the_stated_error(
            comers in prop::collection::vec(0..3_000_u32, 0..6_000)
        ) {
            let mut clients = Clients::new();
            let mut exact = HashMap::new();
            for client in comers {
                arrive(&mut clients, 1, client);
                *exact.entry(IpAddr::from(Ipv4Addr::from(client))).or_insert(0) += 1;
            }
            let rows = clients.heaviest(usize::MAX);
            prop_assert_eq!(rows.len(), exact.len().min(CAPACITY));
            for row in rows {
                let count = exact[&row.client];
                prop_assert!(row.attempts >= count);
                prop_assert!(row.attempts <= count + row.at_most_over);
            }
        }
    }
}
