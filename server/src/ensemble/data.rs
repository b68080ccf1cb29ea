//! What a member of an ensemble does with its data beside the log: epochs, cuts, and the tree that
//! a leader sends.
//!
//! ```text
//!   ordering core                          the data's thread
//!   DataOp ──────────channel─────────────> epochs file, log, snapshots, manifest
//!   finished() ──> Finished <──channel, wake
//! ```
//!
//! Before a cut or another tree the ordering core lets its log come to rest and gives up the
//! thread that writes snapshots, so that nobody else touches the files; what is finished brings
//! the log to go on with. An operation that fails ends the process, like a sync that fails.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};

use engine::btree::Version;
use engine::disk::{Damage, SegmentId, StorageError};
use engine::epochs::{Epochs, EpochsFile};
use engine::recovery::{self, Recovered};
use engine::tree::OwnerMode;
use engine::txnlog::{LogEnd, plan_segment, segments};
use engine::zab::data::{DataDone, DataOp, Loaded};
use engine::zxid::Zxid;

use crate::disk::data_dir::DataDir;
use crate::disk::volume::Directory;
use crate::snapshots::{self, Snapshots};
use crate::storage::Files;
use crate::threads;

/// Why the data could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The disk refuses, or what is on it is damaged.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The leader's tree could not be written.
    #[error("writing the leader's tree: {0}")]
    Snapshot(#[from] io::Error),
}

/// Something that is done.
#[derive(Debug)]
pub struct Finished {
    /// For the machine.
    pub done: DataDone,
    /// Where snapshots go from now on, if they were given up for this.
    pub snapshots: Option<PathBuf>,
    /// The log to go on with, where that is another one now.
    pub log: Option<NextLog>,
}

/// A log that takes the place of another.
#[derive(Debug)]
pub struct NextLog {
    /// The log's directory.
    pub directory: Directory,
    /// Where it goes on.
    pub end: LogEnd,
}

/// The thread, as the ordering core sees it.
#[derive(Debug)]
pub struct Data {
    jobs: Sender<Job>,
    finished: Receiver<Result<Finished, DataError>>,
}

/// An operation, and what must have ended before it begins.
#[derive(Debug)]
struct Job {
    op: DataOp,
    snapshots: Option<Snapshots>,
}

/// What the thread works on.
#[derive(Debug)]
pub struct MemberData {
    /// The directories.
    pub data_dir: DataDir,
    /// The epochs.
    pub epochs: EpochsFile,
    /// How owners of znodes are read.
    pub mode: OwnerMode,
    /// The length of the log's segments.
    pub segment_bytes: u64,
}

impl Data {
    /// Starts the thread. `wake` is called on it when [`Data::finished`] has something.
    pub fn start(mut data: MemberData, wake: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (outbox, finished) = mpsc::channel();
        let work = move || {
            while let Ok(Job { op, snapshots }) = inbox.recv() {
                drop(snapshots);
                let is_epochs = matches!(op, DataOp::Epochs(_));
                let result = data.execute(op);
                let failed = result.is_err();
                if outbox.send(result).is_err() {
                    return;
                }
                wake();
                if failed {
                    return;
                }
                if is_epochs && let Err(error) = data.settle() {
                    if outbox.send(Err(error)).is_ok() {
                        wake();
                    }
                    return;
                }
            }
        };
        threads::start("data", work)?;
        Ok(Self { jobs, finished })
    }

    /// Makes epochs durable.
    pub fn write(&self, epochs: Epochs) {
        self.send(Job { op: DataOp::Epochs(epochs), snapshots: None });
    }

    /// Begins an operation that changes log and snapshots, which nobody else touches meanwhile.
    pub fn change(&self, op: DataOp, snapshots: Snapshots) {
        self.send(Job { op, snapshots: Some(snapshots) });
    }

    fn send(&self, job: Job) {
        // A thread that has ended has told why, or is about to.
        drop(self.jobs.send(job));
    }

    /// What is done since the last call.
    pub fn finished(&self) -> Option<Result<Finished, DataError>> {
        self.finished.try_recv().ok()
    }
}

impl MemberData {
    fn execute(&mut self, op: DataOp) -> Result<Finished, DataError> {
        match op {
            DataOp::Epochs(epochs) => self.write_epochs(epochs),
            DataOp::Truncate(zxid) => self.truncate(zxid),
            DataOp::Replace(version) => self.replace(version),
        }
    }

    fn write_epochs(&mut self, epochs: Epochs) -> Result<Finished, DataError> {
        self.epochs.write(self.data_dir.root_mut(), epochs)?;
        Ok(Finished { done: DataDone::Epochs(epochs), snapshots: None, log: None })
    }

    fn settle(&mut self) -> Result<(), DataError> {
        Ok(self.epochs.settle(self.data_dir.root_mut())?)
    }

    fn truncate(&mut self, zxid: Zxid) -> Result<Finished, DataError> {
        let (mut snapshots, mut logs) = (self.data_dir.snapshots()?, self.data_dir.logs()?);
        let bytes = self.segment_bytes;
        let plan = |segment: SegmentId| plan_segment(seed(&snapshots), segment, bytes);
        let mut beyond = self.data_dir.snapshots()?;
        match recovery::truncate(&mut beyond, &mut logs, zxid, plan) {
            Err(error) if matches!(error.damage(), Some(Damage::Gap { .. })) => {
                tracing::warn!("the log cannot be cut behind {zxid}: {error}");
                let done = DataDone::CannotTruncate(zxid);
                let snapshots = Some(snapshots.path().to_owned());
                return Ok(Finished { done, snapshots, log: None });
            }
            result => result?,
        }
        let Recovered { tree, log, report, .. } = self.recover(&mut snapshots, &mut logs)?;
        let end = log.clone();
        let done = DataDone::Truncated(Box::new(Loaded { tree, log, report }));
        Ok(finished(done, end, logs, &snapshots))
    }

    fn replace(&mut self, version: Version) -> Result<Finished, DataError> {
        let zxid = version.zxid();
        let (mut snapshots, mut logs) = self.data_dir.prepare_next()?;
        snapshots::write_snapshot(snapshots.path(), version)?;
        let plan = plan_segment(seed(&snapshots), SegmentId::FIRST, self.segment_bytes);
        segments::begin(&mut logs, plan, zxid)?;
        // What counts from now on has been read as any later start will read it.
        let recovered = self.recover(&mut snapshots, &mut logs)?;
        self.data_dir.switch_to_next()?;
        let done = DataDone::Replaced(recovered.log.clone());
        Ok(finished(done, recovered.log, logs, &snapshots))
    }

    fn recover(
        &self,
        snapshots: &mut Directory,
        logs: &mut Directory,
    ) -> Result<Recovered, StorageError> {
        let mut source = Files::new(snapshots.path(), self.mode);
        recovery::recover(snapshots, logs, &mut source, 0)
    }
}

fn finished(done: DataDone, end: LogEnd, directory: Directory, snapshots: &Directory) -> Finished {
    let snapshots = Some(snapshots.path().to_owned());
    Finished { done, snapshots, log: Some(NextLog { directory, end }) }
}

/// Another one at each call.
fn seed(directory: &Directory) -> u64 {
    RandomState::new().hash_one(directory.path())
}
