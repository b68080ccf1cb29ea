//! Page-aligned memory for what is shared with the kernel.
//!
//! The `unsafe` here is that of any owning container: memory allocated, lent by borrows and freed
//! in one place, with bounds that are checked before use.

#![expect(unsafe_code, reason = "the standard library has no allocation of chosen alignment")]

use std::alloc::{self, Layout};
use std::ptr::NonNull;

/// The page size.
const ALIGNMENT: usize = 4096;

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
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed once.
        unsafe { alloc::dealloc(self.start.as_ptr(), self.layout) }
    }
}
