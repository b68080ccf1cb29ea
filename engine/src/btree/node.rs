//! One page of the tree: how entries lie in it, searching, and edits that fit the page.
//!
//! ```text
//!   birth u64 | kind u8 | level u8 | count u16 | heap u16 | prefix u16 | live u16 | last u16 |
//!   leftmost u32 | prefix bytes | slots: {head u32, offset u16} ... -> free <- ... cells
//! ```
//!
//! Keys of a page share its prefix, which is kept once. The next four bytes of a key, zero-padded,
//! are its *head*: they lie in the slot, so that a search compares numbers that are close to each
//! other. The cell has the rest of the key, and the value: `{u24: key bytes after the prefix,
//! value bytes, large}, rest, value`. A branch has a child left of all its keys, `leftmost`, and
//! each of its keys has the child whose keys are not below it as a value of four bytes.
//! All numbers are little-endian. Offsets count from the end of the birth.
//!
//! A page may come from a damaged file: every access is bounds-checked, and panics at worst.

use std::cmp::Ordering;

use crate::pages::{BODY_BYTES, Body, PageNumber};

/// Longest key. The layer above shortens longer ones; a page must have room for a few.
pub const KEY_BYTES_MAX: usize = 512;
/// Longest value that lies in a leaf.
pub(crate) const VALUE_INLINE_MAX: usize = 1024;

/// Bytes before the prefix.
pub(crate) const HEADER_BYTES: usize = 16;
pub(crate) const SLOT_BYTES: usize = 6;
pub(crate) const CELL_HEADER_BYTES: usize = 3;
pub(crate) const HEAD_BYTES: usize = 4;
/// What an entry costs besides its rest and its value.
pub(crate) const ENTRY_BYTES: usize = SLOT_BYTES + CELL_HEADER_BYTES;
/// Bytes of a page that prefix, slots and cells share.
pub(crate) const ROOM: usize = BODY_BYTES - HEADER_BYTES;

/// Marks a page of the tree; other kinds are those of `overflow`.
pub(crate) const KIND_NODE: u8 = 1;
/// The last insert was nowhere in particular.
pub(crate) const NOWHERE: usize = 0xffff;

const KIND: usize = 0;
const LEVEL: usize = 1;
const COUNT: usize = 2;
const HEAP: usize = 4;
const PREFIX: usize = 6;
const LIVE: usize = 8;
const LAST: usize = 10;
const LEFTMOST: usize = 12;

const LENGTH_BITS: u32 = 10;
const VALUE_BITS: u32 = 12;
const LARGE_BIT: u32 = 1 << (LENGTH_BITS + VALUE_BITS);

const _: () = assert!(KEY_BYTES_MAX < 1 << LENGTH_BITS && VALUE_INLINE_MAX < 1 << VALUE_BITS);
/// Three of the largest entries fit a page, so that any overfull page can be cut.
const _: () = assert!(2 * (ENTRY_BYTES + KEY_BYTES_MAX + VALUE_INLINE_MAX) < ROOM);

/// Reads a page of the tree.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    body: &'a Body,
}

/// One entry's cell.
#[derive(Clone, Copy)]
pub(crate) struct Cell<'a> {
    /// Bytes of the key after the prefix.
    pub(crate) suffix_len: usize,
    /// Those of them that are not in the head.
    pub(crate) rest: &'a [u8],
    pub(crate) value: &'a [u8],
    /// The value says where the value is: see `overflow`.
    pub(crate) large: bool,
}

/// What to put at a key.
#[derive(Clone, Copy)]
pub(crate) struct Value<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) large: bool,
}

#[inline]
pub(crate) fn u16_at(body: &[u8], at: usize) -> usize {
    let bytes = *body[at..].first_chunk().expect("a number is within its page");
    usize::from(u16::from_le_bytes(bytes))
}

#[inline]
pub(crate) fn u32_at(body: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*body[at..].first_chunk().expect("a number is within its page"))
}

#[inline]
fn head_of(suffix: &[u8]) -> u32 {
    match suffix.first_chunk::<HEAD_BYTES>() {
        Some(head) => u32::from_be_bytes(*head),
        None => {
            let mut head = [0; HEAD_BYTES];
            head[..suffix.len()].copy_from_slice(suffix);
            u32::from_be_bytes(head)
        }
    }
}

#[inline]
fn lengths(word: u32) -> (usize, usize) {
    let suffix_len = word & ((1 << LENGTH_BITS) - 1);
    let value_len = word >> LENGTH_BITS & ((1 << VALUE_BITS) - 1);
    (suffix_len as usize, value_len as usize)
}

/// Bytes of a cell.
pub(crate) fn cell_bytes(suffix_len: usize, value_len: usize) -> usize {
    CELL_HEADER_BYTES + suffix_len.saturating_sub(HEAD_BYTES) + value_len
}

impl<'a> Node<'a> {
    #[inline]
    pub(crate) fn new(body: &'a Body) -> Self {
        assert_eq!(body[KIND], KIND_NODE, "not a page of the tree");
        Self { body }
    }

    /// Zero for a leaf; a branch is one above its children.
    #[inline]
    pub(crate) fn level(self) -> u8 {
        self.body[LEVEL]
    }

    #[inline]
    pub(crate) fn is_leaf(self) -> bool {
        self.level() == 0
    }

    #[inline]
    pub(crate) fn count(self) -> usize {
        u16_at(self.body, COUNT)
    }

    #[inline]
    pub(crate) fn prefix(self) -> &'a [u8] {
        &self.body[HEADER_BYTES..][..u16_at(self.body, PREFIX)]
    }

    /// Bytes of the cells that are in use.
    pub(crate) fn live(self) -> usize {
        u16_at(self.body, LIVE)
    }

    pub(crate) fn heap(self) -> usize {
        u16_at(self.body, HEAP)
    }

    /// Position of the last insert, or `NOWHERE`.
    pub(crate) fn last_insert(self) -> usize {
        u16_at(self.body, LAST)
    }

    #[inline]
    fn slots_at(self) -> usize {
        HEADER_BYTES + u16_at(self.body, PREFIX)
    }

    #[inline]
    fn slots(self) -> &'a [[u8; SLOT_BYTES]] {
        let bytes = &self.body[self.slots_at()..][..self.count() * SLOT_BYTES];
        bytes.as_chunks().0
    }

    /// Bytes that new slots and cells could take, once the page is compacted.
    pub(crate) fn room(self) -> usize {
        let slots_end = self.slots_at() + self.count() * SLOT_BYTES;
        BODY_BYTES - slots_end - self.live()
    }

    /// Bytes between slots and cells.
    fn gap(self) -> usize {
        self.heap() - (self.slots_at() + self.count() * SLOT_BYTES)
    }

    #[inline]
    pub(crate) fn head(self, index: usize) -> u32 {
        u32_at(&self.slots()[index], 0)
    }

    #[inline]
    pub(crate) fn offset(self, index: usize) -> usize {
        u16_at(&self.slots()[index], HEAD_BYTES)
    }

    /// What a cell begins with.
    #[inline]
    fn cell_word(bytes: &[u8]) -> u32 {
        let [low, middle, high] = *bytes.first_chunk().expect("a cell is within its page");
        u32::from_le_bytes([low, middle, high, 0])
    }

    /// Bytes of a key after the prefix, and of its value.
    pub(crate) fn cell_lengths(self, index: usize) -> (usize, usize) {
        lengths(Self::cell_word(&self.body[self.offset(index)..]))
    }

    #[inline]
    pub(crate) fn cell(self, index: usize) -> Cell<'a> {
        let bytes = &self.body[self.offset(index)..];
        let word = Self::cell_word(bytes);
        let (suffix_len, value_len) = lengths(word);
        let rest_len = suffix_len.saturating_sub(HEAD_BYTES);
        let content = &bytes[CELL_HEADER_BYTES..][..rest_len + value_len];
        let (rest, value) = content.split_at(rest_len);
        Cell { suffix_len, rest, value, large: word & LARGE_BIT != 0 }
    }

    /// Appends the key after the prefix.
    pub(crate) fn push_suffix(self, index: usize, key: &mut Vec<u8>) -> Cell<'a> {
        let cell = self.cell(index);
        let head = self.head(index).to_be_bytes();
        key.extend_from_slice(&head[..cell.suffix_len.min(HEAD_BYTES)]);
        key.extend_from_slice(cell.rest);
        cell
    }

    /// Where the key is, or would be.
    #[inline]
    pub(crate) fn search(self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        let Some(suffix) = key.strip_prefix(prefix) else {
            return Err(if key < prefix { 0 } else { self.count() });
        };
        let head = head_of(suffix);
        let slots = self.slots();
        let mut low = slots.partition_point(|slot| u32_at(slot, 0) < head);
        if low == slots.len() || u32_at(&slots[low], 0) != head {
            return Err(low);
        }
        // Several keys may have this head: the cells decide.
        let same = slots[low..].partition_point(|slot| u32_at(slot, 0) == head);
        let mut high = low + same;
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.compare_rest(middle, suffix) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Compares an entry with a key of the same head. Padding makes a key that ends within the
    /// head equal to longer ones with zeros there, so the lengths come before the rests.
    #[inline]
    fn compare_rest(self, index: usize, suffix: &[u8]) -> Ordering {
        let cell = self.cell(index);
        let heads = cell.suffix_len.min(HEAD_BYTES).cmp(&suffix.len().min(HEAD_BYTES));
        heads.then_with(|| cell.rest.cmp(suffix.get(HEAD_BYTES..).unwrap_or_default()))
    }

    /// Which child of a branch has the key: 0 is the leftmost, `i` the one of entry `i - 1`.
    #[inline]
    pub(crate) fn child_index(self, key: &[u8]) -> usize {
        match self.search(key) {
            Ok(index) => index + 1,
            Err(index) => index,
        }
    }

    /// A child of a branch, counted as in [`Node::child_index`].
    #[inline]
    pub(crate) fn child(self, index: usize) -> PageNumber {
        match index.checked_sub(1) {
            None => u32_at(self.body, LEFTMOST),
            Some(entry) => u32_at(self.cell(entry).value, 0),
        }
    }
}

/// Changes a page of the tree.
pub(crate) struct NodeMut<'a> {
    body: &'a mut Body,
}

fn set_u16(body: &mut Body, at: usize, value: usize) {
    let value = u16::try_from(value).expect("a page is shorter than 64 KiB");
    body[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

impl<'a> NodeMut<'a> {
    pub(crate) fn new(body: &'a mut Body) -> Self {
        assert_eq!(body[KIND], KIND_NODE, "not a page of the tree");
        Self { body }
    }

    /// Makes the page an empty one.
    pub(crate) fn create(body: &'a mut Body, level: u8, prefix: &[u8]) -> Self {
        body[KIND] = KIND_NODE;
        body[LEVEL] = level;
        set_u16(body, COUNT, 0);
        set_u16(body, HEAP, BODY_BYTES);
        set_u16(body, PREFIX, prefix.len());
        set_u16(body, LIVE, 0);
        set_u16(body, LAST, NOWHERE);
        body[LEFTMOST..LEFTMOST + 4].fill(0);
        body[HEADER_BYTES..][..prefix.len()].copy_from_slice(prefix);
        Self { body }
    }

    pub(crate) fn view(&self) -> Node<'_> {
        Node { body: self.body }
    }

    pub(crate) fn set_last_insert(&mut self, index: usize) {
        set_u16(self.body, LAST, index);
    }

    /// Makes the page a copy of another one with its cells packed and its gap zeroed: pages that
    /// say the same have the same bytes. The page must be zero.
    pub(crate) fn pack(body: &'a mut Body, old: Node<'_>) -> Self {
        let slots_end = old.slots_at() + old.count() * SLOT_BYTES;
        body[..slots_end].copy_from_slice(&old.body[..slots_end]);
        let mut node = Self { body };
        node.pack_cells(old, None);
        node.set_last_insert(NOWHERE);
        node
    }

    /// Replaces a child of a branch.
    pub(crate) fn set_child(&mut self, index: usize, child: PageNumber) {
        let at = match index.checked_sub(1) {
            None => LEFTMOST,
            Some(entry) => {
                let cell = self.view().cell(entry);
                assert_eq!(cell.value.len(), 4, "a branch has children as values");
                self.view().offset(entry) + CELL_HEADER_BYTES + cell.rest.len()
            }
        };
        self.body[at..at + 4].copy_from_slice(&child.to_le_bytes());
    }

    /// Inserts an entry at the index that a search gave. Returns whether it fits.
    #[must_use]
    pub(crate) fn insert(&mut self, index: usize, key: &[u8], value: Value<'_>) -> bool {
        let Some(suffix) = key.strip_prefix(self.view().prefix()) else { return false };
        let cell = cell_bytes(suffix.len(), value.bytes.len());
        if cell + SLOT_BYTES > self.view().room() {
            return false;
        }
        if cell + SLOT_BYTES > self.view().gap() {
            self.compact(None);
        }
        let count = self.view().count();
        assert!(index <= count);
        let at = self.view().slots_at() + index * SLOT_BYTES;
        let end = self.view().slots_at() + count * SLOT_BYTES;
        self.body.copy_within(at..end, at + SLOT_BYTES);
        set_u16(self.body, COUNT, count + 1);
        self.body[at..at + HEAD_BYTES].copy_from_slice(&head_of(suffix).to_le_bytes());
        self.push_cell(index, suffix.len(), suffix.get(HEAD_BYTES..).unwrap_or_default(), value);
        self.set_last_insert(index);
        true
    }

    /// Gives an entry that has a slot and no cell a cell. There is room for it.
    fn push_cell(&mut self, index: usize, suffix_len: usize, rest: &[u8], value: Value<'_>) {
        let bytes = cell_bytes(suffix_len, value.bytes.len());
        let at = self.view().heap() - bytes;
        self.write_cell(at, suffix_len, rest, value);
        set_u16(self.body, HEAP, at);
        let live = self.view().live();
        set_u16(self.body, LIVE, live + bytes);
        let slot = self.view().slots_at() + index * SLOT_BYTES;
        set_u16(self.body, slot + HEAD_BYTES, at);
    }

    fn write_cell(&mut self, at: usize, suffix_len: usize, rest: &[u8], value: Value<'_>) {
        assert!(suffix_len <= KEY_BYTES_MAX && value.bytes.len() <= VALUE_INLINE_MAX);
        let word = suffix_len as u32 | (value.bytes.len() as u32) << LENGTH_BITS;
        let word = word | if value.large { LARGE_BIT } else { 0 };
        self.body[at..at + CELL_HEADER_BYTES].copy_from_slice(&word.to_le_bytes()[..3]);
        let at = at + CELL_HEADER_BYTES;
        self.body[at..at + rest.len()].copy_from_slice(rest);
        let at = at + rest.len();
        self.body[at..at + value.bytes.len()].copy_from_slice(value.bytes);
    }

    /// Replaces the value of an entry. Returns whether it fits; if not, nothing is changed.
    #[must_use]
    pub(crate) fn replace(&mut self, index: usize, value: Value<'_>) -> bool {
        let cell = self.view().cell(index);
        let (suffix_len, rest_len) = (cell.suffix_len, cell.rest.len());
        let old_bytes = cell_bytes(suffix_len, cell.value.len());
        let new_bytes = cell_bytes(suffix_len, value.bytes.len());
        let live = self.view().live();
        let mut rest = [0; KEY_BYTES_MAX];
        rest[..rest_len].copy_from_slice(cell.rest);
        let rest = &rest[..rest_len];
        if new_bytes <= old_bytes {
            let at = self.view().offset(index);
            self.write_cell(at, suffix_len, rest, value);
            set_u16(self.body, LIVE, live - old_bytes + new_bytes);
            return true;
        }
        if new_bytes > self.view().room() + old_bytes {
            return false;
        }
        set_u16(self.body, LIVE, live - old_bytes);
        if new_bytes > self.view().gap() {
            self.compact(Some(index));
        }
        self.push_cell(index, suffix_len, rest, value);
        true
    }

    /// Removes an entry.
    pub(crate) fn remove(&mut self, index: usize) {
        let cell = self.view().cell(index);
        let bytes = cell_bytes(cell.suffix_len, cell.value.len());
        let live = self.view().live();
        let count = self.view().count();
        let at = self.view().slots_at() + index * SLOT_BYTES;
        let end = self.view().slots_at() + count * SLOT_BYTES;
        self.body.copy_within(at + SLOT_BYTES..end, at);
        set_u16(self.body, COUNT, count - 1);
        set_u16(self.body, LIVE, live - bytes);
        self.set_last_insert(NOWHERE);
    }

    /// Moves the cells to the end of the page, in the order of their keys. The cell of entry
    /// `without` is dropped; its slot stays.
    pub(crate) fn compact(&mut self, without: Option<usize>) {
        let old = *self.body;
        self.pack_cells(Node { body: &old }, without);
    }

    fn pack_cells(&mut self, old: Node<'_>, without: Option<usize>) {
        let slots_at = old.slots_at();
        let mut heap = BODY_BYTES;
        for index in 0..old.count() {
            if without == Some(index) {
                continue;
            }
            let from = old.offset(index);
            let cell = old.cell(index);
            let bytes = cell_bytes(cell.suffix_len, cell.value.len());
            heap -= bytes;
            self.body[heap..heap + bytes].copy_from_slice(&old.body[from..from + bytes]);
            set_u16(self.body, slots_at + index * SLOT_BYTES + HEAD_BYTES, heap);
        }
        set_u16(self.body, HEAP, heap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format_document::{assert_fields, assert_says};
    use crate::pages::BIRTH_BYTES;

    const HEADING: &str = "### Pages of the tree";

    #[test]
    fn the_document_has_the_offsets() {
        let at = |offset: usize| BIRTH_BYTES + offset;
        let fields = [
            (0, BIRTH_BYTES, "birth"),
            (at(KIND), 1, "kind"),
            (at(LEVEL), 1, "level"),
            (at(COUNT), 2, "count"),
            (at(HEAP), 2, "heap"),
            (at(PREFIX), 2, "prefix"),
            (at(LIVE), 2, "live"),
            (at(LAST), 2, "last"),
            (at(LEFTMOST), 4, "leftmost"),
        ];
        assert_fields(HEADING, &fields);
    }

    #[test]
    fn the_document_has_the_numbers() {
        let large_at = LENGTH_BITS + VALUE_BITS;
        let words = [
            format!("| kind | {KIND_NODE} |"),
            format!("0x{NOWHERE:x} in files"),
            format!("| {} | | prefix | |", BIRTH_BYTES + HEADER_BYTES),
            format!("| | {SLOT_BYTES} each | slots |"),
            format!("bits 0-{}: bytes of the key", LENGTH_BITS - 1),
            format!("bits {LENGTH_BITS}-{}: bytes of the value", large_at - 1),
            format!("bit {large_at}: the value is a reference"),
            format!("A cell is a `u{}`", 8 * CELL_HEADER_BYTES),
            format!(
                "at most {KEY_BYTES_MAX} bytes and values in leaves at most {VALUE_INLINE_MAX}"
            ),
        ];
        assert_says(HEADING, words);
    }
}
