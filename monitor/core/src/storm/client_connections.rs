//! The number of open connections of each client of a listener.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
};

use hashbrown::HashTable;

/// An open connection's reference to the entry of its client: its index, counted from 1. Not
/// `Copy`, because each must be released.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientSlot(NonZeroU32);

impl ClientSlot {
    fn at(slot_index: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(slot_index))
    }

    fn slot_index(&self) -> u32 {
        self.0.get() - 1
    }
}

/// Exact, unlike [`Clients`](super::clients::Clients). Its size follows the number of connected
/// clients: an entry of about 30 bytes is removed with the last connection of its client.
#[derive(Debug, Default)]
pub(super) struct ClientConnections {
    slots: Vec<ClientEntry>,
    free: Vec<u32>,
    /// The indices of entries by the hash of their client.
    index: HashTable<u32>,
}

#[derive(Debug)]
struct ClientEntry {
    /// IPv4 as a mapped address, which is smaller than an [`IpAddr`].
    client: Ipv6Addr,
    open: u32,
}

impl ClientConnections {
    /// Counts a connection. `hash_of` is the keyed hash of a client.
    pub(super) fn open(&mut self, client: IpAddr, hash_of: impl Fn(IpAddr) -> u64) -> ClientSlot {
        if let Some(slot_index) = self.slot_index(client, hash_of(client)) {
            self.slots[slot_index as usize].open += 1;
            return ClientSlot::at(slot_index);
        }
        let entry = ClientEntry {
            client: mapped(client),
            open: 1,
        };
        let slot_index = match self.free.pop() {
            Some(slot_index) => {
                self.slots[slot_index as usize] = entry;
                slot_index
            }
            None => {
                self.slots.push(entry);
                // Lossless: four billion sockets do not fit into memory.
                (self.slots.len() - 1) as u32
            }
        };
        let slots = &self.slots;
        self.index
            .insert_unique(hash_of(client), slot_index, |slot_index| {
                hash_of(slots[*slot_index as usize].client.to_canonical())
            });
        ClientSlot::at(slot_index)
    }

    /// Removes a connection that was counted.
    pub(super) fn close(&mut self, slot: ClientSlot, hash_of: impl Fn(IpAddr) -> u64) {
        let slot_index = slot.slot_index();
        let entry = &mut self.slots[slot_index as usize];
        entry.open -= 1;
        if entry.open > 0 {
            return;
        }
        let hash = hash_of(entry.client.to_canonical());
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == slot_index) {
            entry.remove();
        }
        self.free.push(slot_index);
    }

    pub(super) fn count(&self, client: IpAddr, hash: u64) -> u64 {
        self.slot_index(client, hash)
            .map_or(0, |slot_index| self.slots[slot_index as usize].open.into())
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<ClientEntry>()
            + self.free.capacity() * size_of::<u32>()
            + self.index.allocation_size()
    }

    fn slot_index(&self, client: IpAddr, hash: u64) -> Option<u32> {
        let client = mapped(client);
        let is_it = |slot_index: &u32| self.slots[*slot_index as usize].client == client;
        self.index.find(hash, is_it).copied()
    }
}

fn mapped(client: IpAddr) -> Ipv6Addr {
    match client {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::Ipv4Addr};

    use proptest::prelude::*;

    use super::*;

    fn hash(client: IpAddr) -> u64 {
        let IpAddr::V4(v4) = client else { return 7 };
        u64::from(u32::from(v4)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from(n).into()
    }

    #[test]
    fn memory_grows_with_connected_clients_and_not_with_all_earlier_ones() {
        let mut table = ClientConnections::default();
        let mut bytes = 0;
        for round in 0..50 {
            let clients = (0..1_000).map(|n| address(round * 1_000 + n));
            let slots: Vec<_> = clients.map(|client| table.open(client, hash)).collect();
            assert_eq!(table.slots.len(), 1_000);
            slots.into_iter().for_each(|slot| table.close(slot, hash));
            match round {
                0 => bytes = table.bytes(),
                _ => assert_eq!(table.bytes(), bytes),
            }
        }
    }

    proptest! {
        #[test]
        fn counts_like_a_map(steps in prop::collection::vec((any::<bool>(), 0..12_u32), 0..200)) {
            let mut table = ClientConnections::default();
            let mut slots: BTreeMap<u32, Vec<ClientSlot>> = BTreeMap::new();
            for (opens, n) in steps {
                match (opens, slots.entry(n).or_default()) {
                    (true, slots) => slots.push(table.open(address(n), hash)),
                    (false, slots) => if let Some(slot) = slots.pop() {
                        table.close(slot, hash);
                    }
                }
                for (n, slots) in &slots {
                    let client = address(*n);
                    prop_assert_eq!(table.count(client, hash(client)), slots.len() as u64);
                }
            }
        }
    }
}
