//! Pages of a mapped snapshot file: read-only bytes, every access within bounds.
//!
//! # Why this is sound
//!
//! A mapping is a slice of bytes as long as nobody changes the file: ringkeeper writes a snapshot
//! under a temporary name, and never opens one for writing after it got its final name. If
//! somebody else truncates it while it is mapped, the kernel ends the process at the next access:
//! nothing in here can prevent that, but [`super::Loader`] soon leaves the mapping behind.
#![expect(unsafe_code, reason = "a mapped file is a slice only if nobody changes the file")]
#![expect(dead_code, reason = "opening a snapshot comes next")]

use std::fs::File;
use std::io;

use memmap2::{Advice, Mmap};

use super::{Page, PageNumber};

/// A mapped file of pages.
pub(crate) struct Mapped {
    map: Mmap,
    pages: u32,
}

impl Mapped {
    /// Maps a file.
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        // SAFETY: the file is not changed while it is mapped; see the header.
        let map = unsafe { Mmap::map(file)? };
        // Everything is read once, front to back, to be checked; advice may be refused.
        drop(map.advise(Advice::WillNeed));
        Ok(Self { map, pages: 0 })
    }

    /// Says that the file begins with this many pages. More than there are is refused.
    pub(crate) fn set_pages(&mut self, pages: u32) -> bool {
        let fits = pages as usize <= self.map.as_chunks::<{ super::PAGE_BYTES }>().0.len();
        if fits {
            self.pages = pages;
        }
        fits
    }

    /// How many pages the file begins with.
    pub(crate) fn pages(&self) -> u32 {
        self.pages
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// One of the pages.
    #[inline]
    pub(crate) fn page(&self, number: PageNumber) -> Option<&Page> {
        if number >= self.pages {
            return None;
        }
        self.map.as_chunks().0.get(number as usize)
    }
}
