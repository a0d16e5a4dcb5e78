//! Who comes back, and after how long: a sample of the clients.
//!
//! Clients are chosen by their hash: all of them while they fit, then every second, every fourth and so
//! on (Wegman's adaptive sampling). A client that is in the sample is in it with all its attempts, so
//! shares and delays are not distorted, and what is counted here is multiplied by the step.

use hashbrown::HashTable;

use crate::core::time::Ktime;

#[derive(Debug)]
pub(super) struct Sample {
    clients: HashTable<Known>,
    /// One in 2^level is in the sample.
    level: u32,
    /// When clients that are long gone were last forgotten.
    swept: Ktime,
}

/// A client in the sample.
#[derive(Debug)]
struct Known {
    /// Keyed, 64 bits: stands for the address.
    hash: u64,
    last: Ktime,
    arrived: Ktime,
    /// Refused or without an answer; [`Ktime::ZERO`] if neither happened since `arrived`.
    failed: Ktime,
    departed: Ktime,
    /// Connections lost and attempts failed that were not followed by an attempt yet.
    lost: u32,
    /// Attempts without an outcome.
    pending: u32,
    /// The episode of which `attempts` tells.
    episode: u32,
    attempts: u8,
    /// Several clients are behind this address: its intervals mean nothing.
    shared: bool,
}

/// What an attempt of a client in the sample says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Return {
    /// How many clients it stands for.
    pub(super) weight: u64,
    pub(super) returning: bool,
    pub(super) shared: bool,
    /// In this episode, this one included.
    pub(super) attempt: u8,
    /// Since the attempt before it in this episode; for the first, since the connection was lost.
    pub(super) since_attempt: Option<u64>,
    /// Since that attempt failed.
    pub(super) since_failure: Option<u64>,
}

impl Sample {
    pub(super) fn new() -> Self {
        Self {
            clients: HashTable::new(),
            level: 0,
            swept: Ktime::ZERO,
        }
    }

    /// Takes in an attempt; `episode` counts the storms, 0 between them. `None` if the client is not in
    /// the sample.
    pub(super) fn arrive(&mut self, at: Ktime, hash: u64, episode: u32) -> Option<Return> {
        let weight = 1 << self.level;
        let known = self.entry(at, hash)?;
        let returning = known.lost > 0;
        let lost = known.lost;
        known.lost = lost.saturating_sub(1);
        if known.episode != episode {
            known.episode = episode;
            known.attempts = 0;
            known.shared = false;
        }
        known.attempts = known.attempts.saturating_add(1);
        known.shared |= lost > 1 || known.pending > 1;
        let (since_attempt, since_failure) = match known.attempts {
            1 => (gap(known.departed, at), None),
            _ => (gap(known.arrived, at), gap(known.failed, at)),
        };
        known.pending = known.pending.saturating_add(1);
        known.arrived = at;
        known.failed = Ktime::ZERO;
        known.last = known.last.max(at);
        Some(Return {
            weight,
            returning,
            shared: known.shared,
            attempt: known.attempts,
            since_attempt,
            since_failure,
        })
    }

    /// Takes in an outcome. If the attempt failed: the number it had in this episode, if the address is
    /// that of one client.
    pub(super) fn settle(
        &mut self,
        at: Ktime,
        hash: u64,
        failed: bool,
        episode: u32,
    ) -> Option<u8> {
        let known = self.entry(at, hash)?;
        known.pending = known.pending.saturating_sub(1);
        if !failed {
            return None;
        }
        known.failed = at;
        known.lost = known.lost.saturating_add(1);
        (known.episode == episode && !known.shared).then_some(known.attempts)
    }

    pub(super) fn depart(&mut self, at: Ktime, hash: u64) {
        if let Some(known) = self.entry(at, hash) {
            known.departed = at;
            known.lost = known.lost.saturating_add(1);
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.clients.allocation_size()
    }

    fn entry(&mut self, at: Ktime, hash: u64) -> Option<&mut Known> {
        if !self.contains(hash) {
            return None;
        }
        if self
            .clients
            .find(hash, |known| known.hash == hash)
            .is_none()
        {
            self.make_room(at);
            if !self.contains(hash) {
                return None;
            }
            let known = Known {
                hash,
                last: at,
                arrived: Ktime::ZERO,
                failed: Ktime::ZERO,
                departed: Ktime::ZERO,
                lost: 0,
                pending: 0,
                episode: 0,
                attempts: 0,
                shared: false,
            };
            self.clients.insert_unique(hash, known, |known| known.hash);
        }
        let known = self.clients.find_mut(hash, |known| known.hash == hash)?;
        // What was lost long ago has nothing to do with what comes now.
        if at.since(known.last).as_secs() >= RETURNING_WITHIN {
            (known.lost, known.pending) = (0, 0);
        }
        known.last = known.last.max(at);
        Some(known)
    }

    fn contains(&self, hash: u64) -> bool {
        is_in(hash, self.level)
    }

    fn make_room(&mut self, at: Ktime) {
        let full = self.clients.len() >= CAPACITY;
        if !full && at.since(self.swept).as_secs() < RETURNING_WITHIN {
            return;
        }
        self.swept = at;
        self.clients
            .retain(|known| at.since(known.last).as_secs() < RETURNING_WITHIN);
        if self.clients.len() > CAPACITY * 3 / 4 && self.level < 24 {
            self.level += 1;
            let level = self.level;
            self.clients.retain(|known| is_in(known.hash, level));
        } else if self.clients.len() < CAPACITY / 4 {
            self.level = self.level.saturating_sub(1);
        }
    }
}

fn is_in(hash: u64, level: u32) -> bool {
    // Not the bits that the table uses.
    (hash >> 24) & ((1 << level) - 1) == 0
}

fn gap(from: Ktime, to: Ktime) -> Option<u64> {
    (from != Ktime::ZERO && to >= from).then(|| to.0 - from.0)
}

/// A share of these is right within 2 % (standard error at one half: 0.8 %).
const CAPACITY: usize = 4_096;
/// How long after a loss an attempt is a return, seconds.
const RETURNING_WITHIN: u64 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(client: u64) -> u64 {
        let mixed = (client + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }

    fn at(ms: u64) -> Ktime {
        Ktime(ms * 1_000_000)
    }

    #[test]
    fn a_share_of_many_clients_is_found_in_a_sample() {
        let mut sample = Sample::new();
        let (mut all, mut returning) = (0, 0);
        // All come once and are refused; a third comes again.
        for client in 0..300_000 {
            sample.arrive(at(1_000), hash(client), 1);
            sample.settle(at(1_001), hash(client), true, 1);
        }
        for client in 0..300_000 {
            let client = if client % 3 == 0 {
                client
            } else {
                client + 300_000
            };
            if let Some(back) = sample.arrive(at(60_000), hash(client), 1) {
                all += back.weight;
                returning += u64::from(back.returning) * back.weight;
            }
        }
        assert!(sample.clients.len() <= CAPACITY);
        assert!((250_000..350_000).contains(&all), "{all}");
        let share = returning as f64 / all as f64;
        assert!((0.28..0.38).contains(&share), "{share}");
    }

    #[test]
    fn an_address_that_several_share_is_told_from_a_client() {
        let mut sample = Sample::new();
        sample.depart(at(1_000), hash(1));
        let alone = sample.arrive(at(2_000), hash(1), 1).expect("all fit");
        assert!(!alone.shared && alone.returning);
        assert_eq!(
            (alone.attempt, alone.since_attempt),
            (1, Some(1_000_000_000))
        );
        sample.depart(at(3_000), hash(2));
        sample.depart(at(3_000), hash(2));
        assert!(
            sample
                .arrive(at(4_000), hash(2), 1)
                .expect("all fit")
                .shared
        );
    }

    #[test]
    fn delays_are_counted_from_the_attempt_and_from_its_failure() {
        let mut sample = Sample::new();
        sample.arrive(at(1_000), hash(1), 1);
        assert_eq!(sample.settle(at(1_200), hash(1), true, 1), Some(1));
        let next = sample.arrive(at(2_200), hash(1), 1).expect("all fit");
        assert_eq!(next.attempt, 2);
        assert_eq!(next.since_attempt, Some(1_200_000_000));
        assert_eq!(next.since_failure, Some(1_000_000_000));
        let other = sample.arrive(at(3_000), hash(1), 2).expect("all fit");
        assert_eq!(other.attempt, 1, "of another storm");
    }

    #[test]
    fn the_sample_grows_again_when_the_many_are_gone() {
        let mut sample = Sample::new();
        for client in 0..50_000 {
            sample.arrive(at(1_000), hash(client), 1);
        }
        assert!(sample.level > 0);
        for n in 0..40 {
            sample.arrive(at(1_000_000 + n * 400_000), hash(1_000_000 + n), 1);
        }
        assert_eq!(sample.level, 0);
    }
}
