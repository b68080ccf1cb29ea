//! Groups on their way, with every instant given.

use std::fmt::Debug;
use std::sync::mpsc::{self, Sender};

use tracing::field::{Field, Visit};
use tracing::span;

use super::super::group::WORTHWHILE_BYTES;
use super::super::{Input, Now, Output};
use super::*;
use crate::disk::{DiskDone, DiskOp};
use crate::ids::{ConnectionId, CoreId, SessionId, Xid};
use crate::op::OpCode;
use crate::order::{Connect, Order, Request, Submission};
use crate::time::WallTime;
use crate::tree::{OwnerMode, Tree};
use crate::txnlog::{LogConfig, LogEnd, TxnLog};
use crate::zxid::{Epoch, Zxid};

const CLIENT: ConnectionId = ConnectionId { core: CoreId(0), slot: 0, generation: 1 };

/// A replica whose disk answers when it is told to.
struct World {
    replica: Replica,
    appends: Vec<DiskDone>,
    published: Vec<Option<GroupTimes>>,
}

fn ms(ms: u64) -> Instant {
    Instant::ZERO.after(Duration::from_millis(ms))
}

fn now(at: u64) -> Now {
    Now { instant: ms(at), wall: WallTime(1) }
}

fn config() -> Config {
    Config {
        slow_write: Some(Duration::from_millis(100)),
        slow_sync: Duration::from_millis(50),
        history_bytes: 1 << 20,
        ..Config::default()
    }
}

impl World {
    fn new() -> Self {
        let mut ops = Vec::new();
        let log = TxnLog::open(LogConfig::default(), LogEnd::default(), Instant::ZERO, &mut ops);
        let replica = Replica::new(config(), Tree::new(OwnerMode::Plain), log, now(0));
        let mut world = Self { replica, appends: Vec::new(), published: Vec::new() };
        world.execute(0, ops.into_iter().map(Output::Disk).collect());
        world
    }

    /// Segments are there at once.
    fn execute(&mut self, at: u64, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Disk(DiskOp::Append { sequence, frame, .. }) => {
                    self.appends.push(DiskDone::Appended { sequence, frame });
                }
                Output::Disk(DiskOp::Prepare(plan)) => {
                    self.step(at, Input::Disk(DiskDone::Prepared(plan.segment)));
                }
                Output::Publish(_, times) => self.published.push(times),
                other => unreachable!("{other:?}"),
            }
        }
    }

    fn step(&mut self, at: u64, input: Input) {
        let mut outputs = Vec::new();
        self.replica.step(now(at), input, &mut outputs);
        self.replica.finish_turn(now(at), &mut outputs);
        self.execute(at, outputs);
    }

    fn finish_turn(&mut self, at: u64) {
        let mut outputs = Vec::new();
        self.replica.finish_turn(now(at), &mut outputs);
        self.execute(at, outputs);
    }

    fn order(&mut self, at: u64, order: Order) {
        let mut submission = Submission::new(CoreId(0));
        submission.bodies.extend([0; 4]);
        submission.orders.push(order);
        self.step(at, Input::Submission(submission));
    }

    /// One transaction.
    fn open_session(&mut self, at: u64) {
        let (connection, session) = (CLIENT, SessionId::NONE);
        let connect = Connect { connection, session, genuine: true, timeout_ms: 600_000 };
        self.order(at, Order::Connect(connect));
    }

    fn sync(&mut self, at: u64) {
        let session = self.replica.session_deadlines()[0].1[0];
        let (connection, xid, op, ids) = (CLIENT, Xid(1), OpCode::Sync, [].into());
        let request = Request { connection, session, xid, op, body: 0..4, ids, cut: false };
        self.order(at, Order::Request(request));
    }

    /// The oldest append is durable.
    fn written(&mut self, at: u64) {
        let done = self.appends.remove(0);
        self.step(at, Input::Disk(done));
    }

    /// The server comes to lead an ensemble.
    fn lead(&mut self) {
        let mut outputs = Vec::new();
        self.replica.join();
        self.replica.adopt(now(0), &mut outputs);
        self.replica.establish(now(0), Epoch(1), &mut outputs);
        self.execute(0, outputs);
        self.published.clear();
    }
}

fn times(opened: u64, sealed: u64, committed: u64) -> GroupTimes {
    GroupTimes { opened: ms(opened), sealed: ms(sealed), committed: ms(committed) }
}

#[test]
fn a_server_alone_commits_what_is_durable() {
    let mut world = World::new();
    world.open_session(10);
    // The log is busy: this waits in the next group, and begins it.
    world.open_session(12);
    world.open_session(13);
    assert_eq!(world.published, []);
    world.written(20);
    assert_eq!(world.published, [Some(times(10, 10, 20))]);
    world.written(27);
    assert_eq!(world.published[1..], [Some(times(12, 20, 27))]);
}

#[test]
fn much_is_written_beside_what_is_under_way_and_published_in_order() {
    let mut world = World::new();
    world.open_session(10);
    let mut opened = 0;
    while world.appends.len() == 1 {
        assert!(world.replica.group.bytes() < WORTHWHILE_BYTES);
        world.open_session(12);
        opened += 1;
    }
    assert!(opened > 100 && world.replica.group.is_empty(), "{opened}");
    // A third one waits, however much it has.
    (0..=opened).for_each(|_| world.open_session(13));
    assert!(world.replica.group.bytes() > WORTHWHILE_BYTES);
    let second = world.appends.remove(1);
    world.step(15, Input::Disk(second));
    assert_eq!((world.appends.len(), world.published.len()), (1, 0));
    world.written(20);
    assert_eq!(world.published, [Some(times(10, 10, 20)), Some(times(12, 12, 20))]);
    // Beside that large one goes only what is as large.
    (0..opened).for_each(|_| world.open_session(21));
    assert_eq!(world.appends.len(), 1);
    world.written(30);
    assert_eq!(world.published[2..], [Some(times(13, 20, 30))]);
}

#[test]
fn answers_alone_have_no_times() {
    let mut world = World::new();
    world.open_session(1);
    world.written(2);
    world.sync(3);
    assert_eq!(world.published[1..], [None]);
}

#[test]
fn a_leader_waits_for_the_disk_and_for_its_quorum() {
    let mut world = World::new();
    world.lead();
    world.open_session(10);
    world.written(15);
    assert_eq!(world.published, []);
    world.replica.commit(now(18), Zxid::new(Epoch(1), 1));
    world.finish_turn(18);
    assert_eq!(world.published, [Some(times(10, 10, 18))]);
    // The quorum may have it first.
    world.open_session(20);
    world.replica.commit(now(24), Zxid::new(Epoch(1), 2));
    world.finish_turn(24);
    world.written(29);
    assert_eq!(world.published[1..], [Some(times(20, 20, 29))]);
}

#[test]
fn what_waits_for_a_proof_of_leadership_is_committed_before() {
    let mut world = World::new();
    world.lead();
    world.open_session(1);
    world.sync(2);
    world.open_session(3);
    world.written(5);
    world.replica.commit(now(6), Zxid::new(Epoch(1), 1));
    world.finish_turn(6);
    world.written(7);
    world.replica.commit(now(8), Zxid::new(Epoch(1), 2));
    world.finish_turn(8);
    assert_eq!(world.published, [Some(times(1, 1, 6))]);
    world.finish_turn(9);
    world.replica.prove(1);
    world.finish_turn(11);
    assert_eq!(world.published[1..], [None, Some(times(3, 5, 8))]);
}

/// Tells the fields of events.
struct Fields(Sender<String>);

impl Visit for &Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.send(format!("{field}={value:?}")).unwrap();
    }
}

impl tracing::Subscriber for Fields {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut &*self);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// What the server's log gets of a group with these times.
fn line((opened, sealed, committed): (u64, u64, u64), published: u64) -> String {
    let (fields, told) = mpsc::channel();
    let world = World::new();
    let times = times(opened, sealed, committed);
    let publish = || world.replica.on_published(times, ms(published));
    tracing::subscriber::with_default(Fields(fields), publish);
    told.iter().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_slow_group_is_logged_with_the_time_of_each_stage() {
    assert_eq!(line((0, 40, 80), 99), "");
    let expected = "message=slow writes queue_ms=40 log_ms=40 publish_ms=20";
    assert_eq!(line((0, 40, 80), 100), expected);
    // The log has a limit of its own.
    let expected = "message=slow writes queue_ms=1 log_ms=50 publish_ms=0";
    assert_eq!(line((0, 1, 51), 51), expected);
    assert_eq!(line((0, 1, 50), 90), "");
}
