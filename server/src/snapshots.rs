//! Writes snapshots beside the cores, and removes those that are not needed any more.
//!
//! A thread of its own writes one version at a time, at a moderate rate: the log on the same
//! device comes first. A snapshot gets its name only when all of it is durable.

mod pace;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use engine::btree::Version;
use engine::recovery::{
    PurgePlan, Unusable, newest_plan, parse_snapshot_name, purge_plan, snapshot_name,
    temporary_name,
};
use engine::replica::{Kept, SnapshotWritten};
use engine::snapshot::SnapshotWriter;
use engine::zxid::Zxid;

use crate::cores::Completions;
use crate::disk::removal;
use crate::storage::check_snapshot;
use crate::threads;
use pace::Pace;

/// Bytes that are written at once.
const CHUNK_BYTES: usize = 1 << 20;

/// The thread, as the ordering core sees it. When this has been dropped, nothing is written any
/// more: a snapshot that is under way fails.
#[derive(Debug)]
pub struct Snapshots {
    versions: Option<Sender<(Version, Kept)>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Snapshots {
    /// Starts the thread. It keeps the newest `several` snapshots in `directory`.
    pub fn start(directory: PathBuf, several: usize, done: Completions) -> io::Result<Self> {
        let (versions, inbox) = mpsc::channel();
        let ends = Arc::new(AtomicBool::new(false));
        let worker = Worker::new(directory, several, Arc::clone(&ends));
        let work = move || worker.run(&inbox, &done);
        let thread = threads::start("snapshots", work)?;
        Ok(Self { versions: Some(versions), ends, thread: Some(thread) })
    }

    /// Begins a snapshot of a version; the completions tell when it is done, and others are gone.
    pub fn write(&mut self, version: Version, kept: Kept) {
        let versions = self.versions.as_ref().expect("it is only taken by drop");
        versions.send((version, kept)).expect("the thread lives as long as this does");
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
    several: usize,
    ends: Arc<AtomicBool>,
    /// When the last snapshot was begun, and how many bytes it has.
    last: Option<(Instant, u64)>,
    /// How fast others are read back after it.
    read_pace: Pace,
}

impl Worker {
    const fn new(directory: PathBuf, several: usize, ends: Arc<AtomicBool>) -> Self {
        Self { directory, several, ends, last: None, read_pace: Pace::CALM }
    }

    fn run(mut self, inbox: &Receiver<(Version, Kept)>, done: &Completions) {
        let mut was_full = false;
        while let Ok((version, kept)) = inbox.recv() {
            let zxid = version.zxid();
            let began = Instant::now();
            let result = match kept {
                Kept::Several => self.write(&version).and_then(|()| self.purge()),
                Kept::Newest => self.make_room(&version),
            };
            let took = began.elapsed();
            let is_full = result.as_ref().is_err_and(is_full);
            // On a full disk it is tried again and again: to be told once is enough.
            let is_known = self.ends.load(Ordering::Relaxed) || (is_full && was_full);
            if let Err(error) = result.as_ref()
                && !is_known
            {
                tracing::error!(%zxid, "snapshot failed, the log keeps growing: {error}");
            }
            was_full = is_full;
            done.snapshot(result.map_err(|_| zxid), took);
        }
    }

    fn write(&mut self, version: &Version) -> io::Result<()> {
        let (zxid, began) = (version.zxid(), Instant::now());
        let mut pace = Pace::CALM;
        if let Some((at, bytes)) = self.last {
            pace = Pace::write_after(bytes, began - at);
            self.read_pace = Pace::read_after(bytes, began - at);
        }
        let mut writer = SnapshotWriter::new(version.clone());
        let bytes = write_named(&self.directory, zxid, pace, |chunk| {
            self.go_on()?;
            Ok(writer.fill(chunk, CHUNK_BYTES))
        })?;
        self.last = Some((began, bytes));
        tracing::info!(%zxid, bytes, took_ms = began.elapsed().as_millis(), "snapshot written");
        Ok(())
    }

    /// Removes what is not needed as long as there is room, older snapshots and the log before the
    /// oldest that stays, if that one is good: with the log behind it, it is enough, whatever
    /// becomes of the newer ones. Each is read back once, when its turn comes; the newest stays in
    /// the cache, where a restart wants it.
    fn purge(&self) -> io::Result<SnapshotWritten> {
        let found = self.list()?;
        let plan = purge_plan(&found, self.several);
        if plan.log_needed_after != Zxid::ZERO {
            self.read_back(plan.log_needed_after, self.read_pace)?;
        }
        self.remove(&found, &plan, removal::remove_soon)
    }

    /// Makes room on a full disk: writes a snapshot, if there is room for it, and removes all but
    /// the newest. What is removed may be what makes room for it.
    fn make_room(&mut self, version: &Version) -> io::Result<SnapshotWritten> {
        let Err(error) = self.write(version) else { return self.keep_newest() };
        if !is_full(&error) || self.list()?.is_empty() {
            return Err(error);
        }
        let older = self.keep_newest()?;
        match self.write(version) {
            Err(error) if is_full(&error) => Ok(older),
            result => result.and_then(|()| self.keep_newest()),
        }
    }

    /// Removes all but the newest snapshot, if that one is good: nothing can replace it then.
    fn keep_newest(&self) -> io::Result<SnapshotWritten> {
        let found = self.list()?;
        let newest = found.last().copied().ok_or(io::ErrorKind::NotFound)?;
        // Clients wait for the room.
        self.read_back(newest, Pace::FASTEST)?;
        self.remove(&found, &newest_plan(&found), removal::remove)
    }

    /// Makes sure that a start could take this snapshot.
    fn read_back(&self, zxid: Zxid, pace: Pace) -> io::Result<()> {
        let path = self.directory.join(snapshot_name(zxid));
        let began = Instant::now();
        let rest = |bytes| {
            thread::sleep(pace.time_for(bytes).saturating_sub(began.elapsed()));
            self.go_on()
        };
        check_snapshot(&path, zxid, rest).or_else(|unusable| {
            if let Unusable::Damaged(_) = unusable {
                // As at a start: it must not be counted among the good ones.
                fs::rename(&path, path.with_added_extension("damaged"))?;
                sync_directory(&self.directory)?;
            }
            Err(io::Error::other(format!("{}: {unusable}", path.display())))
        })
    }

    /// Unless the server ends.
    fn go_on(&self) -> io::Result<()> {
        if self.ends.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<Zxid>> {
        let mut found: Vec<Zxid> = fs::read_dir(&self.directory)?
            .filter_map(|entry| parse_snapshot_name(entry.ok()?.file_name().to_str()?))
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    fn remove(
        &self,
        found: &[Zxid],
        plan: &PurgePlan,
        remove: impl Fn(&Path) -> io::Result<()>,
    ) -> io::Result<SnapshotWritten> {
        for zxid in &plan.snapshots {
            remove(&self.directory.join(snapshot_name(*zxid)))?;
        }
        sync_directory(&self.directory)?;
        let zxid = found.last().copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(SnapshotWritten { zxid, log_needed_after: plan.log_needed_after })
    }
}

/// Whether it is for lack of room that something failed.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Writes a version as a snapshot file in `directory`. When this returns, it is there after a loss
/// of power too; how many bytes it has.
pub fn write_snapshot(directory: &Path, version: Version) -> io::Result<u64> {
    let zxid = version.zxid();
    let mut writer = SnapshotWriter::new(version);
    write_named(directory, zxid, Pace::CALM, |chunk| Ok(writer.fill(chunk, CHUNK_BYTES)))
}

/// Writes what comes from `source` as the snapshot file of `zxid`, in the same way. Whether it is
/// one is for the caller to see.
pub fn copy_snapshot(directory: &Path, zxid: Zxid, mut source: impl Read) -> io::Result<u64> {
    write_named(directory, zxid, Pace::CALM, |chunk| {
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
        drop(removal::remove_soon(&temporary));
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
        if unsynced >= pace.sync_bytes() {
            file.sync_data()?;
            unsynced = 0;
        }
        bytes += chunk.len() as u64;
        chunk.clear();
        if !more {
            break;
        }
        thread::sleep(pace.time_for(bytes).saturating_sub(began.elapsed()));
    }
    file.sync_all()?;
    Ok(bytes)
}

/// Makes durable which files a directory has.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use engine::btree::Map;
    use tempfile::TempDir;

    use super::*;

    struct World {
        map: Map,
        worker: Worker,
        _folder: TempDir,
    }

    impl World {
        fn new() -> Self {
            let folder = TempDir::new().unwrap();
            let directory = folder.path().to_owned();
            let worker = Worker::new(directory, 3, Arc::default());
            Self { map: Map::new(), worker, _folder: folder }
        }

        fn version(&mut self, zxid: u64) -> Version {
            self.map.put(b"zxid", &zxid.to_le_bytes());
            self.map.freeze(Zxid(zxid))
        }

        /// Snapshots as they are written when there is room.
        fn write(&mut self, zxids: &[u64]) {
            for zxid in zxids {
                let version = self.version(*zxid);
                self.worker.write(&version).unwrap();
            }
        }

        /// Writes a snapshot on a full disk: where it is, and where the log is needed from.
        fn make_room(&mut self, zxid: u64) -> io::Result<(u64, u64)> {
            let version = self.version(zxid);
            let written = self.worker.make_room(&version)?;
            Ok((written.zxid.0, written.log_needed_after.0))
        }

        /// The next file that is written for this snapshot finds the disk full.
        fn fill_disk(&self, zxid: u64) {
            let name = temporary_name(Zxid(zxid));
            symlink("/dev/full", self.worker.directory.join(name)).unwrap();
        }

        /// Changes a bit of a snapshot's file.
        fn damage(&self, zxid: u64) -> PathBuf {
            let path = self.worker.directory.join(snapshot_name(Zxid(zxid)));
            let mut bytes = fs::read(&path).unwrap();
            bytes[100] ^= 1;
            fs::write(&path, bytes).unwrap();
            path
        }

        fn found(&self) -> Vec<u64> {
            self.worker.list().unwrap().iter().map(|zxid| zxid.0).collect()
        }
    }

    #[test]
    fn the_end_of_the_server_interrupts_reading_and_damages_nothing() {
        let mut world = World::new();
        world.write(&[1, 2, 3, 4]);
        world.worker.ends.store(true, Ordering::Relaxed);
        assert!(world.worker.purge().is_err());
        assert_eq!(world.found(), [1, 2, 3, 4]);
    }

    #[test]
    fn several_are_kept_as_long_as_there_is_room() {
        let mut world = World::new();
        world.write(&[1, 2, 3, 4]);
        let written = world.worker.purge().unwrap();
        assert_eq!((written.zxid, written.log_needed_after), (Zxid(4), Zxid(2)));
        assert_eq!(world.found(), [2, 3, 4]);
    }

    #[test]
    fn a_full_disk_has_the_new_one_alone() {
        let mut world = World::new();
        world.write(&[1, 2]);
        assert_eq!(world.make_room(3).unwrap(), (3, 3));
        assert_eq!(world.found(), [3]);
    }

    #[test]
    fn older_ones_go_where_there_is_no_room_for_a_new_one() {
        let mut world = World::new();
        world.write(&[1, 2]);
        world.fill_disk(3);
        assert_eq!(world.make_room(3).unwrap(), (3, 3), "there was room for it then");
        assert_eq!(world.found(), [3]);
    }

    #[test]
    fn the_only_one_stays_until_there_is_another() {
        let mut world = World::new();
        world.fill_disk(1);
        assert!(is_full(&world.make_room(1).unwrap_err()));
        world.write(&[1]);
        // As long as nothing makes room, there is none.
        fs::create_dir(world.worker.directory.join(temporary_name(Zxid(2)))).unwrap();
        assert!(!is_full(&world.make_room(2).unwrap_err()));
        assert_eq!(world.found(), [1]);
    }

    #[test]
    fn nothing_is_removed_for_a_snapshot_that_cannot_be_read_back() {
        let mut world = World::new();
        world.write(&[1, 2, 3]);
        let newest = world.damage(3);
        world.fill_disk(4);
        let error = world.make_room(4).unwrap_err().to_string();
        assert!(error.contains("0000003: block at offset 0"), "{error}");
        assert_eq!(world.found(), [1, 2]);
        assert!(newest.with_added_extension("damaged").exists());
    }

    #[test]
    fn nothing_is_removed_unless_the_oldest_that_stays_is_good() {
        let mut world = World::new();
        world.write(&[1, 2, 3, 4]);
        world.damage(2);
        let error = world.worker.purge().unwrap_err().to_string();
        assert!(error.contains("0000002: block at offset 0"), "{error}");
        assert_eq!(world.found(), [1, 3, 4]);
        world.write(&[5]);
        let written = world.worker.purge().unwrap();
        assert_eq!((written.zxid, written.log_needed_after), (Zxid(5), Zxid(3)));
        assert_eq!(world.found(), [3, 4, 5]);
    }

    #[test]
    fn the_log_before_the_first_snapshots_stays_until_one_of_them_was_good() {
        let mut world = World::new();
        world.write(&[1, 2]);
        assert_eq!(world.worker.purge().unwrap().log_needed_after, Zxid::ZERO);
        world.write(&[3]);
        world.damage(1);
        assert!(world.worker.purge().is_err());
        assert_eq!(world.found(), [2, 3]);
        world.write(&[4]);
        assert_eq!(world.worker.purge().unwrap().log_needed_after, Zxid(2));
    }
}
