//! The versioned map: ordered byte keys to byte values, one writer, any number of held versions.
//!
//! It is a copy-on-write B+tree of fixed-size pages (`pages`). The writer changes the *head*;
//! freezing the head gives a [`Version`], which any thread may read as long as it holds it,
//! without locks and without waiting. Writes after a freeze copy what they change.
//!
//! Keys have at most [`KEY_BYTES_MAX`] bytes: the layer above sees to that. Values of any length
//! up to 4 GiB are accepted; those of more than about 1 KiB are kept in pages of their own.

mod check;
mod cursor;
mod file;
mod finger;
mod gather;
mod node;
mod overflow;
mod root;
#[cfg(test)]
mod tests;
mod walk;
mod write;

use std::borrow::Cow;
use std::fmt;
use std::io;

pub use check::{CheckError, Problem, TreeStats};
pub use cursor::Cursor;
pub(crate) use file::{FilePage, check_file_page, write_node, write_overflow};
pub use node::KEY_BYTES_MAX;

use crate::pages::{self, Growth, HoldRef, Loader, PageStats, Store};
use crate::snapshot::Snapshot;
use crate::zxid::Zxid;
use root::Root;
use write::Tree;

/// Read access to one state of the map: the writer's head, or a version.
pub trait View {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>>;

    /// Entries from the first key that is not below `from`, in ascending order.
    fn cursor(&self, from: &[u8]) -> Cursor<'_>;
}

/// The map's single writer, and its head: the state that includes every write so far.
pub struct Map {
    tree: Tree,
}

/// A frozen state of the map. Cheap to clone; as long as one clone lives, its pages stay.
#[derive(Clone)]
pub struct Version {
    hold: HoldRef,
}

impl Map {
    /// An empty map.
    pub fn new() -> Self {
        Self { tree: Tree::new(Store::new(None)) }
    }

    /// Whether the kernel has addresses for a map. It is asked again, and must have them, whenever
    /// a map needs more of them.
    pub fn check_room() -> io::Result<()> {
        pages::check_room()
    }

    /// The map of a snapshot. Its blocks should have been checked: a damaged page that is met
    /// later ends the process.
    pub fn open(snapshot: Snapshot) -> Self {
        let (pages, root) = snapshot.into_pages();
        Self { tree: Tree::open(Store::new(Some(pages)), root) }
    }

    /// Inserts or replaces.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.tree.put(key, value);
    }

    /// Removes; whether there was something to remove.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        self.tree.delete(key)
    }

    /// Freezes the head as a version that ends with `zxid`; later writes go to new pages.
    /// Includes a [`Map::reclaim`].
    pub fn freeze(&mut self, zxid: Zxid) -> Version {
        Version { hold: self.tree.freeze(zxid) }
    }

    /// Drops every write after `version` was frozen. The head must have come from that version:
    /// there is no way back to a version that a rollback dropped, though it can still be read.
    pub fn rollback(&mut self, version: &Version) {
        self.tree.forget();
        let born_later = self.tree.born_after(version.number());
        self.tree.store.roll_back(&version.hold, &born_later);
        self.tree.root = version.hold.root;
    }

    /// Makes the pages of versions that nobody holds any more available for writes.
    pub fn reclaim(&mut self) {
        self.tree.store.reclaim();
    }

    /// How many pages there are, and what they are doing.
    pub fn page_stats(&self) -> PageStats {
        self.tree.store.stats()
    }

    /// Lets a background thread provide memory ahead of the writer.
    pub fn growth(&self) -> Growth {
        self.tree.store.growth()
    }

    /// Lets a background thread move the pages of a snapshot into memory.
    pub fn loader(&self) -> Loader {
        self.tree.store.loader()
    }

    fn root(&self) -> Root<'_> {
        self.tree.view()
    }
}

impl Default for Map {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (root, making) = (self.tree.root, self.tree.store.current());
        f.debug_struct("Map").field("root", &root).field("making", &making).finish()
    }
}

impl Version {
    /// The last transaction that it includes.
    pub fn zxid(&self) -> Zxid {
        self.hold.zxid
    }

    /// Counts the versions of this map; never reused, also not after a rollback.
    pub fn number(&self) -> u64 {
        self.hold.number
    }

    /// Walks the whole tree and proves its invariants.
    pub fn check(&self) -> Result<TreeStats, CheckError> {
        check::tree(self.root())
    }

    fn root(&self) -> Root<'_> {
        Root { pages: &self.hold.pages, page: self.hold.root }
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, zxid) = (self.number(), self.zxid());
        f.debug_struct("Version").field("number", &number).field("zxid", &zxid).finish()
    }
}

impl View for Map {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        self.tree.get(key)
    }

    fn cursor(&self, from: &[u8]) -> Cursor<'_> {
        Cursor::new(self.root(), from)
    }
}

impl View for Version {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        self.root().get(key)
    }

    fn cursor(&self, from: &[u8]) -> Cursor<'_> {
        Cursor::new(self.root(), from)
    }
}
