//! Pages in memory: address space in extents, the right to read, and the right to write.
//!
//! A page number is an extent's number and a position in it. Extents are reserved whole and cost
//! nothing until they are touched; they are never moved or given back while a [`Memory`] lives,
//! so a borrow of a page is a borrow of the memory. The numbers below the base count belong to a
//! mapped snapshot file. They resolve to the file until their extent is loaded, and to the
//! loaded copy afterwards. Those who may be in the file's pages have a share of the mapping, and
//! it ends with the last of them.
//!
//! # Why this is sound
//!
//! The module `pages` is the boundary: `unsafe` blocks are here and in `mapped`, and rely on these
//! rules, which the private state of `pages` keeps.
//!
//!   1. Only a [`Writer`] writes, there is one for each memory, and it lends one page at a time
//!      for writing, borrowing itself for so long.
//!   2. It lends a page for writing only if the page's birth is the number of the version that
//!      it is making (checked on each access). Such a page is in no version that was handed out:
//!      [`Writer::freeze`] raises the number before a version is. The birth is not among the bytes
//!      that it lends.
//!   3. [`Writer::claim`] gives a page a new birth. Its caller, `pages::Store`, passes numbers
//!      that were never used, or that no held version can reach: `holders` decides that.
//!   4. A reader takes page numbers from the version that it holds and from pages of that version,
//!      so it reads only pages that rule 3 keeps. Handing a version to another thread, by any
//!      safe means, orders the writes before the reads; the holder's release is ordered before
//!      the reuse by the reference count (see `holders`).
//!   5. An extent is loaded from a file once, before anyone can see it, and then published by a
//!      `OnceLock`. Pages of a file are immutable until they are claimed as by rule 3, and that
//!      happens only after the extent was loaded: a version that has the new content was frozen
//!      after that, so its readers see the extent too.
#![expect(unsafe_code, reason = "page memory is shared between one writer and many readers")]

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::mapped::Mapped;
use super::{BIRTH_BYTES, BODY_BYTES, Body, PAGE_BYTES, Page, PageNumber, birth_of};

/// Memory is advised and touched ahead in pieces of this size, a huge page.
pub(super) const CHUNK_BYTES: usize = 2 << 20;
pub(super) const CHUNK_PAGES: u32 = (CHUNK_BYTES / PAGE_BYTES) as u32;

const EXTENT_SHIFT: u32 = 18;
/// Pages of an extent: 1 GiB of addresses.
pub(super) const EXTENT_PAGES: u32 = 1 << EXTENT_SHIFT;
const EXTENT_BYTES: usize = EXTENT_PAGES as usize * PAGE_BYTES;
/// Extents of a memory: 1 TiB.
const EXTENTS_MAX: usize = 1024;

const _: () = assert!(EXTENT_BYTES.is_multiple_of(CHUNK_BYTES));
const _: () = assert!(EXTENTS_MAX <= (u32::MAX >> EXTENT_SHIFT) as usize + 1);

/// A reserved range of addresses, aligned for huge pages.
struct Extent {
    first: NonNull<Page>,
    map: MmapRaw,
    /// Where `first` is in `map`.
    offset: usize,
}

// SAFETY: an extent is an address range that it owns; who may read and write the bytes is decided
// by the rules in the header, for any thread.
unsafe impl Send for Extent {}
// SAFETY: as above.
unsafe impl Sync for Extent {}

impl Extent {
    /// Reserves addresses; `unadvised` bytes at the beginning are not backed by huge pages.
    fn reserve(unadvised: usize) -> io::Result<Self> {
        let map = MmapOptions::new()
            .len(EXTENT_BYTES + CHUNK_BYTES)
            .no_reserve_swap()
            .map_anon()
            .map(MmapRaw::from)?;
        let offset = map.as_mut_ptr().align_offset(CHUNK_BYTES);
        assert!(offset <= CHUNK_BYTES);
        let advised = offset + unadvised;
        // A kernel without huge pages refuses the advice; everything works without.
        drop(map.advise_range(Advice::HugePage, advised, EXTENT_BYTES - unadvised));
        // SAFETY: the mapping has CHUNK_BYTES more than the extent, so `offset` is within it.
        let first = unsafe { map.as_mut_ptr().add(offset) };
        let first = NonNull::new(first.cast::<Page>()).expect("a mapping is not at address zero");
        Ok(Self { first, map, offset })
    }

    fn pointer(&self, position: u32) -> *mut Page {
        assert!(position < EXTENT_PAGES);
        // SAFETY: the extent has EXTENT_PAGES pages from `first` on.
        unsafe { self.first.as_ptr().add(position as usize) }
    }
}

/// Reserves an extent for a moment.
pub(super) fn check_room() -> io::Result<()> {
    Extent::reserve(0).map(drop)
}

/// All pages of a map that are in memory.
pub(crate) struct Memory {
    extents: Box<[OnceLock<Extent>]>,
    /// The first number that the writer has not used yet.
    unused: AtomicU32,
    /// Everything below this number has been touched ahead.
    backed: AtomicU32,
}

impl Memory {
    /// A page, if it is in memory.
    #[inline]
    fn page(&self, number: PageNumber) -> Option<&Page> {
        let extent = self.extents[(number >> EXTENT_SHIFT) as usize].get()?;
        // SAFETY: the pointer is to a page of an extent that lives as long as `self`; nobody
        // writes the page, by rules 2 to 4 of the header.
        Some(unsafe { &*extent.pointer(number % EXTENT_PAGES) })
    }

    /// The first number that the writer has not used yet.
    pub(super) fn unused(&self) -> PageNumber {
        self.unused.load(Ordering::Relaxed)
    }

    /// Whether pages of the file in this extent are in memory of their own.
    pub(super) fn is_loaded(&self, number: PageNumber) -> bool {
        self.extents[(number >> EXTENT_SHIFT) as usize].get().is_some()
    }

    fn extent(&self, index: usize) -> &Extent {
        // The first chunk is not advised, so that small maps stay small.
        let unadvised = if index == 0 { CHUNK_BYTES } else { 0 };
        self.extents[index].get_or_init(|| {
            Extent::reserve(unadvised).expect("the kernel has addresses for another extent")
        })
    }

    /// Touches memory ahead of the writer, one chunk, if less than `bytes` are ready. Says whether
    /// it did. For a background thread, so that the writer does not wait for the kernel.
    pub(super) fn back_ahead(&self, bytes: usize) -> io::Result<bool> {
        let unused = self.unused();
        let wanted = u64::from(unused) + (bytes / PAGE_BYTES) as u64;
        let backed = self.backed.load(Ordering::Relaxed).max(unused - unused % CHUNK_PAGES);
        if u64::from(backed) >= wanted || (backed >> EXTENT_SHIFT) as usize >= EXTENTS_MAX {
            return Ok(false);
        }
        let extent = self.extent((backed >> EXTENT_SHIFT) as usize);
        let start = extent.offset + (backed % EXTENT_PAGES) as usize * PAGE_BYTES;
        extent.map.advise_range(Advice::PopulateWrite, start, CHUNK_BYTES)?;
        self.backed.store(backed + CHUNK_PAGES, Ordering::Relaxed);
        Ok(true)
    }

    /// Publishes a copy of the file's pages of one extent. The copy must have been made of exactly
    /// these pages; a second copy of an extent is dropped.
    pub(super) fn publish(&self, copy: Copy) {
        assert!(copy.is_complete());
        drop(self.extents[copy.index].set(copy.extent));
    }
}

/// The pages that a version, or the head, can reach: those in memory, and as long as not all of
/// them are, those of the snapshot file that the map was opened from.
#[derive(Clone)]
pub(crate) struct Pages {
    memory: Arc<Memory>,
    base: Option<Arc<Mapped>>,
}

impl Pages {
    /// A page. The caller got the number by rule 4 of the header.
    ///
    /// Panics when there is no such page, which only a damaged page of a file can ask for.
    #[inline]
    pub(crate) fn page(&self, number: PageNumber) -> &Page {
        self.memory.page(number).unwrap_or_else(|| self.base_page(number))
    }

    /// A page of the file.
    #[cold]
    fn base_page(&self, number: PageNumber) -> &Page {
        let page = self.base.as_ref().and_then(|base| base.page(number));
        page.unwrap_or_else(|| panic!("no page {number} in the snapshot file"))
    }

    pub(super) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The snapshot file below, unless all of it is in memory.
    pub(super) fn base(&self) -> Option<&Arc<Mapped>> {
        self.base.as_ref()
    }
}

/// A copy of the file's pages of one extent, in the making; nobody else sees it.
pub(super) struct Copy {
    extent: Extent,
    index: usize,
    pages: u32,
    copied: u32,
}

impl Copy {
    /// An empty copy of the extent that holds page `number` of a file of `base_pages`.
    pub(super) fn begin(number: PageNumber, base_pages: u32) -> io::Result<Self> {
        assert!(number < base_pages);
        let index = (number >> EXTENT_SHIFT) as usize;
        let first = number - number % EXTENT_PAGES;
        let pages = EXTENT_PAGES.min(base_pages - first);
        Ok(Self { extent: Extent::reserve(0)?, index, pages, copied: 0 })
    }

    pub(super) fn is_complete(&self) -> bool {
        self.copied == self.pages
    }

    /// The page that was copied last.
    pub(super) fn last(&self) -> &Page {
        let last = self.copied.checked_sub(1).expect("a page was copied");
        // SAFETY: the extent is this value's own, and the page was written.
        unsafe { &*self.extent.pointer(last) }
    }

    /// The number of the next page to copy.
    pub(super) fn next(&self) -> PageNumber {
        ((self.index as u32) << EXTENT_SHIFT) + self.copied
    }

    /// Copies the next page.
    pub(super) fn push(&mut self, page: &Page) {
        assert!(!self.is_complete());
        // SAFETY: the extent is this value's own, and so is every page of it.
        unsafe { *self.extent.pointer(self.copied) = *page };
        self.copied += 1;
    }
}

/// The right to write pages of one memory.
pub(super) struct Writer {
    pages: Pages,
    /// The version in the making.
    current: u64,
    unused: PageNumber,
}

impl Writer {
    /// The only writer of pages of which the first are those of `base`.
    pub(super) fn new(base: Option<Mapped>) -> Self {
        let base_pages = base.as_ref().map_or(0, Mapped::pages);
        let unused = base_pages.next_multiple_of(EXTENT_PAGES);
        let memory = Arc::new(Memory {
            extents: (0..EXTENTS_MAX).map(|_| OnceLock::new()).collect(),
            unused: AtomicU32::new(unused),
            backed: AtomicU32::new(unused),
        });
        let pages = Pages { memory, base: base.map(Arc::new) };
        Self { pages, current: 1, unused }
    }

    pub(super) fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Gives up the file if all of its pages are in memory: what is frozen from here on needs it
    /// no more.
    pub(super) fn leave_file(&mut self) {
        let Pages { memory, base } = &mut self.pages;
        base.take_if(|base| {
            (0..base.pages()).step_by(EXTENT_PAGES as usize).all(|number| memory.is_loaded(number))
        });
    }

    /// The number of the version in the making.
    pub(super) fn current(&self) -> u64 {
        self.current
    }

    /// Ends the version in the making; what was written so far is immutable from here on.
    pub(super) fn freeze(&mut self) -> u64 {
        let frozen = self.current;
        self.current = frozen.checked_add(1).expect("nobody makes 2^64 versions");
        frozen
    }

    /// Whether the page was born in the version in the making.
    #[inline]
    pub(super) fn owns(&self, number: PageNumber) -> bool {
        birth_of(self.pages.page(number)) == self.current
    }

    /// A number that was never used.
    pub(super) fn extend(&mut self) -> PageNumber {
        let number = self.unused;
        let index = (number >> EXTENT_SHIFT) as usize;
        assert!(index < EXTENTS_MAX, "the map has used up its address space");
        self.pages.memory.extent(index);
        self.unused = number + 1;
        self.pages.memory.unused.store(self.unused, Ordering::Relaxed);
        number
    }

    fn pointer(&self, number: PageNumber) -> *mut Page {
        let extent = self.pages.memory.extents[(number >> EXTENT_SHIFT) as usize].get();
        extent.expect("a claimed page has memory").pointer(number % EXTENT_PAGES)
    }

    /// Takes a page that nobody can reach into the version in the making; see rule 3.
    pub(super) fn claim(&mut self, number: PageNumber) {
        let birth = self.pointer(number).cast::<[u8; BIRTH_BYTES]>();
        // SAFETY: the page is within its extent, and nobody can reach it (rule 3).
        unsafe { *birth = self.current.to_le_bytes() };
    }

    /// The bytes of a page born in the version in the making.
    #[inline]
    pub(super) fn edit(&mut self, number: PageNumber) -> &mut Body {
        assert!(self.owns(number), "page {number} may be seen by a version");
        let pointer = self.pointer(number).cast::<u8>();
        // SAFETY: the body is the page without its birth, and within its extent. No version has
        // the page (rule 2), and the borrow of `self` keeps any other access of the writer out.
        unsafe { &mut *pointer.add(BIRTH_BYTES).cast::<[u8; BODY_BYTES]>() }
    }

    /// Claims `to` and fills it with the bytes of `from`.
    pub(super) fn copy(&mut self, from: PageNumber, to: PageNumber) {
        assert_ne!(from, to);
        self.claim(to);
        let source: *const Page = self.pages.page(from);
        let target = self.pointer(to);
        // SAFETY: two pages of two numbers do not overlap; `to` was claimed, so only we reach it.
        unsafe {
            let source = source.cast::<u8>().add(BIRTH_BYTES);
            target.cast::<u8>().add(BIRTH_BYTES).copy_from_nonoverlapping(source, BODY_BYTES);
        }
    }
}
