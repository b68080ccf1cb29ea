//! Group commit: what waits for its turn to be written, already in the form in which it will be.
//!
//! A batch is a frame without its header. What is appended while all writes are out goes into the
//! last batch, so that the longer the disk takes the more it gets at once.

use std::collections::VecDeque;

use super::format::{self, FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use crate::disk::{AlignedBuf, BLOCK_BYTES};
use crate::zxid::Zxid;

/// Buffers that grew beyond this are not kept for later batches.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// A frame to be: room for the header, then the body.
#[derive(Debug)]
pub(super) struct Batch {
    frame: AlignedBuf,
    base: Zxid,
    first: Zxid,
    pub(super) last: Zxid,
}

/// The batches that wait, and the buffers that do not.
#[derive(Debug)]
pub(super) struct Batches {
    waiting: VecDeque<Batch>,
    waiting_bytes: usize,
    idle: Vec<AlignedBuf>,
    idle_max: usize,
    /// A batch that has this much takes no more transactions.
    frame_bytes_max: usize,
}

/// What a frame says that its batch does not know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) incarnation: u64,
    pub(super) sequence: u64,
    pub(super) durable_to: u64,
    pub(super) previous: u32,
    pub(super) opening: u32,
}

impl Batch {
    /// Blocks that its frame takes, in bytes.
    pub(super) fn padded_bytes(&self) -> u64 {
        format::stride(self.frame.len())
    }

    /// The last zxid before it.
    pub(super) fn base(&self) -> Zxid {
        self.base
    }

    /// Writes the header: the frame as it goes to the disk, and its checksum.
    pub(super) fn seal(mut self, kind: FrameKind, place: Place) -> (AlignedBuf, u32) {
        let body_bytes = self.frame.len() - FRAME_HEADER_BYTES;
        let mut header = FrameHeader {
            checksum: 0,
            kind,
            body_bytes: u32::try_from(body_bytes).expect("a frame is smaller than a segment"),
            incarnation: place.incarnation,
            sequence: place.sequence,
            base_zxid: self.base,
            first_zxid: self.first,
            last_zxid: self.last,
            durable_to: place.durable_to,
            previous: place.previous,
            opening: place.opening,
        };
        let checksum = header.seal(self.frame.as_mut_slice());
        self.frame.pad_to_block();
        (self.frame, checksum)
    }
}

impl Batches {
    pub(super) fn new(frame_bytes_max: usize, idle_max: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            idle: Vec::with_capacity(idle_max),
            idle_max,
            frame_bytes_max,
        }
    }

    /// Adds transactions, to the last batch if they fit and go on from it in the same epoch.
    pub(super) fn push(&mut self, base: Zxid, first: Zxid, last: Zxid, txns: &[u8]) {
        self.waiting_bytes += txns.len();
        let max = self.frame_bytes_max;
        if let Some(batch) = self.waiting.back_mut()
            && batch.last.next() == Some(first)
            && batch.frame.len() + txns.len() <= max
        {
            batch.frame.extend_from_slice(txns);
            batch.last = last;
            return;
        }
        let mut batch = self.empty(base);
        (batch.first, batch.last) = (first, last);
        batch.frame.extend_from_slice(txns);
        self.waiting.push_back(batch);
    }

    /// A batch without transactions.
    pub(super) fn empty(&mut self, base: Zxid) -> Batch {
        let mut frame =
            self.idle.pop().unwrap_or_else(|| AlignedBuf::with_capacity(16 * BLOCK_BYTES));
        frame.clear();
        frame.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        Batch { frame, base, first: base, last: base }
    }

    pub(super) fn front(&self) -> Option<&Batch> {
        self.waiting.front()
    }

    pub(super) fn pop(&mut self) -> Option<Batch> {
        let batch = self.waiting.pop_front()?;
        self.waiting_bytes -= batch.frame.len() - FRAME_HEADER_BYTES;
        Some(batch)
    }

    /// Takes back a buffer that was written.
    pub(super) fn give_back(&mut self, frame: AlignedBuf) {
        if self.idle.len() < self.idle_max && frame.capacity() <= KEPT_BYTES_MAX {
            self.idle.push(frame);
        }
    }

    /// Bytes of transactions that wait.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }
}
