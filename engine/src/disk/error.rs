//! What goes wrong with files: where, what, and how to go on.

use std::fmt;
use std::io;

use crate::zxid::Zxid;

/// A file that failed or does not hold what it must.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {kind}", Place(self))]
pub struct StorageError {
    /// The file, or the directory.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// What.
    pub kind: StorageErrorKind,
}

/// Where in a file, unless it is about the whole file.
struct Place<'a>(&'a StorageError);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            StorageError { offset: 0, kind: StorageErrorKind::Io { .. }, .. } => Ok(()),
            error => write!(f, ", offset {}", error.offset),
        }
    }
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageErrorKind {
    /// The operating system refused.
    #[error("{action} failed: {reason}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        error: io::ErrorKind,
        /// The same in its words, with its number: many errors have no kind of their own.
        reason: String,
    },
    /// The bytes are not what was acknowledged, or not all of it is there.
    #[error("{0}. {advice}", advice = Advice)]
    Damaged(Damage),
    /// A later ringkeeper wrote it.
    #[error("format version {found}, this ringkeeper reads up to {known}: start a newer one")]
    Version {
        /// What the file says.
        found: u32,
        /// The highest that is understood.
        known: u32,
    },
    /// A later ringkeeper wrote it and used what this one does not know.
    #[error("unknown feature bits {0:#x}: start a newer ringkeeper")]
    Features(u64),
}

/// How acknowledged bytes are known to be missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A segment's own header can't be read.
    #[error("the segment header is damaged")]
    SegmentHeader,
    /// A frame can't be read, and a later one says that it was durable.
    #[error(
        "log frame {sequence} is damaged or missing: it was durable, says {witness} at offset {at}"
    )]
    Frame {
        /// The frame.
        sequence: u64,
        /// The file that holds the later frame.
        witness: String,
        /// Where the later frame is.
        at: u64,
    },
    /// A frame whose checksum is right holds what no writer wrote.
    #[error("log frame {0} contradicts itself")]
    FrameContent(u64),
    /// The log does not reach back to where it must begin.
    #[error("the log begins after zxid {found}, and is needed from zxid {needed} on")]
    Gap {
        /// The last zxid before the log begins.
        found: Zxid,
        /// The last zxid of the snapshot, or of nothing.
        needed: Zxid,
    },
    /// The log ends before the newest snapshot does, though it was durable further.
    #[error("the log ends at zxid {found}, before its snapshot at zxid {snapshot}")]
    Short {
        /// The log's last zxid.
        found: Zxid,
        /// The snapshot's.
        snapshot: Zxid,
    },
    /// Snapshots are there, and none of them is whole.
    #[error("none of {0} snapshots is whole")]
    Snapshots(usize),
    /// A transaction whose frame is whole can't be decoded.
    #[error("transaction {0} can't be decoded")]
    Txn(Zxid),
    /// A file of two slots has no valid one.
    #[error("neither of its two records is valid")]
    Slots,
    /// The directory that the manifest names is not there.
    #[error("the generation in use has no such directory")]
    Generation,
    /// The record of the server's epochs has the current one above the accepted one.
    #[error("the epochs contradict each other")]
    Epochs,
    /// There is something to recover, and nothing says which generation of it counts.
    #[error("no valid record of which generation is in use")]
    Manifest,
}

/// What an operator can do about damage.
struct Advice;

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "Acknowledged transactions may be lost, so the server does not start. \
             Restore the file from a backup; or, in an ensemble whose other members are well, move \
             this member's data directory away (keep myid) and start it: it copies all from the \
             leader",
        )
    }
}

impl StorageError {
    /// The operating system refused `action` on `file`.
    pub fn io(file: impl Into<String>, action: &'static str, error: &io::Error) -> Self {
        let reason = error.to_string();
        let kind = StorageErrorKind::Io { action, error: error.kind(), reason };
        Self { file: file.into(), offset: 0, kind }
    }

    /// `file` lost something at `offset`.
    pub fn damaged(file: impl Into<String>, offset: u64, damage: Damage) -> Self {
        Self { file: file.into(), offset, kind: StorageErrorKind::Damaged(damage) }
    }

    /// Whether there was no room, which passes when something is removed.
    pub fn is_no_space(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(&self.kind, StorageErrorKind::Io { error, .. } if full.contains(error))
    }

    /// What is damaged, if something is.
    pub fn damage(&self) -> Option<&Damage> {
        match &self.kind {
            StorageErrorKind::Damaged(damage) => Some(damage),
            StorageErrorKind::Io { .. }
            | StorageErrorKind::Version { .. }
            | StorageErrorKind::Features(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refuses_is_said_in_its_words() {
        const EMFILE: i32 = 24;
        let error = StorageError::io("d", "list", &io::Error::from_raw_os_error(EMFILE));
        let expect = "d: list failed: Too many open files (os error 24)";
        assert_eq!(error.to_string(), expect);
    }
}
