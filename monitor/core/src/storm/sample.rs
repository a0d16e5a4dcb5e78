//! A sample of the clients: which ones come back, and after how long.
//!
//! Clients are chosen by their hash: all of them while they fit, then every second, every fourth
//! and so on (Wegman's adaptive sampling). All attempts of a sampled client are included, so shares
//! and delays are not distorted. Counts are multiplied by the step.

use std::time::Duration;

use hashbrown::HashTable;

use super::AttemptOutcome;
use crate::time::Ktime;

#[derive(Debug)]
pub(super) struct Sample {
    clients: HashTable<KnownClient>,
    /// One in 2^level is in the sample.
    level: u32,
    /// When inactive clients were last removed.
    swept: Ktime,
}

/// A client in the sample.
#[derive(Debug)]
struct KnownClient {
    /// Keyed, 64 bits; stands for the address.
    hash: u64,
    last: Ktime,
    arrived: Ktime,
    /// When it was refused or had no response; [`Ktime::ZERO`] if neither happened since `arrived`.
    failed: Ktime,
    departed: Ktime,
    /// Lost connections and failed attempts that no attempt has followed yet.
    lost: u32,
    /// Attempts without an outcome.
    pending: u32,
    /// No loss was known when it last came.
    unexplained: bool,
    /// The episode that `attempts` counts.
    episode: u32,
    attempts: u8,
    /// Several clients share this address, so its intervals mean nothing.
    shared: bool,
}

/// What an attempt of a sampled client shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Return {
    /// The number of clients that it stands for.
    pub(super) weight: u64,
    pub(super) returning: bool,
    pub(super) shared: bool,
    /// The number of attempts in this episode, including this one.
    pub(super) attempt: u8,
    /// Since the previous attempt in this episode; for the first, since the connection was lost.
    pub(super) since_attempt: Option<u64>,
    /// Since the previous attempt failed.
    pub(super) since_failure: Option<u64>,
}

/// What an outcome shows about a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// The number of the failed attempt in this episode, if the address belongs to one client.
    pub(super) failed: Option<u8>,
    /// The number of earlier arrivals that prove to be returns.
    pub(super) returned: u64,
}

impl KnownClient {
    /// True if a loss at this moment explains the last arrival. Ends of connections are reported
    /// after the requests of the same moment, so a client may return before its loss is known.
    fn explain(&mut self, at: Ktime) -> bool {
        std::mem::take(&mut self.unexplained) && at <= self.arrived + TICK
    }
}

impl Sample {
    pub(super) fn new() -> Self {
        Self {
            clients: HashTable::new(),
            level: 0,
            swept: Ktime::ZERO,
        }
    }

    /// Records an attempt; `episode` numbers the storms, 0 between them. `None` if the client is
    /// not in the sample.
    pub(super) fn arrive(&mut self, at: Ktime, hash: u64, episode: u32) -> Option<Return> {
        let weight = 1 << self.level;
        let known = self.entry(at, hash)?;
        let returning = known.lost > 0;
        let lost = known.lost;
        known.lost = lost.saturating_sub(1);
        known.unexplained = !returning;
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

    /// Records an outcome.
    pub(super) fn settle(
        &mut self,
        at: Ktime,
        hash: u64,
        outcome: AttemptOutcome,
        episode: u32,
    ) -> Settled {
        let weight = 1 << self.level;
        let Some(known) = self.entry(at, hash) else {
            return Settled::default();
        };
        known.pending = known.pending.saturating_sub(1);
        if outcome == AttemptOutcome::Accepted {
            return Settled::default();
        }
        known.failed = at;
        // A response is reported in its order, a missing one with the end of its connection.
        let overtaken = outcome == AttemptOutcome::Unanswered && known.pending > 0;
        let explains = overtaken && known.explain(at);
        known.lost = known.lost.saturating_add(u32::from(!explains));
        let one = known.episode == episode && !known.shared;
        Settled {
            failed: one.then_some(known.attempts),
            returned: if explains { weight } else { 0 },
        }
    }

    /// Records the loss of a connection, with its age if known. Returns the number of earlier
    /// arrivals that prove to be returns.
    pub(super) fn depart(&mut self, at: Ktime, hash: u64, age: Option<Duration>) -> u64 {
        let weight = 1 << self.level;
        let Some(known) = self.entry(at, hash) else {
            return 0;
        };
        known.departed = at;
        // Not if the last attempt created this connection.
        let earlier = age.is_none_or(|age| at.since(known.arrived) + TICK < age);
        let explains = earlier && known.explain(at);
        known.lost = known.lost.saturating_add(u32::from(!explains));
        if explains { weight } else { 0 }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.clients.allocation_size()
    }

    fn entry(&mut self, at: Ktime, hash: u64) -> Option<&mut KnownClient> {
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
            let known = KnownClient {
                hash,
                last: at,
                arrived: Ktime::ZERO,
                failed: Ktime::ZERO,
                departed: Ktime::ZERO,
                lost: 0,
                pending: 0,
                unexplained: false,
                episode: 0,
                attempts: 0,
                shared: false,
            };
            self.clients.insert_unique(hash, known, |known| known.hash);
        }
        let known = self.clients.find_mut(hash, |known| known.hash == hash)?;
        // An old loss is unrelated to a new attempt.
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
    // The table uses other bits.
    (hash >> 24) & ((1 << level) - 1) == 0
}

fn gap(from: Ktime, to: Ktime) -> Option<u64> {
    (from != Ktime::ZERO && to >= from).then(|| to.0 - from.0)
}

/// A share of this many is accurate within 2 % (standard error at one half: 0.8 %).
const CAPACITY: usize = 4_096;
/// Requests are stamped by a clock that ticks with the scheduler, 10 ms at most, and ends by an
/// exact one. An end may therefore seem this much later than the request that followed it.
const TICK: Duration = Duration::from_millis(10);
/// How long after a loss an attempt counts as a return, in seconds.
const RETURNING_WITHIN: u64 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: AttemptOutcome = AttemptOutcome::Refused(Some(503));

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
        // All come once and are refused; a third of them comes again.
        for client in 0..300_000 {
            sample.arrive(at(1_000), hash(client), 1);
            sample.settle(at(1_001), hash(client), REFUSED, 1);
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
    fn a_loss_that_is_reported_after_the_return_makes_it_one() {
        const OLD: Option<Duration> = Some(Duration::from_secs(60));
        let mut sample = Sample::new();
        let came = |sample: &mut Sample, ms, client| {
            let back = sample.arrive(at(ms), hash(client), 0).expect("all fit");
            back.returning
        };
        // A connection is lost at 1.004 s, and the client is back before that is reported.
        assert!(!came(&mut sample, 1_000, 1));
        assert_eq!(sample.depart(at(1_004), hash(1), OLD), 1);
        assert!(!came(&mut sample, 1_010, 1), "nothing is lost any more");
        // Another is lost while the new one lives, which explains the next arrival.
        assert_eq!(sample.depart(at(9_000), hash(1), OLD), 0);
        assert!(came(&mut sample, 9_005, 1));
        assert_eq!(
            sample.depart(at(9_006), hash(1), OLD),
            0,
            "explained already"
        );
        // A connection that ends at once does not explain its own attempt.
        assert!(!came(&mut sample, 20_000, 4));
        let life = Some(Duration::from_millis(3));
        assert_eq!(sample.depart(at(20_002), hash(4), life), 0);
        assert!(came(&mut sample, 20_003, 4));

        // The same with an attempt without a response, but not with the last attempt itself.
        came(&mut sample, 1_000, 2);
        came(&mut sample, 1_001, 2);
        let unanswered = |sample: &mut Sample| {
            let settled = sample.settle(at(1_001), hash(2), AttemptOutcome::Unanswered, 0);
            settled.returned
        };
        assert_eq!(unanswered(&mut sample), 1);
        assert_eq!(unanswered(&mut sample), 0);
        // A response comes in its order, so a later attempt is a return without this.
        came(&mut sample, 1_000, 3);
        came(&mut sample, 1_001, 3);
        let refused = sample.settle(at(1_001), hash(3), REFUSED, 0);
        assert_eq!(refused.returned, 0);
    }

    #[test]
    fn an_address_that_several_share_is_distinguished_from_a_client() {
        let mut sample = Sample::new();
        sample.depart(at(1_000), hash(1), None);
        let alone = sample.arrive(at(2_000), hash(1), 1).expect("all fit");
        assert!(!alone.shared && alone.returning);
        assert_eq!(
            (alone.attempt, alone.since_attempt),
            (1, Some(1_000_000_000))
        );
        sample.depart(at(3_000), hash(2), None);
        sample.depart(at(3_000), hash(2), None);
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
        assert_eq!(
            sample.settle(at(1_200), hash(1), REFUSED, 1).failed,
            Some(1)
        );
        let next = sample.arrive(at(2_200), hash(1), 1).expect("all fit");
        assert_eq!(next.attempt, 2);
        assert_eq!(next.since_attempt, Some(1_200_000_000));
        assert_eq!(next.since_failure, Some(1_000_000_000));
        let other = sample.arrive(at(3_000), hash(1), 2).expect("all fit");
        assert_eq!(other.attempt, 1, "of another storm");
    }

    #[test]
    fn the_sample_grows_again_when_many_clients_are_gone() {
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
