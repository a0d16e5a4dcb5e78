//! The ages of a listener's open connections, at a cost that does not depend on their number.
//!
//! Connections are counted by the second in which TCP was established. As they get older, seconds
//! are merged into longer slots: exact ages matter for young connections only.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use super::{histogram::DurationHistogram, time::Ktime};

/// The second since boot in which a connection was established, in four bytes of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EstablishedSecond(NonZeroU32);

impl EstablishedSecond {
    pub(super) fn of(established_at: Ktime) -> Self {
        let second = established_at.0 / NANOSECONDS;
        // Exact for 136 years after boot.
        let number = u32::try_from(second + 1).unwrap_or(u32::MAX);
        Self(NonZeroU32::MIN.saturating_add(number - 1))
    }

    fn second(self) -> u32 {
        self.0.get() - 1
    }
}

/// Open connections by the time of their establishment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionAges {
    /// By the first second of each slot. Slots don't overlap. At most [`MAX_SLOTS`].
    slots: BTreeMap<u32, Slot>,
}

/// A slot is 2^`level` seconds long and begins at a multiple of its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    level: u32,
    connections: u32,
}

impl Slot {
    /// The first second after the slot.
    fn end(self, start: u32) -> u64 {
        u64::from(start) + (1 << self.level)
    }
}

impl ConnectionAges {
    pub(super) fn add(&mut self, established: EstablishedSecond) {
        let second = established.second();
        if let Some(slot) = self.slot_of(second) {
            slot.connections += 1;
            return;
        }
        if self.slots.len() == MAX_SLOTS {
            let newest = self.slots.keys().next_back().copied().unwrap_or_default();
            self.merge(newest.max(second));
        }
        // Merging may have created a slot that covers the second.
        match self.slot_of(second) {
            Some(slot) => slot.connections += 1,
            None => {
                let slot = Slot {
                    level: 0,
                    connections: 1,
                };
                self.slots.insert(second, slot);
            }
        }
    }

    /// Removes a connection that was added.
    pub(super) fn remove(&mut self, established: EstablishedSecond) {
        let Some((&start, slot)) = self.slots.range_mut(..=established.second()).next_back() else {
            return;
        };
        slot.connections -= 1;
        if slot.connections == 0 {
            self.slots.remove(&start);
        }
    }

    /// The ages at `now`, each rounded down by at most 1 s or 1/32, whichever is more.
    pub fn histogram(&self, now: Ktime) -> DurationHistogram {
        let mut ages = DurationHistogram::default();
        for (&start, slot) in &self.slots {
            let age = now.since(Ktime(slot.end(start).saturating_mul(NANOSECONDS)));
            ages.observe_many(age, slot.connections);
        }
        ages
    }

    fn slot_of(&mut self, second: u32) -> Option<&mut Slot> {
        let (&start, slot) = self.slots.range_mut(..=second).next_back()?;
        (u64::from(second) < slot.end(start)).then_some(slot)
    }

    /// Merges the slots that are old enough at `now`. Then 33 are left for each doubling of the age
    /// above 32 s, fewer than 1,000 in all.
    fn merge(&mut self, now: u32) {
        let mut merged: BTreeMap<u32, Slot> = BTreeMap::new();
        // The oldest first: the longest slots absorb the shorter ones inside them.
        for (start, mut slot) in std::mem::take(&mut self.slots) {
            if let Some((&before, last)) = merged.iter_mut().next_back()
                && u64::from(start) < last.end(before)
            {
                last.connections += slot.connections;
                continue;
            }
            let youngest = u64::from(now).saturating_sub(slot.end(start));
            let steps = u32::try_from(youngest / STEPS).unwrap_or(u32::MAX);
            slot.level = slot.level.max(steps.checked_ilog2().unwrap_or(0));
            merged.insert(start >> slot.level << slot.level, slot);
        }
        self.slots = merged;
    }
}

/// Some 40 KiB per listener, estimated from the size of the map's nodes.
const MAX_SLOTS: usize = 2048;
/// A slot is at most this part of the age of the connections in it.
const STEPS: u64 = 32;
const NANOSECONDS: u64 = Duration::from_secs(1).as_nanos() as u64;

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const WEEK: u64 = 7 * 24 * 3600;

    fn second(second: u64) -> EstablishedSecond {
        EstablishedSecond::of(Ktime(second * NANOSECONDS + 999_999_999))
    }

    /// The number of connections at most as old as `bound`.
    fn count(histogram: &DurationHistogram, bound: u64) -> u64 {
        let mut buckets = histogram.cumulative();
        buckets.find(|(at, _)| *at == bound).expect("a bound").1
    }

    #[test]
    fn a_second_is_exact_up_to_the_limits() {
        for second in [0, 1, 59, u64::from(u32::MAX) - 1] {
            let start = EstablishedSecond::of(Ktime(second * NANOSECONDS));
            assert_eq!(u64::from(start.second()), second);
        }
        let last = EstablishedSecond::of(Ktime(u64::MAX));
        assert_eq!(last.second(), u32::MAX - 1);
    }

    #[test]
    fn a_connection_ages_and_leaves() {
        let mut ages = ConnectionAges::default();
        ages.add(second(100));
        let at = |ages: &ConnectionAges, now: u64| ages.histogram(Ktime(now * NANOSECONDS));
        assert_eq!(count(&at(&ages, 100), 1), 1);
        assert_eq!(count(&at(&ages, 161), 60), 1);
        assert_eq!(count(&at(&ages, 162), 60), 0);
        assert_eq!(at(&ages, 162).sum(), Duration::from_secs(61));
        ages.remove(second(100));
        assert_eq!(ages, ConnectionAges::default());
    }

    #[test]
    fn a_week_of_connections_every_second_takes_bounded_memory() {
        let mut ages = ConnectionAges::default();
        let mut longest = 0;
        for at in 0..WEEK {
            ages.add(second(at));
            longest = longest.max(ages.slots.len());
        }
        assert_eq!(longest, MAX_SLOTS);
        let now = Ktime(WEEK * NANOSECONDS);
        let ages_now = ages.histogram(now);
        assert_eq!(ages_now.count(), WEEK);
        for (bound, found) in ages_now.cumulative().filter(|(bound, _)| *bound < WEEK) {
            assert!(found >= bound, "{found} up to {bound} s");
            let tolerated = bound + bound / (STEPS - 1) + 1;
            assert!(found <= tolerated, "{found} up to {bound} s");
        }
        ages.merge(WEEK as u32);
        assert!(ages.slots.len() < 1000, "{}", ages.slots.len());
        for at in 0..WEEK {
            ages.remove(second(at));
        }
        assert_eq!(ages, ConnectionAges::default());
    }

    proptest! {
        #[test]
        fn any_order_of_openings_ends_and_merges_counts_each_connection_once(
            steps in vec((0u64..1 << 20, any::<bool>(), 0u64..1 << 20), 1..200),
        ) {
            let mut ages = ConnectionAges::default();
            let mut open: Vec<u64> = Vec::new();
            let mut now = 0;
            for (at, ends, pick) in steps {
                if ends && !open.is_empty() {
                    let index = pick as usize % open.len();
                    ages.remove(second(open.swap_remove(index)));
                } else {
                    ages.add(second(at));
                    open.push(at);
                    now = now.max(at);
                }
                if pick % 5 == 0 {
                    ages.merge(now as u32);
                }
                let sum: u64 = ages.slots.values().map(|slot| u64::from(slot.connections)).sum();
                prop_assert_eq!(sum, open.len() as u64);
                let mut end = 0;
                for (&start, slot) in &ages.slots {
                    prop_assert!(u64::from(start) >= end, "slots overlap");
                    prop_assert_eq!(start % (1 << slot.level), 0);
                    end = slot.end(start);
                    let inside = open.iter().filter(|at| (u64::from(start)..end).contains(at));
                    prop_assert_eq!(inside.count() as u64, u64::from(slot.connections));
                }
            }
            for at in open {
                ages.remove(second(at));
            }
            prop_assert_eq!(ages, ConnectionAges::default());
        }
    }
}
