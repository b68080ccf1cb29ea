//! A real directory as the engine sees it.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use engine::disk::{AlignedBuf, BLOCK_BYTES, StorageError, Volume};

use super::removal;

/// How much is written at once when a file is filled.
const FILL_BYTES: usize = 256 << 10;

/// The directories that are missing for `path` to be one, outermost first, each with the one
/// around it.
pub fn missing(path: &Path) -> Vec<(&Path, &Path)> {
    let missing: Vec<_> = path.ancestors().take_while(|path| !path.exists()).collect();
    let named = missing.into_iter().rev().filter(|path| !path.as_os_str().is_empty());
    let within = named.map(|path| {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        (path, parent.unwrap_or(Path::new(".")))
    });
    within.collect()
}

/// Called after each piece of a file that is being filled; false gives up.
pub type Pace = Box<dyn FnMut(usize) -> bool + Send>;

/// A directory, and the file of it that was read last.
pub struct Directory {
    path: PathBuf,
    reading: RefCell<Option<(String, File)>>,
    pace: Option<Pace>,
}

impl Directory {
    /// Opens a directory, which is made if need be; then it is there after a loss of power too.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let directory = Self { path: path.to_owned(), reading: RefCell::new(None), pace: None };
        for (path, parent) in missing(path) {
            fs::create_dir(path).map_err(|error| {
                StorageError::io(path.display().to_string(), "make directory", &error)
            })?;
            let synced = File::open(parent).and_then(|parent| parent.sync_all());
            directory.checked("..", "sync directory", synced)?;
        }
        Ok(directory)
    }

    /// A directory that is there.
    pub fn existing(path: &Path) -> Result<Self, StorageError> {
        let directory = Self { path: path.to_owned(), reading: RefCell::new(None), pace: None };
        directory.checked(".", "open", fs::read_dir(path))?;
        Ok(directory)
    }

    /// Another handle of the same directory.
    #[must_use]
    pub fn again(&self) -> Self {
        Self { path: self.path.clone(), reading: RefCell::new(None), pace: None }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on, files are filled as fast as `pace` lets them.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = Some(pace);
    }

    /// Opens a segment for direct writes, and locks it.
    ///
    /// The lock goes when the last write under way has ended, also if this process has not lived
    /// that long: see [`Directory::await_writers`].
    pub fn open_segment(&self, name: &str) -> Result<File, StorageError> {
        let file = self.open_direct(name, OpenOptions::new().read(true).write(true))?;
        self.checked(name, "lock", file.try_lock().map_err(io::Error::from))?;
        Ok(file)
    }

    /// Waits until no write of a process that has ended is under way to any of these files.
    ///
    /// The kernel finishes the writes of a killed process on its own time, after the process's
    /// own locks have gone. The lock of the file itself goes last.
    pub fn await_writers(&self, names: &[String]) -> Result<(), StorageError> {
        for name in names {
            let file = self.checked(name, "open", File::open(self.path.join(name)))?;
            self.checked(name, "lock", file.lock())?;
        }
        Ok(())
    }

    fn open_direct(&self, name: &str, options: &OpenOptions) -> Result<File, StorageError> {
        let path = self.path.join(name);
        let direct = options.clone().custom_flags(libc::O_DIRECT).open(&path);
        // Some file systems have no direct I/O; what is synced is synced all the same.
        let opened = match direct {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => options.open(&path),
            opened => opened,
        };
        self.checked(name, "open", opened)
    }

    fn checked<T>(
        &self,
        name: &str,
        action: &'static str,
        result: io::Result<T>,
    ) -> Result<T, StorageError> {
        result.map_err(|error| {
            StorageError::io(self.path.join(name).display().to_string(), action, &error)
        })
    }

    fn fill(&mut self, name: &str, file: &File, bytes: u64) -> Result<(), StorageError> {
        let zeros = AlignedBuf::zeroed(FILL_BYTES);
        let mut offset = 0;
        while offset < bytes {
            let count = FILL_BYTES.min(usize::try_from(bytes - offset).unwrap_or(FILL_BYTES));
            let written = file.write_all_at(&zeros.as_slice()[..count], offset);
            self.checked(name, "fill", written)?;
            offset += count as u64;
            if self.pace.as_mut().is_some_and(|pace| !pace(count)) {
                let stopped = Err(io::Error::from(io::ErrorKind::Interrupted));
                return self.checked(name, "fill", stopped);
            }
        }
        Ok(())
    }
}

impl Volume for Directory {
    fn list(&self) -> Result<Vec<String>, StorageError> {
        let entries = self.checked(".", "list", fs::read_dir(&self.path))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = self.checked(".", "list", entry)?;
            let kind = self.checked(".", "list", entry.file_type())?;
            if let (true, Ok(name)) = (kind.is_file(), entry.file_name().into_string()) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn len(&self, name: &str) -> Result<u64, StorageError> {
        let metadata = fs::metadata(self.path.join(name));
        Ok(self.checked(name, "stat", metadata)?.len())
    }

    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<usize, StorageError> {
        let mut reading = self.reading.borrow_mut();
        let open = reading.take().filter(|(open, _)| open == name);
        let (open, file) = match open {
            Some(open) => open,
            None => {
                let file = self.checked(name, "open", File::open(self.path.join(name)))?;
                (name.to_owned(), file)
            }
        };
        let mut count = 0;
        while count < into.len() {
            let read = file.read_at(&mut into[count..], offset + count as u64);
            match self.checked(name, "read", read)? {
                0 => break,
                read => count += read,
            }
        }
        *reading = Some((open, file));
        Ok(count)
    }

    fn create_zeroed(&mut self, name: &str, bytes: u64) -> Result<(), StorageError> {
        assert!(bytes.is_multiple_of(BLOCK_BYTES as u64), "files are made of whole blocks");
        let mut options = OpenOptions::new();
        let file = self.open_direct(name, options.create(true).truncate(true).write(true))?;
        self.fill(name, &file, bytes)
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let file = OpenOptions::new().write(true).open(self.path.join(name));
        let written = self.checked(name, "open", file)?.write_all_at(bytes, offset);
        self.checked(name, "write", written)
    }

    fn rename(&mut self, source: &str, target: &str) -> Result<(), StorageError> {
        *self.reading.borrow_mut() = None;
        let renamed = fs::rename(self.path.join(source), self.path.join(target));
        self.checked(source, "rename", renamed)
    }

    fn remove(&mut self, name: &str) -> Result<(), StorageError> {
        *self.reading.borrow_mut() = None;
        self.checked(name, "remove", removal::remove_soon(&self.path.join(name)))
    }

    fn sync_file(&mut self, name: &str) -> Result<(), StorageError> {
        let file = self.checked(name, "open", File::open(self.path.join(name)))?;
        self.checked(name, "sync", file.sync_all())
    }

    fn sync_dir(&mut self) -> Result<(), StorageError> {
        let directory = self.checked(".", "open", File::open(&self.path))?;
        self.checked(".", "sync", directory.sync_all())
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Directory").field(&self.path).finish()
    }
}
