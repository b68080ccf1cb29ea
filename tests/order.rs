//! What a client may rely on about order, on one server of several cores with delayed messages.

use std::collections::{BTreeMap, VecDeque};

use engine::ids::{ConnectionId, SessionId, Xid};
use engine::jute::{Reader, Writer};
use engine::op::OpCode;
use engine::records::{
    ConnectResponse, NOTIFICATION_XID, ReplyHeader, RequestHeader, WatchEvent, write_request,
};
use engine::replica::ROLLOVER_COUNTER;
use engine::time::WallTime;
use engine::tree::{Effects, OwnerMode, Tree};
use engine::txn::{Txn, TxnHeader};
use engine::zxid::{Epoch, Zxid};
use tests::sim::cores::Server;

const PERSISTENT: i32 = 0;

/// One client: what it has sent and not heard of, and all it has heard.
#[derive(Default)]
struct Client {
    session: SessionId,
    next_xid: i32,
    sent: VecDeque<(i32, OpCode)>,
    input: Vec<u8>,
    heard: Vec<Heard>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Reply { xid: i32, op: OpCode, zxid: i64, err: i32, body: Vec<u8> },
    Event { zxid: i64, path: String },
}

struct World {
    server: Server,
    clients: BTreeMap<ConnectionId, Client>,
    read: usize,
}

impl World {
    fn new(seed: u64, cores: u16) -> Self {
        Self::of(Server::new(seed, cores))
    }

    fn of(server: Server) -> Self {
        Self { server, clients: BTreeMap::new(), read: 0 }
    }

    /// A client with a session, connected to `core`.
    fn client(&mut self, core: u16) -> ConnectionId {
        let id = self.server.connect_with_session(core);
        self.clients.insert(id, Client::default());
        self.hear();
        assert_ne!(self.clients[&id].session, SessionId::NONE);
        id
    }

    /// Sends requests in one piece.
    fn send(&mut self, id: ConnectionId, requests: &[(OpCode, Vec<u8>)]) {
        let client = self.clients.get_mut(&id).unwrap();
        let mut bytes = Vec::new();
        for (op, body) in requests {
            client.next_xid += 1;
            client.sent.push_back((client.next_xid, *op));
            let header = RequestHeader { xid: Xid(client.next_xid), op: op.to_wire() };
            write_request(&mut bytes, header, |writer| writer.bytes(body));
        }
        self.server.receive(id, &bytes);
        self.hear();
    }

    /// Lets things happen until a client has the reply to everything it sent.
    fn await_replies(&mut self, id: ConnectionId) {
        self.hear();
        while !self.clients[&id].sent.is_empty() {
            assert!(self.server.step(), "a request is never answered");
            self.hear();
        }
    }

    /// Decodes what has reached clients so far, checking what holds for every client.
    fn hear(&mut self) {
        while let Some((id, bytes)) = self.server.received.get(self.read) {
            self.read += 1;
            let client = self.clients.get_mut(id).unwrap();
            client.input.extend_from_slice(bytes);
            client.decode();
        }
    }
}

impl Client {
    fn decode(&mut self) {
        while let Some((prefix, rest)) = self.input.split_first_chunk::<4>() {
            let len = usize::try_from(i32::from_be_bytes(*prefix)).unwrap();
            if rest.len() < len {
                return;
            }
            let frame: Vec<u8> = self.input.drain(..4 + len).skip(4).collect();
            self.decode_frame(&frame);
        }
    }

    fn decode_frame(&mut self, frame: &[u8]) {
        if self.session == SessionId::NONE {
            self.session = ConnectResponse::decode(frame).unwrap().session;
            return;
        }
        let mut reader = Reader::new(frame);
        let header = ReplyHeader::read(&mut reader).unwrap();
        if header.xid == NOTIFICATION_XID {
            let event = WatchEvent::read(&mut reader).unwrap();
            self.heard.push(Heard::Event { zxid: header.zxid, path: event.path.into_owned() });
            return;
        }
        let (xid, op) = self.sent.pop_front().expect("a reply to nothing");
        assert_eq!(header.xid, Xid(xid), "replies come in the order of requests");
        let body = reader.rest().to_vec();
        self.heard.push(Heard::Reply { xid, op, zxid: header.zxid, err: header.err, body });
    }

    /// Data in the replies to getData, as numbers.
    fn values_read(&self) -> Vec<u64> {
        let replies = self.heard.iter().filter_map(|heard| match heard {
            Heard::Reply { op: OpCode::GetData, err: 0, body, .. } => Some(body),
            _ => None,
        });
        replies.map(|body| number(Reader::new(body).buf().unwrap().unwrap())).collect()
    }
}

fn number(data: &[u8]) -> u64 {
    str::from_utf8(data).unwrap().parse().unwrap()
}

fn create(path: &str, data: u64) -> (OpCode, Vec<u8>) {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer.string(path);
    writer.string(&data.to_string());
    writer.count(1);
    writer.i32(31);
    writer.string("world");
    writer.string("anyone");
    writer.i32(PERSISTENT);
    (OpCode::Create, body)
}

/// A node so large that the reply to a read of it is all that may be on its way to a client.
fn create_large(path: &str) -> (OpCode, Vec<u8>) {
    let (op, mut body) = create(path, 0);
    let data = vec![b'1'; 1_040_000];
    let at = 4 + path.len();
    body.splice(at..at + 5, [&1_040_000_i32.to_be_bytes()[..], &data].concat());
    (op, body)
}

fn set(path: &str, data: u64) -> (OpCode, Vec<u8>) {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer.string(path);
    writer.string(&data.to_string());
    writer.i32(-1);
    (OpCode::SetData, body)
}

fn get(path: &str, watch: bool) -> (OpCode, Vec<u8>) {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer.string(path);
    writer.bool(watch);
    (OpCode::GetData, body)
}

/// Reads between pipelined writes of one session see what came before them and nothing after,
/// and a watch set by such a read fires before the reply to the write that it waits for.
fn check_pipeline(seed: u64) {
    let mut world = World::new(seed, 3);
    let clients: Vec<_> = (0..6).map(|index| world.client(index % 3)).collect();
    for (index, &id) in clients.iter().enumerate() {
        world.send(id, &[create(&format!("/n{index}"), 0)]);
    }
    world.server.settle();
    for round in 0..4_u64 {
        for (index, &id) in clients.iter().enumerate() {
            let path = format!("/n{index}");
            let first = round * 3 + 1;
            let burst: Vec<_> = (first..first + 3)
                .flat_map(|value| [set(&path, value), get(&path, true)])
                .collect();
            world.send(id, &burst);
            for _ in 0..world.server.rng.below(6) {
                world.server.step();
            }
        }
    }
    world.server.settle();
    world.hear();
    for client in world.clients.values() {
        assert_eq!(client.values_read(), (1..=12).collect::<Vec<_>>());
        assert_eq!(client.sent.len(), 0);
        assert_events_in_place(client);
    }
}

/// Between two replies to sets there is a read, which left a watch: its event comes right after
/// the read and before the reply to the set, with that set's zxid.
fn assert_events_in_place(client: &Client) {
    let mut watching = false;
    let mut event = None;
    let mut last_zxid = 0;
    for heard in &client.heard {
        match heard {
            Heard::Event { zxid, path } => {
                assert!(watching, "an event without a watch: {path}");
                watching = false;
                event = Some(*zxid);
            }
            Heard::Reply { op: OpCode::SetData, zxid, .. } => {
                assert!(!watching, "the reply to a set came before the event");
                assert!(event.is_none_or(|event| event == *zxid));
                event = None;
                last_zxid = *zxid;
            }
            Heard::Reply { op: OpCode::GetData, zxid, .. } => {
                assert!(*zxid >= last_zxid);
                watching = true;
            }
            Heard::Reply { .. } => {}
        }
    }
}

#[test]
fn a_pipelined_read_sees_what_came_before_it_and_nothing_after() {
    for seed in 0..200 {
        check_pipeline(seed);
    }
}

/// Once one client has heard of a write, a read sent after that sees it on every core.
fn check_linearizable(seed: u64) {
    let mut world = World::new(seed, 4);
    let writer = world.client(0);
    let readers: Vec<_> = (0..4).map(|core| world.client(core)).collect();
    world.send(writer, &[create("/x", 0)]);
    world.server.settle();
    world.hear();
    for value in 1..=20 {
        world.send(writer, &[set("/x", value)]);
        world.await_replies(writer);
        for &reader in &readers {
            world.send(reader, &[get("/x", false)]);
            world.await_replies(reader);
            assert_eq!(world.clients[&reader].values_read().last(), Some(&value));
        }
        for _ in 0..world.server.rng.below(3) {
            world.server.step();
        }
    }
}

#[test]
fn a_read_sees_every_write_that_any_client_of_the_server_was_told_of() {
    for seed in 0..100 {
        check_linearizable(seed);
    }
}

/// A watcher on another core gets each change once, in order, and before it reads what is newer.
fn check_watch_order(seed: u64) {
    let mut world = World::new(seed, 2);
    let (writer, watcher) = (world.client(0), world.client(1));
    world.send(writer, &[create("/w", 0)]);
    world.server.settle();
    world.send(watcher, &[get("/w", true)]);
    world.hear();
    for value in 1..=10 {
        world.send(writer, &[set("/w", value)]);
        for _ in 0..world.server.rng.below(8) {
            world.server.step();
        }
        world.send(watcher, &[get("/w", true)]);
    }
    world.server.settle();
    world.hear();
    let mut seen: Option<u64> = None;
    let mut told = true;
    for heard in &world.clients[&watcher].heard {
        match heard {
            Heard::Event { .. } => told = true,
            Heard::Reply { body, .. } => {
                let value = number(Reader::new(body).buf().unwrap().unwrap());
                assert!(seen.is_none_or(|seen| seen <= value), "a read went back");
                assert!(seen == Some(value) || told, "{value} was read before its event");
                told = seen == Some(value) && told;
                seen = Some(value);
            }
        }
    }
}

#[test]
fn an_event_comes_before_the_data_that_it_announces() {
    for seed in 0..300 {
        check_watch_order(seed);
    }
}

/// A read that waits for a write of its own session leaves a watch that misses nothing: until it
/// runs, its core has no watch, and the next change may be on its way already.
fn check_waiting_watch(seed: u64) {
    let mut world = World::new(seed, 2);
    let (writer, watcher) = (world.client(0), world.client(1));
    world.send(writer, &[create("/w", 0)]);
    world.send(watcher, &[create("/mine", 0)]);
    world.server.settle();
    world.send(watcher, &[set("/mine", 1), get("/w", true)]);
    for _ in 0..world.server.rng.below(8) {
        world.server.step();
    }
    world.send(writer, &[set("/w", 1)]);
    world.server.settle();
    world.hear();
    let client = &world.clients[&watcher];
    let told = client.heard.iter().any(|heard| matches!(heard, Heard::Event { .. }));
    assert_eq!(told, client.values_read() == [0], "seed {seed}: {:?}", client.heard);
}

#[test]
fn a_watch_left_by_a_read_that_waited_misses_nothing() {
    for seed in 0..300 {
        check_waiting_watch(seed);
    }
}

#[test]
fn the_counter_rolls_over_into_a_new_epoch() {
    let mut tree = Tree::new(OwnerMode::Plain);
    let header = TxnHeader {
        session: SessionId(7),
        cxid: Xid(0),
        zxid: Zxid::new(Epoch(2), ROLLOVER_COUNTER - 1),
        time: WallTime(1),
    };
    tree.apply(&header, &Txn::CreateSession { timeout_ms: 10_000 }, &mut Effects::new());
    let mut world = World::of(Server::with_tree(1, 2, tree));
    let client = world.client(1);
    world.send(client, &[create("/a", 0), set("/a", 1), get("/a", false)]);
    world.await_replies(client);
    world.send(client, &[set("/a", 2)]);
    world.await_replies(client);
    let zxids = world.clients[&client].heard.iter().map(|heard| match heard {
        Heard::Reply { zxid, err: 0, .. } => *zxid,
        other => panic!("{other:?}"),
    });
    // The new session took the last zxid of the old epoch.
    assert_eq!(
        zxids.collect::<Vec<_>>(),
        [0x3_0000_0001, 0x3_0000_0002, 0x3_0000_0002, 0x3_0000_0003]
    );
}

/// Reads that stand between writes in the pipeline are answered in their place, also when the
/// client has more to receive than it may have before other reads wait.
#[test]
fn large_replies_stay_between_those_of_the_writes_around_them() {
    for seed in 0..50 {
        let mut world = World::new(seed, 2);
        let client = world.client(1);
        world.send(client, &[create("/n", 0), create_large("/large")]);
        world.server.settle();
        let large = || get("/large", false);
        let burst =
            [set("/n", 1), large(), large(), get("/n", true), set("/n", 2), get("/n", false)];
        world.send(client, &burst);
        world.server.settle();
        world.hear();
        let client = &world.clients[&client];
        assert!(client.sent.is_empty());
        let heard = &client.heard[client.heard.len() - 7..];
        let is_event = |heard: &Heard| matches!(heard, Heard::Event { .. });
        assert_eq!(heard.iter().position(is_event), Some(4), "seed {seed}");
        let values = client.heard.iter().filter_map(|heard| match heard {
            Heard::Reply { op: OpCode::GetData, body, .. } if body.len() < 100 => Some(body),
            _ => None,
        });
        let values = values.map(|body| number(Reader::new(body).buf().unwrap().unwrap()));
        assert_eq!(values.collect::<Vec<_>>(), [1, 2], "seed {seed}");
    }
}

/// So many large reads behind a write are not taken in at once: they would all be answered when
/// the write is. The connection is left unread meanwhile, but a long request behind them is not
/// left half read.
#[test]
fn reads_behind_a_write_are_bounded_by_what_their_replies_may_hold() {
    let mut world = World::new(1, 2);
    let client = world.client(1);
    world.send(client, &[create("/n", 0), create_large("/large")]);
    world.server.settle();
    let mut burst = vec![set("/n", 1)];
    burst.extend((0..80).map(|_| get("/large", false)));
    burst.extend([create_large("/larger"), set("/n", 2)]);
    world.send(client, &burst);
    world.server.settle();
    world.hear();
    assert_eq!(world.server.closed, []);
    assert!(world.clients[&client].sent.is_empty(), "every request is answered in the end");
}

/// What was on its way when the server gave a connection up is dropped, whatever it is.
#[test]
fn replies_to_a_connection_that_is_being_closed_go_nowhere() {
    for seed in 0..50 {
        let mut world = World::new(seed, 2);
        let client = world.client(1);
        world.send(client, &[create("/n", 0), create_large("/large")]);
        world.server.settle();
        world.send(client, &[get("/large", false)]);
        // The first send is under way: this reply waits for its end.
        let small = || get("/n", false);
        world.send(client, &[small(), set("/n", 1), small(), set("/n", 2)]);
        for _ in 0..world.server.rng.below(6) {
            world.server.step();
        }
        world.server.receive(client, &(-1_i32).to_be_bytes());
        world.server.settle();
        assert_eq!(world.server.closed, [client], "seed {seed}");
    }
}

fn auth(user: &str) -> (OpCode, Vec<u8>) {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer.i32(0);
    writer.string("digest");
    writer.string(user);
    (OpCode::Auth, body)
}

/// Leaves a znode to those who have the identities of the asking connection.
fn claim(path: &str) -> (OpCode, Vec<u8>) {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer.string(path);
    writer.count(1);
    writer.i32(31);
    writer.string("auth");
    writer.string("");
    writer.i32(-1);
    (OpCode::SetAcl, body)
}

#[test]
fn an_event_reaches_those_who_may_read_when_it_happens() {
    let mut world = World::new(1, 2);
    let [owner, friend, stranger] = [0, 1, 1].map(|core| world.client(core));
    world.send(owner, &[auth("u:p"), create("/n", 1)]);
    world.await_replies(owner);
    world.send(friend, &[auth("u:p"), get("/n", true)]);
    world.send(stranger, &[auth("v:p"), get("/n", true)]);
    world.await_replies(friend);
    world.await_replies(stranger);
    world.send(owner, &[claim("/n"), set("/n", 2)]);
    world.server.settle();
    world.hear();
    let events = |id| {
        let heard = world.clients[&id].heard.iter();
        heard.filter(|heard| matches!(heard, Heard::Event { .. })).count()
    };
    assert_eq!((events(friend), events(stranger)), (1, 0));
    let replies = |heard: &Heard| matches!(heard, Heard::Reply { err: 0, .. });
    assert_eq!(world.clients[&owner].heard.iter().filter(|heard| replies(heard)).count(), 4);
}
