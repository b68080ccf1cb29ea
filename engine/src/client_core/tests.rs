//! What a connection may have of its core's time, and how much may be on its way to it.

use super::receive::SPENT_ON_WATCH;
use super::*;
use crate::ids::Xid;
use crate::op::OpCode;
use crate::order::{Item, Segment};
use crate::prep::script::Script;
use crate::records::{
    AUTH_XID, AuthPacket, ConnectRequest, Modes, PathWatch, RequestHeader, write_request,
};
use crate::tree::{self, AclId, Effects, EventType, OwnerMode, Tree, Trigger};

const NOW: Instant = Instant::ZERO;

/// A core, and what it has sent.
struct World {
    core: ClientCore,
    sent: Vec<(u32, Vec<u8>)>,
}

fn id(slot: u32) -> ConnectionId {
    ConnectionId { core: CoreId(0), slot, generation: 1 }
}

fn write_path_watch(out: &mut Vec<u8>, op: OpCode, path: &str, watch: bool) {
    let header = RequestHeader { xid: Xid(1), op: op.to_wire() };
    write_request(out, header, |writer| PathWatch { path: path.into(), watch }.write(writer));
}

impl World {
    /// With so many sessions, each on a connection of its own.
    fn new(sessions: u32) -> Self {
        Self::of(Tree::new(OwnerMode::Plain).freeze(), sessions)
    }

    /// The same, with this state.
    fn of(version: Version, sessions: u32) -> Self {
        let config = Config {
            rules: Rules::default(),
            auth: AuthRules::default(),
            session_timeouts: TimeoutLimits::of_tick(2000),
            outstanding_max: 1000,
            sessionless_timeout: Duration::from_secs(10),
        };
        let core = ClientCore::new(CoreId(0), Arc::new(config), version, 0);
        let mut world = Self { core, sent: Vec::new() };
        for slot in 0..sessions {
            world.accept(slot);
            world.core.on_attached(NOW, slot, SessionId(i64::from(slot) + 1), 10_000);
        }
        world.finish_turn();
        world.sent.clear();
        world
    }

    fn accept(&mut self, slot: u32) {
        let peer = "127.0.0.1:40000".parse().unwrap();
        self.core.step(NOW, Input::Accepted(id(slot), peer), &mut Vec::new());
    }

    fn receive(&mut self, slot: u32, requests: &[(OpCode, &str)]) {
        let mut bytes = Vec::new();
        for (op, path) in requests {
            write_path_watch(&mut bytes, *op, path, false);
        }
        self.core.step(NOW, Input::Received(id(slot), &bytes), &mut Vec::new());
    }

    /// Ends a turn; nothing that it sends has arrived yet.
    fn end_turn(&mut self) -> Vec<Output> {
        let mut out = Vec::new();
        self.core.finish_turn(NOW, &mut out);
        out
    }

    /// What was sent last has arrived.
    fn arrive(&mut self, slot: u32) {
        self.core.step(NOW, Input::Sent(id(slot), Vec::new()), &mut Vec::new());
    }

    /// Ends a turn, and all that it sends arrives.
    fn finish_turn(&mut self) {
        for output in self.end_turn() {
            if let Output::Send(id, bytes) = output {
                self.sent.push((id.slot, bytes));
                self.arrive(id.slot);
            }
        }
    }

    /// A group of transactions behind the last one, all of which change the data of one znode.
    fn change(&mut self, path: &str, acl: AclId, times: usize) {
        let trigger = Trigger { event: EventType::NodeDataChanged, path: 0..path.len(), acl };
        let effects = Effects { triggers: vec![trigger; times], paths: path.into() };
        let version = self.core.version.clone();
        let items = vec![Item { zxid: version.zxid(), triggers: 0..times, reply: None }];
        let segments = vec![Segment { items, version }];
        let number = self.core.batch + 1;
        let batch = Batch { number, segments, effects, replies: Vec::new() };
        self.core.step(NOW, Input::Batch(Arc::new(batch)), &mut Vec::new());
    }

    /// Whom a turn sends to.
    fn turn(&mut self) -> Vec<u32> {
        self.core.step(NOW, Input::Tick, &mut Vec::new());
        self.finish_turn();
        self.sent.drain(..).map(|(slot, _)| slot).collect()
    }
}

const WALK: (OpCode, &str) = (OpCode::GetAllChildrenNumber, "/zookeeper");
const READ: (OpCode, &str) = (OpCode::Exists, "/zookeeper");

#[test]
fn a_turn_has_one_walk_and_walkers_take_turns() {
    let mut world = World::new(3);
    world.receive(0, &[WALK, WALK, WALK]);
    world.receive(1, &[WALK, WALK]);
    world.receive(2, &[READ, READ]);
    world.finish_turn();
    let mut first: Vec<u32> = world.sent.drain(..).map(|(slot, _)| slot).collect();
    first.sort_unstable();
    assert_eq!(first, [0, 2], "other requests do not wait");
    for walker in [1, 0, 1, 0] {
        assert_eq!(world.core.next_timeout(), Some(Instant::ZERO), "the next turn begins at once");
        assert_eq!(world.turn(), [walker]);
    }
    assert_eq!(world.turn(), []);
    assert_eq!(world.core.next_timeout(), None);
}

#[test]
fn reads_that_take_much_and_answer_little_wait_for_another_turn() {
    let list: Vec<_> = (0..40_000).map(|user| format!("1/digest/u{user:05}:h")).collect();
    let mut script = Script::new();
    assert_eq!(script.run(&format!("create /a acl={}", list.join(","))), "/a");
    let mut world = World::of(script.tree.freeze(), 2);
    world.receive(0, &[(OpCode::GetData, "/a"); 100]);
    world.receive(1, &[READ]);
    world.finish_turn();
    let mut answers = 0;
    for turn in 0..4 {
        let (reads, others): (Vec<_>, Vec<_>) =
            world.sent.drain(..).partition(|(slot, _)| *slot == 0);
        // A refusal has 20 bytes; 33 lists have 32 MiB.
        let answered: usize = reads.iter().map(|(_, bytes)| bytes.len() / 20).sum();
        assert_eq!(answered, 33.min(100 - answers));
        answers += answered;
        assert_eq!(others.len(), usize::from(turn == 1), "others come first in the next turn");
        world.core.step(NOW, Input::Tick, &mut Vec::new());
        world.finish_turn();
    }
    assert_eq!((answers, world.core.next_timeout()), (100, None));
}

#[test]
fn long_answers_of_many_connections_take_several_turns() {
    let mut script = Script::new();
    let data = "d".repeat(1_000_000);
    assert_eq!(script.run(&format!("create /a {data}")), "/a");
    let mut world = World::of(script.tree.freeze(), 100);
    for slot in 0..100 {
        world.receive(slot, &[(OpCode::GetData, "/a")]);
    }
    world.finish_turn();
    let mut answered: Vec<u32> = world.sent.drain(..).map(|(slot, _)| slot).collect();
    while world.core.next_timeout() == Some(Instant::ZERO) {
        assert_eq!(answered.len() % 34, 0, "34 answers have 32 MiB");
        answered.append(&mut world.turn());
    }
    answered.sort_unstable();
    assert!(answered.into_iter().eq(0..100));
}

#[test]
fn millions_of_watches_are_forgotten_by_and_by() {
    let mut world = World::new(1);
    let most = u32::try_from(LEAVING_MAX).unwrap();
    for number in 0..=2 * most {
        world.core.watches.add(0, &format!("/{number}"), Modes::DATA);
    }
    world.core.step(NOW, Input::Closed(id(0)), &mut Vec::new());
    for left in [LEAVING_MAX + 1, 1, 0] {
        world.turn();
        assert_eq!(world.core.watches.count(), left);
        assert_eq!(world.core.next_timeout() == Some(Instant::ZERO), left > 0);
    }
    world.turn();
    assert_eq!(world.core.next_timeout(), None);
}

#[test]
fn a_watch_counts_for_as_much_as_it_takes() {
    let mut world = World::new(1);
    world.receive(0, &[READ]);
    let read = world.core.spent;
    let mut bytes = Vec::new();
    write_path_watch(&mut bytes, OpCode::Exists, "/nothing", true);
    world.core.step(NOW, Input::Received(id(0), &bytes), &mut Vec::new());
    assert!(world.core.spent >= read + SPENT_ON_WATCH);
}

#[test]
fn a_watcher_is_judged_once_by_a_long_list_however_often_it_triggers() {
    let list: Vec<_> = (0..100).map(|user| format!("1/digest/u{user:05}:h")).collect();
    let mut script = Script::new();
    script.check(&[(&format!("create /a acl={}", list.join(",")), "/a")]);
    let mut world = World::of(script.tree.freeze(), 1);
    world.core.watches.add(0, "/a", Modes::PERSISTENT);
    let version = script.tree.freeze();
    let acl = tree::znode(&version, "/a").unwrap().acl();
    world.change("/a", acl, 10);
    assert_eq!(world.core.spent, tree::acl(&version, acl).as_bytes().len());
}

#[test]
fn a_watcher_that_does_not_read_is_closed_when_too_much_waits_for_it() {
    let mut world = World::new(2);
    let [idle, reader] = [0, 1];
    let path = format!("/{}", "p".repeat(1 << 20));
    for slot in [idle, reader] {
        world.core.watches.add(slot, &path, Modes::PERSISTENT);
    }
    // The same is sent to both: what has arrived at one still waits for the other.
    let (mut waits, mut sends_to_idle) = (0, 0);
    let output_bytes_max = world.core.config.rules.output_bytes_max();
    while waits <= output_bytes_max {
        world.change(&path, AclId::OPEN, 1);
        let mut closed = Vec::new();
        for output in world.end_turn() {
            match output {
                Output::Send(to, bytes) if to.slot == reader => {
                    waits += bytes.len();
                    world.arrive(reader);
                }
                Output::Send(..) => sends_to_idle += 1,
                Output::Close(id) => closed.push(id.slot),
                _ => {}
            }
        }
        let expected = if waits > output_bytes_max { vec![idle] } else { Vec::new() };
        assert_eq!(closed, expected, "{waits} bytes wait");
    }
    assert_eq!(sends_to_idle, 1, "another is made when the first has arrived");
    // Who reads has had as much, and goes on.
    world.change(&path, AclId::OPEN, 1);
    world.finish_turn();
    let slots: Vec<_> = world.sent.iter().map(|(slot, _)| *slot).collect();
    assert_eq!(slots, [reader]);
}

#[test]
fn reads_behind_much_output_wait_until_that_has_arrived() {
    const BYTES: usize = 1_000_000;
    const _: () = assert!(BYTES < OUTPUT_BYTES_HIGH && 2 * BYTES > OUTPUT_BYTES_HIGH);
    let mut script = Script::new();
    assert_eq!(script.run(&format!("create /a {}", "d".repeat(BYTES))), "/a");
    let mut world = World::of(script.tree.freeze(), 2);
    world.receive(0, &[(OpCode::GetData, "/a"); 5]);
    for answers in [2, 2, 1] {
        let outputs = world.end_turn();
        let [Output::Send(to, bytes)] = &outputs[..] else { panic!("{} outputs", outputs.len()) };
        assert_eq!((to.slot, bytes.len() / BYTES), (0, answers));
        // However many turns go by; and others do not wait.
        world.receive(1, &[READ]);
        assert_eq!(world.turn(), [1]);
        world.arrive(0);
    }
    assert_eq!(world.turn(), []);
    assert_eq!(world.core.outstanding, 0);
}

#[test]
fn a_walk_waits_for_the_writes_in_front_of_it() {
    let mut world = World::new(1);
    world.receive(0, &[(OpCode::Sync, "/"), WALK, READ]);
    assert_eq!(world.turn(), []);
    assert_eq!(world.core.connections[0].as_ref().unwrap().queue.len(), 1);
    assert_eq!(world.core.next_timeout(), None, "it is not its turn that it waits for");
    // The write is answered.
    world.core.connection_at(0).queue.clear();
    world.core.outstanding = 0;
    assert_eq!(world.turn(), [0]);
}

/// What is sent with a ConnectRequest is read when the session is there: no batch may be missed by
/// then, or what it watches could change unseen.
#[test]
fn all_batches_are_needed_while_a_session_is_being_opened() {
    let mut world = World::new(0);
    for (slot, attaches) in [(0, true), (1, false)] {
        world.accept(slot);
        let mut bytes = Vec::new();
        ConnectRequest::new_session(10_000).write(&mut bytes);
        world.core.step(NOW, Input::Received(id(slot), &bytes), &mut Vec::new());
        world.receive(slot, &[READ]);
        world.finish_turn();
        assert!(world.core.needs_all_batches());
        if attaches {
            world.core.on_attached(NOW, slot, SessionId(1), 10_000);
            assert!(world.core.needs_all_batches(), "the request is yet to be read");
        } else {
            world.core.on_refused(slot);
        }
        assert_eq!(world.turn(), [slot]);
        assert!(!world.core.needs_all_batches());
    }
}

#[test]
fn the_answer_to_a_word_may_be_long() {
    let mut world = World::new(0);
    world.accept(0);
    world.core.step(NOW, Input::Received(id(0), b"wchp"), &mut Vec::new());
    let text = vec![b'x'; OUTPUT_BYTES_MAX + 1];
    world.core.step(NOW, Input::Answer(id(0), text.clone()), &mut Vec::new());
    world.finish_turn();
    assert!(world.sent == [(0, text)], "all of it");
}

// Compat: ServerStats.reset
#[test]
fn a_reset_leaves_the_failed_authentications() {
    let mut world = World::new(1);
    let mut bytes = Vec::new();
    let packet = AuthPacket { scheme: Some("no such scheme".into()), auth: Some(b"me") };
    let header = RequestHeader { xid: AUTH_XID, op: OpCode::Auth.to_wire() };
    write_request(&mut bytes, header, |writer| packet.write(writer));
    world.core.step(NOW, Input::Received(id(0), &bytes), &mut Vec::new());
    let counted = |world: &World| {
        let stats = world.core.report(false).stats;
        (stats.auth_failed, stats.packets_received)
    };
    assert_eq!(counted(&world), (1, 1));
    world.core.reset_stats();
    assert_eq!(counted(&world), (1, 0));
}

#[test]
fn who_asks_with_a_word_is_not_shown_as_being_read() {
    let mut world = World::new(1);
    world.accept(1);
    world.core.step(NOW, Input::Received(id(1), b"stat"), &mut Vec::new());
    let connections = world.core.report(true).connections;
    let shown: Vec<_> = connections.iter().map(|one| (one.reads, one.writes)).collect();
    assert_eq!(shown, [(true, false), (false, false)]);
}
