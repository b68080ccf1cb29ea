//! The buffers that the kernel fills with what it receives: a ring of them, shared with it.
//!
//! *Invariants*: a buffer belongs to the kernel from `give` on until a completion names it, and to
//! us from then until the next `give`. The memory lives until io_uring has no operation left
//! (see `Uring::drop`).

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::memory::Region;

/// The one group of buffers that receives take from.
pub(super) const GROUP: u16 = 0;

/// Most buffers the kernel takes in a ring.
pub(super) const BUFFERS_MAX: u32 = 1 << 15;

#[derive(Debug)]
pub(super) struct Buffers {
    entries: Region,
    memory: Region,
    count: u16,
    bytes: u32,
    tail: u16,
}

impl Buffers {
    /// Makes `count` buffers (a power of two) of `bytes` each and hands them all to the kernel.
    pub(super) fn new(ring: &IoUring, count: u32, bytes: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two() && count <= BUFFERS_MAX, "{count} buffers");
        let entries = Region::new(count as usize * size_of::<BufRingEntry>());
        let memory = Region::new(count as usize * bytes as usize);
        let mut buffers = Self { entries, memory, count: count as u16, bytes, tail: 0 };
        // SAFETY: the entries are page-aligned and as many as said, and outlive the ring's use
        // of them: `Uring` drops its buffers after everything in flight has ended.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                buffers.entries.start() as u64,
                buffers.count,
                GROUP,
                0,
            )?;
        }
        for id in 0..buffers.count {
            buffers.give(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// The first `len` bytes of buffer `id`, which a completion named and which was not given
    /// back yet.
    pub(super) fn bytes(&self, id: u16, len: usize) -> &[u8] {
        assert!(id < self.count && len <= self.bytes as usize, "a buffer's completion is ours");
        let offset = usize::from(id) * self.bytes as usize;
        // SAFETY: within the region by the assertion. The kernel writes to a buffer only before the
        // completion that names it, and again only after `give`, which takes `&mut self`.
        unsafe { std::slice::from_raw_parts(self.memory.start().add(offset), len) }
    }

    /// Hands buffer `id` back to the kernel, as of the next `publish`.
    pub(super) fn give(&mut self, id: u16) {
        assert!(id < self.count, "a buffer's completion is ours");
        let place = usize::from(self.tail & (self.count - 1));
        let offset = usize::from(id) * self.bytes as usize;
        // SAFETY: `place` is below the number of entries and `offset` within the buffers. The entry
        // is not read by the kernel until the tail is published: at most `count` buffers exist, so
        // the place of the tail is not one that waits to be taken. The tail itself lies in the
        // reserved field of the first entry, which these setters leave alone.
        unsafe {
            let entry = &mut *self.entries.start_as::<BufRingEntry>().add(place);
            entry.set_addr(self.memory.start().add(offset) as u64);
            entry.set_len(self.bytes);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see what was given.
    pub(super) fn publish(&self) {
        // SAFETY: the first entry is initialized (zeroed) and page-aligned; its reserved field is
        // the tail by the kernel's definition. We alone write it, the kernel reads it with acquire.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.start_as()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}
