//! Strings that many connections share, stored once.

use std::{
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
};

use hashbrown::HashTable;

/// A string in [`Interner`]: its index, counted from 1. Not `Copy`, because each must be released.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Symbol(NonZeroU32);

impl Symbol {
    fn at(slot_index: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(slot_index))
    }

    fn slot_index(&self) -> u32 {
        self.0.get() - 1
    }
}

/// A table of strings, each with the number of its holders.
///
/// Peers choose the strings, so the hash is keyed, and a string is freed with its last holder. The
/// overhead of a string is about 40 bytes.
#[derive(Debug, Default)]
pub(super) struct Interner {
    slots: Vec<InternedString>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: RandomState,
}

#[derive(Debug)]
struct InternedString {
    text: Box<str>,
    holders: u32,
}

impl Interner {
    /// Adds a holder of `text`, until [`Interner::release`].
    pub(super) fn intern(&mut self, text: &str) -> Symbol {
        let slots = &mut self.slots;
        let hash = self.hasher.hash_one(text);
        if let Some(&slot_index) = self.index.find(hash, |&i| *slots[i as usize].text == *text) {
            slots[slot_index as usize].holders += 1;
            return Symbol::at(slot_index);
        }
        let slot = InternedString {
            text: text.into(),
            holders: 1,
        };
        let slot_index = match self.free.pop() {
            Some(slot_index) => {
                slots[slot_index as usize] = slot;
                slot_index
            }
            None => {
                slots.push(slot);
                // Lossless: four billion distinct strings do not fit into memory.
                (slots.len() - 1) as u32
            }
        };
        let hasher = &self.hasher;
        self.index.insert_unique(hash, slot_index, |&i| {
            hasher.hash_one(&*slots[i as usize].text)
        });
        Symbol::at(slot_index)
    }

    pub(super) fn get(&self, symbol: &Symbol) -> &str {
        &self.slots[symbol.slot_index() as usize].text
    }

    pub(super) fn release(&mut self, symbol: Symbol) {
        let slot_index = symbol.slot_index();
        let slot = &mut self.slots[slot_index as usize];
        slot.holders -= 1;
        if slot.holders > 0 {
            return;
        }
        let hash = self.hasher.hash_one(&*slot.text);
        if let Ok(entry) = self.index.find_entry(hash, |&i| i == slot_index) {
            entry.remove();
        }
        slot.text = Box::default();
        self.free.push(slot_index);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    proptest! {
        #[test]
        fn every_symbol_is_its_string_until_its_release(
            steps in vec((any::<bool>(), "[a-c]{0,2}", any::<Index>()), 0..200),
        ) {
            let mut interner = Interner::default();
            let mut held: Vec<(Symbol, String)> = Vec::new();
            for (intern, text, index) in steps {
                if intern || held.is_empty() {
                    held.push((interner.intern(&text), text));
                } else {
                    let (symbol, _) = held.swap_remove(index.index(held.len()));
                    interner.release(symbol);
                }
                let different: BTreeMap<_, _> = held.iter().map(|(s, t)| (t, s)).collect();
                prop_assert_eq!(interner.len(), different.len());
                for (symbol, text) in &held {
                    prop_assert_eq!(interner.get(symbol), text);
                }
                prop_assert!(interner.slots.len() <= 13, "slots are reused");
            }
        }
    }
}
