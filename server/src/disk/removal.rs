//! Removes large files little by little.
//!
//! A file system gives all blocks of a removed file back in one go. ext4 that discards them holds
//! up everybody's syncs for 0.2 s at a time then, with a snapshot of 1.3 GB five times in a row.
//! So a file loses its name, and is cut shorter step by step until it is small enough to go at
//! once. Whoever wants to go on reading one that has no name any more holds a shared lock.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// What goes at once.
const STEP_BYTES: u64 = 8 << 20;

/// Time for others between two steps.
const PAUSE: Duration = Duration::from_millis(10);

/// Removes a file. Its name is gone when this returns, and its blocks are, unless `go_on` said no
/// or somebody reads it: then they go with the last that has it open.
pub fn remove(path: &Path, go_on: impl Fn() -> bool) -> io::Result<()> {
    let file = File::options().write(true).open(path);
    fs::remove_file(path)?;
    if let Ok(file) = file {
        shrink(&file, go_on);
    }
    Ok(())
}

/// Removes a directory and the files in it.
pub fn remove_directory(path: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        // Both roots may be one; or somebody else was quicker.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    };
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        gone(remove(&entry?.path(), || true))?;
    }
    gone(fs::remove_dir(path))
}

/// Gives the blocks of a file back that has lost its name, unless somebody reads it.
pub fn shrink(file: &File, go_on: impl Fn() -> bool) {
    let Ok(metadata) = file.metadata() else { return };
    if file.try_lock().is_err() {
        return;
    }
    let mut bytes = metadata.len();
    while bytes > STEP_BYTES && go_on() {
        bytes -= STEP_BYTES;
        if file.set_len(bytes).is_err() {
            return;
        }
        thread::sleep(PAUSE);
    }
}

/// Opens a file that is not cut short while this handle, a copy of it or a mapping is there. One
/// that is being removed is not found.
pub fn open_whole(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    keep_whole(&file)?;
    Ok(file)
}

/// The same for one that is open. Where there are no locks, nothing is cut short either.
pub fn keep_whole(file: &File) -> io::Result<()> {
    match file.try_lock_shared() {
        Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::NotFound.into()),
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
        remove(&path, || true).unwrap();
        assert!(!path.exists());
        assert_eq!(witness.metadata().unwrap().len(), STEP_BYTES);

        let (_folder, path) = file();
        let mut reader = open_whole(&path).unwrap();
        remove(&path, || true).unwrap();
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
    fn a_server_that_ends_does_not_wait_for_it() {
        let (_folder, path) = file();
        let witness = File::open(&path).unwrap();
        remove(&path, || false).unwrap();
        assert!(!path.exists());
        assert_eq!(witness.metadata().unwrap().len(), BYTES);
    }

    #[test]
    fn one_that_is_being_removed_is_not_found() {
        let (_folder, path) = file();
        let remover = File::open(&path).unwrap();
        remover.lock().unwrap();
        assert_eq!(open_whole(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
