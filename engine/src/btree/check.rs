//! Proves the invariants of pages and trees, or says what is wrong.
//!
//! [`page`] looks at one page by itself. What passes can be read without a panic, whatever a
//! damaged file may hold. [`Version::check`](super::Version::check) walks a whole tree and also
//! checks what pages promise about each other.

use thiserror::Error;

use super::node::{
    CELL_HEADER_BYTES, ENTRY_BYTES, HEADER_BYTES, KIND_NODE, Node, SLOT_BYTES, Value, cell_bytes,
};
use super::overflow::{self, KIND_OVERFLOW, OverflowPage};
use super::root::Root;
use crate::pages::{BODY_BYTES, Body, PageNumber, birth_of, body_of};

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("page {page} (offset {}): {problem}", u64::from(*page) * crate::pages::PAGE_BYTES as u64)]
pub struct CheckError {
    /// The page.
    pub page: u32,
    /// What is wrong with it.
    pub problem: Problem,
}

/// A broken invariant.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Problem {
    /// A kind that does not exist, or not here.
    #[error("it is of kind {0}")]
    Kind(u8),
    /// Slots, prefix or cells reach over their bounds.
    #[error("its contents reach over their bounds")]
    Bounds,
    /// The bytes in use are not what the header says.
    #[error("its header says {said} bytes in use, and there are {found}")]
    Live {
        /// What the header says.
        said: usize,
        /// The sum over the cells.
        found: usize,
    },
    /// Keys do not ascend, or are not between the separators of the parent.
    #[error("entry {0} is out of order")]
    Order(usize),
    /// A value of the wrong form.
    #[error("entry {0} has a malformed value")]
    Value(usize),
    /// It names a page that it must not name.
    #[error("it names page {0}")]
    Names(u32),
    /// It is as old as its parent at most, and this one is not.
    #[error("it was born in {birth}, after its parent in {parent}")]
    Birth {
        /// Its birth.
        birth: u64,
        /// The birth of the page that names it.
        parent: u64,
    },
    /// A child is one level below its parent.
    #[error("its level is {0}")]
    Level(u8),
    /// Only the root may be an empty leaf.
    #[error("it is empty")]
    Empty,
    /// A large value has more or fewer bytes than its length.
    #[error("the value of entry {0} has another length than it says")]
    Length(usize),
}

/// What a whole tree has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeStats {
    /// Entries.
    pub entries: usize,
    /// Pages, of all kinds.
    pub pages: usize,
    /// Of these, leaves.
    pub leaves: usize,
    /// Of these, pages of large values.
    pub overflow: usize,
    /// Bytes in use in leaves.
    pub leaf_bytes: usize,
    /// Levels.
    pub levels: usize,
}

/// Checks one page by itself: everything in it is within bounds, and the pages that it names come
/// before `limit`.
pub(crate) fn page(body: &Body, limit: PageNumber) -> Result<(), Problem> {
    match body[0] {
        KIND_NODE => node(body, limit),
        KIND_OVERFLOW => {
            let used = super::node::u16_at(body, 2);
            if used > overflow::DATA_BYTES {
                return Err(Problem::Bounds);
            }
            let page = OverflowPage::new(body);
            if page.level > 0 { names(overflow::numbers(page.content), limit) } else { Ok(()) }
        }
        kind => Err(Problem::Kind(kind)),
    }
}

/// Panics if a page of a file is not well-formed. Files are checked when they are opened, so this
/// says that the file has changed since, or that its checksum lied.
pub(crate) fn assert_page(number: PageNumber, body: &Body) {
    if let Err(problem) = page(body, number) {
        panic!("{}", CheckError { page: number, problem });
    }
}

fn names(numbers: impl Iterator<Item = PageNumber>, limit: PageNumber) -> Result<(), Problem> {
    for number in numbers {
        if number >= limit {
            return Err(Problem::Names(number));
        }
    }
    Ok(())
}

fn node(body: &Body, limit: PageNumber) -> Result<(), Problem> {
    let prefix_len = super::node::u16_at(body, 6);
    let node = Node::new(body);
    let slots_end = HEADER_BYTES + prefix_len + node.count() * SLOT_BYTES;
    if slots_end > node.heap() || node.heap() > BODY_BYTES {
        return Err(Problem::Bounds);
    }
    let mut live = 0;
    for index in 0..node.count() {
        let offset = node.offset(index);
        if offset < node.heap() || offset + CELL_HEADER_BYTES > BODY_BYTES {
            return Err(Problem::Bounds);
        }
        let (suffix_len, value_len) = node.cell_lengths(index);
        if offset + cell_bytes(suffix_len, value_len) > BODY_BYTES {
            return Err(Problem::Bounds);
        }
        live += cell_bytes(suffix_len, value_len);
        let cell = node.cell(index);
        if cell.large {
            if !node.is_leaf() || !overflow::is_well_formed(cell.value) {
                return Err(Problem::Value(index));
            }
            names(overflow::tops(cell.value), limit)?;
        }
        if !node.is_leaf() {
            if cell.value.len() != 4 {
                return Err(Problem::Value(index));
            }
            names(std::iter::once(node.child(index + 1)), limit)?;
        }
    }
    if !node.is_leaf() {
        names(std::iter::once(node.child(0)), limit)?;
    }
    if live != node.live() || slots_end + live > BODY_BYTES {
        return Err(Problem::Live { said: node.live(), found: live });
    }
    Ok(())
}

/// Checks a whole tree.
pub(crate) fn tree(root: Root<'_>) -> Result<TreeStats, CheckError> {
    let mut walk = Walk { root, stats: TreeStats::default(), last: None, key: Vec::new() };
    let level = walk.body(root.page, u64::MAX)?[1];
    walk.stats.levels = usize::from(level) + 1;
    walk.node(root.page, u64::MAX, level, None)?;
    Ok(walk.stats)
}

struct Walk<'a> {
    root: Root<'a>,
    stats: TreeStats,
    /// The last key seen.
    last: Option<Vec<u8>>,
    key: Vec<u8>,
}

impl<'a> Walk<'a> {
    /// A page that is well-formed by itself and not younger than its parent.
    fn body(&self, page: PageNumber, parent_birth: u64) -> Result<&'a Body, CheckError> {
        let bytes = self.root.pages.page(page);
        let birth = birth_of(bytes);
        let fail = |problem| CheckError { page, problem };
        if birth > parent_birth {
            return Err(fail(Problem::Birth { birth, parent: parent_birth }));
        }
        // Pages of a file name pages before themselves; others any page.
        let of_file = birth == crate::pages::BIRTH_OF_FILE;
        let limit = if of_file { page } else { PageNumber::MAX };
        self::page(body_of(bytes), limit).map_err(fail)?;
        Ok(body_of(bytes))
    }

    fn node(
        &mut self,
        page: PageNumber,
        parent_birth: u64,
        level: u8,
        below: Option<&[u8]>,
    ) -> Result<(), CheckError> {
        let body = self.body(page, parent_birth)?;
        let fail = |problem| CheckError { page, problem };
        let birth = birth_of(self.root.pages.page(page));
        if body[0] != KIND_NODE {
            return Err(fail(Problem::Kind(body[0])));
        }
        let node = Node::new(body);
        if node.level() != level {
            return Err(fail(Problem::Level(node.level())));
        }
        self.stats.pages += 1;
        if node.is_leaf() {
            return self.leaf(page, node, birth, below);
        }
        let separator = |index: usize| {
            let mut key = node.prefix().to_vec();
            node.push_suffix(index, &mut key);
            key
        };
        for child in 0..=node.count() {
            let limit = (child < node.count()).then(|| separator(child));
            if limit.as_deref().is_some_and(|limit| below.is_some_and(|below| below <= limit)) {
                return Err(fail(Problem::Order(child)));
            }
            let before = self.last.clone();
            self.node(node.child(child), birth, level - 1, limit.as_deref().or(below))?;
            // A separator is above all keys before it, and not above the first one after it.
            if let Some(index) = child.checked_sub(1)
                && before.is_some_and(|before| before >= separator(index))
            {
                return Err(fail(Problem::Order(index)));
            }
        }
        Ok(())
    }

    fn leaf(
        &mut self,
        page: PageNumber,
        node: Node<'a>,
        birth: u64,
        below: Option<&[u8]>,
    ) -> Result<(), CheckError> {
        let fail = |problem| CheckError { page, problem };
        if node.count() == 0 && page != self.root.page {
            return Err(fail(Problem::Empty));
        }
        self.stats.leaves += 1;
        self.stats.entries += node.count();
        self.stats.leaf_bytes += node.live() + node.count() * (ENTRY_BYTES - CELL_HEADER_BYTES);
        for index in 0..node.count() {
            self.key.clear();
            self.key.extend_from_slice(node.prefix());
            let cell = node.push_suffix(index, &mut self.key);
            let ascends = self.last.as_ref().is_none_or(|last| *last < self.key);
            let in_page = below.is_none_or(|below| self.key.as_slice() < below);
            if !ascends || !in_page || node.search(&self.key) != Ok(index) {
                return Err(fail(Problem::Order(index)));
            }
            self.last = Some(self.key.clone());
            if cell.large {
                self.large(page, birth, index, Value { bytes: cell.value, large: true })?;
            }
        }
        Ok(())
    }

    fn large(
        &mut self,
        leaf: PageNumber,
        birth: u64,
        index: usize,
        value: Value<'_>,
    ) -> Result<(), CheckError> {
        let mut found = 0;
        let mut pending: Vec<(PageNumber, u64)> =
            overflow::tops(value.bytes).map(|top| (top, birth)).collect();
        while let Some((page, parent_birth)) = pending.pop() {
            let body = self.body(page, parent_birth)?;
            if body[0] != KIND_OVERFLOW {
                return Err(CheckError { page, problem: Problem::Kind(body[0]) });
            }
            self.stats.pages += 1;
            self.stats.overflow += 1;
            let below = OverflowPage::new(body);
            if below.level == 0 {
                found += below.content.len();
            } else {
                let birth = birth_of(self.root.pages.page(page));
                pending.extend(overflow::numbers(below.content).map(|number| (number, birth)));
            }
        }
        if found != overflow::length(value.bytes) {
            return Err(CheckError { page: leaf, problem: Problem::Length(index) });
        }
        Ok(())
    }
}
