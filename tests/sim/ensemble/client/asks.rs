//! What a client asks for, at random.

use super::hears::Watch;
use super::{ClientEvent, World};
use crate::sim::ensemble::SECOND;
use crate::sim::ensemble::requests::{DIRS, Kind, dir_path, key_path};

/// Keys that all clients write.
const KEYS: usize = 3;

impl World {
    /// Asks for something.
    pub(super) fn ask(&mut self, index: usize, connection: u64) {
        let client = &self.clients[index];
        if client.sent.len() > 4 || client.proven || client.closing {
            if self.now - client.sent_at > SECOND {
                self.request(index, connection, Kind::Ping);
            }
            return;
        }
        if client.proving {
            let path = self.fresh_path(index, "/p");
            return self.request(index, connection, Kind::Create(path));
        }
        let count = 1 + self.random.below(3);
        for _ in 0..count {
            if self.clients[index].closing {
                return;
            }
            let kind = self.draw(index);
            let behind_sync = match &kind {
                Kind::Sync(_) => Some(self.draw_read()),
                _ => None,
            };
            self.request(index, connection, kind);
            if let Some(kind) = behind_sync {
                self.request(index, connection, kind);
            }
        }
    }

    fn draw(&mut self, index: usize) -> Kind {
        let key = self.random.below(KEYS);
        let dir = self.random.below(DIRS);
        let within = dir_path(dir);
        match self.random.below(1000) {
            0..60 => Kind::CreateKey(key),
            60..90 => Kind::CreateDir(dir),
            90..220 => {
                let within = if self.random.percent(60) { within } else { String::new() };
                Kind::Create(self.fresh_path(index, &format!("{within}/c")))
            }
            220..280 => Kind::Ephemeral(self.fresh_path(index, &format!("{within}/e"))),
            280..330 => Kind::Sequential(self.fresh_path(index, &format!("{within}/s")) + "-"),
            330..400 => self.draw_delete(index),
            400..570 => {
                let value = self.fresh_value(index);
                let version = self.clients[index].versions.get(&key).copied();
                let version = version.filter(|_| self.random.percent(40));
                Kind::Set { key, value, version }
            }
            570..630 => {
                let value = self.fresh_value(index);
                let spoiled = self.random.percent(40);
                let path = self.fresh_path(index, if spoiled { "/x" } else { "/m" });
                Kind::Multi { key, value, path, spoiled }
            }
            630..710 => Kind::Sync(key_path(key)),
            710..725 => Kind::AddWatch(key),
            725..728 => Kind::CloseSession,
            _ => self.draw_read(),
        }
    }

    fn draw_read(&mut self) -> Kind {
        let (key, dir) = (self.random.below(KEYS), self.random.below(DIRS));
        let watch = self.random.percent(40);
        match self.random.below(10) {
            0..5 => Kind::Get { key, watch },
            5..7 => Kind::Exists { key, watch },
            _ => Kind::Children { dir, watch },
        }
    }

    /// Deletes something of the client's own; a new path if it has nothing.
    fn draw_delete(&mut self, index: usize) -> Kind {
        let client = &mut self.clients[index];
        let of_session = client.ephemerals.len();
        let count = of_session + client.created.len();
        if count == 0 {
            return Kind::Create(self.fresh_path(index, "/c"));
        }
        let nth = self.random.below(count);
        let client = &mut self.clients[index];
        let path = client.ephemerals.iter().chain(client.created.keys()).nth(nth);
        let path = path.expect("there are so many").clone();
        // From here on it may be there or not.
        client.ephemerals.remove(&path);
        client.created.remove(&path);
        Kind::Delete(path)
    }

    fn fresh_value(&mut self, index: usize) -> u64 {
        let client = &mut self.clients[index];
        client.next_number += 1;
        client.next_number * 100 + index as u64
    }

    fn fresh_path(&mut self, index: usize, prefix: &str) -> String {
        let client = &mut self.clients[index];
        client.next_number += 1;
        format!("{prefix}{index}-{}", client.next_number)
    }

    pub(super) fn request(&mut self, index: usize, connection: u64, kind: Kind) {
        let client = &mut self.clients[index];
        client.next_xid += 1;
        client.closing |= kind == Kind::CloseSession;
        let xid = kind.xid(client.next_xid);
        let bytes = kind.encode(xid);
        let attachment = &self.attachments[&connection];
        let host = (attachment.host, attachment.life);
        let asked = self.checks.ask(xid, kind, self.now, client.proving, host, &client.sent);
        client.sent.push_back(asked);
        client.sent_at = self.now;
        self.send_to_server(connection, ClientEvent::Received(bytes));
    }

    /// Asks for the watches of the connection before.
    pub(super) fn watch_again(&mut self, index: usize, connection: u64) {
        let client = &self.clients[index];
        if client.watches.is_empty() {
            return;
        }
        let lists = [Watch::Data, Watch::Exist, Watch::Child, Watch::Persistent].map(|kind| {
            let of_kind = client.watches.keys().filter(|(watch, _)| *watch == kind);
            of_kind.map(|(_, path)| path.clone()).collect()
        });
        let zxid = client.last_zxid;
        self.request(index, connection, Kind::SetWatches(lists, zxid));
    }
}
