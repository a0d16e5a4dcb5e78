//! Hierarchical timer wheel: O(1) to arm, exact to the nanosecond, nothing to cancel.
//!
//! An entry that is no longer wanted stays until it is due; its owner recognises it by its
//! generation. That keeps an entry at 24 bytes and the wheel free of back-pointers.

use std::mem;

use super::{facts::ConnId, time::Ktime};

/// A scheduled check of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WheelEntry {
    pub(super) deadline: Ktime,
    pub(super) conn: ConnId,
    pub(super) generation: u32,
}

/// Entries ordered by deadline, in eight levels of 64 slots.
///
/// A slot of level 0 covers one tick, a slot of level n + 1 a whole turn of level n. An entry is on
/// the level of the highest base-64 digit in which its tick differs from `elapsed`, so every entry
/// on a lower level is due earlier than any on a higher one.
#[derive(Debug)]
pub(super) struct Wheel {
    levels: Vec<Level>,
    /// The tick from which slots are counted; never ahead of the current time.
    elapsed: u64,
    len: usize,
}

impl Wheel {
    pub(super) fn new() -> Self {
        let levels = (0..LEVELS).map(|_| Level::default()).collect();
        Self {
            levels,
            elapsed: 0,
            len: 0,
        }
    }

    /// Adds an entry; a deadline in the past is due at the next [`Wheel::expire`].
    pub(super) fn insert(&mut self, entry: WheelEntry) {
        self.len += 1;
        self.place(entry);
    }

    /// The earliest deadline, exactly.
    pub(super) fn next_deadline(&self) -> Option<Ktime> {
        self.first_slot()
            .map(|(level, slot)| self.levels[level].slots[slot].earliest)
    }

    /// Removes all entries due at `now`, by deadline and then in the order of insertion.
    pub(super) fn expire(&mut self, now: Ktime) -> Vec<WheelEntry> {
        let mut due = Vec::new();
        while let Some((level, slot)) = self.first_slot() {
            if self.levels[level].slots[slot].earliest > now {
                break;
            }
            // The first slot is the earliest of all, so moving there skips nothing.
            self.elapsed = self.slot_start(level, slot);
            for entry in self.levels[level].take(slot) {
                if entry.deadline <= now {
                    due.push(entry);
                } else {
                    self.place(entry);
                }
            }
        }
        self.len -= due.len();
        if self.len == 0 {
            self.elapsed = self.elapsed.max(tick(now));
        }
        // Stable, and entries with equal deadlines always share a slot: ties keep their order.
        due.sort_by_key(|entry| entry.deadline);
        due
    }

    fn place(&mut self, entry: WheelEntry) {
        let tick = tick(entry.deadline).max(self.elapsed);
        let highest_bit = 63 - ((tick ^ self.elapsed) | SLOT_MASK).leading_zeros();
        let level = highest_bit / SLOT_BITS;
        let slot = (tick >> (level * SLOT_BITS)) & SLOT_MASK;
        self.levels[level as usize].push(slot as usize, entry);
    }

    fn first_slot(&self) -> Option<(usize, usize)> {
        let (level, occupied) = self
            .levels
            .iter()
            .map(|level| level.occupied)
            .enumerate()
            .find(|(_, bits)| *bits != 0)?;
        Some((level, occupied.trailing_zeros() as usize))
    }

    fn slot_start(&self, level: usize, slot: usize) -> u64 {
        let shift = level as u32 * SLOT_BITS;
        let above = self.elapsed >> (shift + SLOT_BITS);
        ((above << SLOT_BITS) | slot as u64) << shift
    }
}

#[derive(Debug)]
struct Level {
    /// One bit per slot that is not empty.
    occupied: u64,
    slots: [WheelSlot; SLOTS],
}

impl Level {
    fn push(&mut self, slot: usize, entry: WheelEntry) {
        self.occupied |= 1 << slot;
        let slot = &mut self.slots[slot];
        slot.earliest = slot.earliest.min(entry.deadline);
        slot.entries.push(entry);
    }

    fn take(&mut self, slot: usize) -> Vec<WheelEntry> {
        self.occupied &= !(1 << slot);
        mem::take(&mut self.slots[slot]).entries
    }
}

impl Default for Level {
    fn default() -> Self {
        Self {
            occupied: 0,
            slots: std::array::from_fn(|_| WheelSlot::default()),
        }
    }
}

#[derive(Debug)]
struct WheelSlot {
    entries: Vec<WheelEntry>,
    earliest: Ktime,
}

impl Default for WheelSlot {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            earliest: Ktime::NEVER,
        }
    }
}

fn tick(at: Ktime) -> u64 {
    at.0 >> TICK_BITS
}

/// One tick is 2^20 ns, about a millisecond. It distributes entries and does not round deadlines.
const TICK_BITS: u32 = 20;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const SLOT_MASK: u64 = SLOTS as u64 - 1;
/// Enough for every `u64` of nanoseconds, so that no deadline needs a special case.
const LEVELS: usize = (u64::BITS - TICK_BITS).div_ceil(SLOT_BITS) as usize;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn entry(deadline: u64, conn: u64) -> WheelEntry {
        WheelEntry {
            deadline: Ktime(deadline),
            conn: ConnId(conn),
            generation: 0,
        }
    }

    fn conns(due: &[WheelEntry]) -> Vec<u64> {
        due.iter().map(|entry| entry.conn.0).collect()
    }

    #[test]
    fn an_entry_costs_24_bytes() {
        assert_eq!(size_of::<WheelEntry>(), 24);
    }

    #[test]
    fn entries_come_out_by_deadline_and_then_by_insertion() {
        let mut wheel = Wheel::new();
        for (deadline, conn) in [
            (9_000_000_000, 1),
            (5, 2),
            (9_000_000_000, 3),
            (7_000_000, 4),
        ] {
            wheel.insert(entry(deadline, conn));
        }
        assert_eq!(conns(&wheel.expire(Ktime(9_000_000_000))), [2, 4, 1, 3]);
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn an_entry_is_not_due_one_nanosecond_before_its_deadline() {
        let mut wheel = Wheel::new();
        wheel.insert(entry(6_000_000_001, 1));
        assert_eq!(wheel.next_deadline(), Some(Ktime(6_000_000_001)));
        assert!(wheel.expire(Ktime(6_000_000_000)).is_empty());
        assert_eq!(conns(&wheel.expire(Ktime(6_000_000_001))), [1]);
    }

    #[test]
    fn a_deadline_in_the_past_is_due_at_once() {
        let mut wheel = Wheel::new();
        wheel.insert(entry(50_000_000_000, 1));
        wheel.expire(Ktime(50_000_000_000));
        wheel.insert(entry(3, 2));
        assert_eq!(wheel.next_deadline(), Some(Ktime(3)));
        assert_eq!(conns(&wheel.expire(Ktime(50_000_000_000))), [2]);
    }

    #[test]
    fn the_last_moment_of_time_has_a_slot() {
        let mut wheel = Wheel::new();
        wheel.insert(entry(u64::MAX, 1));
        wheel.insert(entry(0, 2));
        assert_eq!(conns(&wheel.expire(Ktime(u64::MAX - 1))), [2]);
        assert_eq!(conns(&wheel.expire(Ktime(u64::MAX))), [1]);
    }

    #[derive(Clone, Debug)]
    enum Op {
        /// A deadline this far from now, which may lie in the past.
        Insert(i64),
        Advance(u64),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let distance = prop_oneof![
            -5_000_000_000i64..5_000_000_000,
            0i64..200_000_000_000_000,
            0i64..4
        ];
        let step = prop_oneof![
            0u64..3_000_000,
            0u64..90_000_000_000,
            0u64..1_000_000_000_000_000
        ];
        let op = prop_oneof![3 => distance.prop_map(Op::Insert), 2 => step.prop_map(Op::Advance)];
        prop::collection::vec(op, 1..80)
    }

    proptest! {
        #[test]
        fn behaves_like_a_sorted_map(start in 0u64..1 << 50, ops in ops()) {
            let mut wheel = Wheel::new();
            let mut model = BTreeMap::new();
            let mut now = start;
            for (conn, op) in (0u64..).zip(ops) {
                match op {
                    Op::Insert(distance) => {
                        let deadline = now.saturating_add_signed(distance);
                        wheel.insert(entry(deadline, conn));
                        model.insert((deadline, conn), conn);
                    }
                    Op::Advance(step) => {
                        now += step;
                        let later = model.split_off(&(now + 1, 0));
                        let due: Vec<u64> = mem::replace(&mut model, later).into_values().collect();
                        prop_assert_eq!(conns(&wheel.expire(Ktime(now))), due);
                    }
                }
                let next = model.keys().next().map(|(deadline, _)| Ktime(*deadline));
                prop_assert_eq!(wheel.next_deadline(), next);
            }
        }
    }
}
