//! Store: the map under the tree, with a journal of old values for a multi that fails half way.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::btree::{Cursor, Map, View};

/// The head of the map, and how to get back to the savepoint.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) map: Map,
    journal: Journal,
}

/// What was overwritten since the savepoint: each key once, with the value that it had then, or
/// none. A multi may write one key any number of times.
#[derive(Debug, Default)]
struct Journal {
    is_active: bool,
    before: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Store {
    pub(super) fn new(map: Map) -> Self {
        Self { map, journal: Journal::default() }
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) {
        self.record(key);
        self.map.put(key, value);
    }

    pub(super) fn delete(&mut self, key: &[u8]) -> bool {
        self.record(key);
        self.map.delete(key)
    }

    /// Begins to keep what is overwritten.
    pub(super) fn savepoint(&mut self) {
        assert!(!self.journal.is_active, "savepoints do not nest");
        self.journal.is_active = true;
    }

    pub(super) fn is_in_savepoint(&self) -> bool {
        self.journal.is_active
    }

    /// Ends the savepoint, keeping the changes.
    pub(super) fn release(&mut self) {
        assert!(self.journal.is_active, "there is a savepoint to release");
        self.journal.clear();
    }

    /// Ends the savepoint, undoing the changes.
    pub(super) fn rollback(&mut self) {
        assert!(self.journal.is_active, "there is a savepoint to return to");
        for (key, value) in &self.journal.before {
            match value {
                Some(value) => self.map.put(key, value),
                None => {
                    self.map.delete(key);
                }
            }
        }
        self.journal.clear();
    }

    fn record(&mut self, key: &[u8]) {
        if self.journal.is_active && !self.journal.before.contains_key(key) {
            let value = self.map.get(key).map(Cow::into_owned);
            self.journal.before.insert(key.to_vec(), value);
        }
    }
}

impl View for Store {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        self.map.get(key)
    }

    fn cursor(&self, from: &[u8]) -> Cursor<'_> {
        self.map.cursor(from)
    }
}

impl Journal {
    fn clear(&mut self) {
        self.is_active = false;
        self.before.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_brings_back_old_values_and_their_absence() {
        let mut store = Store::default();
        store.put(b"a", b"1");
        store.savepoint();
        store.put(b"a", b"2");
        store.put(b"b", b"3");
        store.delete(b"a");
        store.put(b"a", b"4");
        store.rollback();
        assert_eq!(store.get(b"a").as_deref(), Some(&b"1"[..]));
        assert_eq!(store.get(b"b"), None);
    }

    #[test]
    fn a_key_that_is_written_again_and_again_is_kept_once() {
        let mut store = Store::default();
        store.put(b"a", &[1; 10_000]);
        store.savepoint();
        for value in 0..100 {
            store.put(b"a", &[value; 10_000]);
        }
        assert_eq!(store.journal.before.len(), 1);
        store.rollback();
        assert!(store.journal.before.is_empty());
        assert_eq!(store.get(b"a").as_deref(), Some(&[1; 10_000][..]));
    }

    #[test]
    fn a_release_keeps_the_changes() {
        let mut store = Store::default();
        store.savepoint();
        store.put(b"a", b"1");
        store.release();
        store.savepoint();
        store.delete(b"a");
        store.rollback();
        assert_eq!(store.get(b"a").as_deref(), Some(&b"1"[..]));
    }
}
