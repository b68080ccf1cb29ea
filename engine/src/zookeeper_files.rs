//! ZooKeeper's own files: snapshots and transaction logs, as its servers read and write them.
//!
//! For taking over a ZooKeeper data directory, and for handing one back. The same form of a tree
//! travels in a SNAP synchronization. Nothing here opens a file: bytes come in and go out, in
//! pieces, and memory is bounded by the largest record.
//!
//! A ZooKeeper snapshot is *fuzzy*: it is written while transactions are applied, so it may show
//! parts of those after the zxid in its name. Replaying the log from that zxid makes it whole:
//! `restore`.

mod log;
mod names;
mod restore;
mod snappy;
mod snapshot_reader;
mod snapshot_writer;
mod stream;
mod tree_reader;
mod tree_writer;

pub use log::{LogError, LogReader};
pub use names::{Compression, FileName, Selection};
pub use restore::{Report, Restore, RestoreError};
pub use snappy::SnappyReader;
pub use snapshot_reader::{
    Loaded, SnapshotError, SnapshotReader, SnapshotRecords, Tail, TreeDigest, looks_whole,
};
pub use snapshot_writer::{WriteOptions, write_packed_snapshot, write_snapshot};
pub use stream::{AsDecodeError, Stream};
pub use tree_reader::{TreeReadError, TreeReader, TreeSink, ZnodeRecord};
pub use tree_writer::TreeWriter;

/// First word of a snapshot: "ZKSN".
pub const SNAPSHOT_MAGIC: i32 = i32::from_be_bytes(*b"ZKSN");
/// First word of a transaction log: "ZKLG".
pub const LOG_MAGIC: i32 = i32::from_be_bytes(*b"ZKLG");
/// Second word of both.
const FILE_VERSION: i32 = 2;
/// Ends the znodes, and each checksum.
const END_PATH: &str = "/";
/// The index of the ACL list of znodes that have none.
const OPEN_INDEX: i64 = -1;
