//! What a client hears: answers in the order of its requests, and events in front of them.

use engine::jute::Reader;
use engine::records::{MultiHeader, NOTIFICATION_XID, ReplyHeader, WatchEvent};
use engine::tree::EventType;

use super::{Client, World};
use crate::sim::ensemble::checks::{Answer, Asked, is_refusal, read_names, version_in};
use crate::sim::ensemble::requests::{Kind, dir_path, key_path};

/// A kind of watch; the order is that of the lists in `SetWatches`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Watch {
    /// For the next change of data.
    Data,
    /// For the creation.
    Exist,
    /// For the next change of the children.
    Child,
    /// For each change.
    Persistent,
}

impl World {
    pub(super) fn on_frame(&mut self, index: usize, connection: u64, frame: &[u8]) {
        let mut reader = Reader::new(frame);
        let header = ReplyHeader::read(&mut reader).expect("a header");
        let attachment = &self.attachments[&connection];
        let host = (attachment.host, attachment.life);
        let zxid = u64::try_from(header.zxid).unwrap_or(0);
        self.checks.tell(host, zxid);
        if header.xid == NOTIFICATION_XID {
            let event = WatchEvent::read(&mut reader).expect("an event");
            self.tell(|| format!("client {index}: event {event:?} {zxid:#x}"));
            return self.clients[index].on_event(event.kind, &event.path, zxid);
        }
        self.tell(|| {
            let kind = self.clients[index].sent.front().map(|asked| &asked.kind);
            format!("client {index}: {:#x}, code {}, {kind:?}", header.zxid, header.err)
        });
        let client = &mut self.clients[index];
        let asked = client.sent.pop_front().expect("a reply to nothing");
        assert_eq!(header.xid, asked.xid, "replies come in the order of requests");
        client.alive_at = client.alive_at.max(asked.at);
        client.answers += 1;
        *self.stats.answers.entry(asked.kind.name()).or_default() += 1;
        let body = reader.rest();
        let err = match asked.kind {
            Kind::Multi { .. } if header.err == 0 => multi_error(body),
            _ => header.err,
        };
        client.check_order(&asked, zxid, err);
        let answer = Answer { zxid, err, body, host };
        self.checks.on_answer(index, &asked, &answer);
        // Those that stay are not told what they missed.
        let stays = |watch: &Watch| *watch == Watch::Persistent;
        let anew = matches!(asked.kind, Kind::SetWatches(..));
        for ((watch, path), base) in &self.clients[index].watches {
            if anew && stays(watch) {
                continue;
            }
            let children = *watch == Watch::Child;
            let missed = self.checks.missed(path, *base, zxid, children);
            assert!(
                missed.is_none(),
                "client {index}: {asked:?} at {zxid:#x} without the event of {path} at {missed:x?}"
            );
        }
        self.clients[index].learn(&asked, &answer);
        if asked.kind == Kind::CloseSession && err == 0 {
            let client = &mut self.clients[index];
            client.closed.push(client.session);
            let gone = std::mem::take(&mut client.ephemerals);
            client.gone.extend(gone);
            client.lose_session();
            self.disconnect(index, connection);
        }
    }
}

/// The first error in the results of a multi.
fn multi_error(body: &[u8]) -> i32 {
    let mut reader = Reader::new(body);
    let header = MultiHeader::read(&mut reader).expect("a result");
    if header.op != -1 || header.done {
        return 0;
    }
    // Those in front of the one that failed say 0; those behind it, that they were not tried.
    reader.i32().expect("an error");
    let mut first = header.err;
    while first == 0 {
        first = MultiHeader::read(&mut reader).expect("a result").err;
        reader.i32().expect("an error");
    }
    first
}

impl Client {
    /// Nothing is told of a state before one that was shown.
    fn check_order(&mut self, asked: &Asked, zxid: u64, err: i32) {
        let (index, last) = (self.index, self.last_zxid);
        if zxid == 0 || is_refusal(err) {
            return;
        }
        if asked.kind.writes() {
            assert!(zxid > last, "client {index}: {asked:?} at {zxid:#x} was shown at {last:#x}");
        }
        assert!(zxid >= last, "client {index} saw {last:#x}, now {zxid:#x}");
        self.last_zxid = zxid;
    }

    fn on_event(&mut self, kind: i32, path: &str, zxid: u64) {
        let (index, last) = (self.index, self.last_zxid);
        assert!(
            zxid == 0 || zxid > last,
            "client {index}: the event of {path} at {zxid:#x} comes behind news of {last:#x}"
        );
        let once = if kind == EventType::NodeChildrenChanged.to_wire() {
            vec![Watch::Child]
        } else {
            vec![Watch::Data, Watch::Exist]
        };
        let mut expected = false;
        for watch in once {
            expected |= self.watches.remove(&(watch, path.to_owned())).is_some();
        }
        if let Some(base) = self.watches.get_mut(&(Watch::Persistent, path.to_owned())) {
            *base = zxid.max(*base);
            expected = true;
        }
        assert!(expected, "client {index}: an event of {path} without a watch");
    }

    fn watch(&mut self, watch: Watch, path: String, zxid: u64) {
        self.watches.entry((watch, path)).or_insert(zxid);
    }

    /// What an answer means for the client.
    fn learn(&mut self, asked: &Asked, answer: &Answer<'_>) {
        let zxid = answer.zxid;
        if answer.err != 0 {
            match &asked.kind {
                Kind::Exists { key, watch: true } if !is_refusal(answer.err) => {
                    self.watch(Watch::Exist, key_path(*key), zxid);
                }
                Kind::Multi { path, .. } => self.gone.push(path.clone()),
                Kind::Delete(_) => panic!("client {}: {asked:?} fails", self.index),
                _ => {}
            }
            return;
        }
        match &asked.kind {
            Kind::Create(path) | Kind::Multi { path, .. } => {
                self.proven |= asked.proves;
                self.created.insert(path.clone(), zxid);
            }
            Kind::Sequential(_) => {
                let path = Reader::new(answer.body).string("path").expect("a path").into_owned();
                self.created.insert(path, zxid);
            }
            Kind::Ephemeral(path) => {
                self.ephemerals.insert(path.clone());
            }
            Kind::Delete(path) => self.gone.push(path.clone()),
            Kind::Set { key, .. } => {
                self.versions.insert(*key, version_in(answer.body, false));
            }
            Kind::Get { key, watch } => {
                self.versions.insert(*key, version_in(answer.body, true));
                if *watch {
                    self.watch(Watch::Data, key_path(*key), zxid);
                }
            }
            Kind::Exists { key, watch: true } => self.watch(Watch::Data, key_path(*key), zxid),
            Kind::Children { dir, watch } => {
                self.check_listed(*dir, zxid, &read_names(&mut Reader::new(answer.body)));
                if *watch {
                    self.watch(Watch::Child, dir_path(*dir), zxid);
                }
            }
            Kind::AddWatch(key) => self.watch(Watch::Persistent, key_path(*key), zxid),
            Kind::SetWatches(..) => {
                for ((watch, _), base) in &mut self.watches {
                    if *watch == Watch::Persistent {
                        *base = zxid;
                    }
                }
            }
            _ => {}
        }
    }

    /// A list of children has all that the client has created by then and nobody deletes. A session
    /// that has been told of no zxid yet may find a server that lags behind what others were told.
    fn check_listed(&self, dir: usize, zxid: u64, names: &[String]) {
        let prefix = format!("{}/", dir_path(dir));
        let created = self.created.iter().filter(|(_, at)| **at <= zxid).map(|(path, _)| path);
        for path in created.chain(&self.ephemerals) {
            if let Some(name) = path.strip_prefix(&prefix) {
                let listed = names.iter().any(|other| other == name);
                assert!(listed, "client {}: {path} is not among the children", self.index);
            }
        }
    }
}
