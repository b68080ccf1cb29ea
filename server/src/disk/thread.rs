//! The disk's thread: makes, renames and removes segments, one job after the other.
//!
//! Filling a new file competes with the log for the device, so it is done at a moderate rate unless
//! [`Disk`](super::Disk) knows of a reason to hurry. Files that are used again need no filling.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use engine::disk::{SegmentId, SegmentPlan, StorageError};
use engine::txnlog::format::segment_name;
use engine::txnlog::segments;

use super::volume::Directory;
use crate::threads;

/// Bytes per second that a file is filled with when nobody waits for it. Others may have their logs
/// on the same device: at four times as many, appends took several times as long.
const FILL_RATE: u64 = 32 << 20;

/// What the thread does.
#[derive(Debug)]
pub(super) enum Job {
    Prepare(SegmentPlan),
    Retire(SegmentId),
}

/// What it has done.
#[derive(Debug)]
pub(super) enum Finished {
    /// The segment, opened for appends.
    Prepared(SegmentPlan, File),
    NoSpace(SegmentId),
    Retired(SegmentId),
}

/// The thread, as its owner sees it.
#[derive(Debug)]
pub(super) struct DiskThread {
    jobs: Option<Sender<Job>>,
    finished: Receiver<Result<Finished, StorageError>>,
    signals: Arc<Signals>,
    /// Jobs whose end was not seen yet.
    outstanding: usize,
    handle: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Signals {
    /// Files are filled as fast as the device can.
    hurry: AtomicBool,
    /// Nobody wants it any more.
    stop: AtomicBool,
}

impl DiskThread {
    pub(super) fn start(
        mut directory: Directory,
        wake: impl Fn() + Send + 'static,
    ) -> Result<Self, StorageError> {
        let signals = Arc::new(Signals::default());
        let pace = Arc::clone(&signals);
        directory.set_pace(Box::new(move |bytes| pace.after_bytes(bytes)));
        let path = directory.path().display().to_string();
        let (jobs, inbox) = mpsc::channel();
        let (outbox, finished) = mpsc::channel();
        let work = move || {
            for job in inbox {
                let result = run(&mut directory, job);
                if outbox.send(result).is_err() {
                    break;
                }
                wake();
            }
        };
        let handle = threads::start("disk", work)
            .map_err(|error| StorageError::io(path, "start the thread for", &error))?;
        Ok(Self { jobs: Some(jobs), finished, signals, outstanding: 0, handle: Some(handle) })
    }

    pub(super) fn submit(&mut self, job: Job) {
        self.outstanding += 1;
        let jobs = self.jobs.as_ref().expect("it is only taken by drop");
        jobs.send(job).expect("the thread lives as long as its owner");
    }

    /// From now on: whether anybody waits for what is being done.
    pub(super) fn set_hurry(&self, hurry: bool) {
        self.signals.hurry.store(hurry, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn hurries(&self) -> bool {
        self.signals.hurry.load(Ordering::Relaxed)
    }

    pub(super) fn finished(&mut self) -> Option<Result<Finished, StorageError>> {
        let finished = self.finished.try_recv().ok()?;
        self.outstanding -= 1;
        Some(finished)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.outstanding == 0
    }
}

impl Drop for DiskThread {
    fn drop(&mut self) {
        self.signals.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        let ended = self.handle.take().map(JoinHandle::join);
        assert!(!matches!(ended, Some(Err(_))), "a panic of the disk's thread ends the process");
    }
}

impl Signals {
    /// Waits as the rate demands; whether to go on.
    fn after_bytes(&self, bytes: usize) -> bool {
        if !self.hurry.load(Ordering::Relaxed) {
            let nanos = bytes as u64 * 1_000_000_000 / FILL_RATE;
            std::thread::sleep(Duration::from_nanos(nanos));
        }
        !self.stop.load(Ordering::Relaxed)
    }
}

fn run(directory: &mut Directory, job: Job) -> Result<Finished, StorageError> {
    match job {
        Job::Prepare(plan) => match segments::prepare(directory, plan) {
            Ok(()) => {
                let file = directory.open_segment(&segment_name(plan.segment))?;
                Ok(Finished::Prepared(plan, file))
            }
            Err(error) if error.is_no_space() => Ok(Finished::NoSpace(plan.segment)),
            Err(error) => Err(error),
        },
        Job::Retire(segment) => {
            segments::retire(directory, segment)?;
            Ok(Finished::Retired(segment))
        }
    }
}
