//! One client connection as its core sees it.

use core::net::SocketAddr;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::acl::Id;
use crate::ids::{ConnectionId, SessionId, Xid};
use crate::op::OpCode;
use crate::time::Instant;

/// What a connection does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing has come in yet, or not all of a ConnectRequest.
    New,
    /// The ordering core decides about its session; later input waits.
    Connecting,
    /// It serves its session.
    Attached,
    /// It asked for a four-letter word; nothing more is read.
    Admin,
}

/// A request that has been decoded and not answered.
#[derive(Debug)]
pub(super) enum Waiting {
    /// A write on its way through the ordering core.
    Write { xid: Xid, op: OpCode, received: Instant },
    /// A read that may not overtake what is in front of it.
    Read(Read),
}

/// A read with all that answering it takes.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) xid: Xid,
    /// The operation's number; unknown ones are answered in order too.
    pub(super) op: i32,
    pub(super) body: Box<[u8]>,
    /// The identities when it was decoded.
    pub(super) ids: Arc<[Id]>,
    pub(super) received: Instant,
}

/// Counters of one connection, as `cons` prints them.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionStats {
    /// Packets received.
    pub received: u64,
    /// Packets sent, events included.
    pub sent: u64,
    /// Number of the last operation answered, if any.
    pub last_op: Option<i32>,
    /// Xid of that operation.
    pub last_xid: i32,
    /// Zxid in its reply header.
    pub last_zxid: u64,
    /// When that reply was made.
    pub last_response: Instant,
    /// How long that operation took.
    pub last_latency: Duration,
    /// Shortest, longest and summed latency, and how many were summed.
    pub latency: LatencyStats,
}

impl ConnectionStats {
    /// What `crst` leaves.
    // Compat: ServerCnxn.resetStats: -1 stands for none since then.
    pub(super) fn after_reset() -> Self {
        Self { last_xid: -1, last_zxid: u64::MAX, ..Self::default() }
    }
}

/// Latencies of requests, receipt to reply.
#[derive(Clone, Copy, Debug, Default)]
pub struct LatencyStats {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
    /// All of them.
    pub sum: Duration,
    /// How many.
    pub count: u64,
}

impl LatencyStats {
    /// Counts one more.
    pub fn record(&mut self, latency: Duration) {
        self.min = if self.count == 0 { latency } else { self.min.min(latency) };
        self.max = self.max.max(latency);
        self.sum += latency;
        self.count += 1;
    }

    /// Joins the counts of another core or connection.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.min = if self.count == 0 { other.min } else { self.min.min(other.min) };
        self.max = self.max.max(other.max);
        self.sum += other.sum;
        self.count += other.count;
    }
}

/// A connection and everything that waits on it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent marks, each of one list or step")]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) peer: SocketAddr,
    pub(super) phase: Phase,
    /// The session it is attached to; none before, and none after the session has ended.
    pub(super) session: Option<SessionId>,
    pub(super) timeout: Duration,
    /// What the response says about read-only; there only if the request said something.
    pub(super) read_only_byte: Option<bool>,
    pub(super) ids: Arc<[Id]>,
    /// Input that is not a whole frame yet, or that is held back.
    pub(super) input: Vec<u8>,
    pub(super) paused: bool,
    /// Requests without an answer, oldest first.
    pub(super) queue: VecDeque<Waiting>,
    /// How many of them are reads.
    pub(super) reads_waiting: usize,
    /// Replies and events that are not in flight.
    pub(super) output: Vec<u8>,
    pub(super) sending: bool,
    pub(super) sending_bytes: usize,
    pub(super) dirty: bool,
    pub(super) closing: bool,
    /// It is being closed, and has got a time until when.
    pub(super) condemned: bool,
    pub(super) touched: bool,
    pub(super) last_heard: Instant,
    pub(super) established: Instant,
    pub(super) stats: ConnectionStats,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, peer: SocketAddr, now: Instant) -> Self {
        Self {
            id,
            peer,
            phase: Phase::New,
            session: None,
            timeout: Duration::ZERO,
            read_only_byte: None,
            ids: Arc::new([]),
            input: Vec::new(),
            paused: false,
            queue: VecDeque::new(),
            reads_waiting: 0,
            output: Vec::new(),
            sending: false,
            sending_bytes: 0,
            dirty: false,
            closing: false,
            condemned: false,
            touched: false,
            last_heard: now,
            established: now,
            stats: ConnectionStats::default(),
        }
    }

    /// Whether it has no session to live by: it has not asked for one, or is being closed.
    pub(super) fn is_sessionless(&self) -> bool {
        self.closing || matches!(self.phase, Phase::New | Phase::Admin)
    }

    /// Bytes on their way to the client.
    pub(super) fn backlog(&self) -> usize {
        self.output.len() + self.sending_bytes
    }

    /// Whether the oldest waiting request is a read that nothing holds up.
    ///
    /// A read in front of a write that is on its way goes whatever there is to send: it belongs to
    /// the version before that write, and the reply to the write follows it.
    pub(super) fn can_read(&self) -> bool {
        matches!(self.queue.front(), Some(Waiting::Read(_)))
            && !self.closing
            && (self.backlog() <= super::OUTPUT_BYTES_HIGH || self.queue.len() > self.reads_waiting)
    }

    /// Lets a read wait behind what is in the queue.
    pub(super) fn push_read(&mut self, read: Read) {
        self.reads_waiting += 1;
        self.queue.push_back(Waiting::Read(read));
    }

    /// Takes the read that is in front.
    pub(super) fn pop_read(&mut self) -> Read {
        let Some(Waiting::Read(read)) = self.queue.pop_front() else {
            unreachable!("a read is in front");
        };
        self.reads_waiting -= 1;
        read
    }

    /// Counts a reply.
    pub(super) fn record(&mut self, op: i32, xid: Xid, zxid: u64, received: Instant, now: Instant) {
        let latency = now.since(received);
        self.stats.sent += 1;
        self.stats.last_op = Some(op);
        // Compat: ServerCnxn.updateStatsForResponse - those of pings and auth are none.
        if xid.0 >= 0 {
            self.stats.last_xid = xid.0;
        }
        self.stats.last_zxid = zxid;
        self.stats.last_response = now;
        self.stats.last_latency = latency;
        self.stats.latency.record(latency);
    }
}
