//! Takes over the data of a ZooKeeper.
//!
//! ```text
//!   read it, check it ──> mark ──> snapshot, log ──> manifest ──> version-2 renamed ──> mark gone
//!                         └── from here on no server starts, until it is gone ───────────┘
//! ```
//!
//! Nothing is written before everything is read. Ended at any place, the next import does what is
//! left: until the manifest is there it starts over, and behind that it only renames.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::io;
use std::path::PathBuf;

use engine::disk::{SegmentId, StorageError};
use engine::epochs::Epochs;
use engine::manifest::MANIFEST_NAME;
use engine::tree::Tree;
use engine::txnlog::{LogConfig, plan_segment, segments};

use super::running::{self, Sign};
use super::zookeeper::{Found, ReadError, ZooKeeperDir};
use crate::config::Config;
use crate::disk::data_dir::{DIRECTORY_NAME, DataDirError, IMPORT_MARK, NewData};
use crate::exit::ExitCode;
use crate::{assembly, snapshots};

/// Why data was not taken over.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImportError {
    /// The ZooKeeper's data can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It can be read, but is not as it should be.
    #[error(
        "the data is not what the ZooKeeper had:\n  {}\nNothing was changed. With --force, what \
         could be read is taken, even where a ZooKeeper would not start.",
        .0.join("\n  ")
    )]
    Doubtful(Vec<String>),
    /// Some znodes are not what the settings make of them.
    #[error(
        "{0} TTL znodes would be lost, taken for ephemerals of sessions that are gone: say what \
         the ZooKeeper was told, extendedTypesEnabled=true, in the file or behind -D. Nothing was \
         changed. With --force they are dropped, as a ZooKeeper without that setting would do."
    )]
    TtlZnodes(u64),
    /// It changed under us.
    #[error(
        "the files change: stop the ZooKeeper first, then import again. Nothing of its data was \
         changed."
    )]
    Changing,
    /// Somebody may go on writing.
    #[error(
        "{0}: stop the ZooKeeper first, then import again, or what it writes from now on would be \
         lost. Nothing of its data was changed."
    )]
    Running(Sign),
    /// An earlier import has been here.
    #[error("{} is there already: move it away first", .0.display())]
    Superseded(PathBuf),
    /// Our own directory can't be had.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Writing failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Writing the snapshot failed.
    #[error("writing the snapshot: {0}")]
    Snapshot(io::Error),
}

impl ImportError {
    /// What the process tells whoever started it.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Read(error) => error.exit_code(),
            Self::Doubtful(_) => ExitCode::Damaged,
            Self::TtlZnodes(_) => ExitCode::BadInvocation,
            _ => ExitCode::DataDir,
        }
    }
}

/// What was done.
#[derive(Debug)]
pub(super) struct Imported {
    /// None if an earlier import had read everything.
    found: Option<Found>,
    kept: Vec<PathBuf>,
}

/// Takes over what `config` says; `force` takes what is doubtful, too.
pub(super) fn run(config: &Config, force: bool) -> Result<Imported, ImportError> {
    let source = ZooKeeperDir::new(&config.data_dir, &config.data_log_dir);
    let root = config.data_dir.join(DIRECTORY_NAME);
    let is_marked = root.join(IMPORT_MARK).exists();
    if root.join(MANIFEST_NAME).exists() {
        if !is_marked {
            return Err(DataDirError::Exists(root).into());
        }
        refuse_running(&source, config)?;
        return finish(NewData::begin(&config.data_dir, &config.data_log_dir)?, &source, None);
    }
    refuse_running(&source, config)?;
    if let Some(target) = source.superseded_before() {
        return Err(ImportError::Superseded(target));
    }
    let before = source.shape()?;
    let mut found = source.read(assembly::owner_mode(config))?;
    let (epochs, doubts) = source.epochs(found.tree.applied())?;
    found.doubts.extend(doubts);
    if found.report.lost_ttls > 0 && !force {
        return Err(ImportError::TtlZnodes(found.report.lost_ttls));
    }
    if !found.doubts.is_empty() && !force {
        return Err(ImportError::Doubtful(found.doubts));
    }
    if source.shape()? != before {
        return Err(ImportError::Changing);
    }
    let mut target = NewData::begin(&config.data_dir, &config.data_log_dir)?;
    if target.is_committed() {
        // Another import was faster.
        return finish(target, &source, None);
    }
    write(&target, &mut found.tree)?;
    if epochs != Epochs::default() {
        target.write_epochs(epochs.reaching(found.tree.applied()))?;
    }
    // Writing has taken a while, too.
    if source.shape()? != before {
        return Err(ImportError::Changing);
    }
    refuse_running(&source, config)?;
    target.commit()?;
    finish(target, &source, Some(found))
}

fn refuse_running(source: &ZooKeeperDir, config: &Config) -> Result<(), ImportError> {
    match running::look(source.folders(), config.listen) {
        Some(sign) => Err(ImportError::Running(sign)),
        None => Ok(()),
    }
}

fn write(target: &NewData, tree: &mut Tree) -> Result<(), ImportError> {
    let (snapshots, mut log) = target.directories()?;
    snapshots::write_snapshot(snapshots.path(), tree.freeze()).map_err(ImportError::Snapshot)?;
    let seed = RandomState::new().hash_one(snapshots.path());
    let plan = plan_segment(seed, SegmentId::FIRST, LogConfig::default().segment_bytes);
    Ok(segments::begin(&mut log, plan, tree.applied())?)
}

fn finish(
    target: NewData,
    source: &ZooKeeperDir,
    found: Option<Found>,
) -> Result<Imported, ImportError> {
    let kept = source.supersede()?;
    source.give_successors()?;
    target.finish()?;
    Ok(Imported { found, kept })
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(found) = &self.found {
            write_found(found, f)?;
        } else {
            writeln!(f, "finished an import that was ended before its last step")?;
        }
        for path in &self.kept {
            writeln!(f, "kept       {}", path.display())?;
        }
        Ok(())
    }
}

fn write_found(found: &Found, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (report, counters) = (&found.report, found.tree.counters());
    writeln!(f, "snapshot   {}", found.snapshot.as_deref().unwrap_or("none"))?;
    writeln!(f, "logs       {}", found.logs.join(" "))?;
    writeln!(f, "replayed   {} transactions", report.replayed)?;
    match (report.digests_equal, report.digests_different) {
        (0, 0) => writeln!(f, "digests    none to compare")?,
        (equal, 0) => writeln!(f, "digests    ok, {equal} compared")?,
        (equal, different) => writeln!(f, "digests    {equal} equal, {different} DIFFERENT")?,
    }
    writeln!(f, "zxid       {}", found.tree.applied())?;
    writeln!(f, "digest     {:#x}", found.tree.digest())?;
    writeln!(f, "znodes     {}", counters.znode_count)?;
    writeln!(f, "ephemerals {}", counters.ephemerals_count)?;
    writeln!(f, "sessions   {}", counters.sessions_count)?;
    if report.lost_ephemerals > report.lost_ttls {
        let lost = report.lost_ephemerals - report.lost_ttls;
        writeln!(f, "note       {lost} ephemerals of sessions that ended")?;
    }
    if report.lost_ttls > 0 {
        writeln!(f, "DOUBT      {} TTL znodes were dropped", report.lost_ttls)?;
    }
    for note in &found.notes {
        writeln!(f, "note       {note}")?;
    }
    for doubt in &found.doubts {
        writeln!(f, "DOUBT      {doubt}")?;
    }
    Ok(())
}
