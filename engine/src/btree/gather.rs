//! Entries on their way from overfull or underfull pages to new ones: gather, cut, build.
//!
//! All restructuring of the tree goes this one way, whatever the reason: an entry that does not
//! fit, a prefix that must become shorter, two pages that share their entries or become one. The
//! number of pages that result is found out, not assumed: a shorter prefix makes every entry of
//! its page longer.
//!
//! For a branch, the first entry's key is not kept in the page: its child is the leftmost. When
//! a branch is cut, the key of the first entry of each part is the separator that moves up.

use std::ops::Range;

use super::node::{
    CELL_HEADER_BYTES, ENTRY_BYTES, HEAD_BYTES, NOWHERE, Node, NodeMut, ROOM, Value,
};
use crate::pages::Body;

/// Entries in ascending order of keys, all of one level.
#[derive(Default)]
pub(crate) struct Gather {
    level: u8,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Which entry is a new one, if any.
    new: Option<usize>,
}

#[derive(Clone, Copy)]
struct Entry {
    key: usize,
    value: usize,
    end: usize,
    large: bool,
}

impl Gather {
    /// Forgets everything; what follows is of `level`.
    pub(crate) fn clear(&mut self, level: u8) {
        self.level = level;
        self.bytes.clear();
        self.entries.clear();
        self.new = None;
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn entry(&mut self, key: &[u8], value: Value<'_>) -> Entry {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(value.bytes);
        Entry { key: start, value: middle, end: self.bytes.len(), large: value.large }
    }

    /// Appends all entries of a page. `separator` is the key of the leftmost child of a branch.
    pub(crate) fn push_node(&mut self, node: Node<'_>, separator: &[u8]) {
        assert_eq!(node.level(), self.level);
        if !node.is_leaf() {
            let child = node.child(0).to_le_bytes();
            let entry = self.entry(separator, Value { bytes: &child, large: false });
            self.entries.push(entry);
        }
        for index in 0..node.count() {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(node.prefix());
            let cell = node.push_suffix(index, &mut self.bytes);
            let middle = self.bytes.len();
            self.bytes.extend_from_slice(cell.value);
            let end = self.bytes.len();
            self.entries.push(Entry { key: start, value: middle, end, large: cell.large });
        }
    }

    /// Inserts the entry that all this is about.
    pub(crate) fn insert(&mut self, index: usize, key: &[u8], value: Value<'_>) {
        let entry = self.entry(key, value);
        self.entries.insert(index, entry);
        self.new = Some(index);
    }

    /// Replaces the value of an entry.
    pub(crate) fn replace(&mut self, index: usize, value: Value<'_>) {
        let old = self.entries[index];
        let key = self.bytes[old.key..old.value].to_vec();
        self.entries[index] = self.entry(&key, value);
    }

    pub(crate) fn key(&self, index: usize) -> &[u8] {
        let entry = self.entries[index];
        &self.bytes[entry.key..entry.value]
    }

    fn value(&self, index: usize) -> Value<'_> {
        let entry = self.entries[index];
        Value { bytes: &self.bytes[entry.value..entry.end], large: entry.large }
    }

    /// The shortest key that separates an entry from the one before it.
    pub(crate) fn separator(&self, index: usize) -> &[u8] {
        let key = self.key(index);
        if self.level > 0 {
            return key;
        }
        &key[..=common(self.key(index - 1), key)]
    }

    /// The entries of a part that are entries of its page.
    fn keyed(&self, part: &Range<usize>) -> Range<usize> {
        part.start + usize::from(self.level > 0)..part.end
    }

    /// How much the keys of a part share.
    fn prefix_len(&self, part: &Range<usize>) -> usize {
        let keyed = self.keyed(part);
        match keyed.len() {
            0 => 0,
            // One key alone shares everything with itself. What it shares with the one before
            // says better what later ones will share with it.
            1 if keyed.start == 0 => 0,
            1 => common(self.key(keyed.start - 1), self.key(keyed.start)),
            _ => common(self.key(keyed.start), self.key(keyed.end - 1)),
        }
    }

    fn entry_bytes(&self, index: usize, prefix_len: usize) -> usize {
        let entry = self.entries[index];
        let rest = (entry.value - entry.key).saturating_sub(prefix_len + HEAD_BYTES);
        ENTRY_BYTES + rest + (entry.end - entry.value)
    }

    /// Bytes that a part takes of a page.
    pub(crate) fn part_bytes(&self, part: &Range<usize>) -> usize {
        let prefix_len = self.prefix_len(part);
        let entries = self.keyed(part).map(|index| self.entry_bytes(index, prefix_len));
        prefix_len + entries.sum::<usize>()
    }

    pub(crate) fn fits(&self, part: &Range<usize>) -> bool {
        self.part_bytes(part) <= ROOM
    }

    /// Cuts before entry `index`, if both parts fit.
    pub(crate) fn cut_at(&self, index: usize) -> Option<Vec<Range<usize>>> {
        let parts = vec![0..index, index..self.len()];
        parts.iter().all(|part| !part.is_empty() && self.fits(part)).then_some(parts)
    }

    /// Cuts into parts of about the same size: `parts` of them, or more if they would not fit.
    pub(crate) fn cut(&self, parts: usize) -> Vec<Range<usize>> {
        let shared = common(self.key(usize::from(self.level > 0)), self.key(self.len() - 1));
        let sizes: Vec<usize> =
            (0..self.len()).map(|index| self.entry_bytes(index, shared)).collect();
        let total: usize = sizes.iter().sum();
        (parts..=self.len())
            .map(|parts| cut_sizes(&sizes, total, parts))
            .find(|cuts| cuts.iter().all(|part| self.fits(part)))
            .expect("any single entry fits a page")
    }

    /// Writes a part as a page.
    pub(crate) fn build(&self, part: &Range<usize>, body: &mut Body) {
        let keyed = self.keyed(part);
        let prefix_len = self.prefix_len(part);
        let prefix = if keyed.is_empty() { &[][..] } else { &self.key(keyed.start)[..prefix_len] };
        let mut node = NodeMut::create(body, self.level, prefix);
        if self.level > 0 {
            node.set_child(0, super::node::u32_at(self.value(part.start).bytes, 0));
        }
        for index in keyed.clone() {
            let fits = node.insert(index - keyed.start, self.key(index), self.value(index));
            assert!(fits, "a part was measured before it was built");
        }
        let new = self.new.filter(|new| keyed.contains(new));
        node.set_last_insert(new.map_or(NOWHERE, |new| new - keyed.start));
    }
}

/// How many bytes two keys share at the beginning.
pub(crate) fn common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

fn cut_sizes(sizes: &[usize], total: usize, parts: usize) -> Vec<Range<usize>> {
    let mut cuts = Vec::with_capacity(parts);
    let mut start = 0;
    let mut sum = 0;
    for (index, size) in sizes.iter().enumerate() {
        let target = total * (cuts.len() + 1) / parts;
        // The entry that crosses the target goes where more than half of it belongs.
        if index > start && cuts.len() + 1 < parts && sum + size / 2 >= target {
            cuts.push(start..index);
            start = index;
        }
        sum += size;
    }
    cuts.push(start..sizes.len());
    cuts
}

const _: () = assert!(CELL_HEADER_BYTES < ENTRY_BYTES);
