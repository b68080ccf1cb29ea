//! The machine of one core's client connections: framing, session order, reads, watches, output.
//!
//! ```text
//!   socket bytes --> frames --> write: Submission to the ordering core, then wait for its reply
//!                          \--> read: answered here, on the core's version; behind writes of its
//!                               own connection it waits for their replies
//!   Batch --> events and replies in zxid order, then the reads that they release
//! ```
//!
//! Requests of a connection are answered strictly in order. What waits stands in one queue per
//! connection: writes that are on their way, and reads behind them.
//!
//! Invariants:
//!
//!   * a read runs only when no write of its connection that came before it is unanswered
//!   * the version never goes back, and no reply or event leaves that belongs to a later version
//!   * everything held for a connection is bounded: input by one packet and one receive buffer,
//!     waiting requests by the outstanding limit, output by [`Rules::output_bytes_max`]
//!   * a turn is short whatever clients ask for: behind much output, the next read waits until that
//!     is sent; behind one that counts much of the tree (a walk), the next walk waits for a turn;
//!     and all wait for one behind much that took its time, be it answers of many connections or
//!     what shows in none

mod connection;
mod deliver;
mod handshake;
mod receive;
mod report;

use core::net::SocketAddr;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::auth::AuthRules;
use crate::btree::Version;
use crate::ids::{ConnectionId, CoreId, SessionId};
use crate::order::{Batch, Order, Service, Submission};
use crate::rules::{OUTPUT_BYTES_MAX, Rules};
use crate::session::TimeoutLimits;
use crate::time::{Instant, Rarely};
use crate::watch::WatchTable;

pub use connection::{ConnectionStats, LatencyStats};
pub use receive::TELNET_CLOSE;
pub use report::{ConnectionReport, CoreReport, CoreStats};

use connection::{Connection, Phase};

/// Reads of a connection wait while more than this is on its way to it, bytes. Those in front of a
/// write on its way do not, but there are few of them.
pub const OUTPUT_BYTES_HIGH: usize = 1 << 20;

/// Input held back for a connection before its socket is left unread, bytes.
const HELD_BYTES_MAX: usize = 256 << 10;

/// Output buffers kept for reuse, and the largest that is worth keeping.
const SPARE_BUFFERS_MAX: usize = 256;
const SPARE_BYTES_MAX: usize = 256 << 10;

/// Watches of connections that are gone which one turn forgets.
const LEAVING_MAX: usize = 4096;

const _: () = assert!(OUTPUT_BYTES_HIGH < OUTPUT_BYTES_MAX);

/// What does not change while the server runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// What requests may do.
    pub rules: Rules,
    /// Authentication schemes and what they know.
    pub auth: AuthRules,
    /// The session timeouts that are granted.
    pub session_timeouts: TimeoutLimits,
    /// Requests that this core has in hand before connections with requests in hand must wait.
    pub outstanding_max: usize,
    /// How long a connection may go without asking for a session, and how long it may go on
    /// reading after its end was decided.
    pub sessionless_timeout: Duration,
}

/// What can happen to a client core.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection is there.
    Accepted(ConnectionId, SocketAddr),
    /// Bytes came in.
    Received(ConnectionId, &'a [u8]),
    /// An [`Output::Send`] is done; its buffer comes back.
    Sent(ConnectionId, Vec<u8>),
    /// The peer will send nothing more.
    Eof(ConnectionId),
    /// The connection broke.
    Closed(ConnectionId),
    /// The answer to a four-letter word.
    Answer(ConnectionId, Vec<u8>),
    /// A proposal group is committed.
    Batch(Arc<Batch>),
    /// This version is published with the batch of this number, and no batch up to it that the
    /// core has not had concerns it.
    Published(Version, u64),
    /// What clients get from now on.
    Service(Service),
    /// Everything that was in the sockets when round `.0` of a collection began has been passed in.
    Collected(u64),
    /// Time passed, or the turn is over: nothing else to tell.
    Tick,
}

/// What a client core wants done.
#[derive(Debug)]
pub enum Output {
    /// Send these bytes; at most one per connection is in flight.
    Send(ConnectionId, Vec<u8>),
    /// Close, after what is in flight has been sent. Nothing of this connection may follow.
    Close(ConnectionId),
    /// Stop reading this connection's socket.
    Pause(ConnectionId),
    /// Read it again.
    Resume(ConnectionId),
    /// The ordering core must see this.
    Submit(Submission),
    /// The connection asks for a four-letter word; `.2` is what came after it.
    FourLetter(ConnectionId, [u8; 4], Vec<u8>),
}

/// All client connections of one core.
#[derive(Debug)]
pub struct ClientCore {
    core: CoreId,
    config: Arc<Config>,
    connections: Vec<Option<Box<Connection>>>,
    connections_count: usize,
    watches: WatchTable,
    service: Service,
    version: Version,
    /// The number of the last batch.
    batch: u64,
    /// What goes to the ordering core at the end of the turn.
    submission: Submission,
    /// Slots of connections that were heard since the last submission.
    touched: Vec<u32>,
    /// Slots with output that is not in flight.
    dirty: Vec<u32>,
    /// Slots whose reads a reply has released.
    released: Vec<u32>,
    /// Slots whose input waits for requests to finish.
    held: BTreeSet<u32>,
    /// Who had the last walk, whether there was one in this turn, and whether somebody waits for
    /// the next turn.
    walker: u32,
    walked: bool,
    walk_waits: bool,
    /// What reads of this turn have taken, bytes: their answers, and what shows in none.
    spent: usize,
    /// Connections without a session and connections that are being closed, soonest dropped first.
    sessionless: VecDeque<(Instant, ConnectionId)>,
    outstanding: usize,
    /// Connections that wait for their session.
    connecting: usize,
    spare: Vec<Vec<u8>>,
    refusals: Rarely,
    stats: CoreStats,
}

impl ClientCore {
    /// A core without connections that serves `version`.
    pub fn new(core: CoreId, config: Arc<Config>, version: Version, batch: u64) -> Self {
        Self {
            core,
            config,
            connections: Vec::new(),
            connections_count: 0,
            watches: WatchTable::new(),
            service: Service::Serving,
            version,
            batch,
            submission: Submission::new(core),
            touched: Vec::new(),
            dirty: Vec::new(),
            released: Vec::new(),
            held: BTreeSet::new(),
            walker: 0,
            walked: false,
            walk_waits: false,
            spent: 0,
            sessionless: VecDeque::new(),
            outstanding: 0,
            connecting: 0,
            spare: Vec::new(),
            refusals: Rarely::default(),
            stats: CoreStats::default(),
        }
    }

    /// The version that reads see.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Whether a batch without replies for this core may still concern it: a connection has a
    /// watch, or a request that could leave one when it is let through. Who waits for a session may
    /// have sent such a request behind.
    pub fn needs_all_batches(&self) -> bool {
        let waits = self.outstanding > 0 || self.connecting > 0 || !self.held.is_empty();
        waits || self.watches.count() > 0
    }

    /// When to pass [`Input::Tick`] if nothing else happens.
    pub fn next_timeout(&self) -> Option<Instant> {
        let soonest = self.sessionless.front().map(|&(deadline, _)| deadline);
        let has_work = self.walk_waits || self.watches.has_leaving();
        if has_work { Some(Instant::ZERO) } else { soonest }
    }

    /// Advances by one input and appends what must be done about it to `out`.
    pub fn step(&mut self, now: Instant, input: Input<'_>, out: &mut Vec<Output>) {
        match input {
            Input::Accepted(id, peer) => self.on_accepted(now, id, peer),
            Input::Received(id, bytes) => self.on_received(now, id, bytes, out),
            Input::Sent(id, buffer) => self.on_sent(now, id, buffer),
            Input::Eof(id) => self.on_eof(id),
            Input::Closed(id) => self.on_broken(id),
            Input::Answer(id, text) => self.on_answer(id, text),
            Input::Batch(batch) => self.on_batch(now, &batch),
            Input::Published(version, batch) => {
                assert!(batch > self.batch);
                self.version = version;
                self.batch = batch;
            }
            Input::Service(service) => self.on_service(now, service),
            Input::Collected(round) => self.submission.collected = Some(round),
            Input::Tick => self.on_tick(now),
        }
    }

    /// Ends a turn: hands over everything that the turn's inputs have led to.
    ///
    /// Not part of a step, so that all replies of a turn leave in one send per connection.
    pub fn finish_turn(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.watches.forget_leaving(LEAVING_MAX);
        self.admit_held(now, out);
        while let Some(slot) = self.dirty.pop() {
            let Some(connection) = self.connections[slot as usize].as_mut() else {
                continue;
            };
            connection.dirty = false;
            // A four-letter word has one answer, however long.
            let is_bounded = connection.phase != Phase::Admin;
            if is_bounded && connection.backlog() > self.config.rules.output_bytes_max() {
                let client = connection.peer;
                tracing::warn!(%client, "closing: it does not read what it is sent");
                connection.closing = true;
                connection.output.clear();
            }
            if !connection.sending && !connection.output.is_empty() {
                connection.sending = true;
                connection.sending_bytes = connection.output.len();
                let bytes = std::mem::take(&mut connection.output);
                out.push(Output::Send(connection.id, bytes));
            }
            let id = connection.id;
            if connection.closing && connection.output.is_empty() {
                out.push(Output::Close(id));
                self.forget(id);
            } else if connection.closing && !connection.condemned {
                // It may take its time to read what is on its way, but not for ever.
                connection.condemned = true;
                self.sessionless.push_back((now.after(self.config.sessionless_timeout), id));
            }
        }
        if !self.submission.orders.is_empty() || self.submission.collected.is_some() {
            let mut submission =
                std::mem::replace(&mut self.submission, Submission::new(self.core));
            self.hand_over_touches(now, &mut submission);
            out.push(Output::Submit(submission));
        }
    }

    fn hand_over_touches(&mut self, now: Instant, submission: &mut Submission) {
        for slot in self.touched.drain(..) {
            if let Some(connection) = self.connections[slot as usize].as_mut() {
                connection.touched = false;
                if let Some(session) = connection.session {
                    submission.touched.push((session, connection.last_heard));
                }
            }
        }
        // A connection whose input we hold back ourselves must not die of our own slowness; but if
        // it is held back because the client does not read, that is no sign of life.
        for &slot in &self.held {
            let connection = self.connections[slot as usize].as_ref();
            let reads = connection.filter(|connection| connection.backlog() <= OUTPUT_BYTES_HIGH);
            if let Some(session) = reads.and_then(|connection| connection.session) {
                submission.touched.push((session, now));
            }
        }
    }

    /// Parked connections keep what they send until there is service again.
    fn on_service(&mut self, now: Instant, service: Service) {
        self.service = service;
        for slot in 0..self.connections.len() {
            let admin = |connection: &Connection| connection.phase == Phase::Admin;
            if self.connections[slot].as_deref().is_none_or(admin) {
                continue;
            }
            match service {
                Service::Closed => self.close(slot as u32),
                Service::Parked => {}
                Service::Serving => self.run_reads(now, slot as u32),
            }
        }
    }

    fn on_accepted(&mut self, now: Instant, id: ConnectionId, peer: SocketAddr) {
        assert_eq!(id.core, self.core);
        let slot = id.slot as usize;
        if self.connections.len() <= slot {
            self.connections.resize_with(slot + 1, || None);
        }
        assert!(self.connections[slot].is_none(), "slot {slot} is taken");
        self.connections[slot] = Some(Box::new(Connection::new(id, peer, now)));
        self.connections_count += 1;
        self.sessionless.push_back((now.after(self.config.sessionless_timeout), id));
    }

    fn on_sent(&mut self, now: Instant, id: ConnectionId, buffer: Vec<u8>) {
        let Some(connection) = self.connection(id) else {
            return self.keep_spare(buffer);
        };
        connection.sending = false;
        connection.sending_bytes = 0;
        if !connection.output.is_empty() {
            self.mark_dirty(id.slot);
        }
        if self.held.contains(&id.slot) {
            // Its requests wait, pings too: that it reads is all that can be heard of it.
            self.touch(now, id.slot);
        }
        self.keep_spare(buffer);
        // Between two leaders the version may be one that will never be committed: reads that
        // waited for room wait on.
        if self.service == Service::Serving {
            self.run_reads(now, id.slot);
        }
    }

    /// A client that sends no more wants no more, except for the answer to a four-letter word.
    fn on_eof(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connection(id)
            && connection.phase != Phase::Admin
        {
            connection.output.clear();
            self.stats.connections_dropped += 1;
            self.close(id.slot);
        }
    }

    /// The connection broke.
    fn on_broken(&mut self, id: ConnectionId) {
        if self.connection(id).is_some_and(|connection| connection.phase != Phase::Admin) {
            self.stats.connections_dropped += 1;
        }
        self.forget(id);
    }

    fn on_answer(&mut self, id: ConnectionId, text: Vec<u8>) {
        if let Some(connection) = self.connection(id) {
            connection.output = text;
            self.stats.packets_sent += 1;
            self.close(id.slot);
        }
    }

    fn forget(&mut self, id: ConnectionId) {
        if self.connection(id).is_none() {
            return;
        }
        let connection = self.connections[id.slot as usize].take().expect("it was just there");
        self.connections_count -= 1;
        self.outstanding -= connection.queue.len();
        self.connecting -= usize::from(connection.phase == Phase::Connecting);
        self.watches.remove_slot(id.slot);
        self.held.remove(&id.slot);
        if let Some(session) = connection.session {
            self.submission.touched.push((session, connection.last_heard));
            self.submission.orders.push(Order::Disconnected { connection: id, session });
        }
    }

    fn on_tick(&mut self, now: Instant) {
        (self.walked, self.walk_waits, self.spent) = (false, false, 0);
        while let Some(&(deadline, id)) = self.sessionless.front() {
            let waiting = self.connection(id).filter(|connection| connection.is_sessionless());
            if waiting.is_some() && deadline > now {
                break;
            }
            let condemned = waiting.map(|connection| {
                connection.output.clear();
                connection.closing
            });
            self.sessionless.pop_front();
            if let Some(condemned) = condemned {
                self.stats.sessionless_expired += u64::from(!condemned);
                self.close(id.slot);
            }
        }
    }

    /// The connection, unless it is gone or its slot holds another one.
    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(id.slot as usize)?.as_deref_mut()?;
        (connection.id == id).then_some(connection)
    }

    fn connection_at(&mut self, slot: u32) -> &mut Connection {
        self.connections[slot as usize].as_deref_mut().expect("the slot holds a connection")
    }

    fn mark_dirty(&mut self, slot: u32) {
        let connection = self.connection_at(slot);
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Closes at the end of the turn; what the connection still sends is not looked at.
    fn close(&mut self, slot: u32) {
        self.connection_at(slot).closing = true;
        self.held.remove(&slot);
        self.mark_dirty(slot);
    }

    fn touch(&mut self, now: Instant, slot: u32) {
        let connection = self.connection_at(slot);
        connection.last_heard = now;
        if !connection.touched && connection.session.is_some() {
            connection.touched = true;
            self.touched.push(slot);
        }
    }

    fn keep_spare(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= SPARE_BYTES_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Sessions whose connection is here.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.connections.iter().flatten().filter_map(|connection| connection.session)
    }
}

#[cfg(test)]
mod tests;
