//! The versioned map: ordered byte keys to byte values, one writer, any number of held versions.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::zxid::Zxid;

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// Read access to one state of the map: the writer's head, or a version.
pub trait View {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>>;

    /// Entries from the first key that is not below `from`, in ascending order.
    fn cursor(&self, from: &[u8]) -> Cursor<'_>;
}

/// The map's single writer, and its head: the state that includes every write so far.
#[derive(Debug, Default)]
pub struct Map {
    head: Arc<Entries>,
    versions: u64,
}

/// A frozen state of the map. Cheap to clone; as long as one clone lives, its pages stay.
#[derive(Clone, Debug)]
pub struct Version {
    entries: Arc<Entries>,
    zxid: Zxid,
    number: u64,
}

/// Walks entries in ascending order of keys.
#[derive(Debug)]
pub struct Cursor<'a> {
    range: std::collections::btree_map::Range<'a, Vec<u8>, Vec<u8>>,
}

impl Map {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Inserts or replaces.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        Arc::make_mut(&mut self.head).insert(key.to_vec(), value.to_vec());
    }

    /// Removes; whether there was something to remove.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        Arc::make_mut(&mut self.head).remove(key).is_some()
    }

    /// Freezes the head as a version that ends with `zxid`; later writes go to new pages.
    pub fn freeze(&mut self, zxid: Zxid) -> Version {
        self.versions += 1;
        Version { entries: Arc::clone(&self.head), zxid, number: self.versions }
    }

    /// Drops every write after `version` was frozen.
    pub fn rollback(&mut self, version: &Version) {
        self.head = Arc::clone(&version.entries);
    }
}

impl Version {
    /// The last transaction that it includes.
    pub fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// Counts the versions of this map; never reused, also not after a rollback.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl View for Map {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        self.head.get(key).map(|value| Cow::Borrowed(value.as_slice()))
    }

    fn cursor(&self, from: &[u8]) -> Cursor<'_> {
        Cursor { range: self.head.range(from.to_vec()..) }
    }
}

impl View for Version {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        self.entries.get(key).map(|value| Cow::Borrowed(value.as_slice()))
    }

    fn cursor(&self, from: &[u8]) -> Cursor<'_> {
        Cursor { range: self.entries.range(from.to_vec()..) }
    }
}

impl Cursor<'_> {
    /// The next entry; what it lends is valid until the next call.
    pub fn next_entry(&mut self) -> Option<(&[u8], Cow<'_, [u8]>)> {
        self.range.next().map(|(key, value)| (key.as_slice(), Cow::Borrowed(value.as_slice())))
    }
}
