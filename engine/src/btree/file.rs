//! Pages on their way to a snapshot file: what they name, and their form there.

use super::Version;
use super::check::{self, CheckError, Problem};
use super::node::{KIND_NODE, Node, NodeMut, Value};
use super::overflow::{self, KIND_OVERFLOW, OverflowPage};
use crate::pages::{BIRTH_BYTES, BIRTH_OF_FILE, Body, Page, PageNumber, birth_of, body_of};

/// What a page is to a snapshot file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilePage {
    /// A leaf.
    Leaf,
    /// A branch of this level.
    Branch(u8),
    /// A page of a large value.
    Overflow,
}

impl Version {
    /// The number of the root page.
    pub(crate) fn root_page(&self) -> PageNumber {
        self.hold.root
    }

    fn body(&self, number: PageNumber) -> &Body {
        body_of(self.hold.pages.page(number))
    }

    /// What a page of the version is, and the pages that it names, in order.
    pub(crate) fn file_page(&self, number: PageNumber) -> (FilePage, Vec<PageNumber>) {
        // A copy: read from end to end, a page comes sooner from memory than cell by cell, and is
        // in the cache when it is written next. Snapshots take two thirds of the time.
        let body = &{ *self.body(number) };
        if body[0] == KIND_OVERFLOW {
            let page = OverflowPage::new(body);
            let below =
                if page.level > 0 { overflow::numbers(page.content).collect() } else { Vec::new() };
            return (FilePage::Overflow, below);
        }
        let node = Node::new(body);
        if !node.is_leaf() {
            let children = (0..=node.count()).map(|child| node.child(child)).collect();
            return (FilePage::Branch(node.level()), children);
        }
        let cells = (0..node.count()).map(|index| node.cell(index)).filter(|cell| cell.large);
        (FilePage::Leaf, cells.flat_map(|cell| overflow::tops(cell.value)).collect())
    }
}

fn body_of_mut(page: &mut Page) -> &mut Body {
    let (birth, body) = page.split_at_mut(BIRTH_BYTES);
    birth.copy_from_slice(&BIRTH_OF_FILE.to_le_bytes());
    body.try_into().expect("a page is a birth and a body")
}

/// Writes a leaf or branch in its packed form, with other numbers for the pages that it names.
pub(crate) fn write_node(
    version: &Version,
    number: PageNumber,
    named: &[PageNumber],
    page: &mut Page,
) {
    let old = Node::new(version.body(number));
    let mut node = NodeMut::pack(body_of_mut(page), old);
    if !old.is_leaf() {
        assert_eq!(named.len(), old.count() + 1);
        for (child, number) in named.iter().enumerate() {
            node.set_child(child, *number);
        }
        return;
    }
    let mut named = named.iter();
    for index in 0..old.count() {
        let cell = old.cell(index);
        if cell.large {
            let mut reference = cell.value[..4].to_vec();
            for _ in overflow::tops(cell.value) {
                let number = named.next().expect("every page that is named was written");
                reference.extend_from_slice(&number.to_le_bytes());
            }
            let fits = node.replace(index, Value { bytes: &reference, large: true });
            assert!(fits, "a reference has the length of the one before");
        }
    }
    assert_eq!(named.next(), None, "every page that was written is named");
}

/// Writes a page of a large value, with other numbers for the pages that it names.
pub(crate) fn write_overflow(
    version: &Version,
    number: PageNumber,
    named: &[PageNumber],
    page: &mut Page,
) {
    let body = body_of_mut(page);
    *body = *version.body(number);
    if OverflowPage::new(body).level > 0 {
        overflow::rename(body, named);
    }
}

/// Checks a page of a snapshot file by itself.
pub(crate) fn check_file_page(
    number: PageNumber,
    page: &Page,
    is_root: bool,
) -> Result<(), CheckError> {
    let fail = |problem| CheckError { page: number, problem };
    let birth = birth_of(page);
    if birth != BIRTH_OF_FILE {
        return Err(fail(Problem::Birth { birth, parent: BIRTH_OF_FILE }));
    }
    let body = body_of(page);
    if is_root && body[0] != KIND_NODE {
        return Err(fail(Problem::Kind(body[0])));
    }
    check::page(body, number).map_err(fail)
}
