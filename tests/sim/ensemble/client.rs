//! Simulated clients: they keep a session, ask for things at random, and check what they hear.

use std::collections::{BTreeMap, VecDeque};

use engine::btree::Version;
use engine::ids::{SessionId, Xid};
use engine::jute::{Reader, Writer};
use engine::op::OpCode;
use engine::records::{ConnectRequest, ConnectResponse, ReplyHeader, WatchEvent};
use engine::tree::{self, Owner};

use super::checks::{Answer, Asked, Kind};
use super::host::{self, ClientEvent};
use super::{Attachment, Event, MS, SECOND, World};
use crate::sim::random::Random;

/// Keys that all clients write.
const KEYS: usize = 3;
const TIMEOUT_MS: i32 = 4000;
/// A client that hears nothing for this long looks for another server.
const SILENCE: u64 = 2600 * MS;

/// A client.
pub(super) struct Client {
    index: usize,
    session: SessionId,
    password: Vec<u8>,
    /// The highest zxid that it was told.
    last_zxid: u64,
    state: State,
    input: Vec<u8>,
    sent: VecDeque<Asked>,
    next_xid: i32,
    heard_at: u64,
    sent_at: u64,
    /// When the last request that was answered was sent.
    alive_at: u64,
    next_number: u64,
    /// What the session has seen of each key.
    floors: BTreeMap<usize, u64>,
    /// Watches that this connection has, and what was there when they were set.
    watches: BTreeMap<usize, u64>,
    /// What was created for good, and by which transaction.
    created: Vec<(String, u64)>,
    /// Ephemerals of the session.
    ephemerals: Vec<String>,
    proving: bool,
    proven: bool,
    answers: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down,
    /// Waits for the answer to its first message.
    Joining(u64),
    Up(u64),
}

pub(super) fn key_path(key: usize) -> String {
    format!("/k{key}")
}

impl Client {
    pub(super) fn new(index: usize, random: &mut Random) -> Self {
        Self {
            index,
            session: SessionId::NONE,
            password: vec![0; 16],
            last_zxid: 0,
            state: State::Down,
            input: Vec::new(),
            sent: VecDeque::new(),
            next_xid: 0,
            heard_at: 0,
            sent_at: 0,
            alive_at: 0,
            next_number: random.below(1000) as u64 * 1_000_000,
            floors: BTreeMap::new(),
            watches: BTreeMap::new(),
            created: Vec::new(),
            ephemerals: Vec::new(),
            proving: false,
            proven: false,
            answers: 0,
        }
    }

    /// From now on, it only wants to be served once.
    pub(super) fn begin_proof(&mut self) {
        self.proving = true;
    }

    pub(super) fn has_proof(&self) -> bool {
        self.proven && self.sent.is_empty()
    }

    pub(super) fn describe(&self) -> String {
        let Self { index, session, state, last_zxid, answers, sent, proven, .. } = self;
        let waiting = sent.len();
        format!(
            "client {index}: {session} {state:?} {last_zxid:#x}, {answers} answers, \
             {waiting} waiting, proven {proven}"
        )
    }

    fn connection(&self) -> Option<u64> {
        match self.state {
            State::Down => None,
            State::Joining(connection) | State::Up(connection) => Some(connection),
        }
    }

    /// What was acknowledged is there.
    pub(super) fn check_end(&self, version: &Version) {
        for (path, zxid) in &self.created {
            let found = tree::znode(version, path);
            let found = found.unwrap_or_else(|| panic!("{path} was acknowledged, and is lost"));
            assert_eq!(found.stat().czxid.0, *zxid, "{path} is another one");
        }
        let alive = tree::session(version, self.session).is_some();
        for path in &self.ephemerals {
            let found = tree::znode(version, path);
            let owned = found.is_some_and(|found| found.owner() == Owner::Ephemeral(self.session));
            assert_eq!(owned, alive, "{path} of session {}, alive: {alive}", self.session);
        }
    }

    fn lose_session(&mut self) {
        self.session = SessionId::NONE;
        self.password = vec![0; 16];
        self.ephemerals.clear();
        self.floors.clear();
        self.last_zxid = 0;
    }
}

impl World {
    pub(super) fn on_wake(&mut self, index: usize) {
        let delay = MS + self.random.any() % (40 * MS);
        self.at(delay, Event::Wake(index));
        let client = &self.clients[index];
        match client.state {
            State::Down => self.connect_client(index),
            State::Joining(connection) | State::Up(connection)
                if self.now - client.heard_at > SILENCE =>
            {
                self.disconnect(index, connection);
            }
            State::Joining(_) => {}
            State::Up(connection) => self.ask(index, connection),
        }
    }

    fn connect_client(&mut self, index: usize) {
        let to = self.random.below(self.hosts.len());
        if self.hosts[to].paused || self.random.percent(50) {
            return;
        }
        let Some(id) = self.hosts[to].next_connection(&mut self.random) else { return };
        let connection = self.attachments.len() as u64;
        let life = self.hosts[to].life;
        let attachment =
            Attachment { client: index, host: to, life, id, arrives: [self.now; 2], closed: false };
        self.attachments.insert(connection, attachment);
        self.send_to_server(connection, ClientEvent::Accepted);
        let client = &mut self.clients[index];
        client.state = State::Joining(connection);
        client.heard_at = self.now;
        client.sent_at = self.now;
        client.input.clear();
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: client.last_zxid.cast_signed(),
            timeout_ms: TIMEOUT_MS,
            session: client.session,
            password: &client.password,
            read_only: Some(false),
        };
        let mut bytes = Vec::new();
        request.write(&mut bytes);
        self.send_to_server(connection, ClientEvent::Received(bytes));
    }

    /// The client closes.
    fn disconnect(&mut self, index: usize, connection: u64) {
        self.send_to_server(connection, ClientEvent::Closed);
        self.forget_connection(index, connection);
    }

    fn forget_connection(&mut self, index: usize, connection: u64) {
        self.attachments.get_mut(&connection).expect("it was there").closed = true;
        let client = &mut self.clients[index];
        client.state = State::Down;
        client.watches.clear();
        for asked in client.sent.drain(..) {
            // Whether it was done is not known.
            if let Kind::Ephemeral(path) = &asked.kind {
                client.ephemerals.retain(|other| other != path);
            }
        }
    }

    fn send_to_server(&mut self, connection: u64, event: ClientEvent) {
        let hop = self.hop();
        let attachment = self.attachments.get_mut(&connection).expect("it is there");
        let time = (self.now + hop).max(attachment.arrives[1] + 1);
        attachment.arrives[1] = time;
        let (host, life, id) = (attachment.host, attachment.life, attachment.id);
        self.at(time - self.now, Event::Host(host, life, host::Event::Client(id, event)));
    }

    /// A server sends to a client, or closes.
    pub(super) fn send_to_client(
        &mut self,
        host: usize,
        id: engine::ids::ConnectionId,
        bytes: Option<Vec<u8>>,
    ) {
        let life = self.hosts[host].life;
        let found = self.attachments.iter().rev().find(|(_, attachment)| {
            attachment.host == host && attachment.life == life && attachment.id == id
        });
        let Some((&connection, _)) = found else { return };
        let hop = self.hop();
        let attachment = self.attachments.get_mut(&connection).expect("it was just found");
        let time = (self.now + hop).max(attachment.arrives[0] + 1);
        attachment.arrives[0] = time;
        let client = attachment.client;
        self.at(time - self.now, Event::Client { client, connection, bytes });
    }

    /// A server is gone: its clients hear of it.
    pub(super) fn end_attachments(&mut self, host: usize, after: u64) {
        let life = self.hosts[host].life - 1;
        let ended: Vec<(u64, usize)> = self
            .attachments
            .iter()
            .filter(|(_, attachment)| attachment.host == host && attachment.life == life)
            .map(|(connection, attachment)| (*connection, attachment.client))
            .collect();
        for (connection, client) in ended {
            let delay = self.hop() + if after == 0 { 0 } else { self.random.any() % SECOND };
            self.at(delay, Event::Client { client, connection, bytes: None });
        }
    }

    pub(super) fn on_client(&mut self, index: usize, connection: u64, bytes: Option<Vec<u8>>) {
        if self.clients[index].connection() != Some(connection) {
            return;
        }
        let Some(bytes) = bytes else { return self.forget_connection(index, connection) };
        let client = &mut self.clients[index];
        client.heard_at = self.now;
        client.input.extend_from_slice(&bytes);
        loop {
            let client = &mut self.clients[index];
            let Some((prefix, rest)) = client.input.split_first_chunk::<4>() else { return };
            let len = usize::try_from(i32::from_be_bytes(*prefix)).expect("a length");
            if rest.len() < len || client.connection() != Some(connection) {
                return;
            }
            let frame: Vec<u8> = client.input.drain(..4 + len).skip(4).collect();
            if matches!(client.state, State::Joining(_)) {
                self.on_joined(index, connection, &frame);
            } else {
                self.on_frame(index, connection, &frame);
            }
        }
    }

    fn on_joined(&mut self, index: usize, connection: u64, frame: &[u8]) {
        let now = self.now;
        let client = &mut self.clients[index];
        let response = ConnectResponse::decode(frame).expect("a response");
        if response.session == SessionId::NONE || response.timeout_ms <= 0 {
            let silent = now - client.alive_at;
            let timeout = TIMEOUT_MS as u64 * MS;
            // A leader whose clock is ahead has seen more time pass than there was.
            let jumped = self.jumped_at.is_some_and(|at| now - at < timeout);
            assert!(
                silent >= timeout / 2 || jumped,
                "client {index}: session {} expired {} ms after a sign of life",
                client.session,
                silent / MS
            );
            client.lose_session();
            return self.disconnect(index, connection);
        }
        if client.session != SessionId::NONE {
            assert_eq!(client.session, response.session);
        }
        client.session = response.session;
        client.password = response.password.to_vec();
        client.state = State::Up(connection);
        client.alive_at = client.sent_at;
        self.checks.on_session(response.session, index);
    }

    fn on_frame(&mut self, index: usize, connection: u64, frame: &[u8]) {
        let mut reader = Reader::new(frame);
        let header = ReplyHeader::read(&mut reader).expect("a header");
        if header.xid == Xid(-1) {
            let event = WatchEvent::read(&mut reader).expect("an event");
            let key = event.path.trim_start_matches("/k").parse().expect("a key's path");
            let was = self.clients[index].watches.remove(&key);
            assert!(was.is_some(), "client {index}: an event of {key} without a watch");
            return;
        }
        self.tell(|| {
            let kind = self.clients[index].sent.front().map(|asked| &asked.kind);
            format!("client {index}: {:#x}, code {}, {kind:?}", header.zxid, header.err)
        });
        let (host, life) = {
            let attachment = &self.attachments[&connection];
            (attachment.host, attachment.life)
        };
        let client = &mut self.clients[index];
        let asked = client.sent.pop_front().expect("a reply to nothing");
        assert_eq!(header.xid.0, asked.xid, "replies come in the order of requests");
        client.alive_at = client.alive_at.max(asked.at);
        client.answers += 1;
        self.stats.answers += 1;
        let zxid = header.zxid.cast_unsigned();
        if header.zxid > 0 {
            assert!(
                zxid >= client.last_zxid,
                "client {index} saw {:#x}, now {zxid:#x}",
                client.last_zxid
            );
            client.last_zxid = zxid;
        }
        let answer = Answer { zxid, err: header.err, body: reader.rest(), host: (host, life) };
        let seen = self.checks.on_answer(index, &asked, &answer);
        let client = &mut self.clients[index];
        if let Some((key, mzxid)) = seen {
            let floor = client.floors.entry(key).or_default();
            assert!(
                mzxid >= *floor,
                "client {index}: {key} went back from {floor:#x} to {mzxid:#x}"
            );
            *floor = mzxid;
            if let Some(watched) = client.watches.get(&key) {
                assert!(mzxid <= *watched, "client {index}: news of {key} before its event");
            }
            if let Kind::Get { watch: true, .. } = asked.kind {
                client.watches.entry(key).or_insert(mzxid);
            }
        }
        match asked.kind {
            Kind::Create(path) if header.err == 0 => {
                client.proven |= asked.proves;
                client.created.push((path, zxid));
            }
            Kind::Ephemeral(path) if header.err != 0 => {
                client.ephemerals.retain(|other| *other != path);
            }
            _ => {}
        }
    }

    /// Asks for something.
    fn ask(&mut self, index: usize, connection: u64) {
        let client = &self.clients[index];
        if client.sent.len() > 4 || client.proven {
            if self.now - client.sent_at > SECOND {
                self.request(index, connection, Kind::Ping);
            }
            return;
        }
        if client.proving {
            let path = self.fresh_path(index, "p");
            return self.request(index, connection, Kind::Create(path));
        }
        let count = 1 + self.random.below(3);
        for _ in 0..count {
            let key = self.random.below(KEYS);
            let kind = match self.random.below(100) {
                0..10 => Kind::CreateKey(key),
                10..35 => Kind::Create(self.fresh_path(index, "c")),
                35..42 => Kind::Ephemeral(self.fresh_path(index, "e")),
                42..65 => {
                    let client = &mut self.clients[index];
                    client.next_number += 1;
                    Kind::Set { key, value: client.next_number * 100 + index as u64 }
                }
                65..75 => Kind::Sync(key),
                _ => Kind::Get { key, watch: self.random.percent(40), behind_sync: false },
            };
            let synced = matches!(kind, Kind::Sync(_));
            self.request(index, connection, kind);
            if synced {
                let kind = Kind::Get { key, watch: false, behind_sync: true };
                self.request(index, connection, kind);
            }
        }
    }

    fn fresh_path(&mut self, index: usize, prefix: &str) -> String {
        let client = &mut self.clients[index];
        client.next_number += 1;
        format!("/{prefix}{index}-{}", client.next_number)
    }

    fn request(&mut self, index: usize, connection: u64, kind: Kind) {
        let client = &mut self.clients[index];
        client.next_xid += 1;
        let (op, body) = encode(&kind);
        let xid = if op == OpCode::Ping { -2 } else { client.next_xid };
        if let Kind::Ephemeral(path) = &kind {
            client.ephemerals.push(path.clone());
        }
        let proves = client.proving;
        let floor = match &kind {
            Kind::Get { key, behind_sync: true, .. } => {
                self.checks.synced_floor(*key, &client.sent)
            }
            _ => 0,
        };
        let attachment = &self.attachments[&connection];
        let host = (attachment.host, attachment.life);
        let asked = self.checks.ask(xid, kind, self.now, proves, host, floor);
        client.sent.push_back(asked);
        client.sent_at = self.now;
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        let frame = writer.begin_part();
        writer.i32(xid);
        writer.i32(op.to_wire());
        writer.bytes(&body);
        writer.end_part(frame);
        self.send_to_server(connection, ClientEvent::Received(bytes));
    }
}

fn encode(kind: &Kind) -> (OpCode, Vec<u8>) {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    let mut create = |path: &str, data: &str, flags: i32| {
        writer.string(path);
        writer.string(data);
        writer.count(1);
        writer.i32(31);
        writer.string("world");
        writer.string("anyone");
        writer.i32(flags);
    };
    let op = match kind {
        Kind::Ping => OpCode::Ping,
        Kind::CreateKey(key) => {
            create(&key_path(*key), "0", 0);
            OpCode::Create
        }
        Kind::Create(path) => {
            create(path, "c", 0);
            OpCode::Create
        }
        Kind::Ephemeral(path) => {
            create(path, "e", 1);
            OpCode::Create
        }
        Kind::Set { key, value } => {
            writer.string(&key_path(*key));
            writer.string(&value.to_string());
            writer.i32(-1);
            OpCode::SetData
        }
        Kind::Sync(key) => {
            writer.string(&key_path(*key));
            OpCode::Sync
        }
        Kind::Get { key, watch, .. } => {
            writer.string(&key_path(*key));
            writer.bool(*watch);
            OpCode::GetData
        }
    };
    (op, body)
}
