//! What simulated clients ask for, and how it looks on the wire.

use engine::ids::Xid;
use engine::jute::Writer;
use engine::op::OpCode;
use engine::records::multi::MultiHeader;
use engine::records::{PING_XID, RequestHeader, SET_WATCHES_XID, write_request};

/// Directories whose children come and go.
pub const DIRS: usize = 2;

/// What a client may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whether anybody is there.
    Ping,
    /// One of the keys that all share.
    CreateKey(usize),
    /// One of the directories.
    CreateDir(usize),
    /// A path that nobody else uses.
    Create(String),
    /// The same, while the session lives.
    Ephemeral(String),
    /// The same with a number behind it.
    Sequential(String),
    /// Deletes what this client has created.
    Delete(String),
    /// A value that nobody else writes.
    Set {
        /// Of this key.
        key: usize,
        /// The value.
        value: u64,
        /// Only if this is its version.
        version: Option<i32>,
    },
    /// Sets a key and creates a path, both or nothing.
    Multi {
        /// The key.
        key: usize,
        /// Its value.
        value: u64,
        /// The path.
        path: String,
        /// The last operation cannot be done.
        spoiled: bool,
    },
    /// A sync.
    Sync(String),
    /// The value of a key.
    Get {
        /// The key.
        key: usize,
        /// Leaves a watch.
        watch: bool,
    },
    /// The stat of a key.
    Exists {
        /// The key.
        key: usize,
        /// Leaves a watch, there or not.
        watch: bool,
    },
    /// The children of a directory.
    Children {
        /// The directory.
        dir: usize,
        /// Leaves a watch.
        watch: bool,
    },
    /// A watch that stays, for a key.
    AddWatch(usize),
    /// The watches of the connection before: data, exist, child, persistent; and the zxid up to
    /// which the client knows.
    SetWatches([Vec<String>; 4], u64),
    /// The session ends.
    CloseSession,
}

/// The path of a key.
pub fn key_path(key: usize) -> String {
    format!("/k{key}")
}

/// The path of a directory.
pub fn dir_path(dir: usize) -> String {
    format!("/d{dir}")
}

impl Kind {
    /// For counts.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::CreateKey(_) | Self::CreateDir(_) | Self::Create(_) => "create",
            Self::Ephemeral(_) => "create ephemeral",
            Self::Sequential(_) => "create sequential",
            Self::Delete(_) => "delete",
            Self::Set { version: None, .. } => "setData",
            Self::Set { .. } => "setData of a version",
            Self::Multi { spoiled: false, .. } => "multi",
            Self::Multi { .. } => "multi that fails",
            Self::Sync(_) => "sync",
            Self::Get { watch: true, .. } => "getData with a watch",
            Self::Get { .. } => "getData",
            Self::Exists { watch: true, .. } => "exists with a watch",
            Self::Exists { .. } => "exists",
            Self::Children { watch: true, .. } => "getChildren with a watch",
            Self::Children { .. } => "getChildren",
            Self::AddWatch(_) => "addWatch",
            Self::SetWatches(..) => "setWatches",
            Self::CloseSession => "closeSession",
        }
    }

    /// Whether it becomes a transaction, also where it is refused.
    pub fn writes(&self) -> bool {
        matches!(
            self,
            Self::CreateKey(_)
                | Self::CreateDir(_)
                | Self::Create(_)
                | Self::Ephemeral(_)
                | Self::Sequential(_)
                | Self::Delete(_)
                | Self::Set { .. }
                | Self::Multi { .. }
                | Self::CloseSession
        )
    }

    /// Whether it is answered from the state of the server that is asked.
    pub fn reads(&self) -> bool {
        matches!(self, Self::Get { .. } | Self::Exists { .. } | Self::Children { .. })
    }

    /// The number that the request has.
    pub fn xid(&self, next: i32) -> Xid {
        match self {
            Self::Ping => PING_XID,
            Self::SetWatches(..) => SET_WATCHES_XID,
            _ => Xid(next),
        }
    }

    /// The whole request.
    pub fn encode(&self, xid: Xid) -> Vec<u8> {
        let mut bytes = Vec::new();
        let header = RequestHeader { xid, op: self.op().to_wire() };
        write_request(&mut bytes, header, |writer| self.write_body(writer));
        bytes
    }

    fn op(&self) -> OpCode {
        match self {
            Self::Ping => OpCode::Ping,
            Self::CreateKey(_)
            | Self::CreateDir(_)
            | Self::Create(_)
            | Self::Ephemeral(_)
            | Self::Sequential(_) => OpCode::Create,
            Self::Delete(_) => OpCode::Delete,
            Self::Set { .. } => OpCode::SetData,
            Self::Multi { .. } => OpCode::Multi,
            Self::Sync(_) => OpCode::Sync,
            Self::Get { .. } => OpCode::GetData,
            Self::Exists { .. } => OpCode::Exists,
            Self::Children { .. } => OpCode::GetChildren2,
            Self::AddWatch(_) => OpCode::AddWatch,
            Self::SetWatches(..) => OpCode::SetWatches2,
            Self::CloseSession => OpCode::CloseSession,
        }
    }

    fn write_body(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Ping | Self::CloseSession => {}
            Self::CreateKey(key) => write_create(writer, &key_path(*key), 0),
            Self::CreateDir(dir) => write_create(writer, &dir_path(*dir), 0),
            Self::Create(path) => write_create(writer, path, 0),
            Self::Ephemeral(path) => write_create(writer, path, 1),
            Self::Sequential(path) => write_create(writer, path, 2),
            Self::Delete(path) => write_delete(writer, path),
            Self::Set { key, value, version } => {
                write_set(writer, *key, *value, version.unwrap_or(-1));
            }
            Self::Multi { key, value, path, spoiled } => {
                let header = |op: OpCode| MultiHeader { op: op.to_wire(), done: false, err: -1 };
                header(OpCode::SetData).write(writer);
                write_set(writer, *key, *value, -1);
                header(OpCode::Create).write(writer);
                write_create(writer, path, 0);
                if *spoiled {
                    header(OpCode::Delete).write(writer);
                    write_delete(writer, "/nobody");
                }
                MultiHeader::END.write(writer);
            }
            Self::Sync(path) => writer.string(path),
            Self::Get { key, watch } | Self::Exists { key, watch } => {
                writer.string(&key_path(*key));
                writer.bool(*watch);
            }
            Self::Children { dir, watch } => {
                writer.string(&dir_path(*dir));
                writer.bool(*watch);
            }
            Self::AddWatch(key) => {
                writer.string(&key_path(*key));
                writer.i32(0);
            }
            Self::SetWatches(lists, zxid) => {
                writer.i64(zxid.cast_signed());
                for list in lists {
                    writer.count(list.len());
                    list.iter().for_each(|path| writer.string(path));
                }
                writer.count(0);
            }
        }
    }
}

fn write_create(writer: &mut Writer<'_>, path: &str, flags: i32) {
    writer.string(path);
    writer.string("0");
    writer.count(1);
    writer.i32(31);
    writer.string("world");
    writer.string("anyone");
    writer.i32(flags);
}

fn write_delete(writer: &mut Writer<'_>, path: &str) {
    writer.string(path);
    writer.i32(-1);
}

fn write_set(writer: &mut Writer<'_>, key: usize, value: u64, version: i32) {
    writer.string(&key_path(key));
    writer.string(&value.to_string());
    writer.i32(version);
}
