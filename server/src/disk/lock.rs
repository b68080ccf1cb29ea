//! One process per data directory.
//!
//! The lock is the kernel's, on an open file: it goes with the process, however that ends. The
//! pid in the file is only there to be named.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The name of the file.
const NAME: &str = "lock";
/// A pid and a line end; what is longer was not written by us.
const PID_BYTES_MAX: u64 = 32;
/// Every pid has so much room, so that each is written over the whole of the last one.
const PID_CHARACTERS: usize = 10;

/// Holds a data directory as long as it lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why a data directory can't be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "{} is in use by process {pid}: stop that process, or give this one another dataDir",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who has it, as far as is known.
        pid: String,
    },
    /// The file can't be made or locked.
    #[error("can't lock {}: {error}", path.display())]
    Failed {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

impl Lock {
    /// Takes a directory, which exists.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let failed = |error| LockError::Failed { path: path.to_owned(), error };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path.join(NAME)).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = read_pid(&file);
                return Err(LockError::InUse { path: path.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // For people. It may need room, and a full disk is no reason not to start.
        let pid = std::process::id();
        drop(writeln!(file, "{pid:<PID_CHARACTERS$}"));
        Ok(Self { _file: file })
    }
}

impl Lock {
    /// Keeps others from taking a directory, and changes nothing in it. There may be no lock yet.
    pub fn share(path: &Path) -> Result<Option<Self>, LockError> {
        let failed = |error| LockError::Failed { path: path.to_owned(), error };
        let file = match File::open(path.join(NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => {
                let pid = read_pid(&file);
                Err(LockError::InUse { path: path.to_owned(), pid })
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

fn read_pid(file: &File) -> String {
    let mut text = String::new();
    match file.take(PID_BYTES_MAX).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "(unknown)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_told_who_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let lock = Lock::take(directory.path()).unwrap();
        let error = Lock::take(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}:", std::process::id())), "{error}");
        drop(lock);
        Lock::take(directory.path()).unwrap();
    }

    #[test]
    fn a_directory_that_is_not_there_is_said_so() {
        let error = Lock::take(Path::new("/nowhere/at/all")).unwrap_err().to_string();
        assert!(error.starts_with("can't lock /nowhere/at/all"), "{error}");
    }
}
