//! Crash images: whatever point a server stops at, everything acknowledged comes back.
//!
//! A writer appends groups through the log's machine to a simulated disk whose writes end in any
//! order. At some point everything stops. The image that is left is recovered (which may be
//! stopped as well), compared with what was acknowledged, and written on, round after round.

use engine::disk::{Damage, DiskDone, DiskOp, StorageError};
use engine::time::Instant;
use engine::txnlog::format::{push_txn, segment_name};
use engine::txnlog::scan::{ScanReport, Sink, scan};
use engine::txnlog::{LogConfig, TxnLog, segments};
use engine::zxid::{Epoch, Zxid};
use std::time::Duration;
use tests::sim::disk::SimDisk;
use tests::sim::random::Random;

const SEGMENT_BYTES: u64 = 96 << 10;
/// How many runs a test makes.
const SEEDS: u64 = 150;

/// What the log is to have: the transactions that were appended, in order, and how many of them
/// were acknowledged.
#[derive(Clone, Debug, Default)]
struct Model {
    txns: Vec<(Zxid, Vec<u8>)>,
    acked: Zxid,
    epoch: u32,
}

/// Collects what a scan delivers.
#[derive(Default)]
struct Collect(Vec<(Zxid, Vec<u8>)>);

impl Sink for Collect {
    fn txn(&mut self, zxid: Zxid, txn: &[u8]) -> Result<(), Damage> {
        self.0.push((zxid, txn.to_vec()));
        Ok(())
    }
}

/// A log being written, and what is on its way to the disk.
struct Writer {
    log: TxnLog,
    now: Instant,
    ops: Vec<DiskOp>,
    /// Segment, number of the write, answer.
    writes: Vec<(String, u64, DiskDone)>,
}

fn config(random: &mut Random) -> LogConfig {
    LogConfig {
        segment_bytes: SEGMENT_BYTES,
        frame_bytes_max: [1, 16 << 10, 1 << 20][random.below(3)],
        writes_in_flight_max: 1 + random.below(4),
        seed: random.any(),
        ..LogConfig::default()
    }
}

impl Writer {
    fn open(config: LogConfig, report: ScanReport) -> Self {
        let mut ops = Vec::new();
        let log = TxnLog::open(config, report.end, Instant::ZERO, &mut ops);
        Self { log, now: Instant::ZERO, ops, writes: Vec::new() }
    }

    /// Appends a group.
    fn append(&mut self, model: &mut Model, random: &mut Random) {
        let last = self.log.submitted();
        let first = if random.percent(3) || last == Zxid::ZERO {
            model.epoch += 1;
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
            let bytes = random.below(most);
            let txn: Vec<u8> = (0..bytes).map(|_| random.any() as u8).collect();
            push_txn(&mut body, &txn);
            model.txns.push((zxid, txn));
        }
        self.log.append(self.now, (first, zxid), &body, &mut self.ops);
    }

    /// Lets the disk or the clock do something; false when the disk has crashed.
    fn advance(&mut self, disk: &mut SimDisk, model: &mut Model, random: &mut Random) -> bool {
        while !self.ops.is_empty() {
            let op = self.ops.remove(0);
            if !self.execute(op, disk) {
                return false;
            }
        }
        if !self.writes.is_empty() && random.percent(70) {
            let (name, id, done) = self.writes.swap_remove(random.below(self.writes.len()));
            if !disk.finish_write(&name, id) {
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

    fn execute(&mut self, op: DiskOp, disk: &mut SimDisk) -> bool {
        match op {
            DiskOp::Append { segment, offset, sequence, frame } => {
                let name = segment_name(segment);
                let Some(id) = disk.begin_write(&name, offset, frame.as_slice()) else {
                    return false;
                };
                self.writes.push((name, id, DiskDone::Appended { sequence, frame }));
            }
            DiskOp::Prepare(plan) => match segments::prepare(disk, plan) {
                Ok(()) => self.done(DiskDone::Prepared(plan.segment)),
                Err(error) if error.is_no_space() => self.done(DiskDone::NoSpace(plan.segment)),
                Err(_) => return false,
            },
            DiskOp::Retire(segment) => {
                if segments::retire(disk, segment).is_err() {
                    return false;
                }
                self.done(DiskDone::Retired(segment));
            }
        }
        true
    }

    fn done(&mut self, done: DiskDone) {
        self.log.on_done(self.now, done, &mut self.ops);
    }
}

/// Recovers as the server does, and compares with the model, which loses what did not survive.
fn recover(disk: &mut SimDisk, model: &mut Model) -> Result<ScanReport, StorageError> {
    let mut found = Collect::default();
    let report = scan(disk, Zxid::ZERO, &mut found)?;
    segments::settle(disk, &report)?;
    let acked = model.txns.iter().filter(|(zxid, _)| *zxid <= model.acked).count();
    assert!(found.0.len() >= acked, "{} of {acked} acknowledged", found.0.len());
    assert!(found.0.len() <= model.txns.len(), "more than was ever appended");
    assert!(found.0 == model.txns[..found.0.len()], "other transactions than were appended");
    model.txns.truncate(found.0.len());
    // What is recovered is served: it must not be lost from now on.
    model.acked = report.end.zxid;
    Ok(report)
}

/// Writes and crashes, round after round.
fn run(seed: u64) {
    let mut random = Random::new(seed);
    let (mut disk, mut model) = (SimDisk::default(), Model::default());
    for _ in 0..8 {
        let report = recover_with_crashes(&mut disk, &mut model, &mut random);
        let mut writer = Writer::open(config(&mut random), report);
        disk.crash_at(Some(disk.points() + random.below(120) as u64));
        loop {
            if random.percent(30) && writer.log.has_room() {
                writer.append(&mut model, &mut random);
            }
            if !writer.advance(&mut disk, &mut model, &mut random) {
                break;
            }
        }
        disk = if random.percent(20) { disk.kill() } else { disk.crash(&mut random) };
    }
}

fn recover_with_crashes(disk: &mut SimDisk, model: &mut Model, random: &mut Random) -> ScanReport {
    for attempt in 0.. {
        let crash = attempt < 3 && random.percent(50);
        disk.crash_at(crash.then(|| disk.points() + random.below(6) as u64));
        match recover(disk, model) {
            Ok(report) if !disk.crashed() => {
                disk.crash_at(None);
                return report;
            }
            Ok(_) => {}
            Err(error) => assert!(disk.crashed(), "{error}"),
        }
        *disk = disk.crash(random);
    }
    unreachable!("the last attempt is not stopped")
}

#[test]
fn everything_acknowledged_survives_a_crash_at_any_point() {
    let first = std::env::var("SEED").map_or(0, |seed| seed.parse().unwrap());
    for seed in first..first + SEEDS {
        let result = std::panic::catch_unwind(|| run(seed));
        if let Err(panic) = result {
            eprintln!("replay: SEED={seed} cargo test -p ringkeeper-tests --test crash");
            std::panic::resume_unwind(panic);
        }
    }
}
