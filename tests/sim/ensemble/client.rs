//! Simulated clients: they keep a session, ask for things at random, and check what they hear.

mod asks;
mod hears;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use engine::btree::Version;
use engine::ids::SessionId;
use engine::records::{ConnectRequest, ConnectResponse};
use engine::tree::{self, Owner};

use super::checks::{Asked, Checks};
use super::host::{self, ClientEvent};
use super::requests::Kind;
use super::{Attachment, Event, MS, SECOND, World};
use crate::sim::random::Random;
use hears::Watch;

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
    /// The session's end was asked for, on this connection or on one before.
    closing: bool,
    may_be_over: bool,
    /// Watches that there are, and up to where they have told everything.
    watches: BTreeMap<(Watch, String), u64>,
    /// The highest version of each key that it has seen.
    versions: BTreeMap<usize, i32>,
    /// What was created for good, and by which transaction.
    created: BTreeMap<String, u64>,
    /// What was to be created for good on each connection that was lost before the answers came,
    /// in order, and when it was asked for.
    unanswered: Vec<Vec<(u64, String)>>,
    /// Ephemerals of the session.
    ephemerals: BTreeSet<String>,
    /// What must not be there: it was deleted, or was part of what failed.
    gone: Vec<String>,
    /// Sessions that it was told are over, at its own request.
    closed: Vec<SessionId>,
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
            closing: false,
            may_be_over: false,
            watches: BTreeMap::new(),
            versions: BTreeMap::new(),
            created: BTreeMap::new(),
            unanswered: Vec::new(),
            ephemerals: BTreeSet::new(),
            gone: Vec::new(),
            closed: Vec::new(),
            proving: false,
            proven: false,
            answers: 0,
        }
    }

    /// From now on, it only wants to be served once.
    pub(super) fn begin_proof(&mut self) {
        (self.proving, self.proven) = (true, false);
    }

    /// It works as before.
    pub(super) fn end_proof(&mut self) {
        (self.proving, self.proven) = (false, false);
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

    /// What was acknowledged is there. Of what has no answer, nothing was done without what the
    /// client had sent before.
    pub(super) fn check_end(&self, version: &Version, checks: &Checks) {
        for sent in &self.unanswered {
            let is_there = |(_, path): &(u64, String)| tree::znode(version, path).is_some();
            let done = sent.iter().rposition(is_there).unwrap_or(0);
            // Those in a directory may have been asked for before it was there.
            let must_be = |(at, path): &&(u64, String)| {
                path.rfind('/') == Some(0) && !checks.may_have_refused(*at)
            };
            let missing = sent[..done].iter().filter(must_be).find(|asked| !is_there(asked));
            let index = self.index;
            assert!(missing.is_none(), "client {index}: {:?} without {missing:?}", sent[done]);
        }
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
        for path in &self.gone {
            assert!(tree::znode(version, path).is_none(), "{path} is there again");
        }
        for session in self.closed.iter().filter(|_| !checks.ids_may_repeat) {
            assert!(tree::session(version, *session).is_none(), "session {session} was closed");
        }
    }

    fn lose_session(&mut self) {
        self.session = SessionId::NONE;
        self.password = vec![0; 16];
        (self.closing, self.may_be_over) = (false, false);
        self.ephemerals.clear();
        self.watches.clear();
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
        if index.is_multiple_of(2) {
            // Some libraries number the requests of each connection from one (kazoo), others go on.
            client.next_xid = 0;
        }
        let request = ConnectRequest {
            last_zxid_seen: client.last_zxid.cast_signed(),
            session: client.session,
            password: &client.password,
            ..ConnectRequest::new_session(self.options.timeout_ms)
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
        // Whether what is unanswered was done is not known.
        let creates = client.sent.drain(..).filter_map(|asked| match asked.kind {
            Kind::Create(path) => Some((asked.at, path)),
            _ => None,
        });
        let creates: Vec<_> = creates.collect();
        client.unanswered.extend((creates.len() > 1).then_some(creates));
        client.may_be_over |= std::mem::take(&mut client.closing);
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
        let silent = self.time_since(self.clients[index].alive_at);
        let client = &mut self.clients[index];
        let response = ConnectResponse::decode(frame).expect("a response");
        if response.session == SessionId::NONE || response.timeout_ms <= 0 {
            let timeout = self.options.timeout_ms as u64 * MS;
            // A leader whose clock is ahead has seen more time pass than there was.
            let jumped = self.jumped_at.is_some_and(|at| now - at < timeout);
            let is_early = silent < timeout / 2 && !jumped && !self.touches_were_late;
            assert!(
                !is_early || client.may_be_over,
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
        self.watch_again(index, connection);
    }
}
