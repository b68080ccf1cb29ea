//! What must hold, whatever happens: looked at when a server publishes and when a client hears.
//!
//!   * the state after a transaction is the same on all servers
//!   * what was acknowledged is not lost (clients know what they were told, see `check_end`)
//!   * a write that begins when another one has been acknowledged comes behind it
//!   * what a server has shown to one client it does not withhold from another that asks later
//!   * a read behind a sync sees all that was acknowledged before the sync began
//!   * a value belongs to one transaction only
//!
//! Sessions and what they see in order are checked where it is heard, by the client.

use std::collections::{BTreeMap, VecDeque};

use engine::btree::Version;
use engine::error_code::ErrorCode;
use engine::ids::SessionId;
use engine::jute::Reader;
use engine::order::Batch;
use engine::tree;
use engine::zxid::Zxid;

/// What a client may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whether anybody is there.
    Ping,
    /// One of the keys that all share.
    CreateKey(usize),
    /// A path that nobody else uses, and that stays.
    Create(String),
    /// The same, while the session lives.
    Ephemeral(String),
    /// A value that nobody else writes.
    Set {
        /// Of this key.
        key: usize,
        /// The value.
        value: u64,
    },
    /// A sync.
    Sync(usize),
    /// The value of a key.
    Get {
        /// The key.
        key: usize,
        /// Leaves a watch.
        watch: bool,
        /// A sync was sent right before.
        behind_sync: bool,
    },
}

/// A request on its way.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its number.
    pub xid: i32,
    /// What it asks.
    pub kind: Kind,
    /// When it was sent.
    pub at: u64,
    /// The faults were over by then.
    pub proves: bool,
    /// The last write that anybody knew of when it was sent.
    behind: u64,
    /// The last change of the key that may not be missing from the answer.
    floor: u64,
}

/// The answer to one.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// As the header says.
    pub zxid: u64,
    /// As the header says.
    pub err: i32,
    /// What follows.
    pub body: &'a [u8],
    /// Which server, in which of its lives.
    pub host: (usize, u32),
}

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Checks {
    /// By zxid, and who saw it first.
    digests: BTreeMap<Zxid, (u64, usize)>,
    /// The highest zxid of a write that was acknowledged.
    acknowledged: u64,
    /// By key.
    changed: BTreeMap<usize, u64>,
    values: BTreeMap<(usize, u64), u64>,
    /// By server, life and key: the last change that somebody has seen there.
    shown: BTreeMap<(usize, u32, usize), u64>,
    sessions: BTreeMap<SessionId, usize>,
}

impl Checks {
    /// A server publishes.
    pub fn on_batch(&mut self, host: usize, batch: &Batch) {
        for segment in &batch.segments {
            self.on_published(host, &segment.version);
        }
    }

    /// A server shows this version.
    pub fn on_published(&mut self, host: usize, version: &Version) {
        let digest = tree::digest(version);
        let (first, by) = *self.digests.entry(version.zxid()).or_insert((digest, host));
        assert_eq!(
            first,
            digest,
            "servers {} and {} differ at {}",
            by + 1,
            host + 1,
            version.zxid()
        );
    }

    /// A session belongs to one client.
    pub fn on_session(&mut self, session: SessionId, client: usize) {
        let owner = *self.sessions.entry(session).or_insert(client);
        assert_eq!(owner, client, "session {session} is given twice");
    }

    /// A request leaves.
    pub fn ask(
        &mut self,
        xid: i32,
        kind: Kind,
        at: u64,
        proves: bool,
        host: (usize, u32),
        synced: u64,
    ) -> Asked {
        let shown = match kind {
            Kind::Get { key, .. } => self.shown.get(&(host.0, host.1, key)).copied(),
            _ => None,
        };
        let mut floor = synced.max(shown.unwrap_or(0));
        if let Kind::Sync(key) = kind {
            floor = self.changed.get(&key).copied().unwrap_or(0);
        }
        Asked { xid, kind, at, proves, behind: self.acknowledged, floor }
    }

    /// What a read behind the last sync in `sent` must have seen.
    pub fn synced_floor(&self, key: usize, sent: &VecDeque<Asked>) -> u64 {
        let sync = sent.iter().rev().find(|asked| asked.kind == Kind::Sync(key));
        sync.map_or(0, |asked| asked.floor)
    }

    /// An answer comes; a key that it speaks of, and the key's last change.
    pub fn on_answer(
        &mut self,
        client: usize,
        asked: &Asked,
        answer: &Answer<'_>,
    ) -> Option<(usize, u64)> {
        if answer.err != 0 {
            self.check_error(client, asked, answer);
            return None;
        }
        let seen = match &asked.kind {
            Kind::Ping | Kind::Sync(_) => return None,
            Kind::Create(_) | Kind::Ephemeral(_) => None,
            Kind::CreateKey(key) => {
                self.note_value(*key, answer.zxid, 0);
                Some((*key, answer.zxid))
            }
            Kind::Set { key, value } => {
                let mzxid = stat_mzxid(&mut Reader::new(answer.body));
                assert_eq!(mzxid, answer.zxid, "client {client}: a set of another transaction");
                self.note_value(*key, mzxid, *value);
                Some((*key, mzxid))
            }
            Kind::Get { key, .. } => return Some(self.on_read(client, *key, asked, answer)),
        };
        assert!(
            answer.zxid > asked.behind,
            "client {client}: {asked:?} comes at {:#x}, behind what began after it",
            answer.zxid
        );
        self.acknowledged = self.acknowledged.max(answer.zxid);
        if let Some((key, mzxid)) = seen {
            let changed = self.changed.entry(key).or_default();
            *changed = mzxid.max(*changed);
            self.show(answer.host, key, mzxid);
        }
        seen
    }

    fn on_read(
        &mut self,
        client: usize,
        key: usize,
        asked: &Asked,
        answer: &Answer<'_>,
    ) -> (usize, u64) {
        let mut reader = Reader::new(answer.body);
        let data = reader.buf().expect("data").expect("some data");
        let value = str::from_utf8(data).expect("text").parse().expect("a number");
        let mzxid = stat_mzxid(&mut reader);
        assert!(mzxid <= answer.zxid, "client {client}: a value of the future");
        assert!(
            mzxid >= asked.floor,
            "client {client}: {asked:?} sees {mzxid:#x} at server {}",
            answer.host.0 + 1
        );
        self.note_value(key, mzxid, value);
        self.show(answer.host, key, mzxid);
        (key, mzxid)
    }

    fn show(&mut self, (host, life): (usize, u32), key: usize, mzxid: u64) {
        let shown = self.shown.entry((host, life, key)).or_default();
        *shown = mzxid.max(*shown);
    }

    fn note_value(&mut self, key: usize, mzxid: u64, value: u64) {
        let known = *self.values.entry((key, mzxid)).or_insert(value);
        assert_eq!(known, value, "key {key} has two values at {mzxid:#x}");
    }

    fn check_error(&self, client: usize, asked: &Asked, answer: &Answer<'_>) {
        let code = ErrorCode::from_wire(answer.err).expect("a known code");
        let fits = match (&asked.kind, code) {
            (Kind::CreateKey(_), ErrorCode::NodeExists) => true,
            (Kind::Set { .. } | Kind::Get { .. }, ErrorCode::NoNode) => asked.floor == 0,
            (_, ErrorCode::SessionExpired | ErrorCode::SessionMoved) => true,
            _ => false,
        };
        assert!(fits, "client {client}: {asked:?} was answered with {code:?}");
    }
}

fn stat_mzxid(reader: &mut Reader<'_>) -> u64 {
    reader.i64().expect("czxid");
    reader.i64().expect("mzxid").cast_unsigned()
}
