//! A data directory for a ZooKeeper: written beside its final place, read back, then renamed.
//!
//! ```text
//!   <dataDir>/.version-2.exporting/   snapshot, epochs ──read back, synced──> <dataDir>/version-2
//! ```

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use engine::btree::Version;
use engine::epochs::Epochs;
use engine::tree::{self, Counters, OwnerMode, Tree};
use engine::zookeeper_files::{
    Compression, FileName, SnapshotReader, WriteOptions, write_packed_snapshot,
};

use super::owners;
use super::zookeeper::{ACCEPTED_EPOCH, CURRENT_EPOCH};
use crate::snapshots::sync_directory;
use crate::storage::ZOOKEEPER_FOLDER;

/// What the data is called while it is written.
const UNFINISHED: &str = ".version-2.exporting";

/// Why a data directory was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandoverError {
    /// A file or directory can't be made.
    #[error("{}: {error}{}", path.display(), owners::remedy(path, error))]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is something in its place.
    #[error("{} is there already: nothing is overwritten", .0.display())]
    Exists(PathBuf),
    /// What was read back is not what was written.
    #[error("{}: read back, it is not what was written: {reason}", path.display())]
    Different {
        /// The snapshot.
        path: PathBuf,
        /// What is different.
        reason: String,
    },
}

/// A directory that goes with this, unless it has another name by then: what was not finished
/// must not take room on a disk that may be full.
#[derive(Debug)]
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Data that is whole and durable, but not in its place yet.
#[derive(Debug)]
pub(super) struct Staged {
    folder: Unfinished,
    target: PathBuf,
    /// The snapshot's name.
    pub snapshot: String,
    /// Its length.
    pub bytes: u64,
}

/// Whether there is anything in the place of a ZooKeeper's data below `data_dir`.
pub(super) fn is_taken(data_dir: &Path) -> bool {
    let folder = data_dir.join(ZOOKEEPER_FOLDER);
    match fs::read_dir(&folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => folder.symlink_metadata().is_ok(),
    }
}

impl Staged {
    /// Writes a version for a ZooKeeper whose `dataDir` this is, and reads it back. What an earlier
    /// attempt has left is replaced.
    pub(super) fn write(
        data_dir: &Path,
        version: &Version,
        compression: Compression,
        epochs: Epochs,
    ) -> Result<Self, HandoverError> {
        let folder = data_dir.join(UNFINISHED);
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(at(&folder))?;
        }
        owners::make_directory(data_dir).map_err(at(data_dir))?;
        fs::create_dir(&folder).map_err(at(&folder))?;
        let unfinished = Unfinished(folder.clone());
        let snapshot = FileName::snapshot(version.zxid(), compression);
        let path = folder.join(&snapshot);
        let bytes = write_snapshot(&path, version, compression).map_err(at(&path))?;
        read_back(&path, version, compression)
            .map_err(|reason| HandoverError::Different { path, reason })?;
        for (name, epoch) in [(CURRENT_EPOCH, epochs.current), (ACCEPTED_EPOCH, epochs.accepted)] {
            let path = folder.join(name);
            write_durably(&path, epoch.0.to_string().as_bytes()).map_err(at(&path))?;
        }
        sync_directory(&folder).map_err(at(&folder))?;
        let target = data_dir.join(ZOOKEEPER_FOLDER);
        Ok(Self { folder: unfinished, target, snapshot, bytes })
    }

    /// Gives it to the owner of `model`, whose server is to start from it.
    pub(super) fn give_to_owner_of(&self, model: &Path) -> Result<(), HandoverError> {
        owners::give(&self.folder.0, model).map_err(at(&self.folder.0))
    }

    /// Puts it in its place, where there is nothing; where it is then.
    pub(super) fn publish(self) -> Result<PathBuf, HandoverError> {
        match fs::rename(&self.folder.0, &self.target) {
            Ok(()) => {}
            Err(_) if self.target.symlink_metadata().is_ok() => {
                return Err(HandoverError::Exists(self.target));
            }
            Err(error) => return Err(at(&self.target)(error)),
        }
        let parent = self.target.parent().expect("it is in a data directory");
        sync_directory(parent).map_err(at(parent))?;
        Ok(self.target)
    }
}

fn write_snapshot(path: &Path, version: &Version, compression: Compression) -> io::Result<u64> {
    let mut file = BufWriter::new(File::create_new(path)?);
    write_packed_snapshot(version, WriteOptions::default(), compression, &mut file)?;
    let file = file.into_inner()?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Reads the file as a ZooKeeper does, and compares the tree with the one that was written.
fn read_back(path: &Path, version: &Version, compression: Compression) -> Result<(), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mode = tree::owner_mode(version).unwrap_or_default();
    let loaded = SnapshotReader::load(file, compression, version.zxid(), mode);
    let loaded = loaded.map_err(|error| error.to_string())?;
    let digest = tree::digest(version);
    if loaded.tree.digest() != digest || loaded.digest.is_none_or(|said| said.digest != digest) {
        return Err("the digest".to_owned());
    }
    // Bytes of data are left out: what the statistics of quotas have is counted anew by a reader.
    let counts = |counters: Counters| (counters.znode_count, counters.ephemerals_count);
    let (found, written) = (counts(loaded.tree.counters()), counts(tree::counters(version)));
    if found != written {
        return Err(format!("(znodes, ephemerals) are {found:?}, and not {written:?}"));
    }
    if !same_sessions(&loaded.tree, version) {
        return Err("the sessions".to_owned());
    }
    Ok(())
}

fn same_sessions(tree: &Tree, version: &Version) -> bool {
    let (mut one, mut other) = (tree::sessions(tree.view()), tree::sessions(version));
    loop {
        match (one.next_session(), other.next_session()) {
            (None, None) => return true,
            (one, other) if one == other => {}
            _ => return false,
        }
    }
}

/// Whether a ZooKeeper has to be told of TTL znodes by its settings.
pub(super) fn needs_extended_types(version: &Version) -> bool {
    let modes = [OwnerMode::Extended, OwnerMode::Emulate353];
    tree::owner_mode(version).is_some_and(|mode| modes.contains(&mode))
        && tree::ttls(version).next_path().is_some()
}

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> HandoverError {
    let path = path.to_owned();
    move |error| HandoverError::Io { path, error }
}
