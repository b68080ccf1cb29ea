//! What a simulated server has on its disk, and what is done with it beside appends to the log.

use std::collections::BTreeMap;

use engine::btree::Version;
use engine::disk::{Damage, DiskDone, DiskOp, SegmentId, StorageError, Volume};
use engine::epochs::{Epochs, EpochsFile};
use engine::manifest::{MANIFEST_NAME, Manifest};
use engine::recovery::{self, Recovered, Source, Unusable, snapshot_name, temporary_name};
use engine::replica::{Kept, SnapshotWritten};
use engine::tree::{OwnerMode, Tree};
use engine::txnlog::format::segment_name;
use engine::txnlog::{plan_segment, scan, segments};
use engine::zab::data::{DataDone, DataOp, Loaded};
use engine::zookeeper_files::{Stream, TreeReader, TreeWriter};
use engine::zxid::{Epoch, Zxid};

use super::Planted;
use crate::sim::disk::SimDisk;
use crate::sim::random::Random;
use crate::sim::shared::SharedDisk;

/// Groups are sealed at this size: little, so that segments can be short, and there are many.
pub const GROUP_BYTES: usize = 64 << 10;
/// The length of segments: the largest group fits.
pub const SEGMENT_BYTES: u64 = 256 << 10;

/// The files of one server.
#[derive(Clone, Debug, Default)]
pub struct Store {
    root: SimDisk,
    generations: BTreeMap<u64, Generation>,
    /// The generation in use.
    current: u64,
    /// There is no room for anything more.
    is_full: bool,
}

/// Snapshots and log that belong together.
#[derive(Clone, Debug, Default)]
pub struct Generation {
    /// The snapshots.
    pub snapshots: SimDisk,
    /// The log's segments.
    pub log: SimDisk,
}

/// What a server starts with.
pub struct Found {
    /// State and log.
    pub recovered: Recovered,
    /// Epochs.
    pub epochs: Epochs,
    /// Whether there is any data.
    pub has_data: bool,
}

impl Store {
    /// The generation in use.
    pub fn generation(&mut self) -> &mut Generation {
        self.generations.get_mut(&self.current).expect("it is in use")
    }

    /// The number of the generation in use.
    pub fn generation_number(&self) -> u64 {
        self.current
    }

    /// What is left after a loss of power, or after the end of the process alone.
    #[must_use]
    pub fn after(&self, power_lost: bool, random: &mut Random) -> Self {
        let mut left = |disk: &SimDisk| if power_lost { disk.crash(random) } else { disk.kill() };
        let root = left(&self.root);
        let generations = self.generations.iter().map(|(number, generation)| {
            let snapshots = left(&generation.snapshots);
            (*number, Generation { snapshots, log: left(&generation.log) })
        });
        let generations = generations.collect();
        let mut left = Self { root, generations, current: self.current, is_full: false };
        left.set_full(self.is_full);
        left
    }

    /// There is no room for anything more than there is, or enough again.
    pub fn set_full(&mut self, full: bool) {
        self.is_full = full;
        let set = |disk: &mut SimDisk| disk.capacity = full.then(|| disk.used());
        set(&mut self.root);
        for generation in self.generations.values_mut() {
            set(&mut generation.snapshots);
            set(&mut generation.log);
        }
    }

    /// What belongs to no generation.
    pub fn root_mut(&mut self) -> &mut SimDisk {
        &mut self.root
    }

    /// Everything fails after so many more changes, if any.
    pub fn crash_after(&mut self, points: Option<u64>) {
        let crash = |disk: &mut SimDisk| {
            disk.crash_at(points.map(|points| disk.points() + points));
        };
        crash(&mut self.root);
        for generation in self.generations.values_mut() {
            crash(&mut generation.snapshots);
            crash(&mut generation.log);
        }
    }

    /// Whether what a leader has brought survives a loss of power.
    pub fn has_data(&self) -> bool {
        let file = EpochsFile::open(&mut self.root.kill());
        matches!(file, Ok(Some(file)) if file.epochs().current > Epoch(0))
    }

    /// Starts.
    pub fn open(&mut self, history_bytes: usize) -> Result<Found, StorageError> {
        self.current = match Manifest::open(&mut self.root)? {
            Some(mut manifest) if self.generations.contains_key(&manifest.generation()) => {
                manifest.settle(&mut self.root)?;
                manifest.generation()
            }
            Some(_) => return Err(StorageError::damaged(MANIFEST_NAME, 0, Damage::Generation)),
            None => {
                let first = Manifest::create(&mut self.root)?.generation();
                self.generations.insert(first, Generation::default());
                first
            }
        };
        let current = self.current;
        self.generations.retain(|number, _| *number == current);
        self.set_full(self.is_full);
        let epochs = match EpochsFile::open(&mut self.root)? {
            Some(mut file) => {
                file.settle(&mut self.root)?;
                file.epochs()
            }
            None => EpochsFile::create(&mut self.root, Epochs::default())?.epochs(),
        };
        let recovered = self.recover(history_bytes)?;
        let has_data = epochs.current > Epoch(0)
            || recovered.log.zxid > Zxid::ZERO
            || recovered.report.snapshot.is_some();
        let epochs = epochs.reaching(recovered.log.zxid);
        Ok(Found { recovered, epochs, has_data })
    }

    /// What a start would find; nothing is changed.
    pub fn look(&mut self) -> Result<Found, StorageError> {
        let mut copy = self.clone();
        let found = copy.open(0)?;
        self.current = copy.current;
        Ok(found)
    }

    /// A mistake: what was found is not known to be committed.
    pub fn snapshot_early(&mut self, found: &mut Found) -> Result<(), StorageError> {
        match write_snapshot(&mut self.generation().snapshots, &found.recovered.tree.freeze()) {
            Err(error) if error.is_no_space() => Ok(()),
            written => written,
        }
    }

    fn recover(&mut self, history_bytes: usize) -> Result<Recovered, StorageError> {
        self.with_shared(|snapshots, log| {
            let mut source = Snapshots(snapshots.clone());
            recovery::recover(snapshots, log, &mut source, history_bytes)
        })
    }

    fn with_shared<T>(&mut self, act: impl FnOnce(&mut SharedDisk, &mut SharedDisk) -> T) -> T {
        let generation = self.generation();
        let mut snapshots = SharedDisk::new(std::mem::take(&mut generation.snapshots));
        let mut log = SharedDisk::new(std::mem::take(&mut generation.log));
        let result = act(&mut snapshots, &mut log);
        generation.snapshots = snapshots.into_disk();
        generation.log = log.into_disk();
        result
    }

    /// Does what a log wants done, durably.
    pub fn change_log(&mut self, op: DiskOp) -> Result<DiskDone, StorageError> {
        let log = &mut self.generation().log;
        match op {
            DiskOp::Append { segment, offset, sequence, frame } => {
                let name = segment_name(segment);
                let id = log.begin_write(&name, offset, frame.as_slice()).expect("it works");
                assert!(log.finish_write(&name, id), "it works");
                Ok(DiskDone::Appended { sequence, frame })
            }
            DiskOp::Prepare(plan) => match segments::prepare(log, plan) {
                Ok(()) => Ok(DiskDone::Prepared(plan.segment)),
                Err(error) if error.is_no_space() => Ok(DiskDone::NoSpace(plan.segment)),
                Err(error) => Err(error),
            },
            DiskOp::Retire(segment) => {
                segments::retire(log, segment)?;
                Ok(DiskDone::Retired(segment))
            }
        }
    }

    /// Does what a machine wants done; an error means that the disk has crashed.
    pub fn execute(
        &mut self,
        op: DataOp,
        seed: u64,
        planted: Option<Planted>,
    ) -> Result<DataDone, StorageError> {
        match op {
            DataOp::Epochs(epochs) => {
                if planted != Some(Planted::EpochsNotWritten) {
                    let file = EpochsFile::open(&mut self.root)?;
                    let mut file = file.expect("it was made at the start");
                    file.write(&mut self.root, epochs)?;
                    file.settle(&mut self.root)?;
                }
                Ok(DataDone::Epochs(epochs))
            }
            DataOp::Truncate(zxid) => self.truncate(zxid, seed, planted),
            DataOp::Replace(version) => self.replace(&version, seed),
        }
    }

    fn truncate(
        &mut self,
        zxid: Zxid,
        seed: u64,
        planted: Option<Planted>,
    ) -> Result<DataDone, StorageError> {
        let mut target = zxid;
        if planted == Some(Planted::TruncateTooShort) {
            target = Zxid(zxid.0 + 1);
        }
        let plan = |segment| plan_segment(seed, segment, SEGMENT_BYTES);
        let kept = self.generation().snapshots.clone();
        let cut =
            self.with_shared(|snapshots, log| recovery::truncate(snapshots, log, target, plan));
        match cut {
            Err(error) if matches!(error.damage(), Some(Damage::Gap { .. })) => {
                return Ok(DataDone::CannotTruncate(zxid));
            }
            cut => cut?,
        }
        if planted == Some(Planted::SnapshotOutlivesCut) {
            self.generation().snapshots = kept;
        }
        let Recovered { tree, log, report, .. } = self.recover(0)?;
        Ok(DataDone::Truncated(Box::new(Loaded { tree, log, report })))
    }

    fn replace(&mut self, version: &Version, seed: u64) -> Result<DataDone, StorageError> {
        let number = self.current + 1;
        let mut generation = Generation::default();
        let room = self.is_full.then_some(0);
        (generation.snapshots.capacity, generation.log.capacity) = (room, room);
        write_snapshot(&mut generation.snapshots, version)?;
        let plan = plan_segment(seed, SegmentId::FIRST, SEGMENT_BYTES);
        segments::begin(&mut generation.log, plan, version.zxid())?;
        let report = scan::scan(&generation.log, version.zxid(), &mut Nothing)?;
        self.generations.insert(number, generation);
        let manifest = Manifest::open(&mut self.root)?;
        manifest.expect("it was made at the start").switch(&mut self.root, number)?;
        self.current = number;
        self.generations.retain(|other, _| *other == number);
        Ok(DataDone::Replaced(report.end))
    }

    /// Writes a snapshot of the generation in use.
    pub fn snapshot(
        &mut self,
        version: &Version,
        kept: Kept,
    ) -> Result<SnapshotWritten, StorageError> {
        let disk = &mut self.generation().snapshots;
        if let Err(error) = write_snapshot(disk, version) {
            let unfinished = temporary_name(version.zxid());
            if error.is_no_space() && disk.list()?.contains(&unfinished) {
                disk.remove(&unfinished)?;
            }
            return Err(error);
        }
        let names = disk.list()?;
        let mut good: Vec<Zxid> =
            names.iter().filter_map(|name| recovery::parse_snapshot_name(name)).collect();
        good.sort_unstable();
        let plan = match kept {
            Kept::Several => recovery::purge_plan(&good, 2),
            Kept::Newest => recovery::newest_plan(&good),
        };
        for zxid in &plan.snapshots {
            disk.remove(&snapshot_name(*zxid))?;
        }
        disk.sync_dir()?;
        Ok(SnapshotWritten { zxid: version.zxid(), log_needed_after: plan.log_needed_after })
    }
}

struct Nothing;

impl scan::Sink for Nothing {
    fn txn(&mut self, _zxid: Zxid, _txn: &[u8]) -> Result<(), Damage> {
        Ok(())
    }
}

fn write_snapshot(disk: &mut SimDisk, version: &Version) -> Result<(), StorageError> {
    let mut bytes = vec![0; 8];
    assert!(TreeWriter::new().write(version, usize::MAX, &mut bytes), "all of it");
    let sum = checksum(&bytes[8..]);
    bytes[..8].copy_from_slice(&sum.to_le_bytes());
    let (temporary, name) = (temporary_name(version.zxid()), snapshot_name(version.zxid()));
    disk.create_zeroed(&temporary, 1)?;
    disk.write_at(&temporary, 0, &bytes)?;
    disk.sync_file(&temporary)?;
    disk.rename(&temporary, &name)?;
    disk.sync_dir()
}

fn checksum(bytes: &[u8]) -> u64 {
    super::fold(0, bytes)
}

/// Snapshots of a generation.
struct Snapshots(SharedDisk);

impl Source for Snapshots {
    fn load(&mut self, name: &str, zxid: Zxid) -> Result<Tree, Unusable> {
        let io = |error: StorageError| Unusable::Damaged(error.to_string());
        let mut bytes = vec![0; self.0.len(name).map_err(io)? as usize];
        self.0.read_at(name, 0, &mut bytes).map_err(io)?;
        let (sum, body) = bytes.split_first_chunk().ok_or("it is too short".to_owned())?;
        if u64::from_le_bytes(*sum) != checksum(body) {
            return Err(Unusable::Damaged("its checksum is wrong".to_owned()));
        }
        let mut stream = Stream::new();
        stream.push(body);
        let mut reader = TreeReader::new(OwnerMode::Plain);
        assert!(reader.read(&mut stream).expect("what was written is read"), "all of it");
        Ok(reader.finish(zxid).expect("what was written is whole"))
    }

    fn fresh(&mut self) -> Tree {
        Tree::new(OwnerMode::Plain)
    }
}
