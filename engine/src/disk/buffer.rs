//! Memory that direct I/O accepts: whole blocks at a block-aligned address.
//!
//! A vector with a block to spare, of which an aligned part is used: no `unsafe`, at the price of
//! up to one block of memory for each buffer.
//!
//! Invariants:
//!
//!   * `start` is what aligns the vector's bytes; the vector never moves them without adjusting it
//!   * `start + len` is within the vector, all of whose bytes are initialized

use super::BLOCK_BYTES;

/// A growable byte buffer at a block-aligned address. Moving it does not move its bytes.
#[derive(Debug)]
pub struct AlignedBuf {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// An empty buffer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        let capacity = capacity.max(1).next_multiple_of(BLOCK_BYTES);
        let bytes = vec![0; capacity + BLOCK_BYTES];
        let start = bytes.as_ptr().align_offset(BLOCK_BYTES);
        assert!(start < BLOCK_BYTES, "byte pointers can be aligned to a block");
        Self { bytes, start, len: 0 }
    }

    /// A buffer of so many zeros.
    pub fn zeroed(bytes: usize) -> Self {
        Self { len: bytes, ..Self::with_capacity(bytes) }
    }

    /// Appends `more`; grows by doubling if there is no room.
    pub fn extend_from_slice(&mut self, more: &[u8]) {
        let end = self.len + more.len();
        self.reserve(end);
        self.bytes[self.start + self.len..self.start + end].copy_from_slice(more);
        self.len = end;
    }

    /// Appends zeros up to the next multiple of the block size.
    pub fn pad_to_block(&mut self) {
        let end = self.len.next_multiple_of(BLOCK_BYTES);
        self.reserve(end);
        self.bytes[self.start + self.len..self.start + end].fill(0);
        self.len = end;
    }

    /// Empties it; the memory stays.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// How many bytes it can hold without growing.
    pub fn capacity(&self) -> usize {
        (self.bytes.len() - self.start) / BLOCK_BYTES * BLOCK_BYTES
    }

    /// How many bytes it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes; the first one is at a block-aligned address.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    /// The bytes, to change them in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }

    fn reserve(&mut self, total: usize) {
        if total <= self.capacity() {
            return;
        }
        let mut larger = Self::with_capacity(total.max(2 * self.capacity()));
        larger.bytes[larger.start..larger.start + self.len].copy_from_slice(self.as_slice());
        larger.len = self.len;
        *self = larger;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_aligned_while_it_grows() {
        let mut buffer = AlignedBuf::with_capacity(1);
        for round in 1..=40_u8 {
            buffer.extend_from_slice(&[round; 1000]);
            assert_eq!(buffer.as_slice().as_ptr().align_offset(BLOCK_BYTES), 0);
            assert_eq!(buffer.as_slice()[buffer.len() - 1], round);
        }
        assert_eq!((buffer.len(), buffer.as_slice()[0]), (40_000, 1));
    }

    #[test]
    fn padding_is_zero_where_older_bytes_were() {
        let mut buffer = AlignedBuf::with_capacity(BLOCK_BYTES);
        buffer.extend_from_slice(&[7; BLOCK_BYTES]);
        buffer.clear();
        buffer.extend_from_slice(&[1]);
        buffer.pad_to_block();
        assert_eq!(buffer.len(), BLOCK_BYTES);
        assert_eq!(buffer.as_slice()[1..], [0; BLOCK_BYTES - 1]);
        buffer.pad_to_block();
        assert_eq!(buffer.len(), BLOCK_BYTES);
    }
}
