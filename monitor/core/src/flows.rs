//! The dense table of flows, indexed by socket cookie.

use hashbrown::HashTable;

use super::{facts::ConnId, flow::TrackedFlow};

/// The flows are stored densely and the hash table holds only their indices. Its empty slots, at
/// times more than half of all, cost 5 bytes each instead of a flow.
#[derive(Debug, Default)]
pub(super) struct Flows {
    flows: Vec<(ConnId, TrackedFlow)>,
    indices: HashTable<u32>,
}

impl Flows {
    pub(super) fn get(&self, conn: ConnId) -> Option<&TrackedFlow> {
        let index = self.index(conn)?;
        self.flows.get(index).map(|(_, flow)| flow)
    }

    pub(super) fn get_mut(&mut self, conn: ConnId) -> Option<&mut TrackedFlow> {
        let index = self.index(conn)?;
        self.flows.get_mut(index).map(|(_, flow)| flow)
    }

    pub(super) fn contains(&self, conn: ConnId) -> bool {
        self.index(conn).is_some()
    }

    /// Inserts a flow that is not yet in the table.
    pub(super) fn insert(&mut self, conn: ConnId, flow: TrackedFlow) {
        // Lossless: four billion sockets do not fit into memory.
        let index = self.flows.len() as u32;
        self.flows.push((conn, flow));
        let flows = &self.flows;
        self.indices
            .insert_unique(hash(conn), index, |&i| hash(flows[i as usize].0));
    }

    pub(super) fn remove(&mut self, conn: ConnId) -> Option<TrackedFlow> {
        let flows = &self.flows;
        let entry = self
            .indices
            .find_entry(hash(conn), |&i| flows[i as usize].0 == conn);
        let (index, _) = entry.ok()?.remove();
        // The last flow moves to the free index.
        let last = self.flows.len() as u32 - 1;
        let (_, flow) = self.flows.swap_remove(index as usize);
        if let Some((moved, _)) = self.flows.get(index as usize)
            && let Some(it) = self.indices.find_mut(hash(*moved), |&i| i == last)
        {
            *it = index;
        }
        Some(flow)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnId, &TrackedFlow)> {
        self.flows.iter().map(|(conn, flow)| (*conn, flow))
    }

    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    fn index(&self, conn: ConnId) -> Option<usize> {
        let found = self
            .indices
            .find(hash(conn), |&i| self.flows[i as usize].0 == conn);
        found.map(|&index| index as usize)
    }
}

/// The kernel counts cookies up, so an attacker cannot choose them: spreading them is enough.
fn hash(conn: ConnId) -> u64 {
    let product = u128::from(conn.0) * u128::from(GOLDEN_RATIO);
    (product >> 64) as u64 ^ product as u64
}

/// 2^64 divided by the golden ratio: consecutive values end up far apart.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{facts::Facts, history::History, time::Ktime};

    #[test]
    fn consecutive_cookies_are_spread() {
        let mut table = HashTable::new();
        for cookie in 0..1_000 {
            table.insert_unique(hash(ConnId(cookie)), cookie, |&c| hash(ConnId(c)));
        }
        let longest = (0..1_000).map(|cookie| table.iter_hash(hash(ConnId(cookie))).count());
        // The table compares seven bits of the hash before it compares a key.
        assert!(longest.max() < Some(12));
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(steps in vec((any::<bool>(), 0u64..24), 0..200)) {
            let mut flows = Flows::default();
            let mut model = BTreeMap::new();
            for (step, (insert, cookie)) in (1u64..).zip(steps) {
                let conn = ConnId(cookie);
                if insert && !flows.contains(conn) {
                    let facts = Facts::just_opened(cookie, Ktime(step));
                    flows.insert(conn, TrackedFlow::new(&facts, &mut History::default()));
                    model.insert(conn, Ktime(step));
                } else if !insert {
                    let removed = flows.remove(conn).map(|flow| flow.first_seen);
                    prop_assert_eq!(removed, model.remove(&conn));
                }
                prop_assert_eq!(flows.len(), model.len());
                let held: BTreeMap<_, _> = flows.iter().map(|(c, f)| (c, f.first_seen)).collect();
                prop_assert_eq!(&held, &model);
                for cookie in 0..24 {
                    let found = flows.get(ConnId(cookie)).map(|flow| flow.first_seen);
                    prop_assert_eq!(found, model.get(&ConnId(cookie)).copied());
                }
            }
        }
    }
}
