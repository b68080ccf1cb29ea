//! What a start pays before it serves: mapping and checking the snapshot of a large tree, and
//! replaying the log behind it. Warm: all of it is in the page cache.

use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::acl::{ALL, Acl, AclBytes, Id};
use engine::disk::{Damage, DiskDone, DiskOp, SegmentId, Volume};
use engine::ids::{SessionId, Xid};
use engine::time::{Instant, WallTime};
use engine::tree::{Effects, OwnerMode, Tree};
use engine::txn::{NewNode, Txn, TxnHeader, codec};
use engine::txnlog::format::{begin_txn, end_txn, segment_name};
use engine::txnlog::scan::{Sink, scan};
use engine::txnlog::{LogConfig, TxnLog, plan_segment, segments};
use engine::zxid::Zxid;
use server::disk::data_dir::NewData;
use server::disk::volume::Directory;
use server::snapshots;
use server::storage::{Place, Stopped};

const ZNODES: u32 = 1_000_000;
const CHILDREN: u32 = 1_000;
/// Transactions behind the snapshot.
const REPLAYED: u32 = 100_000;
/// One segment holds all of them.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Transactions in a frame.
const GROUP: u32 = 64;
const DATA: [u8; 100] = [7; 100];

/// The writer of the data.
struct State {
    tree: Tree,
    effects: Effects,
    zxid: u64,
}

impl State {
    fn new() -> Self {
        let tree = Tree::new(OwnerMode::Plain);
        let mut state = Self { tree, effects: Effects::new(), zxid: 0 };
        for number in 0..ZNODES {
            if number % CHILDREN == 0 {
                state.create(&format!("/services-{:04}", number / CHILDREN));
            }
            state.create(&path(number));
        }
        state
    }

    fn header(&mut self) -> TxnHeader {
        self.zxid += 1;
        let (session, time) = (SessionId(1), WallTime(1_795_000_000_000));
        TxnHeader { session, cxid: Xid(1), zxid: Zxid(self.zxid), time }
    }

    fn create(&mut self, path: &str) {
        let acl = AclBytes::encode(&[Acl { perms: ALL, id: Id::new("world", "anyone") }]);
        let data = Some(DATA[..].into());
        let node = NewNode { path: path.into(), data, acl, parent_cversion: -1 };
        let header = self.header();
        self.effects.clear();
        let txn = Txn::Create { with_stat: false, node, ephemeral: false };
        self.tree.apply(&header, &txn, &mut self.effects);
    }

    /// Applies a change, and appends it as the log has it.
    fn set_data(&mut self, path: &str, body: &mut Vec<u8>) {
        let header = self.header();
        let data = Some(DATA[..].into());
        let txn = Txn::SetData { path: path.into(), data, version: 1, reconfig: false };
        self.effects.clear();
        self.tree.apply(&header, &txn, &mut self.effects);
        let begin = begin_txn(body);
        codec::encode(&header, &txn, Some(self.tree.digest()), body);
        end_txn(body, begin);
    }
}

fn path(number: u32) -> String {
    format!("/services-{:04}/node-{number:010}", number / CHILDREN)
}

struct Ignore;

impl Sink for Ignore {
    fn txn(&mut self, _zxid: Zxid, _txn: &[u8]) -> Result<(), Damage> {
        Ok(())
    }
}

/// Writes the log behind the snapshot.
fn write_log(directory: &mut Directory, state: &mut State) {
    let plan = plan_segment(7, SegmentId::FIRST, SEGMENT_BYTES);
    segments::begin(directory, plan, Zxid(state.zxid)).expect("room in /tmp");
    let end = scan(directory, Zxid(state.zxid), &mut Ignore).expect("it was just begun").end;
    let mut ops = Vec::new();
    let mut log =
        TxnLog::open(LogConfig::with_segments(SEGMENT_BYTES), end, Instant::ZERO, &mut ops);
    for first in (0..REPLAYED).step_by(GROUP as usize) {
        let (begin, mut body) = (Zxid(state.zxid + 1), Vec::new());
        for number in first..REPLAYED.min(first + GROUP) {
            state.set_data(&path(number.wrapping_mul(7919) % ZNODES), &mut body);
        }
        log.append(Instant::ZERO, (begin, Zxid(state.zxid)), &body, &mut ops);
        while let Some(op) = ops.pop() {
            let done = match op {
                DiskOp::Append { segment, offset, sequence, frame } => {
                    let name = segment_name(segment);
                    directory.write_at(&name, offset, frame.as_slice()).expect("room in /tmp");
                    DiskDone::Appended { sequence, frame }
                }
                // One segment is enough.
                DiskOp::Prepare(plan) => DiskDone::NoSpace(plan.segment),
                DiskOp::Retire(segment) => DiskDone::Retired(segment),
            };
            log.on_done(Instant::ZERO, done, &mut ops);
        }
    }
}

/// A data directory with a snapshot, and perhaps a log behind it.
fn write_data(folder: &Path, state: &mut State, with_log: bool) {
    let mut data = NewData::begin(folder, folder).expect("it was just made");
    let (snapshots, mut log) = data.directories().expect("they are made");
    let version = state.tree.freeze();
    snapshots::write_snapshot(snapshots.path(), version).expect("room in /tmp");
    if with_log {
        write_log(&mut log, state);
    } else {
        let plan = plan_segment(7, SegmentId::FIRST, 1 << 20);
        segments::begin(&mut log, plan, Zxid(state.zxid)).expect("room in /tmp");
    }
    data.commit().and_then(|()| data.finish()).expect("all of it is there");
}

fn recovery(criterion: &mut Criterion) {
    let mut state = State::new();
    let mut group = criterion.benchmark_group("recovery");
    group.sample_size(10);
    for (name, with_log, work) in [
        ("map and check 1 M znodes", false, u64::from(ZNODES)),
        ("the same, and replay 100,000 setData", true, u64::from(REPLAYED)),
    ] {
        let temporary = tempfile::tempdir().expect("/tmp takes a directory");
        write_data(temporary.path(), &mut state, with_log);
        let (expected, digest) = (state.zxid, state.tree.digest());
        let data = temporary.path();
        let place = Place { data_dir: data, data_log_dir: data, mode: OwnerMode::Plain };
        group.throughput(Throughput::Elements(work));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let stopped = Stopped::read(&place).expect("the data is whole");
                assert_eq!(stopped.tree.applied(), Zxid(expected));
                assert_eq!(stopped.tree.digest(), digest);
                stopped
            });
        });
    }
    group.finish();
}

criterion_group!(benches, recovery);
criterion_main!(benches);
