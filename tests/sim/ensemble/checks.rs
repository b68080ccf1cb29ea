//! What must hold, whatever happens: looked at when a server publishes and when a client hears.
//!
//!   * the state after a transaction is the same on all servers, and so are the events it leads to
//!   * what was acknowledged is not lost (clients know what they were told, see `check_end`)
//!   * an epoch has one leader, which begins with all that was acknowledged before
//!   * a write that begins when another one has been acknowledged comes behind it
//!   * what a server has shown to one client it does not withhold from another that asks later
//!   * a read behind a sync sees all that was acknowledged before the sync began; where a sync does
//!     not prove that its leader still leads, as ZooKeeper's does not, all of that leader's epoch
//!   * a read shows no state older than the zxid that comes with it
//!   * of what a client has sent on a connection, nothing is done without what it had sent before
//!     (see `check_end`)
//!   * a value, a version and a number of a sequence belong to one transaction only; what a multi
//!     that failed would have written is never there
//!
//! Sessions, their watches and what they see in order are checked where it is heard, by the client.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use engine::btree::Version;
use engine::error_code::ErrorCode;
use engine::ids::{SessionId, Xid};
use engine::jute::Reader;
use engine::order::Batch;
use engine::tree::{self, EventType, Owner};
use engine::zxid::{Epoch, Zxid};

use super::fold;
use super::requests::{Kind, dir_path, key_path};

/// A request on its way.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its number.
    pub xid: Xid,
    /// What it asks.
    pub kind: Kind,
    /// When it was sent.
    pub at: u64,
    /// The faults were over by then.
    pub proves: bool,
    /// The last write that anybody knew of when it was sent.
    behind: u64,
    /// The answer may not come from a state before this.
    floor: u64,
    /// Nor before this, which a sync has asked for.
    synced: u64,
}

/// The answer to one.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// As the header says.
    pub zxid: u64,
    /// As the header says, or the first error of a multi.
    pub err: i32,
    /// What follows.
    pub body: &'a [u8],
    /// Which server, in which of its lives.
    pub host: (usize, u32),
}

/// The parts of a stat that are looked at.
#[derive(Clone, Copy, Debug)]
struct Seen {
    mzxid: u64,
    version: i32,
    num_children: i32,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Checks {
    /// By zxid, and who saw it first.
    digests: BTreeMap<Zxid, (u64, usize)>,
    /// By zxid: a hash of the events.
    effects: BTreeMap<Zxid, u64>,
    /// By path: the events that are known.
    changes: BTreeMap<String, BTreeMap<u64, EventType>>,
    /// The highest zxid of a write that was acknowledged.
    acknowledged: u64,
    /// The same of each epoch.
    acknowledged_in: BTreeMap<Epoch, u64>,
    /// By epoch: which server led it, in which of its lives, and where its history ended then.
    leaders: BTreeMap<Epoch, ((usize, u32), Zxid)>,
    /// By key and transaction, by key and version.
    values: BTreeMap<(usize, u64), u64>,
    versions: BTreeMap<(usize, i32), u64>,
    /// By directory and number.
    sequences: BTreeMap<(String, u64), u64>,
    /// Values that must never be there.
    voided: BTreeSet<u64>,
    /// By server and life: the last zxid that it has told anybody.
    told: BTreeMap<(usize, u32), u64>,
    sessions: BTreeMap<SessionId, usize>,
    /// Syncs prove that the leader still leads.
    proves_leader: bool,
    /// Disks may be full: what grows may be refused if it was asked for before this.
    may_refuse_until: u64,
    /// A wall clock went back: a server that starts again may give the id of a session that is
    /// over to another one.
    pub ids_may_repeat: bool,
}

impl Checks {
    /// Nothing was seen yet; whether syncs prove that the leader still leads.
    pub fn new(proves_leader: bool) -> Self {
        Self { proves_leader, ..Self::default() }
    }

    /// Whether what grows may have been refused if it was asked for then.
    pub fn may_have_refused(&self, at: u64) -> bool {
        at < self.may_refuse_until
    }

    /// A server publishes.
    pub fn on_batch(&mut self, host: usize, batch: &Batch) {
        for segment in &batch.segments {
            for item in segment.items.iter().filter(|item| !item.triggers.is_empty()) {
                let triggers = &batch.effects.triggers[item.triggers.clone()];
                let hash = triggers.iter().fold(0, |hash, trigger| {
                    let path = batch.effects.path(trigger);
                    fold(hash ^ u64::from(trigger.event.to_wire().cast_unsigned()), path.as_bytes())
                });
                if let Some(known) = self.effects.insert(item.zxid, hash) {
                    let server = host + 1;
                    assert_eq!(known, hash, "server {server}: other events at {}", item.zxid);
                    continue;
                }
                for trigger in triggers {
                    let path = batch.effects.path(trigger).to_owned();
                    self.changes.entry(path).or_default().insert(item.zxid.0, trigger.event);
                }
            }
            self.on_published(host, &segment.version);
        }
    }

    /// A server is established as the leader of an epoch, with a history that ends there.
    pub fn on_leader(&mut self, host: (usize, u32), epoch: Epoch, end: Zxid) {
        let server = host.0 + 1;
        // One that was paused may learn late that it leads, when a later epoch has begun.
        let earlier = self.acknowledged_in.range(..epoch).next_back();
        let acknowledged = Zxid(earlier.map_or(0, |(_, zxid)| *zxid));
        assert!(
            end >= acknowledged,
            "server {server} leads epoch {} with a history to {end}; {acknowledged} was \
             acknowledged",
            epoch.0
        );
        let (leader, _) = *self.leaders.entry(epoch).or_insert((host, end));
        let other = leader.0 + 1;
        assert!(leader == host, "servers {other} and {server} lead epoch {}", epoch.0);
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

    /// Disks are full, or taken to be, until then.
    pub fn may_refuse_until(&mut self, until: u64) {
        self.may_refuse_until = self.may_refuse_until.max(until);
    }

    /// A session belongs to one client.
    pub fn on_session(&mut self, session: SessionId, client: usize) {
        let owner = *self.sessions.entry(session).or_insert(client);
        let fits = owner == client || self.ids_may_repeat;
        assert!(fits, "session {session} is given twice");
    }

    /// Ephemerals have a session that lives, or are not there.
    pub fn check_ephemerals(&self, version: &Version) {
        for session in self.sessions.keys() {
            if tree::session(version, *session).is_none() {
                let left = tree::ephemerals(version, *session).next_path().map(str::to_owned);
                assert_eq!(left, None, "an ephemeral of session {session}, which is over");
            }
        }
        for path in self.changes.keys() {
            let owner = tree::znode(version, path).map(|found| found.owner());
            if let Some(Owner::Ephemeral(session)) = owner {
                let lives = tree::session(version, session).is_some();
                assert!(lives, "{path} of session {session}, which is over");
            }
        }
    }

    /// A request leaves.
    pub fn ask(
        &mut self,
        xid: Xid,
        kind: Kind,
        at: u64,
        proves: bool,
        host: (usize, u32),
        sent: &VecDeque<Asked>,
    ) -> Asked {
        if let Kind::Multi { value, spoiled: true, .. } = kind {
            self.voided.insert(value);
        }
        let is_sync = |asked: &&Asked| matches!(asked.kind, Kind::Sync(_));
        let (floor, synced) = match kind {
            Kind::Sync(_) => (0, self.acknowledged),
            _ if kind.reads() => {
                let synced = sent.iter().rev().find(is_sync).map_or(0, |asked| asked.synced);
                (self.told.get(&host).copied().unwrap_or(0), synced)
            }
            _ => (0, 0),
        };
        Asked { xid, kind, at, proves, behind: self.acknowledged, floor, synced }
    }

    /// A server tells somebody of this zxid. The beginning of an epoch is no transaction: who led
    /// and follows again may have the same state under the zxid before it.
    pub fn tell(&mut self, host: (usize, u32), zxid: u64) {
        if Zxid(zxid).counter() == 0 {
            return;
        }
        let told = self.told.entry(host).or_default();
        *told = zxid.max(*told);
    }

    /// The first change of a path behind `base`, up to `zxid`, that a watch is told of.
    pub fn missed(&self, path: &str, base: u64, zxid: u64, children: bool) -> Option<u64> {
        if base >= zxid {
            return None;
        }
        let changes = self.changes.get(path)?.range(base + 1..=zxid);
        let is_child = |event: &EventType| *event == EventType::NodeChildrenChanged;
        changes.filter(|(_, event)| is_child(event) == children).map(|(zxid, _)| *zxid).next()
    }

    fn last_change(&self, path: &str, zxid: u64) -> Option<(u64, EventType)> {
        let mut changes = self.changes.get(path)?.range(..=zxid).rev();
        let own = changes.find(|(_, event)| **event != EventType::NodeChildrenChanged);
        own.map(|(zxid, event)| (*zxid, *event))
    }

    /// An answer comes.
    pub fn on_answer(&mut self, client: usize, asked: &Asked, answer: &Answer<'_>) {
        let makes_txn = asked.kind.writes() && !is_refusal(answer.err);
        let zxid = answer.zxid;
        if makes_txn {
            let behind = asked.behind;
            assert!(zxid > behind, "client {client}: {asked:?} comes at {zxid:#x}, too early");
            let epoch = Epoch(Zxid(zxid).epoch().0 + 1);
            if let Some((later, (_, end))) = self.leaders.range(epoch..).next() {
                let later = later.0;
                assert!(Zxid(zxid) <= *end, "{zxid:#x} is not in what epoch {later} begins with");
            }
            self.acknowledged = self.acknowledged.max(zxid);
            let of_epoch = self.acknowledged_in.entry(Zxid(zxid).epoch()).or_default();
            *of_epoch = zxid.max(*of_epoch);
        }
        if asked.kind.reads() && !is_refusal(answer.err) {
            // A leader that was replaced, and does not know it, may have answered the sync.
            let is_old = Zxid(zxid).epoch() < Zxid(asked.synced).epoch();
            let synced = if is_old && !self.proves_leader { 0 } else { asked.synced };
            let (floor, server) = (asked.floor.max(synced), answer.host.0 + 1);
            assert!(
                zxid >= floor,
                "client {client}: {asked:?} sees {zxid:#x} at server {server}, behind {floor:#x}"
            );
        }
        if answer.err != 0 {
            return self.check_error(client, asked, answer);
        }
        let mut reader = Reader::new(answer.body);
        match &asked.kind {
            Kind::CreateKey(key) => self.note_value(*key, zxid, 0),
            Kind::Set { key, value, version } => {
                let seen = read_stat(&mut reader);
                assert_eq!(seen.mzxid, zxid, "client {client}: a set of another transaction");
                let fits = version.is_none_or(|version| seen.version == version + 1);
                assert!(fits, "client {client}: {asked:?} made version {}", seen.version);
                self.note_value(*key, zxid, *value);
                self.note_version(*key, seen);
            }
            Kind::Multi { key, value, spoiled, .. } => {
                assert!(!spoiled, "client {client}: {asked:?} succeeds");
                self.note_value(*key, zxid, *value);
            }
            Kind::Sequential(prefix) => self.on_sequential(prefix, &mut reader, zxid),
            Kind::Get { key, .. } => {
                let data = reader.buf().expect("data").expect("some data");
                let value = str::from_utf8(data).expect("text").parse().expect("a number");
                let seen = self.check_stat(client, *key, asked, zxid, &mut reader);
                self.note_value(*key, seen.mzxid, value);
            }
            Kind::Exists { key, .. } => {
                self.check_stat(client, *key, asked, zxid, &mut reader);
            }
            Kind::Children { dir, .. } => self.check_children(client, *dir, answer),
            _ => {}
        }
    }

    fn on_sequential(&mut self, prefix: &str, reader: &mut Reader<'_>, zxid: u64) {
        let path = reader.string("path").expect("a path");
        let number = path.strip_prefix(prefix).expect("it begins as it was asked to");
        let number: u64 = number.parse().expect("a number");
        let parent = prefix.rsplit_once('/').expect("it has one").0.to_owned();
        let (low, high) = ((parent.clone(), 0), (parent.clone(), u64::MAX));
        let before = self.sequences.range(low..(parent.clone(), number)).next_back();
        assert!(before.is_none_or(|(_, at)| *at < zxid), "{path} is out of order");
        let behind = self.sequences.range((parent.clone(), number)..=high).next();
        assert!(behind.is_none_or(|(_, at)| *at > zxid), "{path} is out of order");
        self.sequences.insert((parent, number), zxid);
    }

    /// A stat shows the last change that its state has.
    fn check_stat(
        &mut self,
        client: usize,
        key: usize,
        asked: &Asked,
        zxid: u64,
        reader: &mut Reader<'_>,
    ) -> Seen {
        let seen = read_stat(reader);
        assert!(seen.mzxid <= zxid, "client {client}: a value of the future");
        let last = self.last_change(&key_path(key), zxid).map_or(0, |(zxid, _)| zxid);
        let mzxid = seen.mzxid;
        assert!(mzxid >= last, "client {client}: {asked:?} at {zxid:#x} sees {mzxid:#x}");
        self.note_version(key, seen);
        seen
    }

    fn check_children(&self, client: usize, dir: usize, answer: &Answer<'_>) {
        let mut reader = Reader::new(answer.body);
        let names = read_names(&mut reader);
        let count = read_stat(&mut reader).num_children;
        assert_eq!(names.len(), count as usize, "client {client}: a stat of another state");
        for name in names {
            let path = format!("{}/{name}", dir_path(dir));
            let gone = self.last_change(&path, answer.zxid);
            let gone = gone.is_some_and(|(_, event)| event == EventType::NodeDeleted);
            assert!(!gone, "client {client}: {path} at {:#x}, which was deleted", answer.zxid);
        }
    }

    fn note_value(&mut self, key: usize, mzxid: u64, value: u64) {
        assert!(!self.voided.contains(&value), "key {key}: {value} of a multi that failed");
        let known = *self.values.entry((key, mzxid)).or_insert(value);
        assert_eq!(known, value, "key {key} has two values at {mzxid:#x}");
    }

    fn note_version(&mut self, key: usize, seen: Seen) {
        let Seen { mzxid, version, .. } = seen;
        let known = *self.versions.entry((key, version)).or_insert(mzxid);
        assert_eq!(known, mzxid, "key {key}: version {version} of two transactions");
    }

    fn check_error(&self, client: usize, asked: &Asked, answer: &Answer<'_>) {
        let code = ErrorCode::from_wire(answer.err).expect("a known code");
        // Keys and directories are never deleted.
        let lacks = |path: &str| self.last_change(path, answer.zxid).is_none();
        let parent = |path: &str| {
            let parent = path.rsplit_once('/').expect("it has one").0;
            !parent.is_empty() && lacks(parent)
        };
        let fits = match (&asked.kind, code) {
            (_, ErrorCode::SessionExpired | ErrorCode::SessionMoved) => true,
            (Kind::CreateKey(_) | Kind::CreateDir(_), ErrorCode::NodeExists) => true,
            (
                Kind::Create(path) | Kind::Ephemeral(path) | Kind::Sequential(path),
                ErrorCode::NoNode,
            ) => parent(path),
            (Kind::Multi { spoiled: true, .. }, ErrorCode::NoNode) => true,
            (
                Kind::Set { key, .. }
                | Kind::Multi { key, .. }
                | Kind::Get { key, .. }
                | Kind::Exists { key, .. },
                ErrorCode::NoNode,
            ) => lacks(&key_path(*key)),
            (Kind::Children { dir, .. }, ErrorCode::NoNode) => lacks(&dir_path(*dir)),
            (Kind::Set { version: Some(_), .. }, ErrorCode::BadVersion) => true,
            (Kind::Delete(_) | Kind::CloseSession, _) => false,
            (kind, ErrorCode::SystemError) => self.may_have_refused(asked.at) && kind.writes(),
            _ => false,
        };
        assert!(fits, "client {client}: {asked:?} was answered with {code:?}");
    }
}

/// Whether nothing was done about a request.
pub fn is_refusal(err: i32) -> bool {
    let refusals = [ErrorCode::SessionExpired, ErrorCode::SessionMoved, ErrorCode::SystemError];
    refusals.iter().any(|code| code.to_wire() == err)
}

/// A list of names.
pub fn read_names(reader: &mut Reader<'_>) -> Vec<String> {
    let count = reader.count(4).expect("a count").unwrap_or(0);
    (0..count).map(|_| reader.string("name").expect("a name").into_owned()).collect()
}

fn read_stat(reader: &mut Reader<'_>) -> Seen {
    let mut i64 = |what| reader.i64().expect(what);
    i64("czxid");
    let mzxid = i64("mzxid").cast_unsigned();
    i64("ctime");
    i64("mtime");
    let version = reader.i32().expect("version");
    reader.i64().expect("cversion and aversion");
    reader.i64().expect("owner");
    reader.i32().expect("length");
    let num_children = reader.i32().expect("children");
    Seen { mzxid, version, num_children }
}

/// The version that a stat behind data, or alone, shows.
pub fn version_in(body: &[u8], behind_data: bool) -> i32 {
    let mut reader = Reader::new(body);
    if behind_data {
        reader.buf().expect("data");
    }
    read_stat(&mut reader).version
}
