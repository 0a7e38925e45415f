//! A map that can be asked and never walked.
//!
//! A `HashMap` is the fastest way from an id to a place in memory, and its iteration order is an
//! accident. This wrapper keeps the one and leaves out the other, so that no order of a hash map
//! can ever decide anything in this crate. It is the only file that may name one. Its hash is
//! seeded anew in each process: nobody can choose keys that collide, and nothing can depend on it.

use foldhash::fast::RandomState;
use std::{borrow::Borrow, collections::HashMap, hash::Hash};

#[derive(Debug, Clone)]
pub(crate) struct Index<K, V> {
    map: HashMap<K, V, RandomState>,
}

impl<K, V> Default for Index<K, V> {
    fn default() -> Index<K, V> {
        Index { map: HashMap::default() }
    }
}

impl<K: Hash + Eq, V: Copy> Index<K, V> {
    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.map.get(key).copied()
    }

    /// The value of a key, made if there is none.
    pub(crate) fn get_or_insert(&mut self, key: K, make: impl FnOnce() -> V) -> V {
        *self.map.entry(key).or_insert_with(make)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.map.insert(key, value);
    }

    /// Forgets a key, and gives the memory of a burst back once it is over.
    pub(crate) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.map.remove(key);
        if self.map.capacity() > 4096 && self.map.len() < self.map.capacity() / 16 {
            self.map.shrink_to(self.map.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_gives_its_memory_back() {
        let mut index = Index::default();
        for n in 0..100_000_u32 {
            index.insert(n, n);
        }
        for n in 0..100_000_u32 {
            index.remove(&n);
        }
        assert_eq!(index.map.len(), 0);
        assert!(index.map.capacity() <= 8192, "{}", index.map.capacity());
    }
}
