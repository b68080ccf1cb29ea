//! The page store: fixed-size pages by number, one writer that copies before it writes, and any
//! number of versions that readers hold.
//!
//! A page begins with its birth, the number of the version that it was written for. A page born
//! in the version in the making is edited in place; any other one is copied first, and the old
//! one is freed: it is used again when no held version sees it (`holders`).
//!
//! Version numbers only grow; a number is never used again, also not after the writer returned to
//! an earlier version. Otherwise a page of the abandoned version would pass for one's own.

mod arena;
mod holders;
mod loader;
mod mapped;

use std::io;
#[cfg(not(feature = "loom"))]
use std::sync::Arc as HoldArc;

#[cfg(feature = "loom")]
use loom::sync::Arc as HoldArc;

pub(crate) use arena::Pages;
pub use loader::{LoadError, Loader};
pub(crate) use mapped::{BLOCK_BYTES, BLOCK_PAGES, Mapped, block_checksum, block_checksum_append};

use crate::zxid::Zxid;
use arena::{Memory, Writer};
use holders::Holders;
use std::sync::Arc;

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;
/// Bytes of a page's birth, at its beginning.
pub(crate) const BIRTH_BYTES: usize = 8;
/// Bytes of a page after its birth.
pub(crate) const BODY_BYTES: usize = PAGE_BYTES - BIRTH_BYTES;

/// A page.
pub(crate) type Page = [u8; PAGE_BYTES];
/// A page without its birth.
pub(crate) type Body = [u8; BODY_BYTES];
/// Names a page of a memory.
pub(crate) type PageNumber = u32;

/// The birth of pages of a snapshot file.
pub(crate) const BIRTH_OF_FILE: u64 = 0;

/// The version that a page was written for.
#[inline]
pub(crate) fn birth_of(page: &Page) -> u64 {
    u64::from_le_bytes(*page.first_chunk().expect("a page is longer than its birth"))
}

/// A page without its birth.
#[inline]
pub(crate) fn body_of(page: &Page) -> &Body {
    page.last_chunk().expect("a body is shorter than its page")
}

/// A frozen state: what a version is.
pub(crate) struct Hold {
    pub(crate) pages: Pages,
    pub(crate) root: PageNumber,
    pub(crate) number: u64,
    pub(crate) zxid: Zxid,
}

/// Holds a frozen state; as long as one clone lives, its pages stay.
pub(crate) type HoldRef = HoldArc<Hold>;

/// How many pages a map has, and what they are doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageStats {
    /// Pages in use: by the head, or waiting.
    pub used: usize,
    /// Of these, pages that the head no longer has, kept for held versions.
    pub waiting: usize,
    /// Pages to be used again.
    pub free: usize,
    /// Versions that are held, or were at the last look.
    pub versions: usize,
}

/// Backs memory ahead of the writer; for a background thread.
#[derive(Clone)]
pub struct Growth {
    memory: Arc<Memory>,
}

impl Growth {
    /// Makes the kernel provide the next 2 MiB of memory, unless `bytes` are ready ahead of the
    /// writer; says whether it did. Call it until it says no, then again after a while. An error
    /// means that the kernel can't, not that anything is lost.
    pub fn grow(&self, bytes: usize) -> io::Result<bool> {
        self.memory.back_ahead(bytes)
    }
}

/// Whether the kernel has addresses for pages.
pub(crate) fn check_room() -> io::Result<()> {
    arena::check_room()
}

/// The writer's side of a page store.
pub(crate) struct Store {
    writer: Writer,
    /// Pages to be used again, the last freed first: it may still be in the processor's cache.
    free: Vec<PageNumber>,
    /// Free pages of the file that are not in memory of their own yet.
    free_in_file: Vec<PageNumber>,
    holders: Holders<Hold>,
    /// Pages claimed and not freed.
    used: usize,
}

impl Store {
    /// An empty store, or one that begins with the pages of a file.
    pub(crate) fn new(base: Option<Mapped>) -> Self {
        let used = base.as_ref().map_or(0, |base| base.pages() as usize);
        let writer = Writer::new(base);
        let holders = Holders::new();
        Self { writer, free: Vec::new(), free_in_file: Vec::new(), holders, used }
    }

    pub(crate) fn pages(&self) -> &Pages {
        self.writer.pages()
    }

    /// A page of the head.
    #[inline]
    pub(crate) fn page(&self, number: PageNumber) -> &Page {
        self.pages().page(number)
    }

    /// The bytes of a page that this version in the making owns.
    #[inline]
    pub(crate) fn edit(&mut self, number: PageNumber) -> &mut Body {
        self.writer.edit(number)
    }

    /// The number of the version in the making.
    pub(crate) fn current(&self) -> u64 {
        self.writer.current()
    }

    fn take(&mut self) -> PageNumber {
        self.used += 1;
        self.free.pop().unwrap_or_else(|| self.writer.extend())
    }

    /// A page to write, with any bytes in it.
    pub(crate) fn allocate(&mut self) -> PageNumber {
        let number = self.take();
        self.writer.claim(number);
        number
    }

    /// The page itself if it was born in the version in the making; else a copy of it, and the
    /// page is freed.
    #[inline]
    pub(crate) fn own(&mut self, number: PageNumber) -> PageNumber {
        if self.writer.owns(number) { number } else { self.copy(number) }
    }

    fn copy(&mut self, number: PageNumber) -> PageNumber {
        let copy = self.take();
        self.writer.copy(number, copy);
        self.free(number);
        copy
    }

    /// The head has no more use for a page.
    pub(crate) fn free(&mut self, number: PageNumber) {
        let birth = birth_of(self.page(number));
        let free = self.holders.free(number, birth);
        if let Some(number) = free {
            self.give_back(number);
        }
    }

    fn give_back(&mut self, number: PageNumber) {
        self.used -= 1;
        if self.pages().memory().is_loaded(number) {
            self.free.push(number);
        } else {
            self.free_in_file.push(number);
        }
    }

    /// Freezes the head: `root` and all that it reaches is immutable from here on.
    pub(crate) fn freeze(&mut self, root: PageNumber, zxid: Zxid) -> HoldRef {
        let number = self.writer.freeze();
        self.writer.leave_file();
        let pages = self.pages().clone();
        let hold = self.holders.push(number, Hold { pages, root, number, zxid });
        self.reclaim();
        hold
    }

    /// Makes pages that nobody sees any more available.
    pub(crate) fn reclaim(&mut self) {
        let mut released = Vec::new();
        self.holders.release(|page| released.push(page));
        for page in released {
            self.give_back(page);
        }
        if let Some(&first) = self.free_in_file.first()
            && self.pages().memory().is_loaded(first)
        {
            // Extents are loaded one by one; a page whose turn has not come waits on.
            for page in std::mem::take(&mut self.free_in_file) {
                self.used += 1;
                self.give_back(page);
            }
        }
    }

    /// Returns to a version that is held. `born_later` are the head's pages born after it.
    pub(crate) fn roll_back(&mut self, version: &HoldRef, born_later: &[PageNumber]) {
        let past = self.holders.is_past(version.number, version);
        assert!(past, "version {} is not in the past of this head", version.number);
        self.holders.roll_back(version.number);
        for &page in born_later {
            assert!(birth_of(self.page(page)) > version.number);
            self.free(page);
        }
        self.reclaim();
    }

    pub(crate) fn stats(&self) -> PageStats {
        PageStats {
            used: self.used,
            waiting: self.holders.waiting(),
            free: self.free.len() + self.free_in_file.len(),
            versions: self.holders.len(),
        }
    }

    pub(crate) fn loader(&self) -> Loader {
        Loader::new(self.pages())
    }

    pub(crate) fn growth(&self) -> Growth {
        Growth { memory: Arc::clone(self.pages().memory()) }
    }
}
