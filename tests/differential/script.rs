//! What is sent: requests and the steps that carry them, free of anything that differs between the
//! two servers. Session ids and zxids are kept as references that each side fills in for itself.

use crate::wire::Writer;

pub mod op {
    //! Numbers of the operations, by their names in the protocol.
    pub const NOTIFICATION: i32 = 0;
    pub const CREATE: i32 = 1;
    pub const DELETE: i32 = 2;
    pub const EXISTS: i32 = 3;
    pub const GET_DATA: i32 = 4;
    pub const SET_DATA: i32 = 5;
    pub const GET_ACL: i32 = 6;
    pub const SET_ACL: i32 = 7;
    pub const GET_CHILDREN: i32 = 8;
    pub const SYNC: i32 = 9;
    pub const PING: i32 = 11;
    pub const GET_CHILDREN2: i32 = 12;
    pub const CHECK: i32 = 13;
    pub const MULTI: i32 = 14;
    pub const CREATE2: i32 = 15;
    pub const RECONFIG: i32 = 16;
    pub const CHECK_WATCHES: i32 = 17;
    pub const REMOVE_WATCHES: i32 = 18;
    pub const CREATE_CONTAINER: i32 = 19;
    pub const CREATE_TTL: i32 = 21;
    pub const MULTI_READ: i32 = 22;
    pub const AUTH: i32 = 100;
    pub const SET_WATCHES: i32 = 101;
    pub const SASL: i32 = 102;
    pub const GET_EPHEMERALS: i32 = 103;
    pub const GET_ALL_CHILDREN_NUMBER: i32 = 104;
    pub const SET_WATCHES2: i32 = 105;
    pub const ADD_WATCH: i32 = 106;
    pub const WHO_AM_I: i32 = 107;
    pub const CLOSE_SESSION: i32 = -11;
}

/// A part of a request's body.
#[derive(Debug, Clone)]
pub enum Piece {
    Bytes(Vec<u8>),
    /// A zxid, counted from the one at which the comparison began.
    Zxid(i64),
}

#[derive(Debug, Clone)]
pub struct Request {
    pub op: i32,
    pub xid: i32,
    pub body: Vec<Piece>,
    /// For people, when it made a difference.
    pub label: String,
    /// Paths that are gone when this succeeds.
    pub deletes: Vec<String>,
}

impl Request {
    /// The packet without its length, for a server whose comparison began at `zxid_base`.
    pub fn packet(&self, zxid_base: i64) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.int(self.xid).int(self.op);
        for piece in &self.body {
            match piece {
                Piece::Bytes(bytes) => writer.bytes.extend(bytes),
                Piece::Zxid(relative) => {
                    writer.long(zxid_base + relative);
                }
            }
        }
        writer.bytes
    }
}

/// How a session is asked for.
#[derive(Debug, Clone)]
pub struct Connect {
    pub timeout_ms: i32,
    /// The byte at the end that old clients leave out.
    pub read_only: Option<u8>,
    pub last_zxid_seen: i64,
    pub identity: Identity,
}

#[derive(Debug, Clone)]
pub enum Identity {
    New,
    /// The session of that slot, with its password or with another one.
    Resume {
        slot: usize,
        right_password: bool,
    },
    Unknown,
}

/// One step; the next one begins when every reply and event of this one has come on both sides.
#[derive(Debug, Clone)]
pub enum Step {
    /// Opens a connection into the slot, which is empty or (to resume) holds a session.
    Connect { slot: usize, connect: Connect, hang_up_first: bool },
    /// Requests sent in one go.
    Burst { slot: usize, requests: Vec<Request> },
    /// Ends the session, right behind other requests; the connection closes behind the replies.
    Close { slot: usize, requests: Vec<Request> },
    /// A request after which the server may hang up, as it does when it refuses an identity.
    Alone { slot: usize, request: Request },
    /// A request of an unknown kind. The connection is given up behind its reply: the real server
    /// hangs up, too, but may answer a few more requests before that.
    Unknown { slot: usize, request: Request },
    /// Bytes after which the server must hang up.
    Fatal { slot: usize, bytes: Vec<u8>, label: String },
    /// Bytes on a connection of their own.
    Stranger { bytes: Vec<u8>, label: String },
    /// A four-letter word whose answer (the lines that start so) settles to the same.
    FourLetter { word: &'static str, lines: &'static [&'static str] },
}
