//! Several handles of one simulated directory, as a server has for snapshots and log.

use std::cell::RefCell;
use std::rc::Rc;

use engine::disk::{StorageError, Volume};

use super::disk::SimDisk;

/// A handle.
#[derive(Clone, Debug)]
pub struct SharedDisk(Rc<RefCell<SimDisk>>);

impl SharedDisk {
    /// The first handle.
    pub fn new(disk: SimDisk) -> Self {
        Self(Rc::new(RefCell::new(disk)))
    }

    /// The directory, when this is the last handle.
    pub fn into_disk(self) -> SimDisk {
        Rc::try_unwrap(self.0).expect("it is the last handle").into_inner()
    }
}

impl Volume for SharedDisk {
    fn list(&self) -> Result<Vec<String>, StorageError> {
        self.0.borrow().list()
    }

    fn len(&self, name: &str) -> Result<u64, StorageError> {
        self.0.borrow().len(name)
    }

    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<usize, StorageError> {
        self.0.borrow().read_at(name, offset, into)
    }

    fn create_zeroed(&mut self, name: &str, bytes: u64) -> Result<(), StorageError> {
        self.0.borrow_mut().create_zeroed(name, bytes)
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.0.borrow_mut().write_at(name, offset, bytes)
    }

    fn rename(&mut self, source: &str, target: &str) -> Result<(), StorageError> {
        self.0.borrow_mut().rename(source, target)
    }

    fn remove(&mut self, name: &str) -> Result<(), StorageError> {
        self.0.borrow_mut().remove(name)
    }

    fn sync_file(&mut self, name: &str) -> Result<(), StorageError> {
        self.0.borrow_mut().sync_file(name)
    }

    fn sync_dir(&mut self) -> Result<(), StorageError> {
        self.0.borrow_mut().sync_dir()
    }
}
