//! Where the writer has been in the tree: going there again need not search every branch.
//!
//! A transaction reads what it changes: it looks a key up, and puts a new value at it, with other
//! keys looked up in between (a znode and its parent); and the next transaction is often about a
//! neighbour. Searching the branches anew each time costs as much as everything else that such a
//! write does.
//!
//! Invariants:
//!
//!   * a way is kept as long as the branches divide the keys as they did: pages may be copied, and
//!     leaves may change, but when pages are cut, joined or taken away, all ways are forgotten
//!   * a place within a leaf is kept until entries of the leaf move
//!   * the page of a leaf is kept while it is one of the version in the making: others are copied
//!   * no two fingers are at the same leaf

use std::borrow::Cow;

use super::node::Node;
use super::write::Tree;
use crate::pages::PageNumber;

/// How many leaves are remembered: those of a znode and of its parent, and two before them.
const KEPT: usize = 4;

/// Where a key is in its leaf, or would be.
pub(super) type Place = Result<usize, usize>;

/// A key of a branch: the branch, and which of its entries.
type Fence<'a> = Option<(Node<'a>, usize)>;

/// A leaf, and which keys belong there.
#[derive(Default)]
struct Finger {
    is_valid: bool,
    /// Which child to take of each branch, from the root on.
    way: Vec<usize>,
    /// The page of the leaf, if it is owned.
    leaf: Option<PageNumber>,
    bounds: Bounds,
    /// The key that was looked up last, and its place.
    key: Vec<u8>,
    place: Option<Place>,
}

/// The keys of a leaf. Neighbours in a tree have long beginnings in common, and every key that is
/// looked up is held against the bounds of several leaves: as numbers, where these decide.
#[derive(Default)]
struct Bounds {
    /// No key is below this.
    low: Vec<u8>,
    /// All keys are below this, if `is_bounded`.
    high: Vec<u8>,
    is_bounded: bool,
    /// So many bytes both begin with, and with them all keys between; none if there is no bound.
    shared: usize,
    /// Their heads behind that.
    heads: (u64, u64),
}

/// What is remembered. Memory is kept from use to use.
#[derive(Default)]
pub(super) struct Fingers {
    fingers: [Finger; KEPT],
    /// The one that was used last.
    at: usize,
}

impl Finger {
    fn covers(&self, key: &[u8]) -> bool {
        self.is_valid && self.bounds.contain(key)
    }

    /// Where the key is in the leaf.
    fn place(&mut self, key: &[u8], leaf: Node<'_>) -> Place {
        if let Some(place) = self.place
            && self.key == key
        {
            return place;
        }
        let place = leaf.search(key);
        self.key.clear();
        self.key.extend_from_slice(key);
        self.place = Some(place);
        place
    }
}

impl Bounds {
    fn set(&mut self, low: Fence<'_>, high: Fence<'_>) {
        let copy = |fence: Fence<'_>, key: &mut Vec<u8>| {
            key.clear();
            if let Some((node, index)) = fence {
                key.extend_from_slice(node.prefix());
                node.push_suffix(index, key);
            }
        };
        copy(low, &mut self.low);
        copy(high, &mut self.high);
        self.is_bounded = high.is_some();
        self.note_heads();
    }

    fn note_heads(&mut self) {
        let Self { low, high, .. } = self;
        let same = |(low, high): &(&u8, &u8)| low == high;
        self.shared = low.iter().zip(high.iter()).take_while(same).count();
        let highest = if self.is_bounded { head_of(high, self.shared) } else { u64::MAX };
        self.heads = (head_of(low, self.shared), highest);
    }

    fn contain(&self, key: &[u8]) -> bool {
        let (lowest, highest) = self.heads;
        let head = head_of(key, self.shared);
        if head < lowest || head > highest {
            return false;
        }
        if lowest < head && head < highest {
            return key.starts_with(&self.low[..self.shared]);
        }
        *self.low <= *key && (!self.is_bounded || *key < *self.high)
    }
}

/// Eight bytes of a key as a number, with zeros behind its end: keys that begin alike up to there
/// are in the order of these, where they differ.
fn head_of(key: &[u8], from: usize) -> u64 {
    let rest = key.get(from..).unwrap_or_default();
    if let Some(head) = rest.first_chunk() {
        return u64::from_be_bytes(*head);
    }
    let mut head = [0; 8];
    head[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(head)
}

impl Fingers {
    /// Makes the finger that is at the key's leaf the one that is used, if there is one.
    fn take(&mut self, key: &[u8]) -> bool {
        let mut newest_first = (0..KEPT).map(|back| (self.at + KEPT - back) % KEPT);
        let found = newest_first.find(|at| self.fingers[*at].covers(key));
        self.at = found.unwrap_or(self.at);
        found.is_some()
    }

    fn used(&mut self) -> &mut Finger {
        &mut self.fingers[self.at]
    }

    /// The children to take from the root on to the leaf that was looked at last.
    pub(super) fn way(&self) -> &[usize] {
        &self.fingers[self.at].way
    }

    /// The leaf that was looked at last is owned, and is this page.
    pub(super) fn own(&mut self, leaf: PageNumber) {
        self.used().leaf = Some(leaf);
    }

    /// No page is owned any more.
    pub(super) fn disown(&mut self) {
        for finger in &mut self.fingers {
            finger.leaf = None;
        }
    }

    /// Entries move in the leaf that was looked at last.
    pub(super) fn forget_place(&mut self) {
        self.used().place = None;
    }

    /// Forgets everything: branches change.
    pub(super) fn forget(&mut self) {
        for finger in &mut self.fingers {
            finger.is_valid = false;
        }
    }
}

impl Tree {
    /// The value of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        let (leaf, place) = self.look(key);
        Some(self.view().value(leaf, self.node(leaf), place.ok()?))
    }

    /// The leaf of a key, and its place there. Leaves a finger at it.
    pub(super) fn look(&self, key: &[u8]) -> (PageNumber, Place) {
        let fingers = &mut *self.fingers.borrow_mut();
        let root = self.view();
        if fingers.take(key) {
            let finger = fingers.used();
            let (page, node) = match finger.leaf {
                Some(leaf) => (leaf, self.node(leaf)),
                None => finger.way.iter().fold((root.page, root.node()), |(page, node), child| {
                    root.step(page, node, *child)
                }),
            };
            return (page, finger.place(key, node));
        }
        fingers.at = (fingers.at + 1) % KEPT;
        let finger = fingers.used();
        finger.way.clear();
        let (mut page, mut node) = (root.page, root.node());
        let (mut low, mut high) = (None, None);
        while !node.is_leaf() {
            let child = node.child_index(key);
            low = child.checked_sub(1).map(|entry| (node, entry)).or(low);
            high = (child < node.count()).then_some((node, child)).or(high);
            finger.way.push(child);
            (page, node) = root.step(page, node, child);
        }
        finger.bounds.set(low, high);
        finger.is_valid = true;
        finger.leaf = None;
        finger.place = None;
        (page, finger.place(key, node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys that differ within their first eight bytes, behind them, or by their length alone.
    fn keys() -> Vec<Vec<u8>> {
        let mut keys = vec![Vec::new()];
        for begin in ["", "aaaaaaa", "aaaaaaaa"] {
            for first in [0, b'a', 255] {
                for second in [None, Some(0), Some(b'a'), Some(255)] {
                    keys.push(begin.bytes().chain([first]).chain(second).collect());
                }
            }
        }
        keys
    }

    #[test]
    fn heads_decide_as_whole_keys_do() {
        for low in keys() {
            for high in keys().into_iter().map(Some).chain([None]) {
                let mut bounds = Bounds { low: low.clone(), ..Bounds::default() };
                bounds.is_bounded = high.is_some();
                bounds.high = high.clone().unwrap_or_default();
                bounds.note_heads();
                for key in keys() {
                    let is_between = low <= key && high.as_ref().is_none_or(|high| key < *high);
                    let is_sane = high.as_ref().is_none_or(|high| low < *high);
                    assert!(!is_sane || bounds.contain(&key) == is_between, "{key:?}");
                }
            }
        }
    }
}
