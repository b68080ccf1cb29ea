//! Writing to the tree: put and delete, and the restructuring that they cause.
//!
//! A write goes down from the root and makes each page on its way its own: one born in the
//! version in the making, copied if need be. Nearly always the leaf then has room for the change.
//! If not, entries are gathered, cut and built anew (`gather`), and the parent gets the new
//! children in place of the old ones, which may in turn not fit.
//!
//! How a full leaf is cut decides about memory:
//!
//!   * entries that arrive in ascending order at the end of a page: the page is left as it is, with
//!     a little slack for values that grow later; the next page begins with the new entry
//!   * in ascending order within a page: cut after the new entry, so that the next one is at an end
//!   * else: share with the emptier neighbour; if both are full, make three pages of the two

use std::cell::RefCell;

use super::finger::{Fingers, Place};
use super::gather::Gather;
use super::node::{Node, NodeMut, ROOM, Value};
use super::overflow;
use super::root::Root;
use crate::pages::{BIRTH_OF_FILE, HoldRef, PageNumber, Store, birth_of, body_of};
use crate::zxid::Zxid;

/// Room left in a page when entries are appended in order: 8 %.
const APPEND_SLACK: usize = ROOM * 8 / 100;
/// A page with less than this in use looks for a neighbour to become one page with.
const UNDERFULL: usize = ROOM * 2 / 5;
/// Two pages become one if it is at most this full.
const MERGED_MAX: usize = ROOM * 17 / 20;
/// Two pages share their entries if that leaves this much room in both together. With less, it
/// would not be long until the next time.
const SHARED_ROOM: usize = ROOM / 6;

/// The tree that the writer changes.
pub(crate) struct Tree {
    pub(crate) store: Store,
    pub(crate) root: PageNumber,
    path: Vec<Step>,
    pub(super) fingers: RefCell<Fingers>,
    gather: Gather,
    reference: Vec<u8>,
}

/// A page on the way to a leaf, owned.
#[derive(Clone, Copy)]
pub(super) struct Step {
    page: PageNumber,
    /// Which of its parent's children it is.
    child: usize,
}

/// A page to be named by a parent, and the key that separates it from the one before it.
struct Part {
    page: PageNumber,
    separator: Vec<u8>,
}

/// A change to a leaf.
#[derive(Clone, Copy)]
enum Change<'a> {
    Insert(&'a [u8], Value<'a>),
    Replace(Value<'a>),
}

impl Tree {
    /// A tree with nothing in it.
    pub(crate) fn new(mut store: Store) -> Self {
        let root = store.allocate();
        let _empty = NodeMut::create(store.edit(root), 0, &[]);
        Self::open(store, root)
    }

    /// The tree below a page of the store.
    pub(crate) fn open(store: Store, root: PageNumber) -> Self {
        let (path, fingers, gather) = (Vec::new(), RefCell::default(), Gather::default());
        Self { store, root, path, fingers, gather, reference: Vec::new() }
    }

    #[inline]
    pub(crate) fn view(&self) -> Root<'_> {
        Root { pages: self.store.pages(), page: self.root }
    }

    pub(super) fn node(&self, page: PageNumber) -> Node<'_> {
        Node::new(body_of(self.store.page(page)))
    }

    fn node_mut(&mut self, page: PageNumber) -> NodeMut<'_> {
        NodeMut::new(self.store.edit(page))
    }

    /// A page whose entries will be in a page of ours. What it names is checked if it is from a
    /// file: nobody will know where it came from afterwards.
    fn source(&self, page: PageNumber) -> Node<'_> {
        let bytes = self.store.page(page);
        if birth_of(bytes) == BIRTH_OF_FILE {
            super::check::assert_page(page, body_of(bytes));
        }
        Node::new(body_of(bytes))
    }

    fn own(&mut self, page: PageNumber) -> PageNumber {
        self.source(page);
        self.store.own(page)
    }

    /// Owns the pages from the root to the leaf of a key; they are the path. Gives the key's place
    /// in the leaf.
    fn descend(&mut self, key: &[u8]) -> Place {
        let (_, place) = self.look(key);
        self.path.clear();
        self.root = self.own(self.root);
        self.path.push(Step { page: self.root, child: 0 });
        for depth in 0..self.fingers.get_mut().way().len() {
            let child = self.fingers.get_mut().way()[depth];
            let page = self.leaf();
            let below = self.node(page).child(child);
            let owned = self.own(below);
            if owned != below {
                self.node_mut(page).set_child(child, owned);
            }
            self.path.push(Step { page: owned, child });
        }
        let leaf = self.leaf();
        self.fingers.get_mut().own(leaf);
        place
    }

    /// Ends the version in the making: its pages are written to no more.
    pub(crate) fn freeze(&mut self, zxid: Zxid) -> HoldRef {
        self.fingers.get_mut().disown();
        self.store.freeze(self.root, zxid)
    }

    /// Forgets the ways to all leaves: branches change.
    pub(crate) fn forget(&mut self) {
        self.fingers.get_mut().forget();
    }

    /// Inserts or replaces.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) {
        assert!(key.len() <= super::node::KEY_BYTES_MAX, "a key of {} bytes", key.len());
        if value.len() <= super::node::VALUE_INLINE_MAX {
            return self.put_value(key, Value { bytes: value, large: false });
        }
        let mut reference = std::mem::take(&mut self.reference);
        overflow::write(&mut self.store, value, &mut reference);
        self.put_value(key, Value { bytes: &reference, large: true });
        self.reference = reference;
    }

    fn put_value(&mut self, key: &[u8], value: Value<'_>) {
        let place = self.descend(key);
        let leaf = self.leaf();
        let node = self.node(leaf);
        match place {
            Ok(index) => {
                if node.cell(index).large {
                    self.free_large(leaf, index);
                }
                if !self.node_mut(leaf).replace(index, value) {
                    self.rebuild_leaf(index, Change::Replace(value));
                }
            }
            Err(index) => {
                self.fingers.get_mut().forget_place();
                let node = self.node(leaf);
                // Ordered arrivals leave slack at the end of a page.
                let count = node.count();
                let appends = index == count && count > 0 && node.last_insert() == count - 1;
                let full = appends && node.room() < APPEND_SLACK;
                if full || !self.node_mut(leaf).insert(index, key, value) {
                    self.rebuild_leaf(index, Change::Insert(key, value));
                }
            }
        }
    }

    fn leaf(&self) -> PageNumber {
        self.path.last().expect("a path ends with a leaf").page
    }

    /// Frees the pages of a large value.
    fn free_large(&mut self, leaf: PageNumber, index: usize) {
        let cell = self.node(leaf).cell(index);
        let mut pages = Vec::new();
        let value = Value { bytes: cell.value, large: true };
        overflow::walk(self.view(), leaf, value, &mut |page, _| {
            pages.push(page);
            true
        });
        for page in pages {
            self.store.free(page);
        }
    }

    /// Makes a change to the leaf of the path that does not fit it as it is.
    fn rebuild_leaf(&mut self, index: usize, change: Change<'_>) {
        let mut gather = std::mem::take(&mut self.gather);
        let leaf = self.leaf();
        let node = self.node(leaf);
        let last_insert = node.last_insert();
        gather.clear(0);
        gather.push_node(node, &[]);
        apply(&mut gather, index, change);

        let last = gather.len() - 1;
        let ascending =
            matches!(change, Change::Insert(..)) && last_insert == index.wrapping_sub(1);
        let slack = if ascending && index == last { APPEND_SLACK } else { 0 };
        if gather.part_bytes(&(0..gather.len())) + slack <= ROOM {
            gather.build(&(0..gather.len()), self.store.edit(leaf));
        } else {
            let cut = if !ascending {
                None
            } else if index == last {
                gather.cut_at(index)
            } else {
                gather.cut_at(index + 1)
            };
            match cut {
                Some(parts) => self.replace_pages(self.path.len() - 1, 0, 1, &gather, &parts),
                None => self.share_leaf(&mut gather, index, change),
            }
        }
        self.gather = gather;
    }

    /// Cuts an overfull leaf together with a neighbour. `gather` has the leaf's entries.
    fn share_leaf(&mut self, gather: &mut Gather, index: usize, change: Change<'_>) {
        let depth = self.path.len() - 1;
        let Some((neighbour, is_left)) = self.emptier_neighbour() else {
            let parts = gather.cut(2);
            return self.replace_pages(depth, 0, 1, gather, &parts);
        };
        let leaf = self.leaf();
        let shift = if is_left { self.node(neighbour).count() } else { 0 };
        let room = self.node(neighbour).room();
        gather.clear(0);
        let (left, right) = if is_left { (neighbour, leaf) } else { (leaf, neighbour) };
        gather.push_node(self.source(left), &[]);
        gather.push_node(self.source(right), &[]);
        apply(gather, shift + index, change);
        let parts = gather.cut(if room >= SHARED_ROOM { 2 } else { 3 });
        self.replace_pages(depth, usize::from(is_left), 2, gather, &parts);
    }

    /// The neighbour of the path's leaf, below the same parent, that has more room, and whether it
    /// is the left one.
    fn emptier_neighbour(&self) -> Option<(PageNumber, bool)> {
        let [.., parent, leaf] = self.path[..] else { return None };
        let parent_node = self.node(parent.page);
        let left = leaf.child.checked_sub(1).map(|left| parent_node.child(left));
        let right = (leaf.child < parent_node.count()).then(|| parent_node.child(leaf.child + 1));
        match (left, right) {
            (Some(left), Some(right)) => {
                let is_left = self.node(left).room() > self.node(right).room();
                Some((if is_left { left } else { right }, is_left))
            }
            (Some(left), None) => Some((left, true)),
            (None, right) => right.map(|right| (right, false)),
        }
    }

    /// Builds parts of what was gathered, in place of `removed` pages: from the one that is `back`
    /// before the page of the path at `depth`.
    fn replace_pages(
        &mut self,
        depth: usize,
        back: usize,
        removed: usize,
        gather: &Gather,
        parts: &[std::ops::Range<usize>],
    ) {
        let first = self.path[depth].child - back;
        match depth.checked_sub(1).map(|above| self.path[above].page) {
            None => self.store.free(self.root),
            Some(parent) => {
                for child in first..first + removed {
                    let page = self.node(parent).child(child);
                    self.store.free(page);
                }
            }
        }
        let mut built = Vec::with_capacity(parts.len());
        for part in parts {
            let page = self.store.allocate();
            gather.build(part, self.store.edit(page));
            let separator =
                if part.start == 0 { Vec::new() } else { gather.separator(part.start).to_vec() };
            built.push(Part { page, separator });
        }
        self.replace_children(depth, first, removed, &built);
    }

    /// Names other children in the parent of the path's page at `depth`: `parts` in place of
    /// `removed` ones from `first` on. The key that separates the first of them stays.
    fn replace_children(&mut self, depth: usize, first: usize, removed: usize, parts: &[Part]) {
        self.forget();
        let Some(above) = depth.checked_sub(1) else {
            return self.replace_root(parts);
        };
        let parent = self.path[above].page;
        let [head, others @ ..] = parts else {
            assert_eq!(removed, 1);
            return self.remove_child(above, first);
        };
        let mut node = self.node_mut(parent);
        for _ in 1..removed {
            node.remove(first);
        }
        node.set_child(first, head.page);
        for (offset, part) in others.iter().enumerate() {
            let value = part.page.to_le_bytes();
            let value = Value { bytes: &value, large: false };
            if !self.node_mut(parent).insert(first + offset, &part.separator, value) {
                return self.rebuild_branch(above, first + offset, &others[offset..]);
            }
        }
        if parts.len() < removed {
            self.shrink(above);
        }
    }

    /// The root was replaced by these pages.
    fn replace_root(&mut self, parts: &[Part]) {
        let [only] = parts else {
            let level = self.node(parts[0].page).level() + 1;
            let root = self.store.allocate();
            let mut node = NodeMut::create(self.store.edit(root), level, &[]);
            node.set_child(0, parts[0].page);
            for (index, part) in parts[1..].iter().enumerate() {
                let value = part.page.to_le_bytes();
                let value = Value { bytes: &value, large: false };
                let fits = node.insert(index, &part.separator, value);
                assert!(fits, "a cut gives few parts");
            }
            self.root = root;
            return;
        };
        self.root = only.page;
    }

    /// Inserts children that do not fit the branch of the path at `depth` as it is.
    fn rebuild_branch(&mut self, depth: usize, index: usize, parts: &[Part]) {
        let mut gather = Gather::default();
        let node = self.node(self.path[depth].page);
        gather.clear(node.level());
        gather.push_node(node, &[]);
        let mut at = index + 1;
        for part in parts {
            let value = part.page.to_le_bytes();
            gather.insert(at, &part.separator, Value { bytes: &value, large: false });
            at += 1;
        }
        if gather.fits(&(0..gather.len())) {
            return gather.build(&(0..gather.len()), self.store.edit(self.path[depth].page));
        }
        // Children that arrive in order leave full branches behind.
        let appended = (at == gather.len()).then(|| gather.cut_at(at - 1)).flatten();
        let cut = appended.unwrap_or_else(|| gather.cut(2));
        self.replace_pages(depth, 0, 1, &gather, &cut);
    }

    /// Removes a child from the branch of the path at `depth`.
    fn remove_child(&mut self, depth: usize, child: usize) {
        let page = self.path[depth].page;
        let mut node = self.node_mut(page);
        if node.view().count() == 0 {
            self.store.free(page);
            if depth == 0 {
                let root = self.store.allocate();
                let _empty = NodeMut::create(self.store.edit(root), 0, &[]);
                self.root = root;
                return;
            }
            return self.replace_children(depth, self.path[depth].child, 1, &[]);
        }
        if child == 0 {
            let second = node.view().child(1);
            node.set_child(0, second);
            node.remove(0);
        } else {
            node.remove(child - 1);
        }
        self.shrink(depth);
    }

    /// Removes; whether there was something to remove.
    pub(crate) fn delete(&mut self, key: &[u8]) -> bool {
        // Looking first keeps pages from being copied for nothing.
        let (_, Ok(index)) = self.look(key) else { return false };
        self.descend(key).expect("the key was there a moment ago");
        self.fingers.get_mut().forget_place();
        let leaf = self.leaf();
        if self.node(leaf).cell(index).large {
            self.free_large(leaf, index);
        }
        self.node_mut(leaf).remove(index);
        self.shrink(self.path.len() - 1);
        true
    }

    /// The page of the path at `depth` has lost something: it may go, or join a neighbour.
    fn shrink(&mut self, depth: usize) {
        let Step { page, child } = self.path[depth];
        let node = self.node(page);
        let count = node.count();
        if depth == 0 {
            if !node.is_leaf() && count == 0 {
                self.root = node.child(0);
                self.store.free(page);
                self.forget();
            }
            return;
        }
        if count == 0 && node.is_leaf() {
            self.store.free(page);
            return self.replace_children(depth, child, 1, &[]);
        }
        if ROOM - node.room() < UNDERFULL {
            self.join(depth);
        }
    }

    /// Makes one page of the path's page at `depth` and a neighbour, if it is not too full then.
    fn join(&mut self, depth: usize) {
        let child = self.path[depth].child;
        let neighbours = self.node(self.path[depth - 1].page).count();
        if child < neighbours && self.join_pair(depth, child) {
            return;
        }
        if let Some(left) = child.checked_sub(1) {
            self.join_pair(depth, left);
        }
    }

    /// Makes one page of two children of the parent of the path's page at `depth`: the child
    /// `left` and the next one. Whether it did.
    fn join_pair(&mut self, depth: usize, left: usize) -> bool {
        let parent = self.node(self.path[depth - 1].page);
        let (one, other) = (self.source(parent.child(left)), self.source(parent.child(left + 1)));
        if 2 * ROOM - one.room() - other.room() > MERGED_MAX {
            return false;
        }
        let mut separator = parent.prefix().to_vec();
        parent.push_suffix(left, &mut separator);
        let mut gather = Gather::default();
        gather.clear(one.level());
        gather.push_node(one, &[]);
        gather.push_node(other, &separator);
        let whole = 0..gather.len();
        let joins = gather.part_bytes(&whole) <= MERGED_MAX;
        if joins {
            let back = self.path[depth].child - left;
            self.replace_pages(depth, back, 2, &gather, &[whole]);
        }
        joins
    }

    /// Pages of the head that were born after version `number`.
    pub(crate) fn born_after(&self, number: u64) -> Vec<PageNumber> {
        let mut pages = Vec::new();
        super::walk::walk(self.view(), &mut |page| {
            let later = page.birth > number;
            if later {
                pages.push(page.number);
            }
            // What an older page names is older still.
            later
        });
        pages
    }
}

fn apply(gather: &mut Gather, index: usize, change: Change<'_>) {
    match change {
        Change::Insert(key, value) => gather.insert(index, key, value),
        Change::Replace(value) => gather.replace(index, value),
    }
}
