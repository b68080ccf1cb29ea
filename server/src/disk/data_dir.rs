//! The layout of a data directory.
//!
//! ```text
//!   <dataDir>/myid                               ZooKeeper's, and its other files
//!   <dataDir>/ringkeeper/lock                    the process that has it
//!   <dataDir>/ringkeeper/manifest                which generation counts
//!   <dataDir>/ringkeeper/log-directory           where the log is, if that is elsewhere
//!   <dataDir>/ringkeeper/importing               an import or a backup has not finished: its log
//!   <dataDir>/ringkeeper/exported                a ZooKeeper goes on with the data
//!   <dataDir>/ringkeeper/door                    where tools ask a running server: see `door`
//!   <dataDir>/ringkeeper/generation.N/           snapshots
//!   <dataLogDir>/ringkeeper/lock
//!   <dataLogDir>/ringkeeper/generation.N/        log segments
//! ```
//!
//! Both may be the same directory. Only the generation that the manifest names is ever read; see
//! [`engine::manifest`].

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use engine::disk::{Damage, StorageError, Volume};
use engine::epochs::{Epochs, EpochsFile};
use engine::manifest::{MANIFEST_NAME, Manifest, generation_name, parse_generation_name};

use super::lock::{Lock, LockError};
use super::removal;
use super::volume::Directory;
use crate::threads;

/// The directory within `dataDir` and `dataLogDir` that is ours.
pub const DIRECTORY_NAME: &str = "ringkeeper";

/// The file there that says: an import is under way, or was ended before its last step.
pub const IMPORT_MARK: &str = "importing";

/// The file there that says where the log is, if that is elsewhere. Without it, the directory of
/// the snapshots would pass for that of a log without transactions.
pub const LOG_NOTE: &str = "log-directory";

/// The file there that says: the data was handed to a ZooKeeper.
pub const EXPORT_MARK: &str = "exported";

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Somebody else has it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// What is in it can't be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is data, where some was to be put.
    #[error("{} holds the data of a ringkeeper already", .0.display())]
    Exists(PathBuf),
    /// The configuration names no directory for the log, which is in one of its own.
    #[error(
        "{}: the log of this data is in {}: name that as dataLogDir again, or acknowledged \
         transactions are lost; if its files have been moved here, remove this one",
        .note.display(), .log.display()
    )]
    LogElsewhere {
        /// What says so.
        note: PathBuf,
        /// Where the log was last.
        log: PathBuf,
    },
}

/// A data directory that this process has.
#[derive(Debug)]
pub struct DataDir {
    root: Directory,
    log_root: PathBuf,
    manifest: Manifest,
    /// Two if the log is elsewhere.
    _locks: Vec<Lock>,
}

impl DataDir {
    /// Takes the directories, which are made if need be, and removes what is left of other
    /// generations.
    ///
    /// When this returns, no write of an earlier process is under way.
    pub fn open(data: &Path, data_log: &Path) -> Result<Self, DataDirError> {
        let (mut root, log_root, locks) = take(data, data_log)?;
        let manifest = match Manifest::open(&mut root)? {
            Some(mut manifest) => {
                check_log_note(root.path(), log_root.path())?;
                manifest.settle(&mut root)?;
                manifest
            }
            None => begin(&mut root, &log_root)?,
        };
        let log_root = log_root.path().to_owned();
        let mut data_dir = Self { root, log_root, manifest, _locks: locks };
        // Both belong together, or what looks like another generation is another server's.
        data_dir.snapshots()?;
        let logs = data_dir.logs()?;
        logs.await_writers(&logs.list()?)?;
        if let Err(error) = note_log(&mut data_dir.root, &data_dir.log_root) {
            // On a full disk it is written another time.
            tracing::warn!("{error}");
        }
        data_dir.remove_others()?;
        Ok(data_dir)
    }

    /// The generation that counts.
    pub fn generation(&self) -> u64 {
        self.manifest.generation()
    }

    /// Where manifest and epochs lie.
    pub fn root_mut(&mut self) -> &mut Directory {
        &mut self.root
    }

    /// Its snapshots.
    pub fn snapshots(&self) -> Result<Directory, StorageError> {
        existing(&self.root.path().join(generation_name(self.generation())))
    }

    /// Its log.
    pub fn logs(&self) -> Result<Directory, StorageError> {
        existing(&self.log_root.join(generation_name(self.generation())))
    }

    /// Makes the directories of the next generation, empty: for snapshots, and for the log.
    pub fn prepare_next(&self) -> Result<(Directory, Directory), StorageError> {
        self.remove_others()?;
        let name = generation_name(self.generation() + 1);
        let snapshots = Directory::open(&self.root.path().join(&name))?;
        Ok((snapshots, Directory::open(&self.log_root.join(&name))?))
    }

    /// Switches to the next generation, all of which is durable. What was before is removed, by
    /// and by, or at the next start.
    pub fn switch_to_next(&mut self) -> Result<(), StorageError> {
        self.manifest.switch(&mut self.root, self.manifest.generation() + 1)?;
        let others = self.others()?;
        drop(threads::start("remove", move || {
            for path in others {
                if let Err(error) = removal::remove_directory(&path) {
                    tracing::warn!("{}: what is left is removed later: {error}", path.display());
                }
            }
        }));
        Ok(())
    }

    /// The directories of generations that do not count.
    fn others(&self) -> Result<Vec<PathBuf>, StorageError> {
        let mut found = generations(self.root.path())?;
        found.append(&mut generations(&self.log_root)?);
        found.retain(|(generation, _)| *generation != self.generation());
        Ok(found.into_iter().map(|(_, path)| path).collect())
    }

    fn remove_others(&self) -> Result<(), StorageError> {
        for path in self.others()? {
            match std::fs::remove_dir_all(&path) {
                // Both roots may be one; or it was on its way out.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(|error| failed(&path, "remove directory", &error))?,
            }
        }
        Ok(())
    }
}

/// The data of a server that has stopped, to be read and not to be changed. No server can start
/// with it while this lives.
#[derive(Debug)]
pub struct StoppedData {
    /// Its snapshots.
    pub snapshots: Directory,
    /// Its log.
    pub logs: Directory,
    /// What the server has promised as a member of an ensemble.
    pub epochs: Epochs,
    _locks: Vec<Lock>,
}

impl StoppedData {
    /// Finds the data; none if there is none.
    pub fn open(data: &Path, data_log: &Path) -> Result<Option<Self>, DataDirError> {
        let (root, log_root) = (data.join(DIRECTORY_NAME), data_log.join(DIRECTORY_NAME));
        let manifest = root.join(MANIFEST_NAME);
        if !manifest.try_exists().map_err(|error| failed(&manifest, "find", &error))? {
            return Ok(None);
        }
        check_log_note(&root, &log_root)?;
        let mut locks = Vec::from_iter(Lock::share(&root)?);
        if log_root.is_dir() && !is_same(&root, &log_root) {
            locks.extend(Lock::share(&log_root)?);
        }
        let mut volume = Directory::existing(&root)?;
        let Some(manifest) = Manifest::open(&mut volume)? else { return Ok(None) };
        let epochs = EpochsFile::open(&mut volume)?.map(|file| file.epochs()).unwrap_or_default();
        let name = generation_name(manifest.generation());
        let (snapshots, logs) = (existing(&root.join(&name))?, existing(&log_root.join(&name))?);
        logs.await_writers(&logs.list()?)?;
        Ok(Some(Self { snapshots, logs, epochs, _locks: locks }))
    }
}

/// Directories that are given data from elsewhere, before anything is served from them.
///
/// The mark comes first and goes last, so that nobody serves what is not whole. An import or a
/// backup that is ended in between is begun anew if its data does not count yet; else what is left
/// to do is what its tool does behind [`NewData::commit`], and [`NewData::finish`].
#[derive(Debug)]
pub struct NewData {
    root: Directory,
    log_root: Directory,
    is_committed: bool,
    _locks: Vec<Lock>,
}

impl NewData {
    /// Takes the directories, which are made if need be. They must hold no data, but for that of
    /// an import or a backup that was not finished.
    pub fn begin(data: &Path, data_log: &Path) -> Result<Self, DataDirError> {
        let (mut root, log_root, locks) = take(data, data_log)?;
        let is_committed = Manifest::open(&mut root)?.is_some();
        let marked = mark(root.path())?;
        if is_committed && marked.is_none() {
            return Err(DataDirError::Exists(root.path().to_owned()));
        }
        if !is_committed {
            clear(&mut root, &log_root, marked.as_deref())?;
        }
        Ok(Self { root, log_root, is_committed, _locks: locks })
    }

    /// Whether the data counts already, and nothing may be written to it any more.
    pub fn is_committed(&self) -> bool {
        self.is_committed
    }

    /// Where snapshots and log go.
    pub fn directories(&self) -> Result<(Directory, Directory), StorageError> {
        let name = generation_name(engine::manifest::GENERATION_FIRST);
        let snapshots = Directory::open(&self.root.path().join(&name))?;
        Ok((snapshots, Directory::open(&self.log_root.path().join(&name))?))
    }

    /// Writes what a member of an ensemble has promised.
    pub fn write_epochs(&mut self, epochs: Epochs) -> Result<(), StorageError> {
        EpochsFile::create(&mut self.root, epochs).map(|_| ())
    }

    /// From now on the data counts, all of which is durable.
    pub fn commit(&mut self) -> Result<(), StorageError> {
        note_log(&mut self.root, self.log_root.path())?;
        Manifest::create(&mut self.root)?;
        self.is_committed = true;
        Ok(())
    }

    /// From now on the data can be served.
    pub fn finish(mut self) -> Result<(), StorageError> {
        assert!(self.is_committed, "what is finished counts");
        self.root.remove(IMPORT_MARK)?;
        self.root.sync_dir()
    }
}

/// What the mark of unfinished data says, if there is one: where its log was begun. One of an
/// earlier version says nothing.
pub fn mark(root: &Path) -> Result<Option<PathBuf>, StorageError> {
    noted(&root.join(IMPORT_MARK))
}

/// The path that a file holds, if there is that file.
fn noted(note: &Path) -> Result<Option<PathBuf>, StorageError> {
    match std::fs::read(note) {
        Ok(path) => Ok(Some(PathBuf::from(OsString::from_vec(path)))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(note, "read", &error)),
    }
}

/// Makes a file that holds a path, or changes it, as a whole.
fn note(root: &mut Directory, name: &str, text: &Path) -> Result<(), StorageError> {
    let (path, part) = (root.path().join(name), root.path().join(format!("{name}.tmp")));
    let written = File::create(&part).and_then(|mut file| {
        file.write_all(text.as_os_str().as_bytes())?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| std::fs::rename(&part, &path));
    renamed.map_err(|error| failed(&path, "write", &error))?;
    root.sync_dir()
}

/// Writes down where the log is, if that is elsewhere.
fn note_log(root: &mut Directory, log_root: &Path) -> Result<(), StorageError> {
    let known = noted(&root.path().join(LOG_NOTE))?;
    if is_same(root.path(), log_root) {
        if known.is_none() {
            return Ok(());
        }
        // Of data that never came to count.
        root.remove(LOG_NOTE)?;
        return root.sync_dir();
    }
    let log = log_root.canonicalize().map_err(|error| failed(log_root, "find", &error))?;
    if known.as_ref() == Some(&log) { Ok(()) } else { note(root, LOG_NOTE, &log) }
}

/// The log that was elsewhere is not here now.
fn check_log_note(root: &Path, log_root: &Path) -> Result<(), DataDirError> {
    let path = root.join(LOG_NOTE);
    match noted(&path)? {
        Some(log) if is_same(root, log_root) => Err(DataDirError::LogElsewhere { note: path, log }),
        _ => Ok(()),
    }
}

/// Marks the data, and empties the directories of what was begun at the last mark. The log
/// directory of another time may be somebody's.
fn clear(
    root: &mut Directory,
    log_root: &Directory,
    marked: Option<&Path>,
) -> Result<(), StorageError> {
    let log = log_root.path().canonicalize();
    let log = log.map_err(|error| failed(log_root.path(), "find", &error))?;
    if marked.is_none() {
        refuse_unknown(root, root)?;
    }
    let is_begun = |marked: &Path| marked.as_os_str().is_empty() || marked == log;
    if !marked.is_some_and(is_begun) && !is_same(root.path(), log_root.path()) {
        refuse_unknown(root, log_root)?;
    }
    if marked != Some(&log) {
        note(root, IMPORT_MARK, &log)?;
    }
    for path in [root.path(), log_root.path()] {
        for (_, path) in generations(path)? {
            let removed = std::fs::remove_dir_all(&path);
            removed.map_err(|error| failed(&path, "remove directory", &error))?;
        }
    }
    sync_made([root.path(), log_root.path()])
}

/// Makes sure of directories that somebody who was killed may have made without coming to the
/// sync: `ringkeeper`, and the two above.
fn sync_made(roots: [&Path; 2]) -> Result<(), StorageError> {
    for root in roots {
        let folders = root.ancestors().take(3);
        for folder in folders.filter(|folder| !folder.as_os_str().is_empty()) {
            match File::open(folder).and_then(|folder| folder.sync_all()) {
                // Where this user may not look, nor could anything be made.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                synced => synced.map_err(|error| failed(folder, "sync directory", &error))?,
            }
        }
    }
    Ok(())
}

/// Makes and locks the directories; one lock if they are the same.
fn take(data: &Path, data_log: &Path) -> Result<(Directory, Directory, Vec<Lock>), DataDirError> {
    let root = Directory::open(&data.join(DIRECTORY_NAME))?;
    let log_root = Directory::open(&data_log.join(DIRECTORY_NAME))?;
    let mut locks = vec![Lock::take(root.path())?];
    if !is_same(root.path(), log_root.path()) {
        locks.push(Lock::take(log_root.path())?);
    }
    Ok((root, log_root, locks))
}

/// The first start: directories first, then the manifest, which says that they are there.
fn begin(root: &mut Directory, log_root: &Directory) -> Result<Manifest, StorageError> {
    for directory in [&*root, log_root] {
        refuse_unknown(root, directory)?;
    }
    let name = generation_name(engine::manifest::GENERATION_FIRST);
    for path in [root.path(), log_root.path()] {
        Directory::open(&path.join(&name))?;
    }
    sync_made([root.path(), log_root.path()])?;
    note_log(root, log_root.path())?;
    Manifest::create(root)
}

fn refuse_unknown(root: &Directory, directory: &Directory) -> Result<(), StorageError> {
    for (_, path) in generations(directory.path())? {
        // Something was kept here. Without the manifest nobody knows whether it counts.
        if !Directory::open(&path)?.list()?.is_empty() {
            let manifest = root.path().join(MANIFEST_NAME).display().to_string();
            return Err(StorageError::damaged(manifest, 0, Damage::Manifest));
        }
    }
    Ok(())
}

/// A directory that the manifest says is there.
fn existing(path: &Path) -> Result<Directory, StorageError> {
    if path.is_dir() {
        return Directory::existing(path);
    }
    Err(StorageError::damaged(path.display().to_string(), 0, Damage::Generation))
}

fn generations(root: &Path) -> Result<Vec<(u64, PathBuf)>, StorageError> {
    let list = |error: io::Error| failed(root, "list", &error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).map_err(list)? {
        let entry = entry.map_err(list)?;
        let name = entry.file_name();
        if let Some(generation) = name.to_str().and_then(parse_generation_name) {
            found.push((generation, entry.path()));
        }
    }
    Ok(found)
}

/// Whether both are the same directory, which need not be there if they have the same name.
pub(crate) fn is_same(one: &Path, other: &Path) -> bool {
    let real = (one.canonicalize(), other.canonicalize());
    one == other || matches!(real, (Ok(one), Ok(other)) if one == other)
}

fn failed(path: &Path, action: &'static str, error: &io::Error) -> StorageError {
    StorageError::io(path.display().to_string(), action, error)
}

#[cfg(test)]
mod tests;
