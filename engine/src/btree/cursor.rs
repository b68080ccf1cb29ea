//! Walks entries in ascending order of keys.

use std::borrow::Cow;
use std::fmt;

use super::node::Node;
use super::root::Root;
use crate::pages::PageNumber;

/// Walks entries in ascending order of keys.
pub struct Cursor<'a> {
    root: Root<'a>,
    /// The branches above the leaf, each with the child that comes next.
    above: Vec<Level<'a>>,
    leaf: PageNumber,
    node: Node<'a>,
    /// The entry of the leaf that comes next.
    next: usize,
    /// The leaf's prefix, and the rest of the key lent last.
    key: Vec<u8>,
}

struct Level<'a> {
    page: PageNumber,
    node: Node<'a>,
    next_child: usize,
}

impl fmt::Debug for Cursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor").field("leaf", &self.leaf).field("next", &self.next).finish()
    }
}

impl<'a> Cursor<'a> {
    /// Begins at the first key that is not below `from`.
    pub(crate) fn new(root: Root<'a>, from: &[u8]) -> Self {
        let mut cursor = Self {
            root,
            above: Vec::new(),
            leaf: root.page,
            node: root.node(),
            next: 0,
            key: Vec::with_capacity(128),
        };
        while !cursor.node.is_leaf() {
            let child = cursor.node.child_index(from);
            cursor.push(child);
        }
        cursor.enter_leaf();
        let (Ok(next) | Err(next)) = cursor.node.search(from);
        cursor.next = next;
        cursor
    }

    /// Goes down to a child.
    fn push(&mut self, child: usize) {
        let number = self.node.child(child);
        let below = self.root.child(self.leaf, number);
        assert!(below.level() < self.node.level(), "page {number} is not below {}", self.leaf);
        self.above.push(Level { page: self.leaf, node: self.node, next_child: child + 1 });
        (self.leaf, self.node) = (number, below);
    }

    fn enter_leaf(&mut self) {
        self.next = 0;
        self.key.clear();
        self.key.extend_from_slice(self.node.prefix());
    }

    /// Goes to the next leaf; whether there is one.
    fn next_leaf(&mut self) -> bool {
        loop {
            let Some(Level { page, node, next_child }) = self.above.pop() else {
                return false;
            };
            if next_child <= node.count() {
                (self.leaf, self.node) = (page, node);
                self.push(next_child);
                break;
            }
        }
        while !self.node.is_leaf() {
            self.push(0);
        }
        self.enter_leaf();
        true
    }

    /// The next entry; the key is valid until the next call, the value as long as the version.
    pub fn next_entry(&mut self) -> Option<(&[u8], Cow<'a, [u8]>)> {
        while self.next == self.node.count() {
            if !self.next_leaf() {
                return None;
            }
        }
        self.key.truncate(self.node.prefix().len());
        self.node.push_suffix(self.next, &mut self.key);
        let value = self.root.value(self.leaf, self.node, self.next);
        self.next += 1;
        Some((&self.key, value))
    }
}
