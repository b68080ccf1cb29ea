//! Moves the pages of a mapped snapshot file into memory, in the background.
//!
//! Numbers stay: the copy of an extent takes the place of the file's pages at once. Readers that
//! are in the file's pages stay there, the bytes are the same. Afterwards no reader waits for a
//! page fault, and the writer can use pages again that the tree no longer needs. The mapping, and
//! with it the room of a file that was removed, goes when the last of those readers has gone.

use std::io;
use std::sync::Arc;

use thiserror::Error;

use super::arena::{CHUNK_PAGES, Copy, Memory, Pages};
use super::mapped::{BLOCK_PAGES, Mapped, block_checksum_append};
use super::{PAGE_BYTES, Page, PageNumber};

/// Why pages could not be moved into memory.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The kernel has no memory.
    #[error("no memory for the pages of the snapshot")]
    Memory(#[from] io::Error),
    /// The pages are not what they were when the file was opened.
    #[error(
        "pages {first} to {last} (from offset {}) of the snapshot that was recovered from have \
         changed since it was opened", u64::from(*first) * PAGE_BYTES as u64
    )]
    Changed {
        /// The first page of the damaged block.
        first: u32,
        /// Its last page.
        last: u32,
    },
}

/// Moves pages of a snapshot file into memory, piece by piece.
pub struct Loader {
    memory: Arc<Memory>,
    base: Option<Arc<Mapped>>,
    next: PageNumber,
    copy: Option<Copy>,
    /// The checksum of the copied pages of the block that the next page is of.
    checksum: u32,
}

impl Loader {
    /// How many bytes one step copies at most.
    pub const STEP_BYTES: usize = super::arena::CHUNK_BYTES;

    pub(super) fn new(pages: &Pages) -> Self {
        let (memory, base) = (Arc::clone(pages.memory()), pages.base().cloned());
        Self { memory, base, next: 0, copy: None, checksum: 0 }
    }

    /// Copies the next pages; says whether there are more. The copies are checked again. When it
    /// has said no, it is called now and then, and gives up the mapping when it is the last that
    /// has it: that takes a while for a large one, and should hold up nobody.
    ///
    /// The pages become visible extent by extent (1 GiB), so that nothing is seen half copied.
    /// After an error the rest stays where it is; the server should stop.
    pub fn step(&mut self) -> Result<bool, LoadError> {
        let Some(base) = &self.base else { return Ok(false) };
        if self.next >= base.pages() {
            self.base.take_if(|base| Arc::strong_count(base) == 1);
            return Ok(false);
        }
        let copy = match &mut self.copy {
            Some(copy) => copy,
            empty => empty.insert(Copy::begin(self.next, base.pages())?),
        };
        for _ in 0..CHUNK_PAGES {
            if copy.is_complete() {
                break;
            }
            let number = copy.next();
            copy.push(page_of(base, number));
            self.checksum = block_checksum_append(self.checksum, copy.last());
            self.next = copy.next();
            if self.next.is_multiple_of(BLOCK_PAGES) || self.next == base.pages() {
                let block = number / BLOCK_PAGES;
                if std::mem::take(&mut self.checksum) != base.checksum(block) {
                    return Err(LoadError::Changed { first: block * BLOCK_PAGES, last: number });
                }
            }
        }
        if copy.is_complete()
            && let Some(copy) = self.copy.take()
        {
            self.memory.publish(copy);
        }
        Ok(self.next < base.pages())
    }
}

fn page_of(base: &Mapped, number: PageNumber) -> &Page {
    base.page(number).expect("a copy has the pages that the file has")
}
