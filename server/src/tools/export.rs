//! Hands the data to a ZooKeeper: to another directory, or back to the one that it came from.
//!
//! ```text
//!   read, checked, the server kept from starting
//!     elsewhere:  written, read back ──> renamed to version-2
//!     in place:   written, read back ──> mark ──> version-2 ──> `ringkeeper` renamed
//!                                         └── from here on no ringkeeper starts
//! ```
//!
//! Ended at any place, the next export does what is left. In place, a ZooKeeper can start only when
//! no ringkeeper can any more, so nobody goes on from what is out of date.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use engine::btree::Version;
use engine::epochs::Epochs;
use engine::recovery::Report;
use engine::tree;
use engine::zookeeper_files::Compression;

use super::handover::{self, HandoverError, Staged, at};
use super::owners;
use super::zookeeper::{EpochFiles, NOTICE, ReadError, SUPERSEDED};
use crate::assembly;
use crate::config::Config;
use crate::disk::data_dir::{DIRECTORY_NAME, EXPORT_MARK, is_same};
use crate::exit::ExitCode;
use crate::snapshots::sync_directory;
use crate::storage::{OpenError, Stopped, ZOOKEEPER_FOLDER};

/// What our directory is called when a ZooKeeper goes on with the data.
const KEPT: &str = "ringkeeper.exported-to-zookeeper";
/// Where the id of a member of an ensemble is.
const MY_ID: &str = "myid";

/// What to write.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// The `dataDir` of the ZooKeeper; none: the one that the data is in.
    pub to: Option<PathBuf>,
    /// How the snapshot is packed.
    pub compression: Compression,
    /// Takes what is doubtful, too.
    pub force: bool,
}

/// Why nothing was handed over.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    /// The data can't be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It is not as it should be.
    #[error("{0}. With --force it is exported all the same.")]
    Doubtful(String),
    /// What the ZooKeeper had promised can't be read.
    #[error(transparent)]
    Epochs(#[from] ReadError),
    /// It can't be written.
    #[error(transparent)]
    Handover(#[from] HandoverError),
}

impl ExportError {
    /// What the process tells whoever started it.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Open(error) => error.exit_code(),
            Self::Epochs(error) => error.exit_code(),
            Self::Doubtful(_) | Self::Handover(HandoverError::Different { .. }) => {
                ExitCode::Damaged
            }
            Self::Handover(_) => ExitCode::DataDir,
        }
    }
}

/// What was done.
#[derive(Debug)]
pub(super) struct Exported {
    /// None if an earlier export had written everything.
    written: Option<Written>,
    target: PathBuf,
    kept: Vec<PathBuf>,
}

#[derive(Debug)]
struct Written {
    version: Version,
    report: Report,
    snapshot: String,
    bytes: u64,
    epochs: Epochs,
}

/// Exports the data of `config`.
pub(super) fn run(config: &Config, request: &Request) -> Result<Exported, ExportError> {
    match &request.to {
        Some(target) => elsewhere(config, request, target),
        None => in_place(config, request),
    }
}

fn elsewhere(config: &Config, request: &Request, to: &Path) -> Result<Exported, ExportError> {
    if handover::is_taken(to) {
        return Err(HandoverError::Exists(to.join(ZOOKEEPER_FOLDER)).into());
    }
    let mut stopped = read(config, request)?;
    let (staged, written) = stage(&mut stopped, to, request, Epochs::default())?;
    let (source, copy) = (config.data_dir.join(MY_ID), to.join(MY_ID));
    if source.is_file() && !copy.exists() {
        fs::copy(&source, &copy).map_err(at(&copy))?;
        owners::give(&copy, to).map_err(at(&copy))?;
    }
    staged.give_to_owner_of(to)?;
    Ok(Exported { written: Some(written), target: staged.publish()?, kept: Vec::new() })
}

fn in_place(config: &Config, request: &Request) -> Result<Exported, ExportError> {
    let folders = folders(config);
    let root = config.data_dir.join(DIRECTORY_NAME);
    let target = config.data_dir.join(ZOOKEEPER_FOLDER);
    let is_marked = root.join(EXPORT_MARK).exists();
    if is_marked && target.is_dir() && handover::is_taken(&config.data_dir) {
        return finish(&folders, target, None);
    }
    for folder in &folders {
        let place = folder.join(ZOOKEEPER_FOLDER);
        if !is_marked && !is_notice(&place) && handover::is_taken(folder) {
            return Err(HandoverError::Exists(place).into());
        }
        if folder.join(KEPT).exists() {
            return Err(HandoverError::Exists(folder.join(KEPT)).into());
        }
    }
    let mut stopped = read(config, request)?;
    // What is doubtful about them was told by the import: here the higher ones count.
    let epochs = EpochFiles::read(&config.data_dir.join(SUPERSEDED))?.epochs();
    let (staged, written) = stage(&mut stopped, &config.data_dir, request, epochs)?;
    let mark = root.join(EXPORT_MARK);
    File::create(&mark).and_then(|file| file.sync_all()).map_err(at(&mark))?;
    sync_directory(&root).map_err(at(&root))?;
    for folder in &folders {
        let place = folder.join(ZOOKEEPER_FOLDER);
        if is_notice(&place) {
            fs::remove_file(&place).map_err(at(&place))?;
        }
        if *folder != config.data_dir && !place.exists() {
            fs::create_dir(&place).map_err(at(&place))?;
            owners::give(&place, &root).map_err(at(&place))?;
        }
        sync_directory(folder).map_err(at(folder))?;
    }
    staged.give_to_owner_of(&root)?;
    staged.publish()?;
    // The lock goes with the directory that it is in, so nobody comes in between.
    let exported = finish(&folders, target, Some(written));
    drop(stopped);
    exported
}

/// The directories that hold ours: that of the log, if that is elsewhere, then that of the rest.
fn folders(config: &Config) -> Vec<PathBuf> {
    let (data, logs) = (&config.data_dir, &config.data_log_dir);
    let is_apart = !is_same(data, logs);
    is_apart.then(|| logs.clone()).into_iter().chain([data.clone()]).collect()
}

/// The last step: our data gets another name; that with the mark last.
fn finish(
    folders: &[PathBuf],
    target: PathBuf,
    written: Option<Written>,
) -> Result<Exported, ExportError> {
    let mut kept = Vec::new();
    for folder in folders {
        let (root, to) = (folder.join(DIRECTORY_NAME), folder.join(KEPT));
        if root.exists() {
            fs::rename(&root, &to).map_err(at(&root))?;
        }
        sync_directory(folder).map_err(at(folder))?;
        kept.push(to);
    }
    Ok(Exported { written, target, kept })
}

/// Whether this is the file that import has put in the place of a ZooKeeper's data.
fn is_notice(path: &Path) -> bool {
    let mut text = Vec::new();
    let bytes = NOTICE.len() as u64 + 1;
    path.is_file()
        && File::open(path).and_then(|file| file.take(bytes).read_to_end(&mut text)).is_ok()
        && text == NOTICE
}

fn read(config: &Config, request: &Request) -> Result<Stopped, ExportError> {
    let place = assembly::place(config);
    let stopped = Stopped::read(&place)?;
    match stopped.report.digest_mismatch {
        Some(zxid) if !request.force => Err(ExportError::Doubtful(format!(
            "the tree's digest is not the logged one from transaction {zxid} on"
        ))),
        _ => Ok(stopped),
    }
}

fn stage(
    stopped: &mut Stopped,
    data_dir: &Path,
    request: &Request,
    epochs: Epochs,
) -> Result<(Staged, Written), ExportError> {
    let version = stopped.tree.freeze();
    let ours = stopped.data.epochs;
    let accepted = epochs.accepted.max(ours.accepted);
    let epochs = Epochs { accepted, current: epochs.current.max(ours.current) };
    let epochs = epochs.reaching(version.zxid());
    let staged = Staged::write(data_dir, &version, request.compression, epochs)?;
    let (snapshot, bytes) = (staged.snapshot.clone(), staged.bytes);
    let written = Written { version, report: stopped.report.clone(), snapshot, bytes, epochs };
    Ok((staged, written))
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.written {
            Some(written) => write!(f, "{written}")?,
            None => writeln!(f, "finished an export that was ended before its last step")?,
        }
        writeln!(f, "directory  {}", self.target.display())?;
        for path in &self.kept {
            writeln!(f, "kept       {}", path.display())?;
        }
        Ok(())
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counters = tree::counters(&self.version);
        for (file, reason) in &self.report.rejected {
            writeln!(f, "note       {file} was not used: {reason}")?;
        }
        if let Some((file, offset)) = &self.report.torn {
            writeln!(f, "note       {file}, offset {offset}: a frame that was never whole")?;
        }
        if let Some(zxid) = self.report.digest_mismatch {
            writeln!(f, "DOUBT      the digest is not the logged one from {zxid} on")?;
        }
        writeln!(f, "snapshot   {}, {} bytes", self.snapshot, self.bytes)?;
        writeln!(f, "zxid       {}", self.version.zxid())?;
        writeln!(f, "digest     {:#x}, read back", tree::digest(&self.version))?;
        writeln!(f, "znodes     {}", counters.znode_count)?;
        writeln!(f, "ephemerals {}", counters.ephemerals_count)?;
        writeln!(f, "sessions   {}", counters.sessions_count)?;
        let Epochs { current, accepted } = self.epochs;
        writeln!(f, "epochs     current {}, accepted {}", current.0, accepted.0)?;
        if handover::needs_extended_types(&self.version) {
            writeln!(
                f,
                "note       there are TTL znodes: the ZooKeeper needs extendedTypesEnabled"
            )?;
        }
        Ok(())
    }
}
