//! `kill -9` under load, again and again: what was acknowledged is there, and what is there is
//! what each connection would have after some number of its requests.

use std::collections::BTreeMap;

use engine::jute::Reader;
use engine::op::OpCode;
use engine::records::multi::MultiOp;
use rustix::process::Signal;
use tempfile::TempDir;

use super::client::{
    Client, EPHEMERAL, PERSISTENT, Session, new_node, set_data, versioned, write_multi,
};
use super::server::{Server, Setup};

/// Requests that a connection has on their way.
const WINDOW: u64 = 64;
/// How many of its last znodes a connection keeps.
const KEPT: u64 = 30;
/// Lives of a server.
const ROUNDS: u32 = 6;

/// One connection's writes. Request `k` makes a znode, sets the counter to `k`, or, in one multi,
/// makes a znode and deletes two older ones, in turn; so any number of requests leaves a state
/// that no other number leaves.
#[derive(Debug)]
struct Writer {
    root: String,
    /// Requests that the state on the server has for certain.
    acknowledged: u64,
    /// Requests that it may have.
    sent: u64,
    /// The zxid of each acknowledged request.
    zxids: BTreeMap<u64, i64>,
}

impl Writer {
    fn new(index: usize) -> Self {
        let root = format!("/w{index}");
        Self { root, acknowledged: 0, sent: 0, zxids: BTreeMap::new() }
    }

    fn path(&self, kind: char, number: u64) -> String {
        format!("{}/{kind}{number:08}", self.root)
    }

    /// Data of many sizes, from its number alone.
    fn value(&self, number: u64) -> Vec<u8> {
        let length = fastrand::Rng::with_seed(number).usize(0..400);
        let mut value = format!("{} {number} ", self.root).into_bytes();
        value.resize(value.len() + length, number as u8);
        value
    }

    fn put(&mut self, client: &mut Client) {
        self.sent += 1;
        let number = self.sent;
        let value = self.value(number);
        match number % 3 {
            1 => {
                let path = self.path('n', number);
                client.put(OpCode::Create, |writer| {
                    new_node(&path, &value, PERSISTENT).write(writer);
                });
            }
            2 => {
                client.put(OpCode::SetData, |writer| set_data(&self.root, &value).write(writer));
            }
            _ => {
                let paths = [self.path('m', number), self.path('n', number - 2)];
                let oldest = number.checked_sub(KEPT).filter(|oldest| *oldest > 0);
                let oldest = oldest.map(|oldest| self.path('m', oldest));
                let create = MultiOp::Create(OpCode::Create, new_node(&paths[0], &value, 0));
                let mut ops = vec![create, MultiOp::Delete(versioned(&paths[1]))];
                ops.extend(oldest.iter().map(|path| MultiOp::Delete(versioned(path))));
                client.put(OpCode::Multi, |writer| write_multi(writer, &ops));
            }
        }
    }

    /// Writes until the connection breaks; calls `kill` when that many requests are acknowledged.
    fn run(&mut self, client: &mut Client, kill_after: u64, kill: impl Fn()) {
        let kill_at = self.acknowledged + kill_after;
        loop {
            while self.sent - self.acknowledged < WINDOW {
                self.put(client);
            }
            if !client.try_flush() {
                return;
            }
            for _ in 0..WINDOW / 2 {
                let Some(reply) = client.try_receive() else { return };
                self.acknowledged += 1;
                assert_eq!(reply.err, 0, "{} {}", self.root, self.acknowledged);
                let before = self.zxids.last_key_value().map_or(0, |(_, zxid)| *zxid);
                assert!(reply.zxid > before, "zxids of a connection grow");
                self.zxids.insert(self.acknowledged, reply.zxid);
                if self.acknowledged == kill_at {
                    kill();
                }
            }
        }
    }

    /// What there is after `count` requests: the number in the counter, and the znodes.
    fn state(count: u64) -> (u64, Vec<String>) {
        let counter = (0..=count).rev().find(|number| number % 3 == 2).unwrap_or(0);
        let last_joint = count - count % 3;
        let joint = (1..=last_joint).filter(|k| k % 3 == 0 && k + KEPT > last_joint);
        let mut names: Vec<_> = joint.map(|number| format!("m{number:08}")).collect();
        let single = last_joint + 1;
        if single <= count {
            names.push(format!("n{single:08}"));
        }
        (counter, names)
    }

    /// Finds out how many requests the server has, which must be one of the possible numbers.
    fn check(&mut self, client: &mut Client) {
        let (data, mzxid) = data_and_mzxid(client, &self.root);
        let names = client.children(&self.root);
        let data = String::from_utf8_lossy(&data).into_owned();
        let counter = data.split(' ').nth(1).map_or(0, |number| number.parse().unwrap());
        let found = (counter, names);
        let fits = (self.acknowledged..=self.sent).find(|count| Self::state(*count) == found);
        let Some(count) = fits else {
            let (acknowledged, sent) = (self.acknowledged, self.sent);
            panic!("{acknowledged} acknowledged, {sent} sent, and then there is {found:?}");
        };
        for name in &found.1 {
            let number = name[1..].parse().unwrap();
            let data = client.data(&format!("{}/{name}", self.root));
            assert_eq!(data, Ok(self.value(number)), "{}/{name}", self.root);
        }
        if let Some(zxid) = self.zxids.get(&counter) {
            assert_eq!(mzxid, *zxid, "a write has the zxid that its client was told");
        }
        self.zxids.clear();
        (self.acknowledged, self.sent) = (count, count);
    }
}

fn data_and_mzxid(client: &mut Client, path: &str) -> (Vec<u8>, i64) {
    let reply = client.call(OpCode::GetData, |writer| {
        super::client::path_watch(path, false).write(writer);
    });
    assert_eq!(reply.err, 0, "{path}");
    let mut reader = Reader::new(&reply.body);
    let data = reader.buf().unwrap().unwrap_or_default().to_vec();
    reader.i64().unwrap();
    (data, reader.i64().unwrap())
}

/// One life of the server: what the last one left is checked, then it is loaded and killed.
fn live(server: Server, writers: &mut [Writer], session: Option<Session>, name: &str) -> Session {
    let mut checker = server.client();
    for writer in &mut *writers {
        writer.check(&mut checker);
    }
    if let Some(session) = session {
        let mut client = Client::connect(server.address, &session.reattach()).unwrap();
        assert_eq!(client.session.id, session.id, "a session outlives the server");
        let ephemerals = client.children("/ephemerals");
        assert_eq!(ephemerals.len(), 1);
        assert_eq!(client.delete(&format!("/ephemerals/{}", ephemerals[0])).err, 0);
    }
    let mut keeper = server.client();
    assert_eq!(keeper.create(&format!("/ephemerals/{name}"), b"", EPHEMERAL).err, 0);
    let kill = server.killer();
    let kill_after = fastrand::u64(1..600);
    let mut clients: Vec<_> = writers.iter().map(|_| server.client()).collect();
    std::thread::scope(|scope| {
        for (index, (writer, client)) in writers.iter_mut().zip(&mut clients).enumerate() {
            let kill = &kill;
            let kill_after = if index == 0 { kill_after } else { u64::MAX / 2 };
            scope.spawn(move || writer.run(client, kill_after, kill));
        }
    });
    let (code, log) = server.wait();
    assert_eq!(code, 128 + Signal::KILL.as_raw(), "{log}");
    keeper.session
}

#[track_caller]
fn check(backend: &'static str, cores: u16) {
    let folder = TempDir::new().unwrap();
    let setup = Setup::new(backend, cores, folder.path()).with("snapCount=1000");
    let mut writers: Vec<_> = (0..4).map(Writer::new).collect();
    let server = setup.start();
    let mut client = server.client();
    assert_eq!(client.create("/ephemerals", b"", PERSISTENT).err, 0);
    for writer in &writers {
        assert_eq!(client.create(&writer.root, b"", PERSISTENT).err, 0);
    }
    let mut session = Some(live(server, &mut writers, None, "0"));
    for round in 1..ROUNDS {
        session = Some(live(setup.start(), &mut writers, session, &round.to_string()));
    }
    let server = setup.start();
    let mut checker = server.client();
    for writer in &mut writers {
        writer.check(&mut checker);
    }
    server.terminate();
}

#[test]
fn acknowledged_writes_survive_kills_with_io_uring_on_one_core() {
    check("io_uring", 1);
}

#[test]
fn acknowledged_writes_survive_kills_with_io_uring_on_three_cores() {
    check("io_uring", 3);
}

#[test]
fn acknowledged_writes_survive_kills_with_epoll_on_two_cores() {
    check("epoll", 2);
}
