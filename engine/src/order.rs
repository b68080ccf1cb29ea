//! What passes between the client cores and the ordering core.
//!
//! ```text
//!   client core  -- Submission: writes, sessions, touches --------------------> ordering core
//!   client core  <-- Batch: segments of {items in zxid order, then a version} -- ordering core
//! ```
//!
//! A batch is one proposal group. It is shared by all cores, and each takes from it what concerns
//! its own connections. Between two segments lies a *cut*: a version frozen just before a write
//! that has reads of its own session waiting in front of it, so that these reads see what came
//! before that write and not the write itself.
//!
//! Invariants:
//!
//!   * a core handles batches in order of their numbers, without a gap for triggers
//!   * within a segment all events and replies go out before the reads that they release, and
//!     these run on the segment's version

use std::ops::Range;
use std::sync::Arc;

use crate::acl::Id;
use crate::btree::Version;
use crate::ids::{ConnectionId, CoreId, SessionId, Xid};
use crate::op::OpCode;
use crate::time::Instant;
use crate::tree::Effects;
use crate::zxid::Zxid;

/// What one turn of a client core wants from the ordering core.
#[derive(Debug)]
pub struct Submission {
    /// The sender.
    pub core: CoreId,
    /// Bodies of the requests, one behind the other.
    pub bodies: Vec<u8>,
    /// What is wanted, in the order in which it arrived.
    pub orders: Vec<Order>,
    /// Sessions that showed signs of life since the last submission, and when they last did.
    pub touched: Vec<(SessionId, Instant)>,
    /// The round of a collection that this answers: everything that the core's sockets held when
    /// it was asked is in this submission or an earlier one.
    pub collected: Option<u64>,
}

impl Submission {
    /// Nothing yet.
    pub fn new(core: CoreId) -> Self {
        Self { core, bodies: Vec::new(), orders: Vec::new(), touched: Vec::new(), collected: None }
    }
}

/// One thing that a connection wants ordered.
#[derive(Debug)]
pub enum Order {
    /// A request that changes state, or `sync`.
    Request(Request),
    /// A session to open or to attach to.
    Connect(Connect),
    /// The connection is gone; its session waits for another or for its timeout.
    Disconnected {
        /// The connection.
        connection: ConnectionId,
        /// The session it was attached to.
        session: SessionId,
    },
}

/// A request as the client sent it.
#[derive(Debug)]
pub struct Request {
    /// Where it came from and the reply goes.
    pub connection: ConnectionId,
    /// Whose it is.
    pub session: SessionId,
    /// Its number.
    pub xid: Xid,
    /// What it asks.
    pub op: OpCode,
    /// Its body, within [`Submission::bodies`].
    pub body: Range<usize>,
    /// The connection's identities when the request was decoded.
    pub ids: Arc<[Id]>,
    /// Reads of this session wait in front of it: freeze a version before it is applied.
    pub cut: bool,
}

/// The part of a ConnectRequest that the ordering core judges.
#[derive(Debug)]
pub struct Connect {
    /// Where it came from.
    pub connection: ConnectionId,
    /// The session to attach to; none for a new one.
    pub session: SessionId,
    /// Whether the client showed the password of that session.
    pub genuine: bool,
    /// The timeout that the client asks for, already within the server's bounds.
    pub timeout_ms: i32,
}

/// What clients get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Answers.
    Serving,
    /// Nothing, for a while: their connections and requests are kept.
    Parked,
    /// Closed connections.
    Closed,
}

/// One proposal group on its way to the client cores.
#[derive(Debug)]
pub struct Batch {
    /// Counts the batches.
    pub number: u64,
    /// At least one; each ends with a version.
    pub segments: Vec<Segment>,
    /// Triggers and the paths that they name.
    pub effects: Effects,
    /// Reply frames, one behind the other.
    pub replies: Vec<u8>,
}

/// Items, and the version that they lead to.
#[derive(Debug)]
pub struct Segment {
    /// In zxid order.
    pub items: Vec<Item>,
    /// The state behind the last of them.
    pub version: Version,
}

/// What one transaction, or one request that needs none, means for client cores.
#[derive(Debug)]
pub struct Item {
    /// The transaction, or the last one before it.
    pub zxid: Zxid,
    /// Its triggers, within [`Effects::triggers`].
    pub triggers: Range<usize>,
    /// What the connection that asked for it gets.
    pub reply: Option<Reply>,
}

/// An answer to a connection.
#[derive(Debug)]
pub struct Reply {
    /// To whom.
    pub connection: ConnectionId,
    /// What.
    pub kind: ReplyKind,
}

/// The kinds of answers.
#[derive(Debug)]
pub enum ReplyKind {
    /// The reply to the oldest write that the connection waits for.
    Frame {
        /// The frame, within [`Batch::replies`].
        frame: Range<usize>,
        /// Its xid, to assert that it answers what is waited for.
        xid: Xid,
        /// Whether the session is over and the connection ends with this reply.
        close: bool,
    },
    /// The session is open and the connection attached to it.
    Attached {
        /// The session.
        session: SessionId,
        /// Its timeout.
        timeout_ms: i32,
    },
    /// The session is unknown, expired, or the password wrong.
    Refused,
    /// The connection ends without an answer: its session expired or went to another connection.
    Close,
}

impl Batch {
    /// The version that the batch leads to.
    pub fn version(&self) -> &Version {
        &self.segments.last().expect("a batch has a segment").version
    }

    /// Whether any reply goes to a connection of `core`.
    pub fn has_replies_for(&self, core: CoreId) -> bool {
        let mut items = self.segments.iter().flat_map(|segment| &segment.items);
        items.any(|item| item.reply.as_ref().is_some_and(|reply| reply.connection.core == core))
    }
}
