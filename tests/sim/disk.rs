//! A directory that loses what was not synced.
//!
//! It keeps what programs see and what survives apart. Writes that are not durable are kept one by
//! one, so that a crash image can take any of their sectors and leave the others: missing, torn and
//! reordered writes. Changes of names survive in order, up to any point, as journals keep them.
//!
//! Every change and every sync is a *point*. [`SimDisk::crash_at`] stops everything from a point
//! on, so that a test can stop at each of them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;

use engine::disk::{StorageError, Volume};

use super::random::Random;
use super::sparse::Sparse;

/// What survives or not as a whole.
const SECTOR_BYTES: usize = 512;

/// A simulated directory.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    renames: Vec<Change>,
    points: u64,
    crash_at: Option<u64>,
    /// How many bytes fit.
    pub capacity: Option<u64>,
    /// The next sync of a file finds out that there is no room for what was written.
    pub is_full_at_sync: bool,
    /// Bytes that were read, to see what a start costs.
    pub read_bytes: Cell<u64>,
}

#[derive(Clone, Debug, Default)]
struct File {
    seen: Sparse,
    durable: Sparse,
    unsynced: Vec<Write>,
    /// So many zeros were written first, and may be there.
    zeros: usize,
}

#[derive(Clone, Debug)]
struct Write {
    id: u64,
    offset: usize,
    bytes: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Change {
    Name(String, usize),
    Remove(String),
    Rename(String, String),
}

impl SimDisk {
    /// From this point on, everything fails.
    pub fn crash_at(&mut self, point: Option<u64>) {
        self.crash_at = point;
    }

    /// How many points there were.
    pub fn points(&self) -> u64 {
        self.points
    }

    /// Whether the point to crash at was reached.
    pub fn crashed(&self) -> bool {
        self.crash_at.is_some_and(|at| self.points > at)
    }

    /// What a program sees of a file.
    pub fn file(&self, name: &str) -> Vec<u8> {
        self.files[self.names[name]].seen.to_vec()
    }

    /// Changes a file behind everybody's back, durably.
    pub fn damage(&mut self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let file = &mut self.files[self.names[name]];
        assert!(file.unsynced.is_empty(), "damage is done to a disk at rest");
        let mut bytes = file.seen.to_vec();
        change(&mut bytes);
        file.seen = Sparse::new(&bytes);
        file.durable = file.seen.clone();
    }

    /// Changes bits of each of these bytes, durably; none if the file is not there or not at rest.
    pub fn damage_at(
        &mut self,
        name: &str,
        offset: usize,
        count: usize,
        random: &mut Random,
    ) -> Option<()> {
        let file = &mut self.files[*self.names.get(name)?];
        if !file.unsynced.is_empty() {
            return None;
        }
        let mut bytes = vec![0; count];
        file.seen.read(offset, &mut bytes);
        bytes.iter_mut().for_each(|byte| *byte ^= 1 << random.below(8));
        file.seen.put(offset, &bytes);
        file.durable = file.seen.clone();
        Some(())
    }

    /// Adds a file, durably.
    pub fn insert(&mut self, name: &str, bytes: &[u8]) {
        self.files.push(File {
            seen: Sparse::new(bytes),
            durable: Sparse::new(bytes),
            ..File::default()
        });
        self.names.insert(name.to_owned(), self.files.len() - 1);
        self.durable_names = self.names.clone();
    }

    /// The directory after a loss of power now.
    pub fn crash(&self, random: &mut Random) -> Self {
        let mut names = self.durable_names.clone();
        for change in &self.renames[..random.below(self.renames.len() + 1)] {
            apply(change, &mut names);
        }
        let files: Vec<_> = self.files.iter().map(|file| file.crash(random)).collect();
        Self { files, durable_names: names.clone(), names, ..Self::default() }
    }

    /// The directory after a crash of the process alone: all that it wrote is there.
    pub fn kill(&self) -> Self {
        Self { crash_at: None, points: 0, ..self.clone() }
    }

    /// Starts a write that becomes durable at [`SimDisk::finish_write`]; its number.
    pub fn begin_write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Option<u64> {
        self.point("write").ok()?;
        let id = self.points;
        let index = self.names[name];
        self.files[index].write(id, offset as usize, bytes);
        Some(id)
    }

    /// Ends a write: this one, and no other, is durable.
    pub fn finish_write(&mut self, name: &str, id: u64) -> bool {
        if self.point("write").is_err() {
            return false;
        }
        let file = &mut self.files[self.names[name]];
        if let Some(index) = file.unsynced.iter().position(|write| write.id == id) {
            let write = file.unsynced.remove(index);
            file.durable.put(write.offset, &write.bytes);
        }
        true
    }

    fn point(&mut self, action: &'static str) -> Result<(), StorageError> {
        self.points += 1;
        if self.crashed() { Err(fail("", action, io::ErrorKind::BrokenPipe)) } else { Ok(()) }
    }

    fn index(&self, name: &str, action: &'static str) -> Result<usize, StorageError> {
        self.names.get(name).copied().ok_or(fail(name, action, io::ErrorKind::NotFound))
    }

    /// Bytes that its files take.
    pub fn used(&self) -> u64 {
        self.names.values().map(|index| self.files[*index].seen.len() as u64).sum()
    }

    fn change(&mut self, change: Change) {
        apply(&change, &mut self.names);
        self.renames.push(change);
    }
}

impl File {
    fn write(&mut self, id: u64, offset: usize, bytes: &[u8]) {
        self.seen.put(offset, bytes);
        self.unsynced.push(Write { id, offset, bytes: bytes.to_vec() });
    }

    fn crash(&self, random: &mut Random) -> Self {
        let mut durable = self.durable.clone();
        if self.zeros > 0 {
            durable.extend_to(random.below(self.zeros + 1));
        }
        // Of all writes, of none, or of each sector on its own account.
        let share = [0, 50, 90, 100][random.below(4)];
        for write in &self.unsynced {
            let mut offset = write.offset;
            for sector in write.bytes.chunks(SECTOR_BYTES) {
                if random.percent(share) {
                    durable.put(offset, sector);
                }
                offset += sector.len();
            }
        }
        Self { seen: durable.clone(), durable, ..Self::default() }
    }
}

fn apply(change: &Change, names: &mut BTreeMap<String, usize>) {
    match change {
        Change::Name(name, index) => {
            names.insert(name.clone(), *index);
        }
        Change::Remove(name) => {
            names.remove(name);
        }
        Change::Rename(source, target) => {
            if let Some(index) = names.remove(source) {
                names.insert(target.clone(), index);
            }
        }
    }
}

fn fail(name: &str, action: &'static str, error: io::ErrorKind) -> StorageError {
    StorageError::io(name, action, &io::Error::from(error))
}

impl Volume for SimDisk {
    fn list(&self) -> Result<Vec<String>, StorageError> {
        Ok(self.names.keys().cloned().collect())
    }

    fn len(&self, name: &str) -> Result<u64, StorageError> {
        Ok(self.files[self.index(name, "stat")?].seen.len() as u64)
    }

    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<usize, StorageError> {
        let file = &self.files[self.index(name, "read")?].seen;
        let count = file.read(offset as usize, into);
        self.read_bytes.set(self.read_bytes.get() + count as u64);
        Ok(count)
    }

    fn create_zeroed(&mut self, name: &str, bytes: u64) -> Result<(), StorageError> {
        self.point("create")?;
        self.files.push(File::default());
        self.change(Change::Name(name.to_owned(), self.files.len() - 1));
        let room = self.capacity.unwrap_or(u64::MAX).saturating_sub(self.used());
        let file = self.files.last_mut().expect("just added");
        file.seen.extend_to(bytes.min(room) as usize);
        file.zeros = file.seen.len();
        if bytes > room {
            return Err(fail(name, "write", io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.point("write")?;
        let (id, index) = (self.points, self.index(name, "write")?);
        let growth = (offset + bytes.len() as u64).saturating_sub(self.len(name)?);
        if growth > 0 && self.capacity.is_some_and(|capacity| self.used() + growth > capacity) {
            return Err(fail(name, "write", io::ErrorKind::StorageFull));
        }
        self.files[index].write(id, offset as usize, bytes);
        Ok(())
    }

    fn rename(&mut self, source: &str, target: &str) -> Result<(), StorageError> {
        self.point("rename")?;
        self.index(source, "rename")?;
        self.change(Change::Rename(source.to_owned(), target.to_owned()));
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), StorageError> {
        self.point("remove")?;
        self.index(name, "remove")?;
        self.change(Change::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_file(&mut self, name: &str) -> Result<(), StorageError> {
        self.point("sync")?;
        let index = self.index(name, "sync")?;
        if std::mem::take(&mut self.is_full_at_sync) {
            return Err(fail(name, "sync", io::ErrorKind::StorageFull));
        }
        let file = &mut self.files[index];
        file.durable = file.seen.clone();
        file.unsynced.clear();
        file.zeros = 0;
        Ok(())
    }

    fn sync_dir(&mut self) -> Result<(), StorageError> {
        self.point("sync")?;
        self.durable_names = self.names.clone();
        self.renames.clear();
        Ok(())
    }
}
