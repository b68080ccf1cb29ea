//! Store: the map under the tree, with a journal of old values for a multi that fails half way.

use std::borrow::Cow;
use std::ops::Range;

use crate::btree::{Cursor, Map, View};

/// The head of the map, and how to get back to the savepoint.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) map: Map,
    journal: Journal,
}

/// What was overwritten since the savepoint, oldest first. Memory is kept from use to use.
#[derive(Debug, Default)]
struct Journal {
    is_active: bool,
    bytes: Vec<u8>,
    entries: Vec<Undo>,
}

#[derive(Debug)]
struct Undo {
    key: Range<usize>,
    /// None if there was no entry.
    value: Option<Range<usize>>,
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
        for undo in self.journal.entries.iter().rev() {
            let key = &self.journal.bytes[undo.key.clone()];
            match &undo.value {
                Some(value) => self.map.put(key, &self.journal.bytes[value.clone()]),
                None => {
                    self.map.delete(key);
                }
            }
        }
        self.journal.clear();
    }

    fn record(&mut self, key: &[u8]) {
        if self.journal.is_active {
            let old = self.map.get(key);
            self.journal.push(key, old.as_deref());
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
    fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        let bytes = &mut self.bytes;
        let mut append = |part: &[u8]| {
            let start = bytes.len();
            bytes.extend_from_slice(part);
            start..bytes.len()
        };
        let key = append(key);
        let value = value.map(append);
        self.entries.push(Undo { key, value });
    }

    fn clear(&mut self) {
        self.is_active = false;
        self.bytes.clear();
        self.entries.clear();
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
