//! The contract between the machines and the disk.
//!
//! ```text
//!   machine                                driver
//!   ------- DiskOp: append, prepare -----> executes; appends at once and in any order, the
//!                                          others one after the other
//!   <------ DiskDone --------------------- when the effect is durable, not before
//! ```
//!
//! The disk is a peer that answers late. While a server runs, [`DiskOp`]s go out and [`DiskDone`]s
//! come in. Before it runs (recovery, and whatever may take its time) files are reached through
//! [`Volume`], which the real directory and the simulated one of the crash tests implement.
//!
//! Invariants:
//!
//!   * an operation's completion means that its effect survives a loss of power
//!   * a failed append is never answered: the driver ends the process, and the next start finds
//!     out what is on the disk

mod buffer;
mod error;

pub use buffer::AlignedBuf;
pub use error::{Damage, StorageError, StorageErrorKind};

use std::fmt;

/// The unit of writing: every write to a segment starts and ends at a multiple of this.
pub const BLOCK_BYTES: usize = 4096;

/// The number of a segment of the log; later segments have higher numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

impl SegmentId {
    /// The first segment of a log.
    pub const FIRST: Self = Self(1);
}

/// What a machine wants from the disk.
#[derive(Debug)]
pub enum DiskOp {
    /// Write whole blocks and make them durable; answered by [`DiskDone::Appended`].
    Append {
        /// The segment to write to; it is prepared.
        segment: SegmentId,
        /// Where, a multiple of the block size.
        offset: u64,
        /// The frame's number, for the answer.
        sequence: u64,
        /// The frame, padded to whole blocks.
        frame: AlignedBuf,
    },
    /// Make a segment ready for appends, by `txnlog::segments::prepare`.
    Prepare(SegmentPlan),
    /// Nothing in this segment is needed any more: keep the file for use as a later segment, or
    /// remove it. Answered by [`DiskDone::Retired`].
    Retire(SegmentId),
}

/// A segment to be made ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentPlan {
    /// Its number.
    pub segment: SegmentId,
    /// The number that tells its frames from those that the file held before.
    pub incarnation: u64,
    /// The length of its file.
    pub bytes: u64,
}

/// What the disk has done.
#[derive(Debug)]
pub enum DiskDone {
    /// The frame is durable. Answers come in any order.
    Appended {
        /// The frame's number.
        sequence: u64,
        /// The buffer, to be used again.
        frame: AlignedBuf,
    },
    /// The segment can be appended to, after a loss of power too.
    Prepared(SegmentId),
    /// There is no room for this segment; what was begun of it is gone again.
    NoSpace(SegmentId),
    /// The segment is gone; there may be room now.
    Retired(SegmentId),
}

/// A directory, as recovery and preparation need it. Names are those of files right in it.
///
/// Nothing is durable before [`Volume::sync_file`] for what a file holds, and
/// [`Volume::sync_dir`] for which files there are.
pub trait Volume {
    /// The names of all files, sorted.
    fn list(&self) -> Result<Vec<String>, StorageError>;

    /// The length of a file.
    fn len(&self, name: &str) -> Result<u64, StorageError>;

    /// Reads from `offset` on; returns less than asked for only at the end of the file.
    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<usize, StorageError>;

    /// Makes a file of this many zero bytes, all of them written, so that a later write to them
    /// changes nothing but them. Replaces a file of the same name.
    fn create_zeroed(&mut self, name: &str, bytes: u64) -> Result<(), StorageError>;

    /// Writes, within the file or at its end.
    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), StorageError>;

    /// Renames, in place of a file that has the new name.
    fn rename(&mut self, source: &str, target: &str) -> Result<(), StorageError>;

    /// Removes a file.
    fn remove(&mut self, name: &str) -> Result<(), StorageError>;

    /// Makes durable what a file holds, what this process has not written of it included.
    fn sync_file(&mut self, name: &str) -> Result<(), StorageError>;

    /// Makes durable which files there are, and their names.
    fn sync_dir(&mut self) -> Result<(), StorageError>;
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
