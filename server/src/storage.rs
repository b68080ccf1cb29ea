//! The data of a server: finds, checks and opens what is on its disk.

mod check;

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{self, Duration};

use engine::btree::Map;
use engine::disk::{DiskOp, StorageError};
use engine::manifest::MANIFEST_NAME;
use engine::metrics::micros;
use engine::recovery::{self, Recovered, Report, Unusable};
use engine::time::Instant;
use engine::tree::{self, OwnerMode, Tree};
use engine::txnlog::history::History;
use engine::txnlog::{LogConfig, LogEnd, TxnLog};
use engine::zxid::Zxid;

use crate::disk::data_dir::{
    DIRECTORY_NAME, DataDir, DataDirError, EXPORT_MARK, IMPORT_MARK, StoppedData,
};
use crate::disk::volume::Directory;
use crate::exit::ExitCode;

pub use check::check_snapshot;

/// Where ZooKeeper keeps its data below the same directories.
pub const ZOOKEEPER_FOLDER: &str = "version-2";

/// Why what is on the disk is not served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be taken.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The disk refuses, or what is on it is damaged.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is data of a ZooKeeper, which would be passed over.
    #[error(
        "{} holds the data of a ZooKeeper: run `ringkeeper import` with the same configuration \
         to go on with it, or choose another dataDir",
        .0.display()
    )]
    ZooKeeperData(PathBuf),
    /// An import has written its data, and was ended before the last step.
    #[error(
        "{}: an import or a backup was not finished: run it with the same arguments again",
        .0.display()
    )]
    UnfinishedImport(PathBuf),
    /// The data was handed back to a ZooKeeper, which goes on with it.
    #[error(
        "{} was handed to a ZooKeeper by `ringkeeper export --in-place`: move it away, or, to go \
         on from what it was then, remove the file `{EXPORT_MARK}` in it",
        .0.display()
    )]
    Exported(PathBuf),
    /// A directory is missing, and must not be made.
    #[error(
        "there is no directory {}, and datadir.autocreate is false: mount its disk, or make it",
        .0.display()
    )]
    Missing(PathBuf),
    /// There is nothing to read.
    #[error("{} holds no data of a ringkeeper", .0.display())]
    Nothing(PathBuf),
}

impl OpenError {
    /// What the process tells whoever started it.
    pub fn exit_code(&self) -> ExitCode {
        if self.is_damage() { ExitCode::Damaged } else { ExitCode::DataDir }
    }

    /// Whether it is the data that is wrong, and not the access to it.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Storage(error) | Self::DataDir(DataDirError::Storage(error)) => {
                error.damage().is_some()
            }
            Self::DataDir(_)
            | Self::ZooKeeperData(_)
            | Self::UnfinishedImport(_)
            | Self::Exported(_)
            | Self::Missing(_)
            | Self::Nothing(_) => false,
        }
    }
}

/// Where data lies, and how its owners of znodes are read.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// For snapshots.
    pub data_dir: &'a Path,
    /// For the log.
    pub data_log_dir: &'a Path,
    /// How owners of znodes are read.
    pub mode: OwnerMode,
}

impl Place<'_> {
    /// Checks that both directories are there already.
    ///
    // Compat: the constructor of FileTxnSnapLog, which looks for `version-2`.
    pub fn require(&self) -> Result<(), OpenError> {
        for folder in [self.data_dir, self.data_log_dir] {
            let folder = folder.join(DIRECTORY_NAME);
            if !folder.is_dir() {
                return Err(OpenError::Missing(folder));
            }
        }
        Ok(())
    }
}

/// Data that was opened, recovered and is this process's alone.
#[derive(Debug)]
pub struct Storage {
    /// The state after the log's last transaction.
    pub tree: Tree,
    /// What recovery has done.
    pub report: Report,
    /// The last of the log, for a member's learners.
    pub history: History,
    /// How long it took.
    pub opening: OpeningTimes,
    /// Where the log goes on.
    pub log_end: LogEnd,
    /// The directory of the log.
    pub log: Directory,
    /// The directory of the snapshots.
    pub snapshots: Directory,
    /// Held as long as the data is used.
    pub data_dir: DataDir,
}

/// How long it took to open the data, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpeningTimes {
    /// To map and check the snapshot.
    pub snapshot_us: u64,
    /// To read the log and apply what lies behind the snapshot.
    pub log_us: u64,
    /// How many transactions that were.
    pub txns: u64,
}

impl Storage {
    /// Opens what is there, or makes it. About `history_bytes` of the log stay in memory.
    pub fn open(place: &Place<'_>, history_bytes: usize) -> Result<Self, OpenError> {
        refuse_zookeeper_data(place)?;
        let data_dir = DataDir::open(place.data_dir, place.data_log_dir)?;
        let (mut snapshots, mut log) = (data_dir.snapshots()?, data_dir.logs()?);
        let mut source = Files::new(snapshots.path(), place.mode);
        let began = time::Instant::now();
        let recovered = recovery::recover(&mut snapshots, &mut log, &mut source, history_bytes)?;
        let Recovered { tree, log: log_end, history, report } = recovered;
        log_report(&report, &tree);
        let opening = OpeningTimes {
            snapshot_us: micros(source.loading),
            log_us: micros(began.elapsed().saturating_sub(source.loading)),
            txns: report.txns,
        };
        Ok(Self { tree, report, history, opening, log_end, log, snapshots, data_dir })
    }

    /// The log's writer, for groups of up to this many bytes.
    pub fn open_log(&self, group_bytes: usize, now: Instant, out: &mut Vec<DiskOp>) -> TxnLog {
        // Another one at each start; what it must not do is repeat.
        let seed = RandomState::new().hash_one(now);
        let config = LogConfig { seed, ..LogConfig::for_groups(group_bytes) };
        TxnLog::open(config, self.log_end.clone(), now, out)
    }
}

/// Data of a server that has stopped, which nobody can start while this lives.
#[derive(Debug)]
pub struct Stopped {
    /// The state after the log's last transaction.
    pub tree: Tree,
    /// What was read.
    pub report: Report,
    /// Held as long as the state is used.
    pub data: StoppedData,
}

impl Stopped {
    /// Reads what a server would start with, and changes nothing. Owners of znodes are read as the
    /// server has read them.
    pub fn read(place: &Place<'_>) -> Result<Self, OpenError> {
        let root = place.data_dir.join(DIRECTORY_NAME);
        if root.join(IMPORT_MARK).exists() {
            return Err(OpenError::UnfinishedImport(root));
        }
        let data = StoppedData::open(place.data_dir, place.data_log_dir)?;
        let Some(data) = data else { return Err(OpenError::Nothing(root)) };
        let directory = data.snapshots.path().to_owned();
        let mut source = Files { keeps_mode: true, ..Files::new(&directory, place.mode) };
        let recovered = recovery::read(&data.snapshots, &data.logs, &mut source)?;
        Ok(Self { tree: recovered.tree, report: recovered.report, data })
    }
}

/// Opens a snapshot file with all checks, owners as it has them.
pub fn open_snapshot(path: &Path) -> Result<Tree, Unusable> {
    let directory = path.parent().unwrap_or(Path::new(".")).to_owned();
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| "it has no name".to_owned())?;
    let zxid = recovery::parse_snapshot_name(name)
        .ok_or_else(|| "its name is not a snapshot's".to_owned())?;
    let mut files = Files { keeps_mode: true, ..Files::new(&directory, OwnerMode::default()) };
    recovery::Source::load(&mut files, name, zxid)
}

fn refuse_zookeeper_data(place: &Place<'_>) -> Result<(), OpenError> {
    let root = place.data_dir.join(DIRECTORY_NAME);
    if root.join(IMPORT_MARK).exists() {
        return Err(OpenError::UnfinishedImport(root));
    }
    if root.join(EXPORT_MARK).exists() {
        return Err(OpenError::Exported(root));
    }
    if root.join(MANIFEST_NAME).exists() {
        return Ok(());
    }
    for folder in [place.data_dir, place.data_log_dir] {
        let folder = folder.join(ZOOKEEPER_FOLDER);
        let failed = |error: &io::Error| {
            StorageError::io(folder.display().to_string(), "look for data of a ZooKeeper", error)
        };
        if has_zookeeper_data(&folder).map_err(|error| failed(&error))? {
            return Err(OpenError::ZooKeeperData(folder));
        }
    }
    Ok(())
}

/// Whether there is data; what cannot be seen may be some.
fn has_zookeeper_data(folder: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    let is_data = |name: &str| name.starts_with("snapshot.") || name.starts_with("log.");
    for entry in entries {
        if entry?.file_name().to_str().is_some_and(is_data) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn log_report(report: &Report, tree: &Tree) {
    for (file, reason) in &report.rejected {
        tracing::error!(file, reason, "snapshot not used");
    }
    if let Some((file, offset)) = &report.torn {
        tracing::info!(file, offset, "cut a frame that was being written when the server stopped");
    }
    if let Some(zxid) = report.digest_mismatch {
        tracing::error!(%zxid, "the tree's digest is not the logged one from this transaction on");
    }
    let snapshot = report.snapshot.unwrap_or(Zxid::ZERO);
    let (zxid, znodes) = (tree.applied(), tree.counters().znode_count);
    tracing::info!(%snapshot, txns = report.txns, %zxid, znodes, "recovered");
}

/// Loads trees from snapshot files.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    mode: OwnerMode,
    /// Owners stay as the snapshot has them, whatever the mode.
    keeps_mode: bool,
    /// How long snapshots took so far to be opened.
    loading: Duration,
}

impl Files {
    /// Those in `directory`, owners read in this mode.
    pub fn new(directory: &Path, mode: OwnerMode) -> Self {
        Self { directory: directory.to_owned(), mode, keeps_mode: false, loading: Duration::ZERO }
    }
}

impl recovery::Source for Files {
    fn load(&mut self, name: &str, zxid: Zxid) -> Result<Tree, Unusable> {
        let began = time::Instant::now();
        let loaded = self.open(name, zxid);
        self.loading += began.elapsed();
        loaded
    }

    fn fresh(&mut self) -> Tree {
        Tree::new(self.mode)
    }
}

impl Files {
    fn open(&self, name: &str, zxid: Zxid) -> Result<Tree, Unusable> {
        let map = Map::open(check::open_checked(&self.directory.join(name), zxid)?);
        let mode = if self.keeps_mode { tree::owner_mode(&map) } else { None };
        let tree = Tree::open(map, mode.unwrap_or(self.mode));
        Ok(tree.map_err(|error| error.to_string())?)
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn open(data: &Path, log: &Path) -> Result<Storage, OpenError> {
        Storage::open(&Place { data_dir: data, data_log_dir: log, mode: OwnerMode::Plain }, 0)
    }

    #[test]
    fn what_cannot_be_looked_at_may_be_a_zookeepers_data() {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join(ZOOKEEPER_FOLDER), b"no directory").unwrap();
        let error = open(folder.path(), folder.path()).unwrap_err().to_string();
        assert!(error.contains("look for data of a ZooKeeper"), "{error}");
    }

    #[test]
    fn the_log_of_another_server_is_not_removed_as_an_old_generation() {
        let folder = TempDir::new().unwrap();
        let [ours, log, theirs] = ["ours", "log", "theirs"].map(|name| folder.path().join(name));
        drop(open(&ours, &log).unwrap());
        let other = theirs.join(DIRECTORY_NAME).join("generation.2");
        fs::create_dir_all(&other).unwrap();
        assert!(open(&ours, &theirs).unwrap_err().is_damage());
        assert!(other.is_dir());
    }
}
