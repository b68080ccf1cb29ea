//! What the ordering machine does besides ordering: when it asks for snapshots, and what it makes
//! of time.

use std::time::Duration;

use engine::disk::{DiskDone, DiskOp};
use engine::ids::{ConnectionId, CoreId, SessionId};
use engine::order::{Connect, Order, Submission};
use engine::replica::{
    Config, GROUP_BYTES, Input, Now, Output, ROLLOVER_COUNTER, Replica, SnapshotWritten,
};
use engine::rules::Rules;
use engine::time::{Instant, WallTime};
use engine::tree::{OwnerMode, Tree};
use engine::txnlog::{LogConfig, LogEnd, TxnLog};
use engine::zxid::Zxid;

/// Transactions after which a snapshot is due under load.
const SNAPSHOT_TXNS: u64 = 40;

struct World {
    replica: Replica,
    now: Now,
    /// Snapshots that were asked for.
    snapshots: Vec<Zxid>,
}

impl World {
    fn new() -> Self {
        let now = Now { instant: Instant::ZERO, wall: WallTime(1) };
        let mut pending = Vec::new();
        let log = TxnLog::open(LogConfig::default(), LogEnd::default(), now.instant, &mut pending);
        let config = Config {
            server_id: 1,
            tick_ms: 2_000,
            cores: 1,
            rules: Rules::default(),
            container_check_interval: Duration::from_secs(60),
            container_deletions_max: 1,
            container_never_used_max: Duration::ZERO,
            slow_write: None,
            slow_sync: Duration::MAX,
            memory_bytes_max: None,
            snapshot_txns: SNAPSHOT_TXNS,
            snapshot_log_bytes: u64::MAX,
            history_bytes: 0,
            log_share: None,
            rollover_counter: ROLLOVER_COUNTER,
            group_bytes: GROUP_BYTES,
            names_committed: false,
        };
        let replica = Replica::new(config, Tree::new(OwnerMode::Plain), log, now);
        let mut world = Self { replica, now, snapshots: Vec::new() };
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
                    Output::Disk(DiskOp::Prepare(plan)) => DiskDone::Prepared(plan.segment),
                    Output::Disk(DiskOp::Retire(segment)) => DiskDone::Retired(segment),
                    Output::Snapshot(version) => {
                        self.snapshots.push(version.zxid());
                        continue;
                    }
                    Output::Collect(round) => {
                        let mut nothing = Submission::new(CoreId(0));
                        nothing.collected = Some(round);
                        self.replica.step(self.now, Input::Submission(nothing), &mut more);
                        continue;
                    }
                    Output::Publish(_) => continue,
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
            let connection = ConnectionId { core: CoreId(0), slot: 0, generation: 1 };
            let session = SessionId::NONE;
            let connect = Connect { connection, session, genuine: true, timeout_ms: 600_000 };
            let mut submission = Submission::new(CoreId(0));
            submission.orders.push(Order::Connect(connect));
            self.step(Input::Submission(submission));
        }
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
