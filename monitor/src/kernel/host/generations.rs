//! A bounded map that forgets what was not inserted for long.

use std::{collections::HashMap, hash::Hash, mem};

/// Two generations of entries. When the younger one is full, the older one is forgotten and replaced by
/// it, so the latest entries are always known and memory is bounded.
#[derive(Debug)]
pub(crate) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    /// Entries of one generation.
    size: usize,
}

impl<K: Eq + Hash, V> Generations<K, V> {
    /// Knows at least the latest `size` entries, and at most twice as many.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            size,
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.size && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_entries_are_known_and_memory_is_bounded() {
        let mut map = Generations::new(10);
        for n in 0..1_000 {
            map.insert(n, n);
            assert!(map.young.len() <= 10 && map.old.len() <= 10);
            let oldest = (n - 9).max(0);
            assert!((oldest..=n).all(|n| map.get(&n) == Some(&n)));
        }
        assert_eq!(map.get(&979), None);
        map.insert(999, 0);
        assert_eq!(map.get(&999), Some(&0), "the latest value");
    }
}
