//! Removes large files little by little.
//!
//! A file system gives all blocks of a removed file back in one go. ext4 that discards them holds
//! up everybody's syncs for 0.2 s at a time then, with a snapshot of 1.3 GB five times in a row.
//! So a file loses its name, and is cut shorter step by step until it is small enough to go at
//! once. Whoever wants to go on reading one that has no name any more holds a shared lock; one that
//! has another name (a hard link) is left as it is.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::LazyLock;
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::Duration;

use crate::threads;

/// What goes at once.
const STEP_BYTES: u64 = 8 << 20;

/// Time for others between two steps.
const PAUSE: Duration = Duration::from_millis(10);

/// Files that may wait for [`remove_soon`]; further ones go at once.
const WAITING_MAX: usize = 64;

/// Removes a file. Its name is gone when this returns, and its blocks are, unless somebody reads
/// it: then they go with the last that has it open.
pub fn remove(path: &Path) -> io::Result<()> {
    if let Some(file) = unlink(path)? {
        shrink(&file);
    }
    Ok(())
}

/// The same for who has no time: a thread frees the blocks of one file after the other.
pub fn remove_soon(path: &Path) -> io::Result<()> {
    static THREAD: LazyLock<Option<SyncSender<File>>> = LazyLock::new(|| {
        let (files, inbox) = mpsc::sync_channel::<File>(WAITING_MAX);
        let work = move || inbox.iter().for_each(|file| shrink(&file));
        threads::start("remove", work).is_ok().then_some(files)
    });
    if let (Some(file), Some(files)) = (unlink(path)?, &*THREAD) {
        // If too many wait already, this one goes here.
        drop(files.try_send(file));
    }
    Ok(())
}

/// Takes a file's name away, and hands it over if it can be cut; a symbolic link goes itself.
fn unlink(path: &Path) -> io::Result<Option<File>> {
    let mut options = File::options();
    let file = options.write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    fs::remove_file(path)?;
    Ok(file.ok())
}

/// Removes a directory and the files in it.
pub fn remove_directory(path: &Path) -> io::Result<()> {
    let remove_all = || {
        for entry in fs::read_dir(path)? {
            remove(&entry?.path())?;
        }
        fs::remove_dir(path)
    };
    match remove_all() {
        // Both roots may be one; or somebody else is quicker, and removes the rest, too.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Gives the blocks of a file back that has lost its name, unless it has others or somebody reads
/// it.
fn shrink(file: &File) {
    if file.try_lock().is_err() {
        return;
    }
    let Ok(metadata) = file.metadata() else { return };
    if metadata.nlink() > 0 {
        return;
    }
    let mut bytes = metadata.len();
    while bytes > STEP_BYTES {
        bytes -= STEP_BYTES;
        if file.set_len(bytes).is_err() {
            return;
        }
        thread::sleep(PAUSE);
    }
}

/// Opens a file that is not cut short while this handle, a copy of it or a mapping is there.
pub fn open_whole(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    keep_whole(&file)?;
    Ok(file)
}

/// The same for one that is open. Where there are no locks, nothing is cut short either.
pub fn keep_whole(file: &File) -> io::Result<()> {
    match file.try_lock_shared() {
        Err(fs::TryLockError::WouldBlock) => {
            let reason = "another process has locked it, or is removing it";
            Err(io::Error::new(io::ErrorKind::ResourceBusy, reason))
        }
        Ok(()) | Err(fs::TryLockError::Error(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::FileExt;

    use super::*;

    const BYTES: u64 = 3 * STEP_BYTES;

    fn file() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        File::create(&path).unwrap().write_all_at(b"end", BYTES - 3).unwrap();
        (folder, path)
    }

    #[test]
    fn a_large_file_goes_in_steps_and_whoever_reads_it_keeps_it() {
        let (_folder, path) = file();
        let witness = File::open(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
        assert_eq!(witness.metadata().unwrap().len(), STEP_BYTES);

        let (_folder, path) = file();
        let mut reader = open_whole(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert!(bytes.len() as u64 == BYTES && bytes.ends_with(b"end"));
    }

    #[test]
    fn a_directory_goes_with_its_files_and_may_be_gone() {
        let (folder, path) = file();
        let below = folder.path().join("generation");
        fs::create_dir(&below).unwrap();
        fs::rename(path, below.join("file")).unwrap();
        remove_directory(&below).unwrap();
        assert!(!below.exists());
        remove_directory(&below).unwrap();
    }

    #[test]
    fn what_has_another_name_is_left_as_it_is() {
        let (folder, path) = file();
        let other = folder.path().join("other");
        fs::hard_link(&path, &other).unwrap();
        remove(&path).unwrap();
        assert_eq!(other.metadata().unwrap().len(), BYTES);
        std::os::unix::fs::symlink(&other, &path).unwrap();
        remove(&path).unwrap();
        assert!(path.symlink_metadata().is_err());
        assert_eq!(other.metadata().unwrap().len(), BYTES);
    }

    #[test]
    fn one_that_is_being_removed_cannot_be_had() {
        let (_folder, path) = file();
        let remover = File::open(&path).unwrap();
        remover.lock().unwrap();
        assert_eq!(open_whole(&path).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    }
}
