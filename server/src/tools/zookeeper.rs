//! A ZooKeeper's data directory: reading the state that its server would start with, and putting
//! the directory out of the way.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use engine::epochs::Epochs;
use engine::tree::{OwnerMode, Tree};
use engine::zookeeper_files::{
    Compression, LogError, LogReader, Report, Restore, RestoreError, Selection, SnapshotReader,
    looks_whole,
};
use engine::zxid::{Epoch, Zxid};

use super::owners;
use crate::disk::data_dir::{DIRECTORY_NAME, is_same};
use crate::exit::ExitCode;
use crate::snapshots::sync_directory;
use crate::storage::ZOOKEEPER_FOLDER;

/// What the data is called when it was taken over.
pub(super) const SUPERSEDED: &str = "version-2.imported-by-ringkeeper";
/// What a file in its place says. A ZooKeeper does not start where its directory is a file.
pub(super) const NOTICE: &[u8] =
    b"The data of the ZooKeeper that was here was imported by ringkeeper, and \
is in version-2.imported-by-ringkeeper as it was then. To go back to it, and lose what was \
written since, remove this file and rename the directory.\n";
/// The files where a member of an ensemble keeps its epochs.
// Compat: QuorumPeer.CURRENT_EPOCH_FILENAME, ACCEPTED_EPOCH_FILENAME
pub(super) const CURRENT_EPOCH: &str = "currentEpoch";
pub(super) const ACCEPTED_EPOCH: &str = "acceptedEpoch";
/// What the first of them is to become.
// Compat: AtomicFileOutputStream.TMP_EXTENSION
const NEXT_EPOCH: &str = "currentEpoch.tmp";
/// How much of such a file is looked at: a number and the end of its line have less.
const EPOCH_BYTES_MAX: u64 = 64;
/// How much of a file's beginning and end says whether it is worth reading.
const EDGE_BYTES: u64 = 8;

/// Why a ZooKeeper's data cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// A file or directory cannot be reached.
    #[error("{}: {error}{}", path.display(), owners::remedy(path, error))]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is nothing.
    #[error("{}: no snapshot and no log of a ZooKeeper", .0.display())]
    Nothing(PathBuf),
    /// A ZooKeeper does not start either.
    #[error("{}: logs are here, but dataLogDir says that they are elsewhere", .0.display())]
    LogsBeside(PathBuf),
    /// None of the snapshots can be read.
    #[error("no snapshot can be used:\n  {}", .0.join("\n  "))]
    Snapshots(Vec<String>),
    /// A log is damaged.
    #[error("{}: {error}", path.display())]
    Log {
        /// Which.
        path: PathBuf,
        /// How.
        error: LogError,
    },
    /// A transaction is none.
    #[error("{}, offset {offset}: {error}", path.display())]
    Txn {
        /// The log.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        error: RestoreError,
    },
    /// One of these two, in a log that is not the last.
    #[error(
        "{0}. There are logs behind it, so what it has lost would be missing in between: take the \
         data of another server. To go back to what was before the damage, move the later logs \
         away, and import with --force."
    )]
    Between(Box<Self>),
    /// What the member of an ensemble has promised is not known.
    #[error(
        "{}, offset 0: {found:?} is not an epoch, and without it an epoch might be promised twice. \
         Take the data of another server of the ensemble; if there was none, remove the file.",
        path.display()
    )]
    Epoch {
        /// The file.
        path: PathBuf,
        /// Its first line.
        found: String,
    },
}

impl ReadError {
    /// What the process tells whoever started it.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Snapshots(_)
            | Self::Log { .. }
            | Self::Txn { .. }
            | Self::Between(_)
            | Self::Epoch { .. } => ExitCode::Damaged,
            Self::Io { .. } | Self::Nothing(_) | Self::LogsBeside(_) => ExitCode::DataDir,
        }
    }
}

/// What was read.
#[derive(Debug)]
pub(super) struct Found {
    /// The state.
    pub tree: Tree,
    /// The snapshot's file.
    pub snapshot: Option<String>,
    /// The logs' files.
    pub logs: Vec<String>,
    /// What the replay met.
    pub report: Report,
    /// What an operator should know, but is in order.
    pub notes: Vec<String>,
    /// What is not as it should be.
    pub doubts: Vec<String>,
}

/// The directories of one ZooKeeper.
#[derive(Debug)]
pub(super) struct ZooKeeperDir {
    data: PathBuf,
    logs: PathBuf,
    apart: bool,
}

/// Names, lengths and times of files: a server at work changes them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shape(Vec<(PathBuf, u64, Option<SystemTime>)>);

impl ZooKeeperDir {
    /// The data below `dataDir` and `dataLogDir`.
    pub(super) fn new(data_dir: &Path, data_log_dir: &Path) -> Self {
        let (data, logs) = (data_dir.join(ZOOKEEPER_FOLDER), data_log_dir.join(ZOOKEEPER_FOLDER));
        let apart = !is_same(&data, &logs);
        Self { data, logs, apart }
    }

    /// Both, or the one that both are.
    pub(super) fn folders(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.data), self.apart.then_some(&self.logs)].into_iter().flatten().map(|p| &**p)
    }

    /// The epochs of the member of an ensemble that it was, if it was one, whose last transaction
    /// is `last`; and what its server would not start with.
    // Compat: QuorumPeer.loadDataBase
    pub(super) fn epochs(&self, last: Zxid) -> Result<(Epochs, Vec<String>), ReadError> {
        let mut files = EpochFiles::read(&self.data)?;
        let mut doubts = Vec::new();
        let of_last = last.epoch();
        if files.current.is_some_and(|current| current < of_last) {
            // It was stopped between the last transaction of a leader's history and the epoch.
            files.current = epoch_in(&self.data.join(NEXT_EPOCH))?.or(files.current);
        }
        let current = files.current.unwrap_or(of_last);
        if current < of_last {
            let Epoch(current) = current;
            doubts.push(format!("{CURRENT_EPOCH} says {current}, and the last zxid is {last}"));
        }
        if files.accepted.unwrap_or(of_last) < current {
            let Epoch(current) = current;
            doubts.push(match files.accepted {
                Some(Epoch(accepted)) => {
                    format!("{ACCEPTED_EPOCH} says {accepted}, and the current epoch is {current}")
                }
                None => format!("{ACCEPTED_EPOCH} is missing, and the current epoch is {current}"),
            });
        }
        Ok((files.epochs(), doubts))
    }

    /// What is there now.
    pub(super) fn shape(&self) -> Result<Shape, ReadError> {
        let mut shape = Vec::new();
        for folder in self.folders() {
            for name in names(folder)? {
                let path = folder.join(name);
                let metadata = fs::metadata(&path).map_err(at(&path))?;
                shape.push((path, metadata.len(), metadata.modified().ok()));
            }
        }
        Ok(Shape(shape))
    }

    /// Reads the state that a server would start with.
    pub(super) fn read(&self, mode: OwnerMode) -> Result<Found, ReadError> {
        let data_names = names(&self.data)?;
        let beside = Selection::of(data_names.iter().map(String::as_str));
        let log_names = names(&self.logs)?;
        let logs = Selection::of(log_names.iter().map(String::as_str)).logs;
        if self.apart && !beside.logs.is_empty() {
            return Err(ReadError::LogsBeside(self.data.clone()));
        }
        let selection = Selection { snapshots: beside.snapshots, logs };
        if selection.snapshots.is_empty() && selection.logs.is_empty() {
            return Err(ReadError::Nothing(self.data.clone()));
        }
        let mut notes = Vec::new();
        let mut doubts = Vec::new();
        let loaded = self.load_newest(&selection, mode, &mut notes)?;
        if loaded.is_none() {
            let doubt = "there are logs, but no snapshot: the first ones may be missing, and a \
                         ZooKeeper would start so only with snapshot.trust.empty=true";
            doubts.push(doubt.to_owned());
        }
        let from = loaded.as_ref().map_or(Zxid::ZERO, |(_, zxid, _)| *zxid);
        let snapshot = loaded.as_ref().map(|(name, _, _)| name.clone());
        let mut restore = match loaded {
            Some((_, _, restore)) => restore,
            None => Restore::from_nothing(mode),
        };
        let mut logs = Vec::new();
        let mut damage = None;
        let replayed = selection.logs_after(from);
        for (index, (name, _)) in replayed.iter().enumerate() {
            let is_last = index + 1 == replayed.len();
            damage = replay(&self.logs.join(name), is_last, &mut restore, &mut notes)?;
            logs.push(name.clone());
        }
        let (tree, report) = restore.finish();
        doubts.extend(damage.map(|damage| {
            let last = tree.applied();
            format!("{damage}: what the log has behind {last}, the last one before, is lost")
        }));
        doubts.extend(doubts_of(&report));
        if let Some((name, _, _)) = selection.snapshots.first().filter(|s| s.1 > tree.applied()) {
            doubts.push(format!("{name} is damaged, and the logs do not reach as far as it did"));
        }
        Ok(Found { tree, snapshot, logs, report, notes, doubts })
    }

    /// The newest snapshot that can be read: its name, its zxid, and it.
    fn load_newest(
        &self,
        selection: &Selection,
        mode: OwnerMode,
        notes: &mut Vec<String>,
    ) -> Result<Option<(String, Zxid, Restore)>, ReadError> {
        let mut rejected = Vec::new();
        for (name, zxid, compression) in &selection.snapshots {
            let file = match open_whole(&self.data.join(name), *compression) {
                Ok(Some(file)) => file,
                Ok(None) => {
                    rejected.push(format!("{name} was not written to its end"));
                    continue;
                }
                // Compat: FileSnap.findNValidSnapshots, which takes the next one then, too.
                Err(error) => {
                    rejected.push(format!("{name}: {error}"));
                    continue;
                }
            };
            match SnapshotReader::load(file, *compression, *zxid, mode) {
                Ok(loaded) => {
                    notes.extend(rejected);
                    return Ok(Some((name.clone(), *zxid, Restore::new(loaded))));
                }
                Err(error) => rejected.push(format!("{name}: {error}")),
            }
        }
        if rejected.is_empty() { Ok(None) } else { Err(ReadError::Snapshots(rejected)) }
    }

    /// Where the data goes when it is superseded, if something is there already.
    pub(super) fn superseded_before(&self) -> Option<PathBuf> {
        let mut targets = self.folders().map(|folder| folder.with_file_name(SUPERSEDED));
        targets.find(|target| target.exists())
    }

    /// Puts the data out of the way, as far as that was not done yet; where it is then.
    pub(super) fn supersede(&self) -> Result<Vec<PathBuf>, ReadError> {
        let mut moved = Vec::new();
        for folder in self.folders() {
            let target = folder.with_file_name(SUPERSEDED);
            if folder.is_dir() {
                fs::rename(folder, &target).map_err(at(folder))?;
            }
            if target.exists() {
                let mut file = File::create(folder).map_err(at(folder))?;
                file.write_all(NOTICE).and_then(|()| file.sync_all()).map_err(at(folder))?;
                moved.push(target);
            }
            let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            sync_directory(parent).map_err(at(parent))?;
        }
        Ok(moved)
    }

    /// Gives what was made beside the superseded data to its owner, whose server goes on with it.
    pub(super) fn give_successors(&self) -> Result<(), ReadError> {
        let kept = self.data.with_file_name(SUPERSEDED);
        let around = kept.parent().filter(|parent| !parent.as_os_str().is_empty());
        let around = around.unwrap_or(Path::new("."));
        let model = if kept.exists() { &kept } else { around };
        for folder in self.folders() {
            for path in [folder.with_file_name(DIRECTORY_NAME), folder.to_owned()] {
                if path.exists() {
                    owners::give(&path, model).map_err(at(&path))?;
                }
            }
        }
        Ok(())
    }
}

/// The epochs that a ZooKeeper keeps beside its snapshots, if it has been a member of an ensemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EpochFiles {
    current: Option<Epoch>,
    accepted: Option<Epoch>,
}

impl EpochFiles {
    /// Reads those in `folder`, which may be missing.
    pub(super) fn read(folder: &Path) -> Result<Self, ReadError> {
        let epoch = |name| epoch_in(&folder.join(name));
        Ok(Self { current: epoch(CURRENT_EPOCH)?, accepted: epoch(ACCEPTED_EPOCH)? })
    }

    /// The least that was promised; zeros if there are no files.
    pub(super) fn epochs(self) -> Epochs {
        let current = self.current.unwrap_or_default();
        Epochs { accepted: self.accepted.unwrap_or_default().max(current), current }
    }
}

/// The epoch in a file; none if there is no file.
// Compat: QuorumPeer.readLongFromFile
fn epoch_in(path: &Path) -> Result<Option<Epoch>, ReadError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(at(path))?,
    };
    let mut bytes = Vec::new();
    file.take(EPOCH_BYTES_MAX).read_to_end(&mut bytes).map_err(at(path))?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().next().unwrap_or_default().trim();
    let bad = || ReadError::Epoch { path: path.to_owned(), found: line.to_owned() };
    line.parse().map(|epoch| Some(Epoch(epoch))).map_err(|_| bad())
}

fn doubts_of(report: &Report) -> Vec<String> {
    let mut doubts = Vec::new();
    if let Some(zxid) = report.first_different {
        let count = report.digests_different;
        doubts.push(format!("{count} digests are not those of the logs, from {zxid} on"));
    }
    if let Some(zxid) = report.missing_end {
        doubts.push(format!("the snapshot is whole only with {zxid}, which no log has"));
    }
    if report.gaps > 0 {
        doubts.push(format!("transactions are missing in {} places", report.gaps));
    }
    if report.unknown_acls > 0 {
        let count = report.unknown_acls;
        doubts.push(format!("{count} znodes have lost their ACL lists: nobody may use them"));
    }
    if report.out_of_order > 0 {
        doubts.push(format!("{} transactions are out of order", report.out_of_order));
    }
    doubts
}

/// Replays one log. Where the last one is damaged the replay ends, and the damage is what comes
/// back: nothing is missing in front of it.
fn replay(
    path: &Path,
    is_last: bool,
    restore: &mut Restore,
    notes: &mut Vec<String>,
) -> Result<Option<ReadError>, ReadError> {
    let name = || path.file_name().unwrap_or_default().to_string_lossy();
    let mut reader = LogReader::new(File::open(path).map_err(at(path))?);
    let damage = loop {
        match reader.next_txn() {
            Ok(Some(txn)) => {
                if let Err(error) = restore.apply(txn) {
                    let (path, offset) = (path.to_owned(), reader.txn_at());
                    break ReadError::Txn { path, offset, error };
                }
            }
            Ok(None) => {
                let torn = reader.torn_at();
                let torn = torn.map(|at| format!("{}: the record at {at} was never whole", name()));
                notes.extend(torn);
                return Ok(None);
            }
            // Compat: FileTxnIterator.goToNextLog; part of a header is damage.
            Err(LogError::NoHeader { bytes: 0 }) if is_last => {
                notes.push(format!("{} is empty", name()));
                return Ok(None);
            }
            Err(error) => {
                let is_damage = !matches!(error, LogError::Io(_));
                let error = ReadError::Log { path: path.to_owned(), error };
                if is_damage {
                    break error;
                }
                return Err(error);
            }
        }
    };
    if is_last { Ok(Some(damage)) } else { Err(ReadError::Between(Box::new(damage))) }
}

/// Opens a snapshot; none if it is not worth reading.
fn open_whole(path: &Path, compression: Compression) -> io::Result<Option<File>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let edge = EDGE_BYTES.min(length) as usize;
    let (mut first, mut last) = (vec![0; edge], vec![0; edge]);
    file.read_exact(&mut first)?;
    file.seek(SeekFrom::Start(length - edge as u64))?;
    file.read_exact(&mut last)?;
    file.rewind()?;
    Ok(looks_whole(compression, &first, &last).then_some(file))
}

/// The names of the files in a directory, sorted; none if it is not there.
fn names(folder: &Path) -> Result<Vec<String>, ReadError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(at(folder))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(at(folder))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ReadError {
    let path = path.to_owned();
    move |error| ReadError::Io { path, error }
}
