//! What the ordering machine does besides ordering: when it asks for snapshots, and what it makes
//! of time.

use std::time::Duration;

use engine::disk::{BLOCK_BYTES, DiskDone, DiskOp};
use engine::error_code::ErrorCode;
use engine::ids::{ConnectionId, CoreId, SessionId, Xid};
use engine::jute::Writer;
use engine::op::OpCode;
use engine::order::{Batch, Connect, Order, ReplyKind, Request, Submission};
use engine::replica::{
    Config, GROUP_BYTES, Input, Kept, Now, Output, Replica, SnapshotWritten, group_bytes_most,
};
use engine::rules::Rules;
use engine::time::{Instant, WallTime};
use engine::tree::{self, OwnerMode, Tree};
use engine::txnlog::{LogConfig, LogEnd, TxnLog};
use engine::zxid::Zxid;

/// Transactions after which a snapshot is due under load.
const SNAPSHOT_TXNS: u64 = 80;
/// As short as segments may be.
const SEGMENT_BYTES: u64 = 8 << 20;
const LARGE_BYTES: usize = 1 << 19;

struct World {
    replica: Replica,
    now: Now,
    /// Snapshots that were asked for.
    snapshots: Vec<Zxid>,
    /// What was to stay when the last of them is written.
    kept: Option<Kept>,
    /// How many segments of the log there are, and for how many there is room.
    segments: (usize, usize),
    /// The error code of the last reply.
    code: i32,
}

const CLIENT: ConnectionId = ConnectionId { core: CoreId(0), slot: 0, generation: 1 };

impl World {
    fn new() -> Self {
        Self::with_room_for(usize::MAX)
    }

    /// On a disk that has room for so many segments of the log.
    fn with_room_for(segments: usize) -> Self {
        Self::with(segments, SNAPSHOT_TXNS)
    }

    /// With a snapshot after so many transactions.
    fn with(segments: usize, snapshot_txns: u64) -> Self {
        let now = Now { instant: Instant::ZERO, wall: WallTime(1) };
        let mut pending = Vec::new();
        let config = LogConfig::with_segments(SEGMENT_BYTES);
        assert!(SEGMENT_BYTES > group_bytes_most(GROUP_BYTES, &Rules::default()) as u64);
        let log = TxnLog::open(config, LogEnd::default(), now.instant, &mut pending);
        let config = Config { container_deletions_max: 1, snapshot_txns, ..Config::default() };
        let replica = Replica::new(config, Tree::new(OwnerMode::Plain), log, now);
        let (snapshots, kept, code) = (Vec::new(), None, 0);
        let segments = (0, segments);
        let mut world = Self { replica, now, snapshots, kept, segments, code };
        world.run(pending.into_iter().map(Output::Disk).collect());
        world
    }

    /// Executes outputs until there are none.
    fn run(&mut self, outputs: Vec<Output>) {
        let mut outputs = outputs;
        while !outputs.is_empty() {
            let mut more = Vec::new();
            for output in outputs {
                let done = match output {
                    Output::Disk(DiskOp::Append { sequence, frame, .. }) => {
                        DiskDone::Appended { sequence, frame }
                    }
                    Output::Disk(DiskOp::Prepare(plan)) if self.segments.0 == self.segments.1 => {
                        DiskDone::NoSpace(plan.segment)
                    }
                    Output::Disk(DiskOp::Prepare(plan)) => {
                        self.segments.0 += 1;
                        DiskDone::Prepared(plan.segment)
                    }
                    Output::Disk(DiskOp::Retire(segment)) => {
                        self.segments.0 -= 1;
                        DiskDone::Retired(segment)
                    }
                    Output::Snapshot(version, kept) => {
                        self.snapshots.push(version.zxid());
                        self.kept = Some(kept);
                        continue;
                    }
                    Output::Collect(round) => {
                        let mut nothing = Submission::new(CoreId(0));
                        nothing.collected = Some(round);
                        self.replica.step(self.now, Input::Submission(nothing), &mut more);
                        continue;
                    }
                    Output::Publish(batch, _) => {
                        self.hear(&batch);
                        continue;
                    }
                };
                self.replica.step(self.now, Input::Disk(done), &mut more);
            }
            self.replica.finish_turn(self.now, &mut more);
            outputs = more;
        }
    }

    fn step(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.replica.step(self.now, input, &mut outputs);
        self.replica.finish_turn(self.now, &mut outputs);
        self.run(outputs);
    }

    /// So many transactions, one by one.
    fn write(&mut self, count: u64) {
        for _ in 0..count {
            self.write_together(1);
        }
    }

    /// So many transactions in one group.
    fn write_together(&mut self, count: usize) {
        let (connection, session) = (CLIENT, SessionId::NONE);
        let connect = || Connect { connection, session, genuine: true, timeout_ms: 600_000 };
        let mut submission = Submission::new(CoreId(0));
        submission.orders.extend((0..count).map(|_| Order::Connect(connect())));
        self.step(Input::Submission(submission));
    }

    fn hear(&mut self, batch: &Batch) {
        let items = batch.segments.iter().flat_map(|segment| &segment.items);
        for reply in items.filter_map(|item| item.reply.as_ref()) {
            if let ReplyKind::Frame { frame, .. } = &reply.kind {
                let frame = &batch.replies[frame.clone()];
                self.code = i32::from_be_bytes(frame[16..20].try_into().unwrap());
            }
        }
    }

    /// One request of the only session; the code of its reply.
    fn request(&mut self, op: OpCode, write: impl FnOnce(&mut Writer<'_>)) -> i32 {
        let mut submission = Submission::new(CoreId(0));
        write(&mut Writer::new(&mut submission.bodies));
        let session = self.replica.session_deadlines()[0].1[0];
        let (body, ids) = (0..submission.bodies.len(), [].into());
        let (connection, xid) = (CLIENT, Xid(1));
        let request = Request { connection, session, xid, op, body, ids, cut: false };
        submission.orders.push(Order::Request(request));
        self.step(Input::Submission(submission));
        self.code
    }

    /// Creates a znode so large that few fit in a segment.
    fn create(&mut self, number: usize) -> i32 {
        self.create_as(OpCode::Create, 0, &format!("/large{number}"), &[1; LARGE_BYTES])
    }

    fn delete(&mut self, number: usize) -> i32 {
        self.delete_at(&format!("/large{number}"))
    }

    fn create_as(&mut self, op: OpCode, mode: i32, path: &str, data: &[u8]) -> i32 {
        self.request(op, |writer| {
            writer.string(path);
            writer.buf(data);
            writer.count(1);
            writer.i32(31);
            writer.string("world");
            writer.string("anyone");
            writer.i32(mode);
        })
    }

    fn delete_at(&mut self, path: &str) -> i32 {
        self.request(OpCode::Delete, |writer| {
            writer.string(path);
            writer.i32(-1);
        })
    }

    /// Creates until it is refused; how many there are then.
    fn fill(&mut self) -> usize {
        self.write(1);
        let refused = (0..100).find(|number| match self.create(*number) {
            0 => false,
            code => code == ErrorCode::SystemError.to_wire(),
        });
        refused.expect("the disk is small")
    }

    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now.instant = self.now.instant.after(Duration::from_secs(1));
            self.step(Input::Tick);
        }
    }

    fn finish_snapshot(&mut self) {
        let zxid = *self.snapshots.last().unwrap();
        self.step(Input::SnapshotDone(Ok(SnapshotWritten { zxid, log_needed_after: zxid })));
    }
}

#[test]
fn an_idle_server_takes_a_snapshot_of_little() {
    let mut world = World::new();
    world.write(1);
    world.wait(10);
    assert_eq!(world.snapshots, []);
    world.write(5);
    assert_eq!(world.snapshots, []);
    world.wait(1);
    assert_eq!(world.snapshots, [Zxid(6)]);
    world.finish_snapshot();
    world.wait(100);
    assert_eq!(world.snapshots, [Zxid(6)]);
}

#[test]
fn no_snapshot_is_taken_of_what_has_had_no_transaction() {
    for snapshot_txns in [2, 19, 20] {
        let mut world = World::with(usize::MAX, snapshot_txns);
        world.replica.replayed(world.now, 0, 0);
        world.wait(10);
        assert_eq!(world.snapshots, [], "snapCount {snapshot_txns}");
        // When these go to the log, nothing is published yet.
        world.write_together(2);
        world.wait(10);
        assert_eq!(world.snapshots, [Zxid(2)], "snapCount {snapshot_txns}");
        world.finish_snapshot();
        world.replica.replayed(world.now, 0, 0);
        world.wait(10);
        assert_eq!(world.snapshots, [Zxid(2)], "snapCount {snapshot_txns}");
    }
}

#[test]
fn a_log_that_is_half_as_long_as_the_tree_makes_a_snapshot_due() {
    const LONG: u64 = 64 << 20;
    let mut world = World::with(usize::MAX, u64::MAX);
    // Each of these takes a block of the log.
    world.write(LONG / BLOCK_BYTES as u64 - 1);
    assert_eq!(world.snapshots, []);
    world.write(2);
    assert_eq!(world.snapshots.len(), 1);
    world.finish_snapshot();
    let long = LONG as usize / LARGE_BYTES;
    let mut number = 0;
    let mut grow = |world: &mut World, count: usize| {
        for _ in 0..count {
            assert_eq!(world.create(number), 0);
            number += 1;
        }
    };
    for _ in 0..2 {
        let before = world.snapshots.len();
        grow(&mut world, long + 1);
        assert_eq!(world.snapshots.len(), before + 1);
        world.finish_snapshot();
    }
    let before = world.snapshots.len();
    grow(&mut world, long + 1);
    assert_eq!(world.snapshots.len(), before, "the tree is three times as large");
    world.replica.replayed(world.now, 1, LONG);
    world.write(1);
    assert_eq!(world.snapshots.len(), before + 1);
}

#[test]
fn an_idle_server_waits_for_the_snapshot_under_way_and_then_takes_another() {
    let mut world = World::new();
    world.write(SNAPSHOT_TXNS + 5);
    // Of what was published when the transaction that made it due went to the log.
    let under_way = Zxid(SNAPSHOT_TXNS - 1);
    assert_eq!(world.snapshots, [under_way]);
    world.wait(10);
    assert_eq!(world.snapshots, [under_way], "one at a time");
    world.finish_snapshot();
    world.wait(10);
    assert_eq!(world.snapshots, [under_way, Zxid(SNAPSHOT_TXNS + 5)]);
}

#[test]
fn time_that_passes_at_once_is_nobodys_silence() {
    let mut world = World::new();
    world.write(1);
    let sessions = |world: &World| world.replica.tree().counters().sessions_count;
    // A session of ten minutes; the server is stopped for an hour, again and again.
    for _ in 0..5 {
        world.now.instant = world.now.instant.after(Duration::from_hours(1));
        world.step(Input::Tick);
        world.wait(60);
    }
    assert_eq!(sessions(&world), 1);
    world.wait(600);
    assert_eq!(sessions(&world), 0, "silence while the server runs does count");
}

#[test]
fn a_full_disk_recovers_when_a_snapshot_replaces_its_log() {
    let mut world = World::with_room_for(3);
    let refused = world.fill();
    assert_eq!(world.kept, Some(Kept::Newest));
    // There is no room for it.
    world.step(Input::SnapshotDone(Err(world.snapshots[0])));
    for number in 0..refused {
        assert_eq!(world.delete(number), 0);
    }
    assert_ne!(world.create(0), 0);
    assert_eq!(world.snapshots.len(), 1, "after a pause");
    world.wait(2);
    assert_eq!(world.snapshots[1..], [world.replica.published().zxid()]);
    assert_eq!(world.segments, (3, 3));
    world.finish_snapshot();
    assert_eq!(world.create(0), 0);
    assert_eq!(world.snapshots.len(), 2);
    // And again, and again: what is written in all is many times what fits.
    for number in 1..200 {
        let before = world.snapshots.len();
        assert_eq!((world.delete(number - 1), world.create(number)), (0, 0));
        if world.snapshots.len() > before {
            world.finish_snapshot();
        }
    }
}

#[test]
fn a_full_disk_is_not_worn_out_by_snapshots() {
    let mut world = World::with_room_for(3);
    world.fill();
    // Somebody else has what it makes free.
    world.segments.1 = 2;
    world.finish_snapshot();
    assert_eq!(world.segments, (2, 2));
    world.wait(100);
    assert_eq!(world.snapshots.len(), 1, "another would be the same");
    assert_eq!(world.delete(0), 0);
    world.wait(2);
    assert_eq!(world.snapshots.len(), 2);
    world.wait(20);
    assert_eq!(world.delete(1), 0);
    world.finish_snapshot();
    world.wait(170);
    assert_eq!(world.snapshots.len(), 2, "the last one took twenty seconds");
    world.wait(50);
    assert_eq!(world.snapshots.len(), 3);
    world.segments.1 = 3;
    world.wait(2);
    assert_eq!(world.create(1), 0);
}

#[test]
fn what_waits_for_room_does_not_keep_a_server_from_stopping() {
    let mut world = World::with_room_for(3);
    world.fill();
    assert!(world.replica.is_at_rest());
    // New sessions are let in, until there is no room for them either.
    let waits = |world: &mut World| {
        world.write_together(1000);
        !world.replica.is_idle()
    };
    assert!((0..1000).any(|_| waits(&mut world)), "the disk is small");
    assert!(world.replica.is_at_rest());
}

#[test]
fn a_full_disk_keeps_the_log_that_is_being_read() {
    let mut world = World::with_room_for(3);
    world.fill();
    world.replica.hold_log(Some(Zxid(1)));
    world.finish_snapshot();
    assert_eq!(world.segments, (3, 3));
    world.replica.hold_log(None);
    world.wait(3);
    assert_eq!(world.snapshots.len(), 2, "nothing was gained by the first");
    world.finish_snapshot();
    assert_eq!(world.create(99), 0);
}

#[test]
fn many_containers_are_looked_at_part_by_part() {
    const CONTAINER: i32 = 4;
    const INTERVAL: Duration = Duration::from_secs(60);
    let mut world = World::new();
    world.write(1);
    // More than are looked at together; all of them are empty, and one had a child.
    for number in 0..2500 {
        let path = format!("/c{number:04}");
        assert_eq!(world.create_as(OpCode::CreateContainer, CONTAINER, &path, &[]), 0);
    }
    assert_eq!(world.create_as(OpCode::Create, 0, "/c2200/child", &[]), 0);
    assert_eq!(world.delete_at("/c2200/child"), 0);
    let is_there = |world: &World| tree::znode(world.replica.tree().view(), "/c2200").is_some();
    let begun = Instant::ZERO.after(INTERVAL);
    world.now.instant = begun;
    world.step(Input::Tick);
    let mut parts = 1;
    while is_there(&world) {
        parts += 1;
        world.now.instant = world.replica.next_timeout().unwrap();
        assert!(world.now.instant < begun.after(INTERVAL), "a look is not a part");
        world.step(Input::Tick);
    }
    assert_eq!(parts, 3);
    // It has deleted what it may; all begins anew.
    let ended = world.now.instant;
    world.wait(59);
    assert_eq!(world.create_as(OpCode::CreateContainer, CONTAINER, "/c2200", &[]), 0);
    assert_eq!(world.create_as(OpCode::Create, 0, "/c0000/child", &[]), 0);
    assert_eq!(world.delete_at("/c0000/child"), 0);
    assert!(tree::znode(world.replica.tree().view(), "/c0000").is_some());
    world.now.instant = ended.after(INTERVAL);
    world.step(Input::Tick);
    assert!(tree::znode(world.replica.tree().view(), "/c0000").is_none());
}
