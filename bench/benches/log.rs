//! The transaction log: composing frames, and reading them back.
//!
//! `compose` is the ordering core's own work for a group, the disk left out. `scan` is what a start
//! pays for the log behind the snapshot, and `end` what it pays to be sure where the log ends: the
//! rest of the last segment is searched for frames that would be witnesses of damage.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::disk::{Damage, DiskDone, DiskOp, Volume};
use engine::time::Instant;
use engine::txnlog::format::{push_txn, segment_name};
use engine::txnlog::scan::{Sink, scan};
use engine::txnlog::{LogConfig, LogEnd, TxnLog, segments};
use engine::zxid::Zxid;
use server::disk::volume::Directory;

/// About what a setData of 100 bytes has in the log.
const TXN_BYTES: usize = 190;

/// Most of a segment of the usual length.
const FULL_BYTES: u64 = 15 << 20;

/// A log whose disk answers at once.
struct Memory {
    log: TxnLog,
    ops: Vec<DiskOp>,
    next: u64,
}

impl Memory {
    fn open() -> Self {
        let mut ops = Vec::new();
        // One segment that lasts for the whole measurement.
        let config = LogConfig::with_segments(1 << 50);
        let log = TxnLog::open(config, LogEnd::default(), Instant::ZERO, &mut ops);
        let mut memory = Self { log, ops, next: 1 };
        memory.answer();
        memory
    }

    fn append(&mut self, count: u64, body: &[u8]) {
        let (first, last) = (Zxid(self.next), Zxid(self.next + count - 1));
        self.next += count;
        self.log.append(Instant::ZERO, (first, last), body, &mut self.ops);
        self.answer();
        assert_eq!(self.log.durable(), last);
    }

    fn answer(&mut self) {
        while let Some(op) = self.ops.pop() {
            let done = match op {
                DiskOp::Append { sequence, frame, .. } => {
                    black_box(frame.as_slice());
                    DiskDone::Appended { sequence, frame }
                }
                DiskOp::Prepare(plan) => DiskDone::Prepared(plan.segment),
                DiskOp::Retire(segment) => DiskDone::Retired(segment),
            };
            self.log.on_done(Instant::ZERO, done, &mut self.ops);
        }
    }
}

fn body(count: u64) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..count {
        push_txn(&mut body, &[7; TXN_BYTES]);
    }
    body
}

fn compose(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log/compose");
    for count in [1, 16, 256, 4096] {
        let body = body(count);
        let mut memory = Memory::open();
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("{count} txns"), |bencher| {
            bencher.iter(|| memory.append(count, black_box(&body)));
        });
    }
    group.finish();
}

struct Count(u64);

impl Sink for Count {
    fn txn(&mut self, _zxid: Zxid, txn: &[u8]) -> Result<(), Damage> {
        self.0 += u64::from(!txn.is_empty());
        Ok(())
    }
}

/// Writes groups of `count` transactions until a segment has this many bytes of frames.
fn written(directory: &mut Directory, count: u64, bytes: u64) -> u64 {
    let mut ops = Vec::new();
    let mut log = TxnLog::open(LogConfig::default(), LogEnd::default(), Instant::ZERO, &mut ops);
    let (body, mut next, mut offset_reached) = (body(count), 1, 0);
    assert!(bytes <= FULL_BYTES, "there is one segment");
    while offset_reached < bytes {
        if ops.is_empty() {
            log.append(Instant::ZERO, (Zxid(next), Zxid(next + count - 1)), &body, &mut ops);
            next += count;
        }
        for op in std::mem::take(&mut ops) {
            let done = match op {
                DiskOp::Append { segment, offset, sequence, frame } => {
                    let name = segment_name(segment);
                    directory.write_at(&name, offset, frame.as_slice()).expect("room in /tmp");
                    offset_reached = offset + frame.len() as u64;
                    DiskDone::Appended { sequence, frame }
                }
                DiskOp::Prepare(plan) if plan.segment.0 == 0 => {
                    segments::prepare(directory, plan).expect("room in /tmp");
                    DiskDone::Prepared(plan.segment)
                }
                // One segment is enough.
                DiskOp::Prepare(plan) => DiskDone::NoSpace(plan.segment),
                DiskOp::Retire(segment) => DiskDone::Retired(segment),
            };
            log.on_done(Instant::ZERO, done, &mut ops);
        }
    }
    next - 1
}

fn read_back(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log/scan");
    group.sample_size(10);
    for (name, count, bytes) in [
        ("frames of 1 txn", 1, FULL_BYTES),
        ("frames of 256 txns", 256, FULL_BYTES),
        ("end", 1, 8192),
    ] {
        let temporary = tempfile::tempdir().expect("/tmp takes a directory");
        let mut directory = Directory::open(temporary.path()).expect("it was just made");
        let txns = written(&mut directory, count, bytes);
        group.throughput(Throughput::Elements(txns));
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || Count(0),
                |sink| {
                    scan(&directory, Zxid::ZERO, sink).expect("the log is whole");
                    assert_eq!(sink.0, txns);
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(log, compose, read_back);
criterion_main!(log);
