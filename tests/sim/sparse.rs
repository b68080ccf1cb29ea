//! Bytes of a file, of which runs of zeros and copies cost nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

const BLOCK_BYTES: usize = 4096;

/// Bytes.
#[derive(Clone, Debug, Default)]
pub struct Sparse {
    len: usize,
    /// What is not here is zero.
    blocks: BTreeMap<usize, Arc<[u8; BLOCK_BYTES]>>,
}

impl Sparse {
    /// These bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let mut sparse = Self::default();
        sparse.put(0, bytes);
        sparse
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Zeros up to this length, if it is shorter.
    pub fn extend_to(&mut self, len: usize) {
        self.len = self.len.max(len);
    }

    /// Writes, beyond the end as well.
    pub fn put(&mut self, mut offset: usize, mut bytes: &[u8]) {
        self.extend_to(offset + bytes.len());
        while !bytes.is_empty() {
            let (index, at) = (offset / BLOCK_BYTES, offset % BLOCK_BYTES);
            let count = bytes.len().min(BLOCK_BYTES - at);
            let (part, rest) = bytes.split_at(count);
            let block = self.blocks.entry(index).or_insert_with(|| Arc::new([0; BLOCK_BYTES]));
            Arc::make_mut(block)[at..at + count].copy_from_slice(part);
            (offset, bytes) = (offset + count, rest);
        }
    }

    /// Reads as much as there is.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> usize {
        let from = self.len.min(offset);
        let count = into.len().min(self.len - from);
        let mut done = 0;
        while done < count {
            let (index, at) = ((from + done) / BLOCK_BYTES, (from + done) % BLOCK_BYTES);
            let part = (count - done).min(BLOCK_BYTES - at);
            let target = &mut into[done..done + part];
            match self.blocks.get(&index) {
                Some(block) => target.copy_from_slice(&block[at..at + part]),
                None => target.fill(0),
            }
            done += part;
        }
        count
    }

    /// All of them.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(0, &mut bytes);
        bytes
    }
}
