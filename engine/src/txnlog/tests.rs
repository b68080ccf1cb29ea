//! What the log's machine does, step by step.

use super::format::push_txn;
use super::*;

/// A log and the operations that it asked for.
struct Driver {
    log: TxnLog,
    now: Instant,
    ops: Vec<DiskOp>,
    /// Frames on their way.
    out: Vec<(u64, crate::disk::AlignedBuf)>,
}

impl Driver {
    fn new(config: LogConfig) -> Self {
        Self::open(config, LogEnd { next_segment: SegmentId::FIRST, ..LogEnd::default() })
    }

    fn open(config: LogConfig, end: LogEnd) -> Self {
        let mut ops = Vec::new();
        let log = TxnLog::open(config, end, Instant::ZERO, &mut ops);
        Self { log, now: Instant::ZERO, ops, out: Vec::new() }
    }

    fn append(&mut self, first: u64, last: u64, txn_bytes: usize) {
        let mut txns = Vec::new();
        for _ in first..=last {
            push_txn(&mut txns, &vec![1; txn_bytes]);
        }
        self.log.append(self.now, (Zxid(first), Zxid(last)), &txns, &mut self.ops);
    }

    /// What was asked for since the last call, in brief.
    fn asked(&mut self) -> String {
        let mut asked = Vec::new();
        for op in std::mem::take(&mut self.ops) {
            asked.push(match op {
                DiskOp::Append { segment, offset, sequence, frame } => {
                    let blocks = (offset / FRAMES_START, frame.len() as u64 / FRAMES_START);
                    self.out.push((sequence, frame));
                    format!("write {sequence} to {}@{}+{}", segment.0, blocks.0, blocks.1)
                }
                DiskOp::Prepare(plan) => format!("prepare {}", plan.segment.0),
                DiskOp::Retire(segment) => format!("retire {}", segment.0),
            });
        }
        asked.join(", ")
    }

    fn prepared(&mut self, segment: u64) {
        self.done(DiskDone::Prepared(SegmentId(segment)));
    }

    fn written(&mut self, sequence: u64) {
        let index = self.out.iter().position(|(number, _)| *number == sequence).unwrap();
        let (sequence, frame) = self.out.swap_remove(index);
        self.done(DiskDone::Appended { sequence, frame });
    }

    fn done(&mut self, done: DiskDone) {
        self.log.on_done(self.now, done, &mut self.ops);
    }

    fn wait(&mut self) {
        self.now = self.log.next_timeout().unwrap();
        self.log.on_timeout(self.now, &mut self.ops);
    }

    #[track_caller]
    fn check(&mut self, asked: &str) {
        assert_eq!(self.asked(), asked);
    }
}

fn small() -> LogConfig {
    LogConfig::with_segments(5 * FRAMES_START)
}

#[test]
fn what_is_appended_while_writes_are_out_goes_into_one_frame() {
    let mut driver = Driver::new(small());
    driver.check("prepare 1");
    driver.append(1, 1, 100);
    driver.check("");
    driver.prepared(1);
    driver.check("write 1 to 1@1+1, prepare 2");
    driver.append(2, 3, 100);
    driver.append(4, 4, 100);
    driver.append(5, 6, 100);
    driver.check("write 2 to 1@2+1");
    driver.written(1);
    driver.check("write 3 to 1@3+1");
    assert_eq!((driver.log.durable(), driver.log.submitted()), (Zxid(1), Zxid(6)));
}

#[test]
fn a_frame_is_durable_when_all_before_it_are() {
    let mut driver = Driver::new(small());
    driver.check("prepare 1");
    driver.prepared(1);
    driver.append(1, 1, 10);
    driver.append(2, 2, 10);
    driver.check("prepare 2, write 1 to 1@1+1, write 2 to 1@2+1");
    driver.written(2);
    assert_eq!(driver.log.durable(), Zxid::ZERO);
    driver.written(1);
    assert_eq!(driver.log.durable(), Zxid(2));
}

#[test]
fn a_mark_follows_when_nothing_else_does() {
    let mut driver = Driver::new(small());
    driver.asked();
    driver.prepared(1);
    assert_eq!(driver.log.next_timeout(), None);
    driver.append(1, 1, 10);
    assert_eq!(driver.log.next_timeout(), None);
    driver.check("prepare 2, write 1 to 1@1+1");
    driver.written(1);
    driver.wait();
    driver.check("write 2 to 1@2+1");
    assert_eq!(driver.log.durable(), Zxid(1));
    driver.written(2);
    assert_eq!(driver.log.next_timeout(), None);
}

#[test]
fn rolls_to_the_next_segment_and_keeps_the_reserve() {
    let mut driver = Driver::new(small());
    driver.asked();
    driver.prepared(1);
    driver.append(1, 1, 8000);
    driver.check("prepare 2, write 1 to 1@1+2");
    driver.written(1);
    driver.append(2, 2, 12_000);
    driver.check("");
    driver.prepared(2);
    // The only segment that is ready is the reserve.
    driver.check("prepare 3");
    driver.prepared(3);
    driver.check("write 2 to 2@1+3, prepare 4");
}

#[test]
fn segments_that_have_become_too_short_are_given_up() {
    let short = SegmentPlan { segment: SegmentId::FIRST, incarnation: 7, bytes: 4 * FRAMES_START };
    let next = SegmentPlan { segment: SegmentId(2), ..short };
    let end = LogEnd { ready: vec![short, next], next_segment: SegmentId(3), ..LogEnd::default() };
    let mut driver = Driver::open(small(), end);
    driver.check("retire 1, retire 2, prepare 3");
    driver.done(DiskDone::Retired(SegmentId::FIRST));
    driver.prepared(3);
    assert!(!driver.log.rest(), "a segment is still there");
    driver.check("prepare 4");
    driver.done(DiskDone::Retired(SegmentId(2)));
    driver.prepared(4);
    assert!(driver.log.rest());
}

#[test]
fn a_full_disk_leaves_the_reserve_to_what_shrinks() {
    let mut driver = Driver::new(small());
    driver.asked();
    driver.prepared(1);
    driver.append(1, 1, 16_000);
    driver.prepared(2);
    driver.check("prepare 2, write 1 to 1@1+4, prepare 3");
    assert_eq!(driver.log.space(), Space::Ample);
    driver.append(2, 2, 16_000);
    driver.check("");
    driver.done(DiskDone::NoSpace(SegmentId(3)));
    driver.check("write 2 to 2@1+4");
    assert_eq!(driver.log.space(), Space::Low);
    driver.append(3, 3, 10);
    driver.written(1);
    driver.check("");
    assert_eq!(driver.log.space(), Space::None);
    driver.wait();
    driver.check("prepare 4");
    driver.prepared(4);
    // It is the reserve now, and only a full disk lets it be begun.
    driver.check("prepare 5");
    driver.done(DiskDone::NoSpace(SegmentId(5)));
    driver.check("write 3 to 4@1+1");
}

#[test]
fn a_purge_keeps_what_an_older_snapshot_needs() {
    let mut driver = Driver::new(small());
    driver.asked();
    for segment in 1..=4 {
        driver.prepared(segment);
        driver.append(segment, segment, 16_000);
        driver.asked();
        if driver.out.len() == 2 {
            let sequence = driver.out[0].0;
            driver.written(sequence);
        }
    }
    driver.asked();
    driver.log.purge(Zxid(1), &mut driver.ops);
    driver.check("retire 1");
    driver.log.purge(Zxid(1), &mut driver.ops);
    driver.check("");
}

#[test]
fn a_purge_keeps_what_is_being_written_to() {
    let mut driver = Driver::new(small());
    driver.asked();
    driver.prepared(1);
    driver.append(1, 1, 10);
    driver.prepared(2);
    driver.prepared(3);
    driver.asked();
    driver.written(1);
    driver.wait();
    driver.check("write 2 to 1@2+1");
    driver.append(2, 2, 16_000);
    driver.check("write 3 to 2@1+4, prepare 4");
    // All that segment 1 has is in a snapshot, but for the mark, which is on its way.
    assert!(!driver.log.purge(Zxid(1), &mut driver.ops));
    driver.check("");
    driver.written(2);
    // And the first transaction behind that one is on its way, too: there is no other so far.
    assert!(!driver.log.purge(Zxid(1), &mut driver.ops));
    driver.check("");
    driver.written(3);
    assert!(driver.log.purge(Zxid(1), &mut driver.ops));
    driver.check("retire 1");
}

#[test]
fn a_later_epoch_begins_its_own_frame() {
    let mut driver = Driver::new(LogConfig { writes_in_flight_max: 1, ..small() });
    driver.asked();
    driver.prepared(1);
    driver.append(1, 1, 10);
    driver.append(2, 2, 10);
    driver.append(0x1_0000_0001, 0x1_0000_0002, 10);
    driver.check("prepare 2, write 1 to 1@1+1");
    driver.written(1);
    driver.check("write 2 to 1@2+1");
    driver.written(2);
    driver.check("write 3 to 1@3+1");
}

#[test]
fn buffers_are_used_again() {
    let mut driver = Driver::new(LogConfig::default());
    driver.asked();
    driver.prepared(1);
    let mut addresses = std::collections::BTreeSet::new();
    for zxid in 1..50 {
        driver.append(zxid, zxid, 100);
        driver.asked();
        addresses.insert(driver.out[0].1.as_slice().as_ptr());
        driver.written(zxid);
    }
    assert_eq!(addresses.len(), 1);
}

#[test]
fn a_frame_never_outgrows_its_segment() {
    let mut driver = Driver::new(small());
    driver.asked();
    driver.append(1, 1, 9000);
    driver.append(2, 2, 9000);
    driver.prepared(1);
    driver.check("write 1 to 1@1+3, prepare 2");
}
