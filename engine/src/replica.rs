//! The ordering machine: sessions, sequencing, the log, publication.
//!
//! ```text
//!   Submission --> validate against the head, apply to it --> open group
//!   end of turn, log idle --> seal: freeze a version, one log frame --> DiskOp
//!   DiskDone --> everything durable is committed --> Publish, in order
//! ```
//!
//! A group collects whatever is submitted while the log is busy with the one before it, and goes
//! beside that one when it is large: that is the whole of group commit. Its effects are in the head
//! at once, so that the next request is validated against them; nobody sees them before the group
//! is published.
//!
//! Ladder: `prepared (tree.applied) >= sealed >= durable >= published`.
//!
//! Alone, what is durable is committed. In an ensemble (`quorum_peer`) a leader's groups become
//! proposals and a quorum commits them; a learner logs its leader's proposals, forwards what its
//! own clients ask for, and applies what the leader says is committed.
//!
//! Invariants:
//!
//!   * nothing is published before it is committed and durable here
//!   * groups are published in the order in which they were sealed, with contiguous numbers
//!   * a session has at most one connection; only requests from that one are ordered

mod config;
mod forwarding;
mod group;
mod housekeeping;
mod leading;
mod learning;
mod room;
mod sessions;
mod stages;
mod stats;
mod transition;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::acl::Id;
use crate::btree::Version;
use crate::disk::{DiskDone, DiskOp};
use crate::error_code::ErrorCode;
use crate::ids::{ConnectionId, SessionId, Xid};
use crate::op::OpCode;
use crate::order::{Batch, Connect, Order, ReplyKind, Request, Submission};
use crate::permission::Verdicts;
use crate::prep::{self, WriteContext};
use crate::records::write_bare_reply;
use crate::rules::Rules;
use crate::time::{Instant, WallTime};
use crate::tree::Tree;
use crate::txnlog::TxnLog;
use crate::txnlog::history::{History, Run};
use crate::zxid::{Epoch, Zxid};

use forwarding::Forwarding;
use group::{Group, SealedGroup};
use housekeeping::Housekeeping;
use learning::Learning;
use room::Shortage;
use sessions::Sessions;
use transition::Parked;

pub use config::{Config, GROUP_BYTES, ROLLOVER_COUNTER};
pub use housekeeping::{Kept, SnapshotWritten};
pub use learning::ProposalError;
pub use stages::GroupTimes;
pub use stats::ReplicaStats;

/// What a transaction has besides what its request brought: header, digest, lengths.
const TXN_OVERHEAD_BYTES: usize = 4096;

/// The most that one group can have, bytes of transactions: the last one may go beyond what a
/// group is sealed at.
pub fn group_bytes_most(group_bytes: usize, rules: &Rules) -> usize {
    group_bytes + rules.txn_bytes_max() + TXN_OVERHEAD_BYTES
}

/// Who decides what is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The disk: there is no ensemble.
    Alone,
    /// Nobody at the moment.
    Waiting,
    /// A quorum of the servers that this one leads.
    Leading,
    /// The leader that this one learns from, but not before it says UPTODATE.
    Synchronizing,
    /// The leader that this one learns from.
    Learning,
}

/// What can happen to a replica.
#[derive(Debug)]
pub enum Input {
    /// A client core wants this ordered.
    Submission(Submission),
    /// The disk finished something.
    Disk(DiskDone),
    /// A snapshot that [`Output::Snapshot`] asked for is on disk under its final name, or failed.
    SnapshotDone(Result<SnapshotWritten, Zxid>),
    /// Time passed.
    Tick,
}

/// What a replica wants done.
#[derive(Debug)]
pub enum Output {
    /// Do this on the disk.
    Disk(DiskOp),
    /// A group is committed: append it to every core's inbox, then make its version the published
    /// one; only then may any reply leave. If it has transactions, tell
    /// [`Replica::on_published`] its times when that is done.
    Publish(Arc<Batch>, Option<GroupTimes>),
    /// Ask every core what it has heard of its sessions, including what still is in its sockets.
    Collect(u64),
    /// Write a snapshot of this version, then remove those that are not kept.
    Snapshot(Version, Kept),
}

/// The time of one step.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The driver's monotonic clock.
    pub instant: Instant,
    /// The wall clock: what transactions are stamped with.
    pub wall: WallTime,
}

/// The server's one place where writes are ordered.
#[derive(Debug)]
pub struct Replica {
    config: Config,
    tree: Tree,
    log: TxnLog,
    sessions: Sessions,
    group: Group,
    sealed: VecDeque<SealedGroup>,
    /// The head when the last group was sealed.
    sealed_version: Version,
    published: Version,
    batches: u64,
    housekeeping: Housekeeping,
    /// What was short when it was last looked at.
    shortage: Option<Shortage>,
    mode: Mode,
    /// Everything up to here is committed. Alone, the log knows.
    committed: Zxid,
    history: History,
    /// The log's files are needed behind this: they are being read for a learner.
    log_held: Option<Zxid>,
    /// What was logged since the leader last looked.
    proposals: Vec<Run>,
    /// Answers to this server's clients that only a leader may give, since it leads, and how many
    /// of them are proven to be of one that still leads.
    proofs_asked: u64,
    proofs_given: u64,
    learning: Learning,
    forwarding: Forwarding,
    /// What clients wanted while there was no leader.
    parked: Vec<Parked>,
    stats: ReplicaStats,
}

impl Replica {
    /// Starts to serve the recovered `tree`, whose log is durable up to its last transaction.
    ///
    /// Every session of the tree gets its full timeout.
    pub fn new(config: Config, mut tree: Tree, log: TxnLog, now: Now) -> Self {
        let group_bytes = group_bytes_most(config.group_bytes, &config.rules);
        assert!(log.group_bytes_max() >= group_bytes, "segments are too short");
        let sessions = Sessions::recover(&config, &tree, now);
        let published = tree.freeze();
        let housekeeping = Housekeeping::new(&config, now.instant);
        Self {
            history: History::new(log.durable(), config.history_bytes),
            log_held: None,
            config,
            tree,
            log,
            sessions,
            group: Group::default(),
            sealed: VecDeque::new(),
            sealed_version: published.clone(),
            published,
            batches: 0,
            housekeeping,
            shortage: None,
            mode: Mode::Alone,
            committed: Zxid::ZERO,
            proposals: Vec::new(),
            proofs_asked: 0,
            proofs_given: 0,
            learning: Learning::default(),
            forwarding: Forwarding::default(),
            parked: Vec::new(),
            stats: ReplicaStats::default(),
        }
    }

    /// Hands over what recovery has kept of the log.
    pub fn remember(&mut self, history: History) {
        assert_eq!(history.last(), self.history.last(), "it is of the same log");
        self.history = history;
    }

    /// Says what recovery has replayed behind the newest snapshot: the next one is due sooner.
    pub fn replayed(&mut self, now: Now, txns: u64, bytes: u64) {
        self.housekeeping.logged(&self.config, now.instant, txns, bytes);
    }

    /// The last published version.
    pub fn published(&self) -> &Version {
        &self.published
    }

    /// The number of the last published batch.
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// The head: what requests are validated against.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Whether everything that was ordered is published.
    pub fn is_idle(&self) -> bool {
        self.group.is_empty() && self.sealed.is_empty()
    }

    /// Whether nothing comes of what was ordered any more, so that the server may stop: it is
    /// published; or it is durable, and nobody is there who could commit it: then it is up to the
    /// next leader, as it is after a crash; or the disk has no room for it, and nobody was told of
    /// it.
    pub fn is_at_rest(&self) -> bool {
        let is_settled = self.mode == Mode::Waiting && self.is_settled();
        self.is_idle() || is_settled || self.log.is_stuck()
    }

    /// When sessions expire unless they are heard of, soonest first, and which.
    pub fn session_deadlines(&self) -> Vec<(Instant, Vec<SessionId>)> {
        self.sessions.deadlines()
    }

    /// When to pass [`Input::Tick`] if nothing else happens.
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.learning.is_behind {
            return Some(Instant::ZERO);
        }
        let sessions = self.sessions.next_timeout().filter(|_| self.orders());
        [self.log.next_timeout(), sessions, self.house_timeout()].into_iter().flatten().min()
    }

    /// Whether transactions are made here.
    fn orders(&self) -> bool {
        matches!(self.mode, Mode::Alone | Mode::Leading)
    }

    /// Everything up to here may be shown to clients.
    fn visible(&self) -> Zxid {
        match self.mode {
            Mode::Alone => self.log.durable(),
            _ => self.committed.min(self.log.durable()),
        }
    }

    /// Advances by one input and appends what must be done about it to `out`.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        self.sessions.watch_clock(now.instant);
        match input {
            Input::Submission(submission) => self.on_submission(now, submission, out),
            Input::Disk(done) => self.on_disk(now, done, out),
            Input::SnapshotDone(result) => self.on_snapshot_done(now, result, out),
            Input::Tick => self.on_tick(now, out),
        }
    }

    /// Ends a turn: seals the open group if the log has time for it, or for much.
    pub fn finish_turn(&mut self, now: Now, out: &mut Vec<Output>) {
        self.log_proposals(now, out);
        self.apply_committed(now, out);
        if self.is_group_due() {
            self.seal(now, out);
        }
        self.publish_durable(now, out);
    }

    fn on_submission(&mut self, now: Now, submission: Submission, out: &mut Vec<Output>) {
        for &(session, heard) in &submission.touched {
            self.touch(session, heard);
        }
        for order in submission.orders {
            match order {
                Order::Request(request) => {
                    let body = &submission.bodies[request.body.clone()];
                    self.on_request(now, request, body);
                }
                Order::Connect(connect) => self.on_connect(now, connect),
                Order::Disconnected { connection, session } => {
                    self.sessions.disconnect(session, connection);
                }
            }
            self.seal_if_full(now, out);
        }
        if let Some(round) = submission.collected
            && self.orders()
        {
            self.on_collected(now, round, out);
        }
    }

    /// A session showed signs of life at one of this server's connections.
    fn touch(&mut self, session: SessionId, heard: Instant) {
        if self.orders() {
            self.sessions.touch(session, heard);
        } else {
            self.forwarding.touched.push(session);
        }
    }

    fn on_request(&mut self, now: Now, request: Request, body: &[u8]) {
        match self.mode {
            Mode::Alone | Mode::Leading => self.order_request(now, &request, body),
            Mode::Learning => self.forward_request(request, body),
            Mode::Waiting | Mode::Synchronizing => self.park_request(request, body),
        }
    }

    fn on_connect(&mut self, now: Now, connect: Connect) {
        match self.mode {
            Mode::Alone | Mode::Leading => self.connect(now, &connect),
            Mode::Learning => self.forward_connect(&connect),
            Mode::Waiting | Mode::Synchronizing => self.parked.push(Parked::Connect(connect)),
        }
    }

    fn order_request(&mut self, now: Now, request: &Request, body: &[u8]) {
        if !self.sessions.is_attached(request.session, request.connection) {
            // The session is over, or moved on to another connection: this one is being closed
            // and hears nothing more.
            return;
        }
        if request.cut {
            self.cut();
        }
        match request.op {
            OpCode::Sync => self.on_sync(request, body),
            OpCode::CloseSession => self.close_session(now, request.session, Some(request)),
            op => match prep::decode(op, body) {
                Ok(write) if self.refuses(&write) => self.refuse(request, ErrorCode::SystemError),
                Ok(write) => self.on_write(now, request, write),
                Err(_) => self.refuse(request, ErrorCode::MarshallingError),
            },
        }
    }

    fn on_write(&mut self, now: Now, request: &Request, write: prep::Request<'_>) {
        let author = Author { session: request.session, xid: request.xid, ids: &request.ids };
        self.order(now, &author, |tree, context, group| {
            let Group { txns, effects, replies, .. } = group;
            prep::execute(tree, context, write, txns, effects, replies);
        });
        self.group.end_txn(Some((request.connection, request.xid, false)));
    }

    /// Answers in its turn what does not become a transaction.
    fn refuse(&mut self, request: &Request, code: ErrorCode) {
        let zxid = self.tree.applied();
        self.group.begin_plain(zxid);
        write_bare_reply(&mut self.group.replies, request.xid, zxid.to_wire(), code.to_wire());
        self.group.end_plain(request.connection, request.xid);
    }

    /// A sync needs no transaction: it is answered when everything before it is published.
    fn on_sync(&mut self, request: &Request, body: &[u8]) {
        if self.proves_syncs() {
            self.ask_proof();
        }
        self.group.begin_plain(self.tree.applied());
        prep::sync(request.xid, self.tree.applied(), body, &mut self.group.replies);
        self.group.end_plain(request.connection, request.xid);
    }

    /// What the open group answers from now on goes out when this server is known to have led until
    /// now: a newer leader may have made something that the answer would deny.
    fn ask_proof(&mut self) {
        if self.mode == Mode::Leading {
            self.proofs_asked += 1;
            self.group.proof = self.proofs_asked;
        }
    }

    /// Ends a session: at its own request, or because nobody heard of it for too long.
    fn close_session(&mut self, now: Now, session: SessionId, request: Option<&Request>) {
        let connection = self.sessions.remove(session);
        let author = match request {
            Some(request) => Author { session, xid: request.xid, ids: &request.ids },
            None => Author::server(session),
        };
        self.order(now, &author, |tree, context, group| {
            let Group { txns, effects, replies, .. } = group;
            prep::close_session(tree, context, txns, effects, replies);
        });
        match (request, connection) {
            (Some(request), _) => {
                self.group.end_txn(Some((request.connection, request.xid, true)));
            }
            (None, Some(connection)) => {
                self.group.end_txn(None);
                self.answer(connection, ReplyKind::Close);
            }
            (None, None) => self.group.end_txn(None),
        }
    }

    /// Puts an answer that no transaction carries behind what was ordered before it.
    fn answer(&mut self, connection: ConnectionId, kind: ReplyKind) {
        self.group.push_answer(self.tree.applied(), connection, kind);
    }

    /// The zxid of the next transaction. A new epoch begins, between two groups, long before the
    /// counter of this one is used up.
    fn next_zxid(&self) -> Zxid {
        let applied = self.tree.applied();
        // In an ensemble only an election begins an epoch, and its leader sees to it in time.
        let due = applied.counter() >= self.config.rollover_counter && self.mode == Mode::Alone;
        if due && !self.group.has_txns() {
            return Zxid::new(Epoch(applied.epoch().0 + 1), 1);
        }
        applied.next().expect("a rollover comes before the counter ends")
    }

    /// Gives the next zxid to the transaction that `make` makes.
    fn order(
        &mut self,
        now: Now,
        author: &Author<'_>,
        make: impl FnOnce(&mut Tree, &WriteContext<'_>, &mut Group),
    ) {
        let zxid = self.next_zxid();
        let Self { config, tree, group, .. } = self;
        let context = WriteContext {
            session: author.session,
            xid: author.xid,
            zxid,
            time: now.wall,
            ids: author.ids,
            rules: &config.rules,
            verdicts: &Verdicts::default(),
        };
        group.begin_txn(zxid, now.instant);
        make(tree, &context, group);
        assert_eq!(tree.applied(), zxid, "each request makes one transaction");
    }

    fn on_disk(&mut self, now: Now, done: DiskDone, out: &mut Vec<Output>) {
        let mut ops = Vec::new();
        self.log.on_done(now.instant, done, &mut ops);
        out.extend(ops.into_iter().map(Output::Disk));
        self.publish_durable(now, out);
    }

    fn on_tick(&mut self, now: Now, out: &mut Vec<Output>) {
        let mut ops = Vec::new();
        self.log.on_timeout(now.instant, &mut ops);
        out.extend(ops.into_iter().map(Output::Disk));
        // On a full disk, the log looks each second whether there is room.
        self.request_snapshot(now, out);
        if self.orders()
            && let Some(round) = self.sessions.begin_collection(now.instant)
        {
            out.push(Output::Collect(round));
        }
        self.keep_house(now, out);
    }
}

/// Whose transaction it is.
struct Author<'a> {
    session: SessionId,
    xid: Xid,
    ids: &'a [Id],
}

impl Author<'_> {
    /// The server itself, for this session or for none.
    fn server(session: SessionId) -> Self {
        Self { session, xid: Xid(0), ids: &[] }
    }
}
