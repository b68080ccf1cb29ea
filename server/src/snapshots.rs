//! Writes snapshots beside the cores, and removes those that are not needed any more.
//!
//! A thread of its own writes one version at a time, at a moderate rate: the log on the same
//! device comes first. A snapshot gets its name only when all of it is durable.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use engine::btree::Version;
use engine::recovery::{parse_snapshot_name, purge_plan, snapshot_name, temporary_name};
use engine::replica::SnapshotWritten;
use engine::snapshot::SnapshotWriter;
use engine::zxid::Zxid;

use crate::cores::Completions;

/// Bytes that are written at once.
const CHUNK_BYTES: usize = 1 << 20;

/// How fast a snapshot is written.
#[derive(Clone, Copy)]
struct Pace {
    bytes_per_second: u64,
    /// After so many bytes, they are made durable.
    sync_bytes: usize,
}

/// Usually there is time: the log, which writes to the same device, is hardly held up.
const CALM: Pace = Pace { bytes_per_second: 256 << 20, sync_bytes: 1 << 20 };

/// When one snapshot is due right behind the other, what is written meanwhile would have to be
/// replayed at a restart: then the sooner it is done, the better.
const HURRIED: Pace = Pace { bytes_per_second: 1 << 30, sync_bytes: 4 << 20 };

/// A snapshot that is asked for this soon after the last one was due before that was done.
const RIGHT_BEHIND: Duration = Duration::from_millis(50);

/// The thread, as the ordering core sees it. When this has been dropped, nothing is written any
/// more: a snapshot that is under way fails.
#[derive(Debug)]
pub struct Snapshots {
    versions: Option<Sender<Version>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Snapshots {
    /// Starts the thread. It keeps the newest `kept` snapshots in `directory`.
    pub fn start(directory: PathBuf, kept: usize, done: Completions) -> io::Result<Self> {
        let (versions, inbox) = mpsc::channel();
        let ends = Arc::new(AtomicBool::new(false));
        let worker = Worker { directory, kept, done, ends: Arc::clone(&ends) };
        let work = move || worker.run(&inbox);
        let thread = thread::Builder::new().name("snapshots".to_owned()).spawn(work)?;
        Ok(Self { versions: Some(versions), ends, thread: Some(thread) })
    }

    /// Begins a snapshot of a version; the completions tell when it is done.
    pub fn write(&mut self, version: Version) {
        let versions = self.versions.as_ref().expect("it is only taken by drop");
        versions.send(version).expect("the thread lives as long as this does");
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.versions = None;
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(!matches!(ended, Some(Err(_))), "a panic of the thread ends the process");
    }
}

struct Worker {
    directory: PathBuf,
    kept: usize,
    done: Completions,
    ends: Arc<AtomicBool>,
}

impl Worker {
    fn run(&self, inbox: &Receiver<Version>) {
        let mut ended: Option<Instant> = None;
        while let Ok(version) = inbox.recv() {
            let zxid = version.zxid();
            let began = Instant::now();
            let hurries = ended.is_some_and(|ended| began - ended < RIGHT_BEHIND);
            let pace = if hurries { HURRIED } else { CALM };
            let written = self.write(version, pace).and_then(|bytes| Ok((bytes, self.purge()?)));
            let took = began.elapsed();
            let result = match written {
                Ok((bytes, log_needed_after)) => {
                    let took_ms = took.as_millis();
                    tracing::info!(%zxid, bytes, took_ms, "snapshot written");
                    Ok(SnapshotWritten { zxid, log_needed_after })
                }
                Err(_) if self.ends.load(Ordering::Relaxed) => Err(zxid),
                Err(error) => {
                    tracing::error!(%zxid, "snapshot failed, the log keeps growing: {error}");
                    Err(zxid)
                }
            };
            ended = Some(Instant::now());
            self.done.snapshot(result, took);
        }
    }

    fn write(&self, version: Version, pace: Pace) -> io::Result<u64> {
        let zxid = version.zxid();
        let mut writer = SnapshotWriter::new(version);
        write_named(&self.directory, zxid, pace, |chunk| {
            if self.ends.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Ok(writer.fill(chunk, CHUNK_BYTES))
        })
    }

    /// Removes what is not needed; says behind which transaction the log still is.
    fn purge(&self) -> io::Result<Zxid> {
        let mut found: Vec<Zxid> = fs::read_dir(&self.directory)?
            .filter_map(|entry| parse_snapshot_name(entry.ok()?.file_name().to_str()?))
            .collect();
        found.sort_unstable();
        let plan = purge_plan(&found, self.kept);
        for zxid in &plan.snapshots {
            fs::remove_file(self.directory.join(snapshot_name(*zxid)))?;
        }
        sync_directory(&self.directory)?;
        Ok(plan.log_needed_after)
    }
}

/// Writes a version as a snapshot file in `directory`. When this returns, it is there after a loss
/// of power too; how many bytes it has.
pub fn write_snapshot(directory: &Path, version: Version) -> io::Result<u64> {
    let zxid = version.zxid();
    let mut writer = SnapshotWriter::new(version);
    write_named(directory, zxid, CALM, |chunk| Ok(writer.fill(chunk, CHUNK_BYTES)))
}

/// Writes what comes from `source` as the snapshot file of `zxid`, in the same way. Whether it is
/// one is for the caller to see.
pub fn copy_snapshot(directory: &Path, zxid: Zxid, mut source: impl Read) -> io::Result<u64> {
    write_named(directory, zxid, CALM, |chunk| {
        let limit = CHUNK_BYTES as u64;
        Ok(source.by_ref().take(limit).read_to_end(chunk)? == CHUNK_BYTES)
    })
}

/// `fill` appends the next chunk, and says whether there is more.
fn write_named(
    directory: &Path,
    zxid: Zxid,
    pace: Pace,
    fill: impl FnMut(&mut Vec<u8>) -> io::Result<bool>,
) -> io::Result<u64> {
    let temporary = directory.join(temporary_name(zxid));
    let result = write_file(&temporary, pace, fill).and_then(|bytes| {
        fs::rename(&temporary, directory.join(snapshot_name(zxid)))?;
        sync_directory(directory)?;
        Ok(bytes)
    });
    if result.is_err() {
        // It counts for nothing, and the next start would remove it; but it takes room.
        drop(fs::remove_file(&temporary));
    }
    result
}

fn write_file(
    path: &Path,
    pace: Pace,
    mut fill: impl FnMut(&mut Vec<u8>) -> io::Result<bool>,
) -> io::Result<u64> {
    let mut file = File::create(path)?;
    let mut chunk = Vec::with_capacity(2 * CHUNK_BYTES);
    let began = Instant::now();
    let (mut bytes, mut unsynced) = (0, 0);
    loop {
        let more = fill(&mut chunk)?;
        file.write_all(&chunk)?;
        unsynced += chunk.len();
        if unsynced >= pace.sync_bytes {
            // Written out as we go: one sync at the end of a large file would hold up the log.
            file.sync_data()?;
            unsynced = 0;
        }
        bytes += chunk.len() as u64;
        chunk.clear();
        if !more {
            break;
        }
        let due = Duration::from_nanos(bytes * 1_000_000_000 / pace.bytes_per_second);
        thread::sleep(due.saturating_sub(began.elapsed()));
    }
    file.sync_all()?;
    Ok(bytes)
}

/// Makes durable which files a directory has.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
