//! Pages of a mapped snapshot file: read-only bytes, every access within bounds.
//!
//! # Why this is sound
//!
//! A mapping is a slice of bytes as long as nobody changes the file: ringkeeper writes a snapshot
//! under a temporary name, and changes none that has got its final name, as long as somebody has a
//! lock of it: who removes one cuts it shorter step by step. If somebody else truncates it while
//! it is mapped, the kernel ends the process at the next access: nothing in here can prevent that,
//! but [`super::Loader`] soon leaves the mapping behind.
#![expect(unsafe_code, reason = "a mapped file is a slice only if nobody changes the file")]

use std::fs::File;
use std::io;

use memmap2::{Advice, Mmap};

use super::{PAGE_BYTES, Page, PageNumber};

/// Pages that have a checksum together.
pub(crate) const BLOCK_PAGES: u32 = 16;
/// Bytes of them.
pub(crate) const BLOCK_BYTES: usize = BLOCK_PAGES as usize * PAGE_BYTES;

/// The checksum of a block of pages.
pub(crate) fn block_checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// The checksum of a block that grows; it begins with zero.
pub(crate) fn block_checksum_append(checksum: u32, page: &Page) -> u32 {
    crc32c::crc32c_append(checksum, page)
}

/// A mapped file that begins with pages.
pub(crate) struct Mapped {
    map: Mmap,
    /// A lock of the file lasts as long as the mapping.
    _file: File,
    pages: u32,
    /// Of each block of pages.
    checksums: Vec<u32>,
}

impl Mapped {
    /// Maps a file that begins with so many pages, and has these checksums of their blocks.
    pub(crate) fn map(file: &File, pages: u32, checksums: Vec<u32>) -> io::Result<Self> {
        // SAFETY: the file is not changed while it is mapped; see the header.
        let map = unsafe { Mmap::map(file)? };
        assert!(pages as usize * PAGE_BYTES <= map.len());
        assert_eq!(checksums.len(), pages.div_ceil(BLOCK_PAGES) as usize);
        // Everything is read once, front to back, to be checked; advice may be refused.
        drop(map.advise(Advice::WillNeed));
        Ok(Self { map, _file: file.try_clone()?, pages, checksums })
    }

    /// How many pages the file begins with.
    pub(crate) fn pages(&self) -> u32 {
        self.pages
    }

    /// One of the pages.
    #[inline]
    pub(crate) fn page(&self, number: PageNumber) -> Option<&Page> {
        if number >= self.pages {
            return None;
        }
        self.map.as_chunks().0.get(number as usize)
    }

    /// The pages of a block.
    pub(crate) fn block(&self, block: u32) -> &[u8] {
        let pages = &self.map[..self.pages as usize * PAGE_BYTES];
        pages.chunks(BLOCK_BYTES).nth(block as usize).expect("there is such a block")
    }

    /// The checksum that a block should have.
    pub(crate) fn checksum(&self, block: u32) -> u32 {
        self.checksums[block as usize]
    }
}
