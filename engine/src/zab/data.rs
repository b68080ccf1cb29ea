//! What a member of an ensemble wants of its data besides appends to the log, and the answers.
//!
//! ```text
//!   machine  -- DataOp: epochs, truncate, replace -->  a thread beside the cores
//!   machine  <-- DataDone ---------------------------  when the effect survives a loss of power
//! ```
//!
//! Invariants:
//!
//!   * operations are done one after the other, in order, each answered once
//!   * [`DataOp::Truncate`] and [`DataOp::Replace`] are sent only while nothing is awaited of the
//!     log; from then on its writer is not used any more, and a new one begins where the answer
//!     says that the log ends
//!   * after a crash, the data is that of before an operation or that of behind it
//!   * an operation that fails ends the process, like a write of the log that fails

use crate::btree::Version;
use crate::epochs::Epochs;
use crate::recovery::Report;
use crate::tree::Tree;
use crate::txnlog::LogEnd;
use crate::zxid::Zxid;

/// What is to be done with a server's data.
#[derive(Debug)]
pub enum DataOp {
    /// Make these epochs durable.
    Epochs(Epochs),
    /// Cut snapshots and log behind this zxid, durably, and load what is left.
    Truncate(Zxid),
    /// Make this version, which a leader has sent, the whole of the data: a new generation with
    /// its snapshot and an empty log that begins behind it. Older generations are removed.
    Replace(Version),
}

/// What was done.
#[derive(Debug)]
pub enum DataDone {
    /// These epochs are durable.
    Epochs(Epochs),
    /// The log ends where it was to be cut.
    Truncated(Box<Loaded>),
    /// The log cannot be cut there: it begins later, ends before, or has no such transaction.
    /// Nothing has changed; only a snapshot helps.
    CannotTruncate(Zxid),
    /// The version is the data now, and its log goes on here.
    Replaced(LogEnd),
}

/// Data that was read from the disk.
#[derive(Debug)]
pub struct Loaded {
    /// The state after the log's last transaction.
    pub tree: Tree,
    /// Where the log goes on.
    pub log: LogEnd,
    /// What was read to come here.
    pub report: Report,
}
