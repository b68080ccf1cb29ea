//! Copies a server's state to a directory that a server can start from.
//!
//! ```text
//!   running   the server sends a snapshot of its published version through its door ─┐
//!   stopped   what it would start with is read, and a snapshot is made of that ──────┤
//!   mark ──> that snapshot, read back, with all checks <─────────────────────────────┘
//!        ──> a log that begins behind it ──> manifest ──> mark gone
//! ```
//!
//! No log is copied: a version has every write up to its zxid and nothing behind it, so the log of
//! the copy begins there, empty. Ended before the manifest, the next backup starts over; ended
//! behind it, the next one looks at the snapshot once more and takes the mark away.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::fs;
use std::hash::BuildHasher;
use std::io;
use std::path::{Path, PathBuf};

use engine::disk::{SegmentId, StorageError, Volume};
use engine::manifest::MANIFEST_NAME;
use engine::recovery::{Unusable, parse_snapshot_name, snapshot_name};
use engine::tree::Tree;
use engine::txnlog::{plan_segment, segments};
use engine::zxid::Zxid;

use super::owners;
use super::zookeeper::SUPERSEDED;
use crate::config::Config;
use crate::disk::data_dir::{self, DIRECTORY_NAME, DataDirError, IMPORT_MARK, NewData};
use crate::disk::lock::LockError;
use crate::exit::ExitCode;
use crate::storage::{self, OpenError, Stopped, ZOOKEEPER_FOLDER};
use crate::{assembly, door, snapshots};

/// The length of the copy's first segment: short, for a copy that may never be used.
const SEGMENT_BYTES: u64 = 1 << 20;

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub(super) enum BackupError {
    /// The data can't be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A server has the data, and does not answer.
    #[error("{lock}, and that does not give a snapshot: {error}")]
    Door {
        /// Who has it.
        lock: LockError,
        /// Why there was none.
        error: io::Error,
    },
    /// The copy would be what it is a copy of.
    #[error("{}: the server has its own data there: choose another directory", .0.display())]
    Source(PathBuf),
    /// The copy's directory can't be had.
    #[error(transparent)]
    Target(#[from] DataDirError),
    /// It holds something else that was not finished.
    #[error(
        "{}: an import was not finished there: run `ringkeeper import` again, or choose another \
         directory",
        .0.display()
    )]
    Import(PathBuf),
    /// The copy's directory can't be made, or given to who is to have it.
    #[error("{}: {error}{}", path.display(), owners::remedy(path, error))]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Writing failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Writing the snapshot failed.
    #[error("writing the snapshot: {0}")]
    Snapshot(io::Error),
    /// What was written is not a snapshot.
    #[error("{}: read back, it can't be used: {reason}", path.display())]
    Different {
        /// The snapshot.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// An earlier backup can't be looked at.
    #[error("{}: an earlier backup that was not finished can't be read: {reason}", path.display())]
    Unread {
        /// The snapshot.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// An earlier backup is not whole any more.
    #[error(
        "{}: an earlier backup that was not finished can't be used: {reason}. Remove {}, or \
         choose another directory.",
        path.display(),
        root.display()
    )]
    Spoilt {
        /// Its snapshots, or one of them.
        path: PathBuf,
        /// Why.
        reason: String,
        /// All that there is of it.
        root: PathBuf,
    },
}

impl BackupError {
    /// What the process tells whoever started it.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Open(error) => error.exit_code(),
            Self::Different { .. } | Self::Spoilt { .. } => ExitCode::Damaged,
            _ => ExitCode::DataDir,
        }
    }
}

/// Where a copy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Running,
    Stopped,
    /// It was there already.
    Earlier,
}

/// What was done.
#[derive(Debug)]
pub(super) struct BackedUp {
    source: Source,
    tree: Tree,
    bytes: u64,
    target: PathBuf,
}

/// Copies the state of the server of `config` below `to`, the `dataDir` of whoever starts from it.
pub(super) fn run(config: &Config, to: &Path) -> Result<BackedUp, BackupError> {
    if [&config.data_dir, &config.data_log_dir].iter().any(|own| data_dir::is_same(own, to)) {
        return Err(BackupError::Source(to.to_owned()));
    }
    if let Some(finished) = finish_earlier(to)? {
        return Ok(finished);
    }
    let place = assembly::place(config);
    match Stopped::read(&place) {
        Ok(mut stopped) => {
            let version = stopped.tree.freeze();
            let zxid = version.zxid();
            let write = |directory: &Path| snapshots::write_snapshot(directory, version);
            copy(to, zxid, Source::Stopped, write)
        }
        Err(OpenError::DataDir(DataDirError::Lock(lock @ LockError::InUse { .. }))) => {
            let root = config.data_dir.join(DIRECTORY_NAME);
            match door::ask(&root) {
                Ok(mut incoming) => {
                    let zxid = incoming.zxid;
                    let write =
                        |directory: &Path| snapshots::copy_snapshot(directory, zxid, &mut incoming);
                    copy(to, zxid, Source::Running, write)
                }
                Err(error) => Err(BackupError::Door { lock, error }),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// Does what is left of a backup that was ended behind the manifest; none if there is no such.
fn finish_earlier(to: &Path) -> Result<Option<BackedUp>, BackupError> {
    let root = to.join(DIRECTORY_NAME);
    if !root.join(IMPORT_MARK).exists() || !root.join(MANIFEST_NAME).exists() {
        return Ok(None);
    }
    // An import has the same mark, and leaves one of these names. A backup has its log beside it.
    let names = [ZOOKEEPER_FOLDER, SUPERSEDED].map(|name| to.join(name));
    let log = data_dir::mark(&root)?.unwrap_or_default();
    let has_log_here = log.as_os_str().is_empty() || data_dir::is_same(&log, &root);
    if !has_log_here || names.iter().any(|path| path.symlink_metadata().is_ok()) {
        return Err(BackupError::Import(root));
    }
    let target = NewData::begin(to, to)?;
    if !target.is_committed() {
        return Ok(None);
    }
    let (directory, _) = target.directories()?;
    let name = directory.list()?.into_iter().find(|name| parse_snapshot_name(name).is_some());
    let Some(path) = name.map(|name| directory.path().join(name)) else {
        let (path, reason) = (directory.path().to_owned(), "there is no snapshot".to_owned());
        return Err(BackupError::Spoilt { path, reason, root });
    };
    match storage::open_snapshot(&path) {
        Ok(tree) => {
            let bytes = fs::metadata(&path).map_err(BackupError::Snapshot)?.len();
            give(&root, to)?;
            target.finish()?;
            Ok(Some(BackedUp { source: Source::Earlier, tree, bytes, target: root }))
        }
        Err(Unusable::Damaged(reason)) => Err(BackupError::Spoilt { path, reason, root }),
        Err(unusable) => Err(BackupError::Unread { path, reason: unusable.to_string() }),
    }
}

fn copy(
    to: &Path,
    zxid: Zxid,
    source: Source,
    write: impl FnOnce(&Path) -> io::Result<u64>,
) -> Result<BackedUp, BackupError> {
    owners::make_directory(to).map_err(at(to))?;
    let mut target = NewData::begin(to, to)?;
    if target.is_committed() {
        return Err(DataDirError::Exists(to.join(DIRECTORY_NAME)).into());
    }
    let (directory, mut log) = target.directories()?;
    let bytes = write(directory.path()).map_err(BackupError::Snapshot)?;
    let path = directory.path().join(snapshot_name(zxid));
    let tree = match storage::open_snapshot(&path) {
        Ok(tree) => tree,
        Err(unusable) => {
            // It must not be taken for one.
            drop(fs::remove_file(&path));
            return Err(BackupError::Different { path, reason: unusable.to_string() });
        }
    };
    let seed = RandomState::new().hash_one(&path);
    segments::begin(&mut log, plan_segment(seed, SegmentId::FIRST, SEGMENT_BYTES), zxid)?;
    target.commit()?;
    let root = to.join(DIRECTORY_NAME);
    give(&root, to)?;
    target.finish()?;
    Ok(BackedUp { source, tree, bytes, target: root })
}

/// Gives the copy to the owner of the directory that it is in.
fn give(root: &Path, to: &Path) -> Result<(), BackupError> {
    owners::give(root, to).map_err(at(root))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |error| BackupError::Directory { path, error }
}

impl fmt::Display for BackedUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counters = self.tree.counters();
        let source = match self.source {
            Source::Running => "a running server",
            Source::Stopped => "a stopped server",
            Source::Earlier => "an earlier backup, which was ended before its last step",
        };
        writeln!(f, "source     {source}")?;
        writeln!(f, "snapshot   {}, {} bytes", snapshot_name(self.tree.applied()), self.bytes)?;
        writeln!(f, "zxid       {}", self.tree.applied())?;
        writeln!(f, "digest     {:#x}", self.tree.digest())?;
        writeln!(f, "znodes     {}", counters.znode_count)?;
        writeln!(f, "ephemerals {}", counters.ephemerals_count)?;
        writeln!(f, "sessions   {}", counters.sessions_count)?;
        writeln!(f, "directory  {}", self.target.display())
    }
}
