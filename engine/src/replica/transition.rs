//! From one leader to the next, seen from the replica.
//!
//! ```text
//!   wait ──> adopt ──> establish                 this server leads
//!     └────> learn ──> [reload] ──> serve        it learns from another one
//! ```
//!
//! Lost leadership drops what was not logged, never what was. What clients want in between is
//! parked, in order.
//!
//! Between leaders, requests that were forwarded keep their place: if their transactions come with
//! the next leader's history, they answer them; if not, no leader will ever commit them, and the
//! requests go to the next leader again.

use std::collections::BTreeSet;

use super::{Mode, Now, Output, Replica, SealedGroup, Sessions};
use crate::btree::Version;
use crate::ids::ConnectionId;
use crate::order::{Batch, Connect, ReplyKind, Request, Segment};
use crate::tree::{Effects, Tree};
use crate::txnlog::TxnLog;
use crate::zxid::{Epoch, Zxid};

/// What a client wanted while there was no leader.
#[derive(Debug)]
pub(super) enum Parked {
    /// To have this done.
    Request(Request, Vec<u8>),
    /// A session.
    Connect(Connect),
}

impl Parked {
    fn connection(&self) -> ConnectionId {
        match self {
            Self::Request(request, _) => request.connection,
            Self::Connect(connect) => connect.connection,
        }
    }
}

impl Replica {
    /// There is an ensemble, and no leader yet.
    pub fn join(&mut self) {
        assert_eq!(self.mode, Mode::Alone, "an ensemble is joined once");
        self.mode = Mode::Waiting;
        self.sessions.learn();
    }

    /// The leader is lost, be it this server or another one.
    pub fn wait(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.mode == Mode::Leading {
            self.drop_unlogged();
            self.drop_unproven();
        }
        self.flush_proposals(now, out);
        self.proposals.clear();
        self.learning.forget_leader();
        self.log_held = None;
        self.mode = Mode::Waiting;
    }

    /// Requests that were not logged are lost, and so are the connections that wait for them.
    fn drop_unlogged(&mut self) {
        let waiting = self.group.connections();
        self.group = super::Group::default();
        self.tree.return_to(&self.sealed_version);
        self.close_all(waiting);
    }

    /// Closes connections on which a request has no answer. What was sent behind it must not be
    /// done without it.
    fn close_all(&mut self, connections: BTreeSet<ConnectionId>) {
        self.sessions.disconnect_all(&connections);
        for connection in connections {
            self.answer(connection, ReplyKind::Close);
        }
    }

    /// There may be a newer leader, and what it has made is not in the state that these answers are
    /// of: whoever waits for one, or for another that would go out with it, loses the connection.
    fn drop_unproven(&mut self) {
        let proven = self.proofs_given;
        let mut closed = BTreeSet::new();
        for group in &mut self.sealed {
            if std::mem::take(&mut group.proof) <= proven {
                continue;
            }
            let items = group.batch.segments.iter_mut().flat_map(|segment| &mut segment.items);
            for reply in items.filter_map(|item| item.reply.as_mut()) {
                reply.kind = ReplyKind::Close;
                closed.insert(reply.connection);
            }
        }
        self.sessions.disconnect_all(&closed);
        (self.proofs_asked, self.proofs_given) = (0, 0);
    }

    /// Whether everything that was logged is durable, so that a vote may name the log's end.
    pub fn is_settled(&self) -> bool {
        self.log.submitted() == self.log.durable() && self.last_received() == self.log.durable()
    }

    /// The files of the log are about to change: whether the log has come to rest.
    pub fn rest_log(&mut self) -> bool {
        self.is_settled() && self.log.rest()
    }

    /// The files of the log are as they were.
    pub fn wake_log(&mut self, now: Now, out: &mut Vec<Output>) {
        let mut ops = Vec::new();
        self.log.wake(now.instant, &mut ops);
        out.extend(ops.into_iter().map(Output::Disk));
    }

    /// The head becomes all of the log: what a new leader has logged, it brings to its learners.
    pub fn adopt(&mut self, now: Now, out: &mut Vec<Output>) {
        assert!(self.mode == Mode::Waiting && self.is_settled());
        let end = self.log.durable();
        self.apply_pending(now, end, usize::MAX, out);
        self.seal_rest(now, out);
    }

    /// The state behind all of the log, which only a new leader's learners may have before it is
    /// committed.
    pub fn adopted(&self) -> &Version {
        &self.sealed_version
    }

    /// A quorum has the leader's history: all of it is committed, and clients are served.
    pub fn establish(&mut self, now: Now, epoch: Epoch, out: &mut Vec<Output>) {
        self.mode = Mode::Leading;
        self.committed = self.log.durable();
        self.seal_rest(now, out);
        let version = self.tree.freeze_at(Zxid::new(epoch, 0));
        self.push_version(now, version);
        self.sessions.lead(&self.tree, now);
        self.publish_durable(now, out);
        let unanswered = self.forwarding.take_unanswered();
        self.resume(now, unanswered, out);
    }

    /// Another server leads; clients wait until it says that this one is up to date.
    pub fn learn(&mut self) {
        assert_eq!(self.mode, Mode::Waiting);
        self.mode = Mode::Synchronizing;
        self.sessions.learn();
    }

    /// The leader says that this server is up to date: its history is committed up to `base`.
    /// Clients are served when what is durable of that is applied, see [`Replica::serves`].
    ///
    /// A leader of the epoch that was lost may still have our requests in its hands. Nobody knows
    /// what becomes of those that it has not logged, so they are not `repeated`, and their
    /// connections close.
    pub fn serve(&mut self, now: Now, base: Zxid, repeated: bool, out: &mut Vec<Output>) {
        assert_eq!(self.mode, Mode::Synchronizing);
        self.committed = self.committed.max(base).max(self.committed_by_leader());
        self.learning.serves_from = Some((self.visible(), repeated));
        self.apply_committed(now, out);
    }

    /// Whether what clients ask of this learner is decided.
    pub fn serves(&self) -> bool {
        self.mode == Mode::Learning
    }

    pub(super) fn begin_to_serve(&mut self, now: Now, repeated: bool, out: &mut Vec<Output>) {
        self.mode = Mode::Learning;
        self.seal_rest(now, out);
        self.publish_durable(now, out);
        let mut unanswered = self.forwarding.take_unanswered();
        if !repeated {
            self.close_all(unanswered.drain(..).map(|parked| parked.connection()).collect());
        }
        self.touch_all();
        self.resume(now, unanswered, out);
    }

    /// The state is another one: cut, or the leader's. Its log begins or ends with it. Nobody who
    /// waited for an answer gets one.
    pub fn reload(&mut self, now: Now, mut tree: Tree, log: TxnLog, out: &mut Vec<Output>) {
        self.sealed.clear();
        self.group = super::Group::default();
        self.parked.clear();
        self.learning.forget_proposals();
        drop(self.forwarding.take_unanswered());
        self.history.clear(log.durable());
        self.sessions.replace(Sessions::recover(&self.config, &tree, now));
        self.sessions.learn();
        self.housekeeping.reset();
        let version = tree.freeze();
        (self.tree, self.log) = (tree, log);
        self.published = version.clone();
        self.push_version(now, version);
        self.committed = Zxid::ZERO;
        let group = self.sealed.pop_front().expect("it was just made");
        out.push(Output::Publish(std::sync::Arc::new(group.batch), None));
    }

    /// The connections of those who wait are closed.
    pub fn forget_parked(&mut self) {
        self.parked.clear();
        drop(self.forwarding.take_unanswered());
    }

    pub(super) fn park_request(&mut self, request: Request, body: &[u8]) {
        self.parked.push(Parked::Request(request, body.to_vec()));
    }

    /// What was forwarded to a lost leader, then what was parked, goes where it can be decided.
    fn resume(&mut self, now: Now, unanswered: Vec<Parked>, out: &mut Vec<Output>) {
        let parked = std::mem::take(&mut self.parked);
        for parked in unanswered.into_iter().chain(parked) {
            match parked {
                Parked::Request(request, body) => self.on_request(now, request, &body),
                Parked::Connect(connect) => self.on_connect(now, connect),
            }
            self.seal_if_full(now, out);
        }
    }

    /// A version without a transaction of its own goes to the cores like any other.
    fn push_version(&mut self, now: Now, version: Version) {
        self.batches += 1;
        self.sealed_version = version.clone();
        let batch = Batch {
            number: self.batches,
            segments: vec![Segment { items: Vec::new(), version }],
            effects: Effects::new(),
            replies: Vec::new(),
        };
        let (last, made, proof) = (None, 0, 0);
        let (opened, sealed, committed) = (now.instant, now.instant, None);
        let group = SealedGroup { last, made, proof, batch, opened, sealed, committed };
        self.sealed.push_back(group);
    }

    fn seal_rest(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.group.is_empty() {
            self.seal(now, out);
        }
    }
}
