//! Reading a tree from its root: what the head and a version have in common.

use std::borrow::Cow;

use super::node::{Node, Value};
use super::overflow;
use crate::pages::{BIRTH_OF_FILE, Body, PageNumber, Pages, birth_of, body_of};

/// A tree to read.
#[derive(Clone, Copy)]
pub(crate) struct Root<'a> {
    pub(crate) pages: &'a Pages,
    pub(crate) page: PageNumber,
}

impl<'a> Root<'a> {
    /// The root page.
    #[inline]
    pub(crate) fn node(self) -> Node<'a> {
        Node::new(body_of(self.pages.page(self.page)))
    }

    /// The body of a page that `parent` names.
    ///
    /// Pages of a file name only pages before them. That keeps a damaged file from naming pages
    /// that are none of its business, and from naming pages in circles.
    #[inline]
    pub(crate) fn below(self, parent: PageNumber, number: PageNumber) -> &'a Body {
        if birth_of(self.pages.page(parent)) == BIRTH_OF_FILE {
            assert!(number < parent, "page {parent} of the snapshot file names page {number}");
        }
        body_of(self.pages.page(number))
    }

    /// A child of a branch.
    #[inline]
    pub(crate) fn child(self, parent: PageNumber, number: PageNumber) -> Node<'a> {
        Node::new(self.below(parent, number))
    }

    /// The leaf that has the key, or would have it.
    #[inline]
    fn leaf(self, key: &[u8]) -> (PageNumber, Node<'a>) {
        let mut page = self.page;
        let mut node = self.node();
        while !node.is_leaf() {
            (page, node) = self.step(page, node, node.child_index(key));
        }
        (page, node)
    }

    /// Goes to a child of the branch `node`, which is `page`.
    #[inline]
    pub(super) fn step(
        self,
        page: PageNumber,
        node: Node<'a>,
        child: usize,
    ) -> (PageNumber, Node<'a>) {
        let number = node.child(child);
        let below = self.child(page, number);
        assert!(below.level() < node.level(), "page {number} is not below page {page}");
        (number, below)
    }

    /// The value of a key.
    pub(crate) fn get(self, key: &[u8]) -> Option<Cow<'a, [u8]>> {
        let (page, node) = self.leaf(key);
        let index = node.search(key).ok()?;
        Some(self.value(page, node, index))
    }

    /// The value of an entry of a leaf.
    #[inline]
    pub(crate) fn value(self, leaf: PageNumber, node: Node<'a>, index: usize) -> Cow<'a, [u8]> {
        let cell = node.cell(index);
        if cell.large {
            let reference = Value { bytes: cell.value, large: true };
            Cow::Owned(overflow::read(self, leaf, reference))
        } else {
            Cow::Borrowed(cell.value)
        }
    }
}
