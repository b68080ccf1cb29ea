//! Page-aligned memory: for files opened with O_DIRECT and for buffers the kernel fills.
//!
//! The `unsafe` here is that of any owning container: memory allocated, lent by borrows and freed
//! in one place, with bounds that are checked before use.

#![expect(unsafe_code, reason = "the standard library has no allocation of chosen alignment")]

use std::alloc::{self, Layout};
use std::ptr::NonNull;

/// Alignment that every file system and device takes for direct I/O, and the page size.
pub const ALIGNMENT: usize = 4096;

/// A piece of zeroed memory at a page boundary.
#[derive(Debug)]
pub(super) struct Region {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a region owns its memory, like a Box, and hands out access by the usual borrows.
unsafe impl Send for Region {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Region {}

impl Region {
    pub(super) fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes.max(ALIGNMENT), ALIGNMENT)
            .expect("buffer sizes come from configuration and are far below isize::MAX");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc::alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { alloc::handle_alloc_error(layout) };
        Self { start, layout }
    }

    pub(super) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The start as a place for values of `T`.
    pub(super) fn start_as<T>(&self) -> *mut T {
        const { assert!(align_of::<T>() <= ALIGNMENT) };
        self.start.cast().as_ptr()
    }

    pub(super) fn len(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed once.
        unsafe { alloc::dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// Bytes for a file: starts at a page boundary, has a fixed capacity, grows by appending.
#[derive(Debug)]
pub struct AlignedBuffer {
    region: Region,
    len: usize,
}

impl AlignedBuffer {
    /// An empty buffer that takes at least `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { region: Region::new(bytes.next_multiple_of(ALIGNMENT)), len: 0 }
    }

    /// How many bytes fit.
    pub fn capacity(&self) -> usize {
        self.region.len()
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the region is initialized from its start, and `len` is within it.
        unsafe { std::slice::from_raw_parts(self.region.start(), self.len) }
    }

    /// The bytes, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.region.start(), self.len) }
    }

    /// Forgets the bytes.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends `bytes`, which must fit.
    pub fn extend(&mut self, bytes: &[u8]) {
        let from = self.len;
        self.resize(from + bytes.len());
        self.as_mut_slice()[from..].copy_from_slice(bytes);
    }

    /// Cuts, or appends zeros, which must fit.
    pub fn resize(&mut self, len: usize) {
        assert!(len <= self.capacity(), "{len} bytes do not fit {}", self.capacity());
        let from = self.len.min(len);
        self.len = len;
        // What an earlier use left behind must not reach the file.
        self.as_mut_slice()[from..].fill(0);
    }

    /// Appends zeros up to a whole number of blocks.
    pub fn pad(&mut self) {
        self.resize(self.len.next_multiple_of(ALIGNMENT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_padded_and_clean_when_reused() {
        let mut buffer = AlignedBuffer::with_capacity(5000);
        assert_eq!(buffer.capacity(), 8192);
        buffer.extend(&[7; 5000]);
        buffer.pad();
        assert_eq!((buffer.len(), buffer.as_slice().as_ptr() as usize % ALIGNMENT), (8192, 0));
        assert!(buffer.as_slice()[5000..].iter().all(|byte| *byte == 0));
        buffer.clear();
        assert!(buffer.is_empty());
        buffer.extend(b"abc");
        buffer.pad();
        assert_eq!(&buffer.as_slice()[..4], b"abc\0");
        assert!(buffer.as_slice()[3..].iter().all(|byte| *byte == 0));
    }

    #[test]
    #[should_panic(expected = "do not fit")]
    fn a_buffer_does_not_grow_beyond_its_capacity() {
        AlignedBuffer::with_capacity(1).resize(4097);
    }
}
