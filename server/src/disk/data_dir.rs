//! The layout of a data directory.
//!
//! ```text
//!   <dataDir>/myid                               ZooKeeper's, and its other files
//!   <dataDir>/ringkeeper/lock                    the process that has it
//!   <dataDir>/ringkeeper/manifest                which generation counts
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
use super::volume::Directory;

/// The directory within `dataDir` and `dataLogDir` that is ours.
pub const DIRECTORY_NAME: &str = "ringkeeper";

/// The file there that says: an import is under way, or was ended before its last step.
pub const IMPORT_MARK: &str = "importing";

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
                manifest.settle(&mut root)?;
                manifest
            }
            None => begin(&mut root, &log_root)?,
        };
        let log_root = log_root.path().to_owned();
        let data_dir = Self { root, log_root, manifest, _locks: locks };
        // Both belong together, or what looks like another generation is another server's.
        data_dir.snapshots()?;
        let logs = data_dir.logs()?;
        logs.await_writers(&logs.list()?)?;
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

    /// Switches to the next generation, all of which is durable. What was before is removed.
    pub fn switch_to_next(&mut self) -> Result<(), StorageError> {
        self.manifest.switch(&mut self.root, self.manifest.generation() + 1)?;
        self.remove_others()
    }

    fn remove_others(&self) -> Result<(), StorageError> {
        for root in [self.root.path(), &self.log_root] {
            for (generation, path) in generations(root)? {
                if generation != self.generation() {
                    let removed = std::fs::remove_dir_all(&path);
                    removed.map_err(|error| failed(&path, "remove directory", &error))?;
                }
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
        if !root.join(MANIFEST_NAME).exists() {
            return Ok(None);
        }
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
    let path = root.join(IMPORT_MARK);
    match std::fs::read(&path) {
        Ok(log) => Ok(Some(PathBuf::from(OsString::from_vec(log)))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&path, "read", &error)),
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
        let (path, part) = (root.path().join(IMPORT_MARK), root.path().join("importing.tmp"));
        let written = File::create(&part).and_then(|mut file| {
            file.write_all(log.as_os_str().as_bytes())?;
            file.sync_all()
        });
        let renamed = written.and_then(|()| std::fs::rename(&part, &path));
        renamed.map_err(|error| failed(&path, "write", &error))?;
        root.sync_dir()?;
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
mod tests {
    use super::*;

    fn write(directory: &mut Directory, name: &str) {
        directory.create_zeroed(name, 4096).unwrap();
    }

    #[test]
    fn a_first_start_makes_everything_and_a_second_finds_it() {
        let temporary = tempfile::tempdir().unwrap();
        let (data, log) = (temporary.path().join("a/b"), temporary.path().join("c"));
        let first = DataDir::open(&data, &log).unwrap();
        write(&mut first.logs().unwrap(), "log.1");
        assert!(matches!(DataDir::open(&data, &log), Err(DataDirError::Lock(_))));
        drop(first);
        let second = DataDir::open(&data, &log).unwrap();
        assert_eq!(second.generation(), 1);
        assert_eq!(second.logs().unwrap().list().unwrap(), ["log.1"]);
        assert!(second.snapshots().unwrap().list().unwrap().is_empty());
    }

    #[test]
    fn an_import_that_begins_anew_empties_only_what_it_has_begun() {
        let temporary = tempfile::tempdir().unwrap();
        let path = |name| temporary.path().join(name);
        let other = DataDir::open(&path("other"), &path("log")).unwrap();
        write(&mut other.logs().unwrap(), "log.1");
        drop(other);
        assert!(NewData::begin(&path("data"), &path("log")).is_err());
        assert_eq!(mark(&path("data").join(DIRECTORY_NAME)).unwrap(), None, "nothing is begun");
        drop(NewData::begin(&path("data"), &path("data")).unwrap());
        assert!(NewData::begin(&path("data"), &path("log")).is_err());
        assert!(path("log").join("ringkeeper/generation.1/log.1").exists());
        for _ in ["first", "again"] {
            let begun = NewData::begin(&path("data"), &path("new")).unwrap();
            write(&mut begun.directories().unwrap().1, "log.1");
        }
        let mut begun = NewData::begin(&path("data"), &path("new")).unwrap();
        drop(begun.directories().unwrap());
        begun.commit().unwrap();
        begun.finish().unwrap();
        let served = DataDir::open(&path("data"), &path("new")).unwrap();
        assert_eq!(served.logs().unwrap().list().unwrap(), [""; 0]);
    }

    #[test]
    fn a_log_in_use_by_another_server_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let path = |name| temporary.path().join(name);
        let first = DataDir::open(&path("a"), &path("log")).unwrap();
        let error = DataDir::open(&path("b"), &path("log")).unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
        drop(first);
        DataDir::open(&path("b"), &path("log")).unwrap();
    }

    #[test]
    fn an_unfinished_generation_is_removed_and_an_old_one_too() {
        let temporary = tempfile::tempdir().unwrap();
        let open = || DataDir::open(temporary.path(), temporary.path()).unwrap();
        let data_dir = open();
        write(&mut data_dir.logs().unwrap(), "log.old");
        let (mut snapshots, _) = data_dir.prepare_next().unwrap();
        write(&mut snapshots, "log.unfinished");
        drop(data_dir);

        let mut data_dir = open();
        assert_eq!(data_dir.logs().unwrap().list().unwrap(), ["log.old"]);
        let (_, mut logs) = data_dir.prepare_next().unwrap();
        assert!(logs.list().unwrap().is_empty());
        write(&mut logs, "log.new");
        data_dir.switch_to_next().unwrap();
        drop(data_dir);

        let data_dir = open();
        assert_eq!(data_dir.generation(), 2);
        assert_eq!(data_dir.logs().unwrap().list().unwrap(), ["log.new"]);
        assert!(!temporary.path().join("ringkeeper/generation.1").exists());
    }

    #[test]
    fn data_without_a_manifest_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let open = || DataDir::open(temporary.path(), temporary.path());
        let data_dir = open().unwrap();
        let root = temporary.path().join(DIRECTORY_NAME);
        write(&mut data_dir.logs().unwrap(), "log.1");
        drop(data_dir);
        std::fs::remove_file(root.join(MANIFEST_NAME)).unwrap();
        let error = open().unwrap_err().to_string();
        assert!(error.contains("which generation") && error.contains("manifest"), "{error}");
    }

    #[test]
    fn stopped_data_is_found_and_kept_from_others() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path();
        assert!(StoppedData::open(path, path).unwrap().is_none());
        assert!(!path.join(DIRECTORY_NAME).exists(), "nothing is made");
        let running = DataDir::open(path, path).unwrap();
        let error = StoppedData::open(path, path).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(running);
        let one = StoppedData::open(path, path).unwrap().unwrap();
        let other = StoppedData::open(path, path).unwrap().unwrap();
        drop(one);
        assert!(matches!(DataDir::open(path, path), Err(DataDirError::Lock(_))));
        drop(other);
        DataDir::open(path, path).unwrap();
    }

    #[test]
    fn directories_are_the_same_whatever_leads_there() {
        let temporary = tempfile::tempdir().unwrap();
        let path = |name| temporary.path().join(name);
        assert!(is_same(&path("a"), &path("a")) && !is_same(&path("a"), &path("b")));
        std::fs::create_dir(path("a")).unwrap();
        std::os::unix::fs::symlink(path("a"), path("b")).unwrap();
        assert!(is_same(&path("a"), &path("b")) && !is_same(&path("a"), temporary.path()));
    }

    #[test]
    fn a_missing_generation_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let open = || DataDir::open(temporary.path(), temporary.path());
        drop(open().unwrap());
        std::fs::remove_dir(temporary.path().join("ringkeeper/generation.1")).unwrap();
        let error = open().unwrap_err().to_string();
        assert!(error.contains("generation.1"), "{error}");
    }
}
