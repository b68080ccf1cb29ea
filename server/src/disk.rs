//! The disk of a server: its data directory, and what the log asks for.
//!
//! ```text
//!   ordering core                                     the disk's thread
//!   DiskOp::Append ──> ring, one durable write
//!                      on_written ──> DiskDone
//!   DiskOp::Prepare, Retire ───────channel──────────> files made, renamed, removed, in order
//!   finished() ──> DiskDone <──────channel, wake ────┘
//! ```
//!
//! Appends go through the core's own ring (see `docs/decisions/002-durable-append.md`); all that
//! may take its time is done by a thread, and never delays them more than the device does.
//!
//! Invariants:
//!
//!   * one process at a time has a data directory, and no write of an earlier one is still under
//!     way when recovery reads (see [`data_dir`])
//!   * a write or sync that fails is never tried again: its error ends the process

pub mod data_dir;
pub mod lock;
pub mod removal;
#[cfg(test)]
mod tests;
mod thread;
pub mod volume;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::disk::{AlignedBuf, DiskDone, DiskOp, SegmentId, StorageError};
use engine::txnlog::LogEnd;
use engine::txnlog::format::segment_name;

use thread::{DiskThread, Finished, Job};
use volume::Directory;

/// A frame on its way to the ring.
#[derive(Debug)]
pub struct FrameWrite {
    /// The segment's file.
    pub file: Arc<File>,
    /// Where in it.
    pub offset: u64,
    /// Whole blocks.
    pub buffer: AlignedBuf,
    /// To be given back to [`Disk::on_written`].
    pub token: u64,
}

/// Executes what the log asks for.
#[derive(Debug)]
pub struct Disk {
    /// Segments that can be appended to.
    segments: BTreeMap<SegmentId, Segment>,
    /// Frames on their way, by sequence, with the segment's number.
    frames: BTreeMap<u64, Frame>,
    /// More than half of a segment is used: until the log goes on in the next one, no segment that
    /// is prepared may take its time. It may take several until there is one beside the reserve.
    needs_next: bool,
    /// Somebody waits until all is done.
    is_awaited: bool,
    thread: DiskThread,
}

/// A frame on its way.
#[derive(Debug)]
struct Frame {
    segment: SegmentId,
    since: Instant,
}

#[derive(Debug)]
struct Segment {
    file: Arc<File>,
    bytes: u64,
}

/// Whether the log will soon want another segment, where frames end at this place of one.
fn needs_next(end: u64, segment_bytes: u64) -> bool {
    end > segment_bytes / 2
}

impl Disk {
    /// Takes over a log that recovery has read to its `end`. `wake` is called, on another thread,
    /// when [`Disk::finished`] has something.
    pub fn start(
        directory: Directory,
        end: &LogEnd,
        wake: impl Fn() + Send + 'static,
    ) -> Result<Self, StorageError> {
        let mut segments = BTreeMap::new();
        let current = end.current.map(|(plan, _)| plan);
        for plan in current.into_iter().chain(end.ready.iter().copied()) {
            let file = directory.open_segment(&segment_name(plan.segment))?;
            segments.insert(plan.segment, Segment { file: Arc::new(file), bytes: plan.bytes });
        }
        let thread = DiskThread::start(directory, wake)?;
        let frames = BTreeMap::new();
        let needs_next = end.current.is_some_and(|(plan, end)| needs_next(end, plan.bytes));
        let disk = Self { segments, frames, needs_next, is_awaited: false, thread };
        disk.set_pace();
        Ok(disk)
    }

    /// Begins an operation. Frames go to `write`, which submits them to the ring as durable.
    pub fn execute(&mut self, op: DiskOp, write: &mut impl FnMut(FrameWrite)) {
        match op {
            DiskOp::Append { segment, offset, sequence, frame } => {
                let target = self.segments.get(&segment).expect("the log appends to what is ready");
                self.needs_next = needs_next(offset + frame.len() as u64, target.bytes);
                let file = Arc::clone(&target.file);
                // Nothing is appended to earlier ones any more; frames on their way hold theirs.
                while self.segments.first_key_value().is_some_and(|(first, _)| *first < segment) {
                    self.segments.pop_first();
                }
                self.frames.insert(sequence, Frame { segment, since: Instant::now() });
                write(FrameWrite { file, offset, buffer: frame, token: sequence });
            }
            DiskOp::Prepare(plan) => {
                self.thread.submit(Job::Prepare(plan));
            }
            DiskOp::Retire(segment) => {
                self.segments.remove(&segment);
                self.thread.submit(Job::Retire(segment));
            }
        }
        self.set_pace();
    }

    /// The ring has written a frame, which took so long. An error ends the process: nobody knows
    /// what is on the disk.
    pub fn on_written(
        &mut self,
        token: u64,
        buffer: AlignedBuf,
        result: io::Result<()>,
    ) -> Result<(DiskDone, Duration), StorageError> {
        let frame = self.frames.remove(&token).expect("the frame is on its way");
        let Frame { segment, since } = frame;
        result.map_err(|error| StorageError::io(segment_name(segment), "append", &error))?;
        Ok((DiskDone::Appended { sequence: token, frame: buffer }, since.elapsed()))
    }

    /// What the thread has finished since the last call.
    pub fn finished(&mut self) -> Result<Option<DiskDone>, StorageError> {
        let Some(finished) = self.thread.finished() else { return Ok(None) };
        Ok(Some(match finished? {
            Finished::Prepared(plan, file) => {
                let segment = Segment { file: Arc::new(file), bytes: plan.bytes };
                self.segments.insert(plan.segment, segment);
                self.set_pace();
                DiskDone::Prepared(plan.segment)
            }
            Finished::NoSpace(segment) => DiskDone::NoSpace(segment),
            Finished::Retired(segment) => DiskDone::Retired(segment),
        }))
    }

    /// Whether everything is done that was asked for, and no file is touched.
    pub fn is_idle(&self) -> bool {
        self.frames.is_empty() && self.thread.is_idle()
    }

    /// Whether somebody waits until it is idle.
    pub fn set_awaited(&mut self, is_awaited: bool) {
        self.is_awaited = is_awaited;
        self.set_pace();
    }

    fn set_pace(&self) {
        self.thread.set_hurry(self.needs_next || self.is_awaited || self.segments.is_empty());
    }
}
