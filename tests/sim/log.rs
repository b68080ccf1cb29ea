//! A log being written on a simulated disk, and what it is to have.

use std::borrow::Cow;
use std::time::Duration;

use engine::acl::{ALL, Acl, AclBytes, Id};
use engine::disk::{Damage, DiskDone, DiskOp, StorageError};
use engine::ids::{SessionId, Xid};
use engine::time::{Instant, WallTime};
use engine::txn::{NewNode, Txn, TxnHeader, codec};
use engine::txnlog::format::{push_txn, segment_name};
use engine::txnlog::scan::{ScanReport, Sink, scan};
use engine::txnlog::{LogConfig, LogEnd, TxnLog, segments};
use engine::zxid::{Epoch, Zxid};

use super::disk::SimDisk;
use super::random::Random;

/// The length of segments in tests: a few frames fit.
pub const SEGMENT_BYTES: u64 = 96 << 10;

/// The transactions that were appended, in order, and how far they were acknowledged.
#[derive(Clone, Debug, Default)]
pub struct LogModel {
    /// All that may come back.
    pub txns: Vec<(Zxid, Vec<u8>)>,
    /// What must come back.
    pub acked: Zxid,
    epoch: u32,
}

/// Collects what a scan delivers.
#[derive(Debug, Default)]
pub struct Collect(pub Vec<(Zxid, Vec<u8>)>);

impl Sink for Collect {
    fn txn(&mut self, zxid: Zxid, txn: &[u8]) -> Result<(), Damage> {
        self.0.push((zxid, txn.to_vec()));
        Ok(())
    }
}

/// A mistake that a driver could make; the tests must notice each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A write is reported when it begins.
    AckBeforeDurable,
    /// What was read at recovery is not synced.
    TailNotSynced,
}

/// A log being written, and what is on its way to the disk.
#[derive(Debug)]
pub struct LogWriter {
    /// The machine.
    pub log: TxnLog,
    planted: Option<Planted>,
    now: Instant,
    /// What it asked for and did not get yet.
    pub ops: Vec<DiskOp>,
    /// File and number of a write, and the answer to come.
    writes: Vec<(String, u64, DiskDone)>,
}

/// A configuration with small segments.
pub fn config(random: &mut Random) -> LogConfig {
    LogConfig {
        frame_bytes_max: [1, 16 << 10, 1 << 20][random.below(3)],
        writes_in_flight_max: 1 + random.below(4),
        seed: random.any(),
        ..LogConfig::with_segments(SEGMENT_BYTES)
    }
}

impl LogModel {
    /// How many transactions there are up to `zxid`.
    pub fn count(&self, zxid: Zxid) -> usize {
        self.txns.partition_point(|(found, _)| *found <= zxid)
    }

    /// Compares what came back, which is from now on what there is.
    pub fn compare(&mut self, found: &[(Zxid, Vec<u8>)]) {
        let acked = self.count(self.acked);
        assert!(found.len() >= acked, "{} of {acked} acknowledged", found.len());
        assert!(found.len() <= self.txns.len(), "more than was ever appended");
        assert!(found == &self.txns[..found.len()], "other transactions than were appended");
        self.txns.truncate(found.len());
        // What is recovered is served: it must not be lost from now on.
        self.acked = self.txns.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid);
    }
}

impl LogWriter {
    /// Goes on where `end` is.
    pub fn open(config: LogConfig, end: LogEnd, planted: Option<Planted>) -> Self {
        let mut ops = Vec::new();
        let log = TxnLog::open(config, end, Instant::ZERO, &mut ops);
        Self { log, planted, now: Instant::ZERO, ops, writes: Vec::new() }
    }

    /// Appends a group of znodes.
    pub fn append(&mut self, model: &mut LogModel, random: &mut Random) {
        let last = self.log.submitted();
        let first = if random.percent(3) || last == Zxid::ZERO {
            model.epoch = model.epoch.max(last.epoch().0) + 1;
            Zxid::new(Epoch(model.epoch), 1)
        } else {
            last.next().unwrap()
        };
        let (mut body, mut zxid) = (Vec::new(), first);
        for index in 0..=random.below(3) {
            if index > 0 {
                zxid = zxid.next().unwrap();
            }
            let most = [20, 300, 5000, 20_000][random.below(4)];
            let data: Vec<u8> = (0..random.below(most)).map(|_| random.any() as u8).collect();
            let txn = create(zxid, &data);
            push_txn(&mut body, &txn);
            model.txns.push((zxid, txn));
        }
        self.log.append(self.now, (first, zxid), &body, &mut self.ops);
    }

    /// Lets the disk or the clock do something; false when the disk has crashed.
    pub fn advance(
        &mut self,
        disk: &mut SimDisk,
        model: &mut LogModel,
        random: &mut Random,
    ) -> bool {
        while !self.ops.is_empty() {
            let op = self.ops.remove(0);
            if !self.execute(op, disk) {
                return false;
            }
        }
        if !self.writes.is_empty() && random.percent(70) {
            let (name, id, done) = self.writes.swap_remove(random.below(self.writes.len()));
            let early = self.planted == Some(Planted::AckBeforeDurable);
            if !early && !disk.finish_write(&name, id) {
                return false;
            }
            self.log.on_done(self.now, done, &mut self.ops);
        } else if let Some(at) = self.log.next_timeout() {
            if random.percent(20) {
                self.now = self.now.max(at);
                self.log.on_timeout(self.now, &mut self.ops);
            } else {
                self.now = self.now.after(Duration::from_micros(100));
            }
        }
        assert!(self.log.durable() <= self.log.submitted());
        model.acked = model.acked.max(self.log.durable());
        true
    }

    /// Writes until everything that was appended is durable, then a mark.
    pub fn finish(&mut self, disk: &mut SimDisk, model: &mut LogModel, random: &mut Random) {
        let idle = |writer: &Self| {
            writer.log.durable() == writer.log.submitted()
                && writer.log.next_timeout().is_none()
                && writer.ops.is_empty()
                && writer.writes.is_empty()
        };
        while !idle(self) {
            assert!(self.advance(disk, model, random));
        }
    }

    fn execute(&mut self, op: DiskOp, disk: &mut SimDisk) -> bool {
        let done = match op {
            DiskOp::Append { segment, offset, sequence, frame } => {
                let name = segment_name(segment);
                let Some(id) = disk.begin_write(&name, offset, frame.as_slice()) else {
                    return false;
                };
                self.writes.push((name, id, DiskDone::Appended { sequence, frame }));
                return true;
            }
            DiskOp::Prepare(plan) => match segments::prepare(disk, plan) {
                Ok(()) => DiskDone::Prepared(plan.segment),
                Err(error) if error.is_no_space() => DiskDone::NoSpace(plan.segment),
                Err(_) => return false,
            },
            DiskOp::Retire(segment) => {
                if segments::retire(disk, segment).is_err() {
                    return false;
                }
                DiskDone::Retired(segment)
            }
        };
        self.log.on_done(self.now, done, &mut self.ops);
        true
    }
}

/// A transaction that creates a znode with this data.
pub fn create(zxid: Zxid, data: &[u8]) -> Vec<u8> {
    let header =
        TxnHeader { session: SessionId(1), cxid: Xid(1), zxid, time: WallTime(1_700_000_000_000) };
    let node = NewNode {
        path: format!("/n{zxid}").into(),
        data: Some(Cow::Borrowed(data)),
        acl: AclBytes::encode(&[Acl { perms: ALL, id: Id::new("world", "anyone") }]),
        parent_cversion: -1,
    };
    let mut bytes = Vec::new();
    codec::encode(
        &header,
        &Txn::Create { with_stat: false, node, ephemeral: false },
        None,
        &mut bytes,
    );
    bytes
}

/// Scans and settles as recovery does, and compares with the model.
pub fn recover_log(
    disk: &mut SimDisk,
    model: &mut LogModel,
    planted: Option<Planted>,
) -> Result<ScanReport, StorageError> {
    let mut found = Collect::default();
    let mut report = scan(disk, Zxid::ZERO, &mut found)?;
    if planted == Some(Planted::TailNotSynced) {
        report.read.clear();
    }
    segments::settle(disk, &report)?;
    model.compare(&found.0);
    Ok(report)
}

/// A log that was written in some openings and ended in peace, all of it acknowledged.
pub fn written(seed: u64, groups: usize) -> (SimDisk, LogModel) {
    let mut random = Random::new(seed);
    let (mut disk, mut model) = (SimDisk::default(), LogModel::default());
    for _ in 0..3 {
        let report = recover_log(&mut disk, &mut model, None).unwrap();
        let mut writer = LogWriter::open(config(&mut random), report.end, None);
        for _ in 0..groups {
            writer.append(&mut model, &mut random);
            while random.percent(60) {
                assert!(writer.advance(&mut disk, &mut model, &mut random));
            }
        }
        writer.finish(&mut disk, &mut model, &mut random);
    }
    (disk, model)
}

/// Everything that a scan of this log delivers, and its report.
pub fn scan_all(disk: &SimDisk) -> Result<(ScanReport, Collect), StorageError> {
    let mut found = Collect::default();
    scan(disk, Zxid::ZERO, &mut found).map(|report| (report, found))
}
