//! Values that do not fit a leaf: lists of pages.
//!
//! The value is cut into data pages. Their numbers lie in the leaf as long as they are few;
//! otherwise index pages hold them, in as many levels as it takes. The number of levels follows
//! from the length, so a reference is just `{length u32, page number u32, ...}`.
//!
//! ```text
//!   birth u64 | kind u8 | level u8 | bytes used u16 | data, or page numbers u32 ...
//! ```

use super::node::{Value, u16_at, u32_at};
use super::root::Root;
use crate::pages::{BODY_BYTES, Body, PageNumber, Store};

/// Marks a page of a large value.
pub(crate) const KIND_OVERFLOW: u8 = 2;

const KIND: usize = 0;
const LEVEL: usize = 1;
const USED: usize = 2;
const HEADER_BYTES: usize = 4;
/// Bytes of a value in one page.
pub(crate) const DATA_BYTES: usize = BODY_BYTES - HEADER_BYTES;
const NUMBER_BYTES: usize = 4;
/// Page numbers in one index page.
const NUMBERS: usize = DATA_BYTES / NUMBER_BYTES;
/// Page numbers in a leaf, at most.
const NUMBERS_IN_LEAF: usize = 16;

const _: () = assert!((1 + NUMBERS_IN_LEAF) * NUMBER_BYTES <= super::node::VALUE_INLINE_MAX);

/// How the pages of a value are arranged: the number of page numbers in the leaf, and the level
/// of the pages that they name.
fn shape(length: usize) -> (usize, u8) {
    let mut pages = length.div_ceil(DATA_BYTES);
    let mut level = 0;
    while pages > NUMBERS_IN_LEAF {
        pages = pages.div_ceil(NUMBERS);
        level += 1;
    }
    (pages, level)
}

fn write_page(store: &mut Store, level: u8, content: &[u8]) -> PageNumber {
    let number = store.allocate();
    let body = store.edit(number);
    body[KIND] = KIND_OVERFLOW;
    body[LEVEL] = level;
    let used = u16::try_from(content.len()).expect("a page is shorter than 64 KiB");
    body[USED..HEADER_BYTES].copy_from_slice(&used.to_le_bytes());
    let (data, rest) = body[HEADER_BYTES..].split_at_mut(content.len());
    data.copy_from_slice(content);
    rest.fill(0);
    number
}

/// Writes a value to pages of its own, and the reference to it to `reference`.
pub(crate) fn write(store: &mut Store, value: &[u8], reference: &mut Vec<u8>) {
    let length = u32::try_from(value.len()).expect("a value is shorter than 4 GiB");
    reference.clear();
    reference.extend_from_slice(&length.to_le_bytes());
    let (count, top) = shape(value.len());
    let mut numbers = Vec::new();
    for data in value.chunks(DATA_BYTES) {
        numbers.extend_from_slice(&write_page(store, 0, data).to_le_bytes());
    }
    for level in 1..=top {
        let mut above = Vec::new();
        for content in numbers.chunks(NUMBERS * NUMBER_BYTES) {
            above.extend_from_slice(&write_page(store, level, content).to_le_bytes());
        }
        numbers = above;
    }
    assert_eq!(numbers.len(), count * NUMBER_BYTES);
    reference.extend_from_slice(&numbers);
}

/// A page of a large value, for reading.
#[derive(Clone, Copy)]
pub(crate) struct OverflowPage<'a> {
    pub(crate) level: u8,
    pub(crate) content: &'a [u8],
}

impl<'a> OverflowPage<'a> {
    pub(crate) fn new(body: &'a Body) -> Self {
        assert_eq!(body[KIND], KIND_OVERFLOW, "not a page of a large value");
        let content = &body[HEADER_BYTES..][..u16_at(body, USED)];
        Self { level: body[LEVEL], content }
    }
}

/// Replaces the page numbers of an index page.
pub(crate) fn rename(body: &mut Body, named: &[PageNumber]) {
    assert_eq!(OverflowPage::new(body).content.len(), named.len() * NUMBER_BYTES);
    for (bytes, number) in body[HEADER_BYTES..].as_chunks_mut().0.iter_mut().zip(named) {
        *bytes = number.to_le_bytes();
    }
}

/// The length of the value that a reference is of.
pub(crate) fn length(reference: &[u8]) -> usize {
    u32_at(reference, 0) as usize
}

/// The page numbers in a reference, or in an index page.
pub(crate) fn numbers(content: &[u8]) -> impl Iterator<Item = PageNumber> {
    content.as_chunks().0.iter().map(|number| u32::from_le_bytes(*number))
}

/// The page numbers in a reference.
pub(crate) fn tops(reference: &[u8]) -> impl Iterator<Item = PageNumber> {
    numbers(&reference[NUMBER_BYTES..])
}

/// Whether a reference has as many page numbers as its length asks for.
pub(crate) fn is_well_formed(reference: &[u8]) -> bool {
    reference.len() >= NUMBER_BYTES
        && reference.len() == (1 + shape(length(reference)).0) * NUMBER_BYTES
}

/// Calls `visit` for each page of a value with its content; an index page comes before the pages
/// that it names. `visit` says whether to go on below.
pub(crate) fn walk<'a>(
    root: Root<'a>,
    leaf: PageNumber,
    value: Value<'_>,
    visit: &mut impl FnMut(PageNumber, OverflowPage<'a>) -> bool,
) {
    assert!(value.large && is_well_formed(value.bytes), "not the reference of a large value");
    let (_, level) = shape(length(value.bytes));
    for number in tops(value.bytes) {
        walk_page(root, leaf, number, level, visit);
    }
}

fn walk_page<'a>(
    root: Root<'a>,
    parent: PageNumber,
    number: PageNumber,
    level: u8,
    visit: &mut impl FnMut(PageNumber, OverflowPage<'a>) -> bool,
) {
    let page = OverflowPage::new(root.below(parent, number));
    assert_eq!(page.level, level, "a page of another level");
    if visit(number, page) && level > 0 {
        for below in numbers(page.content) {
            walk_page(root, number, below, level - 1, visit);
        }
    }
}

/// Reads a value from its pages.
pub(crate) fn read(root: Root<'_>, leaf: PageNumber, value: Value<'_>) -> Vec<u8> {
    // A damaged reference may claim any length: memory grows with what is there.
    let mut bytes = Vec::new();
    walk(root, leaf, value, &mut |_, page| {
        if page.level == 0 {
            bytes.extend_from_slice(page.content);
        }
        true
    });
    assert_eq!(bytes.len(), length(value.bytes), "a large value has all its pages");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format_document::{assert_fields, assert_says};
    use crate::pages::BIRTH_BYTES;

    const HEADING: &str = "### Large values";

    #[test]
    fn the_document_has_the_offsets_and_numbers() {
        let at = |offset: usize| BIRTH_BYTES + offset;
        let fields = [
            (0, BIRTH_BYTES, "birth"),
            (at(KIND), 1, "kind"),
            (at(LEVEL), 1, "level"),
            (at(USED), 2, "used"),
        ];
        assert_fields(HEADING, &fields);
        let words = [
            format!("| kind | {KIND_OVERFLOW} |"),
            format!("| {} | | content |", at(HEADER_BYTES)),
            format!("up to {NUMBERS_IN_LEAF} page numbers (u32)"),
        ];
        assert_says(HEADING, words);
    }
}
