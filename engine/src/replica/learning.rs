//! What a learner's replica does: logs proposals, applies what is committed, and forwards what its
//! clients want to the leader.
//!
//! ```text
//!   PROPOSAL ──> incoming ──one frame──> log       (ACK when durable)
//!      └──────> pending ──COMMIT, durable──> tree, batch, replies
//!   client's write ──REQUEST──> leader ──...──> its transaction comes back in `pending`
//! ```
//!
//! A write's entry in `forwarded` is answered by its transaction. Writes come back in the order in
//! which they were forwarded, and each leads to exactly one transaction, so only the entry in front
//! is ever looked for.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Mode, Now, Output, Parked, Replica, Run};
use crate::acl::Id;
use crate::collections::FastMap;
use crate::error_code::ErrorCode;
use crate::ids::{ConnectionId, SessionId, Xid};
use crate::jute::DecodeError;
use crate::op::OpCode;
use crate::order::{Connect, Reply, ReplyKind, Request};
use crate::prep;
use crate::records::write_bare_reply;
use crate::txn::{Txn, TxnHeader, codec};
use crate::txnlog::format;
use crate::zab::packet;
use crate::zxid::Zxid;

/// Proposals are handed to the log at this size even while it is busy, bytes.
const INCOMING_BYTES_MAX: usize = 1 << 20;

/// A learner's part of the replica.
#[derive(Debug, Default)]
pub(super) struct Learning {
    /// Proposals that the log does not have yet, as its frames have them.
    incoming: Vec<u8>,
    incoming_first: Option<Zxid>,
    /// Logged, or about to be, and not applied.
    pending: VecDeque<(Zxid, Vec<u8>)>,
    /// The leader says that everything up to here is committed.
    commit_to: Zxid,
    /// Writes whose transactions have not come back.
    forwarded: VecDeque<Forwarded>,
    /// Syncs that the leader has not answered, and refusals that wait for their turn.
    syncs: VecDeque<Forwarded>,
    /// Syncs that the leader has answered: each is done when this is applied.
    syncs_done: VecDeque<Zxid>,
    forwarded_count: u64,
    /// Sessions that the leader is asked about.
    asked: FastMap<SessionId, VecDeque<Asked>>,
    /// Packets for the leader.
    to_leader: Vec<u8>,
    /// Sessions that clients were heard of since the last PING.
    pub(super) touched: Vec<SessionId>,
    /// Up to here the tree may be ahead of each transaction that is applied: no digest says what
    /// it must be.
    doubtful_to: Zxid,
    /// Whether the tree was found to differ from the leader's.
    digest_differs: bool,
}

/// A request that the leader has.
#[derive(Debug)]
struct Forwarded {
    /// Counts what was forwarded.
    number: u64,
    request: Request,
    body: Vec<u8>,
    /// For a session to be opened: its timeout.
    timeout_ms: Option<i32>,
    /// Nothing that the leader is asked to do: the answer is known, and waits for its turn.
    refusal: Option<ErrorCode>,
}

/// Why the leader is asked about a session.
#[derive(Debug)]
enum Asked {
    /// A connection wants to attach to it.
    Attach(ConnectionId, i32),
    /// The leader is new, and the session connected here.
    Keep,
}

/// A proposal that cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposalError {
    /// Its bytes are no transaction.
    #[error("a transaction that cannot be decoded: {0}")]
    Decode(#[from] DecodeError),
    /// It has another zxid than the packet, or one that does not follow.
    #[error("a proposal of {found} behind {last}")]
    Order {
        /// Its zxid.
        found: Zxid,
        /// The last one before it.
        last: Zxid,
    },
    /// It does not fit in a segment of the log.
    #[error("it has {bytes} bytes, and may have {max}: jute.maxbuffer is not the leader's")]
    TooLong {
        /// What it has.
        bytes: usize,
        /// What one may have.
        max: usize,
    },
}

impl Replica {
    /// Takes a proposal: it is logged, and applied when it is committed.
    pub fn propose(
        &mut self,
        now: Now,
        zxid: Zxid,
        txn: Vec<u8>,
        out: &mut Vec<Output>,
    ) -> Result<(), ProposalError> {
        let last = self.last_received();
        let goes_on = last.next() == Some(zxid);
        let begins = zxid.epoch() > last.epoch() && zxid.counter() == 1;
        let decoded = codec::decode(&txn)?;
        if decoded.header.zxid != zxid || !(goes_on || begins) {
            return Err(ProposalError::Order { found: zxid, last });
        }
        let (bytes, max) = (format::TXN_LENGTH_BYTES + txn.len(), self.log.group_bytes_max());
        if bytes > max {
            return Err(ProposalError::TooLong { bytes, max });
        }
        self.stats.count_proposal(now, decoded.header.time);
        if self.learning.incoming.len() + bytes > max {
            self.flush_proposals(now, out);
        }
        let learning = &mut self.learning;
        learning.incoming_first.get_or_insert(zxid);
        format::push_txn(&mut learning.incoming, &txn);
        learning.pending.push_back((zxid, txn));
        if learning.incoming.len() >= INCOMING_BYTES_MAX {
            self.flush_proposals(now, out);
        }
        Ok(())
    }

    /// The last transaction of the log, with what is on its way there.
    pub fn last_received(&self) -> Zxid {
        let incoming = self.learning.incoming_first.and(self.learning.pending.back());
        incoming.map_or(self.log.submitted(), |(zxid, _)| *zxid)
    }

    /// The leader says that everything up to here is committed.
    pub fn commit_proposal(&mut self, zxid: Zxid) {
        self.learning.commit_to = self.learning.commit_to.max(zxid);
    }

    /// Hands what has come in to the log. One frame takes transactions of one epoch.
    pub(super) fn log_proposals(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.log.submitted() == self.log.durable() {
            self.flush_proposals(now, out);
        }
    }

    /// Hands all of what has come in to the log.
    pub(super) fn flush_proposals(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(first) = self.learning.incoming_first.take() else { return };
        let txns = std::mem::take(&mut self.learning.incoming);
        let start = self.learning.pending.partition_point(|(zxid, _)| *zxid < first);
        let zxids: Vec<_> = self.learning.pending.range(start..).map(|(zxid, _)| *zxid).collect();
        let mut rest = &txns[..];
        for run in zxids.chunk_by(|a, b| a.epoch() == b.epoch()) {
            let bytes: usize = {
                let txns = format::txns(rest).flatten().take(run.len());
                txns.map(|txn| txn.len() + format::TXN_LENGTH_BYTES).sum()
            };
            let (part, after) = rest.split_at(bytes);
            rest = after;
            let (first, last) = (run[0], run[run.len() - 1]);
            self.log_run(now, Run { first, last, txns: Arc::new(part.to_vec()) }, out);
        }
    }

    /// Applies what is committed and durable here.
    pub(super) fn apply_committed(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.mode != Mode::Learning {
            return;
        }
        self.committed = self.committed.max(self.learning.commit_to);
        let visible = self.visible();
        self.apply_pending(now, visible, out);
    }

    /// Applies pending transactions up to `end`, and answers those who wait for them.
    pub(super) fn apply_pending(&mut self, now: Now, end: Zxid, out: &mut Vec<Output>) {
        loop {
            let next = self.learning.pending.front().map(|(zxid, _)| *zxid);
            let next = next.filter(|zxid| *zxid <= end);
            while let Some(at) = self.learning.syncs_done.front()
                && next.is_none_or(|next| next > *at)
                && *at <= end.max(self.tree.applied())
            {
                self.learning.syncs_done.pop_front();
                self.answer_sync();
            }
            if next.is_none() {
                return;
            }
            let (zxid, txn) = self.learning.pending.pop_front().expect("it was just there");
            self.apply_logged(now, zxid, &txn);
            let answers = self.group.replies.len() + self.group.effects.paths.len();
            if answers > self.config.group_bytes {
                self.seal(now, out);
            }
        }
    }

    fn apply_logged(&mut self, now: Now, zxid: Zxid, txn: &[u8]) {
        let decoded = codec::decode(txn).expect("it was decoded when it came in");
        let (header, txn) = (&decoded.header, &decoded.txn);
        let own = self.learning.take_own(header);
        if let Some(own) = &own {
            self.answer_syncs_before(own.number);
        }
        if own.as_ref().is_some_and(|own| own.request.cut) {
            self.cut();
        }
        self.group.begin_logged(zxid, now.instant);
        let outcome = self.tree.apply(header, txn, &mut self.group.effects);
        self.check_digest(zxid, decoded.digest);
        self.stats.count_applied(now, self.mode, header.time);
        let closed = match txn {
            Txn::CloseSession { .. } => self.sessions.remove(header.session),
            Txn::CreateSession { .. } => {
                self.sessions.observe(header.session);
                None
            }
            _ => None,
        };
        let Some(own) = own else {
            self.group.end_logged(None);
            if let Some(connection) = closed {
                self.answer(connection, ReplyKind::Close);
            }
            return;
        };
        let Request { connection, xid, session, .. } = own.request;
        if let Some(timeout_ms) = own.timeout_ms {
            let opened = matches!(txn, Txn::CreateSession { .. });
            let kind = if opened {
                self.sessions.attach(session, connection);
                ReplyKind::Attached { session, timeout_ms }
            } else {
                ReplyKind::Refused
            };
            return self.group.end_logged(Some(Reply { connection, kind }));
        }
        if *txn == Txn::Error(ErrorCode::SessionMoved.into()) {
            // Compat: FinalRequestProcessor.processRequest - the leader has given the session to a
            // connection that the client has given up. Only a new one of it settles that.
            self.sessions.disconnect(session, connection);
            self.group.end_logged(None);
            return self.answer(connection, ReplyKind::Close);
        }
        prep::write_reply(xid, zxid, txn, &outcome, &mut self.group.replies);
        let close = matches!(txn, Txn::CloseSession { .. });
        let frame = self.group.reply_frame();
        let kind = ReplyKind::Frame { frame, xid, close };
        self.group.end_logged(Some(Reply { connection, kind }));
    }

    /// The leader's tree has this digest after the transaction; so must ours.
    ///
    // Compat: DataTree.compareDigest, reportDigestMismatch
    fn check_digest(&mut self, zxid: Zxid, digest: Option<(i32, u64)>) {
        let Some((codec::DIGEST_VERSION, digest)) = digest else { return };
        if zxid <= self.learning.doubtful_to || digest == self.tree.digest() {
            return;
        }
        self.stats.digest_mismatches += 1;
        if !std::mem::replace(&mut self.learning.digest_differs, true) {
            tracing::error!(%zxid, "the tree's digest is not the leader's from here on");
        }
    }

    /// The tree is to be replaced by one of a leader's. ZooKeeper's writes it while transactions
    /// are applied to it: it may be ahead of its zxid.
    pub fn doubt_digests(&mut self) {
        (self.learning.doubtful_to, self.learning.digest_differs) = (Zxid(u64::MAX), false);
    }

    /// The tree is not ahead of what has been received by now.
    pub fn trust_digests(&mut self) {
        self.learning.doubtful_to = self.learning.doubtful_to.min(self.last_received());
    }

    /// Whether a tree was found to differ from a leader's.
    pub fn digest_differs(&self) -> bool {
        self.stats.digest_mismatches > 0
    }

    /// Forwards a client's request to the leader.
    pub(super) fn forward_request(&mut self, request: Request, body: &[u8]) {
        if !self.sessions.is_attached(request.session, request.connection) {
            return;
        }
        let Request { session, xid, op, .. } = request;
        // Compat: a Java leader makes no transaction of what it cannot decode, and so never
        // answers it. A sync in its place comes back behind what was asked for before.
        let bare = matches!(op, OpCode::Sync | OpCode::CloseSession);
        let refused = !bare && prep::decode(op, body).is_err();
        let sent = if refused { OpCode::Sync } else { op };
        let ids = if bare || refused { &[][..] } else { &request.ids };
        let to_leader = &mut self.learning.to_leader;
        let body = if refused { &[0; 4][..] } else { body };
        packet::write_request(session, xid, sent.to_wire(), body, ids, to_leader);
        let refusal = refused.then_some(ErrorCode::MarshallingError);
        let (body, timeout_ms) = (body.to_vec(), None);
        self.learning.expect(Forwarded { number: 0, request, body, timeout_ms, refusal });
    }

    /// Asks the leader for a session to be opened, or whether one may be attached to.
    pub(super) fn forward_connect(&mut self, connect: &Connect) {
        let Connect { connection, session, genuine, timeout_ms } = *connect;
        if session != SessionId::NONE {
            if !genuine {
                return self.answer(connection, ReplyKind::Refused);
            }
            return self.ask(session, timeout_ms, Asked::Attach(connection, timeout_ms));
        }
        let session = self.allocate_session();
        let (xid, op, ids) = (Xid(0), OpCode::CreateSession, Arc::<[Id]>::from([]));
        let body = timeout_ms.to_be_bytes().to_vec();
        packet::write_request(session, xid, op.to_wire(), &body, &[], &mut self.learning.to_leader);
        let request = Request { connection, session, xid, op, body: 0..4, ids, cut: false };
        let (timeout_ms, refusal) = (Some(timeout_ms), None);
        self.learning.expect(Forwarded { number: 0, request, body, timeout_ms, refusal });
    }

    fn ask(&mut self, session: SessionId, timeout_ms: i32, why: Asked) {
        let mut data = Vec::with_capacity(12);
        packet::push_session(session, timeout_ms, &mut data);
        let kind = packet::PacketKind::Revalidate;
        packet::write(kind, -1, Some(&data), &mut self.learning.to_leader);
        self.learning.asked.entry(session).or_default().push_back(why);
    }

    /// The leader's answer about a session.
    pub fn on_revalidated(&mut self, session: SessionId, valid: bool) {
        let Some(asked) = self.learning.asked.get_mut(&session) else { return };
        let why = asked.pop_front();
        if asked.is_empty() {
            self.learning.asked.remove(&session);
        }
        match (why, valid) {
            (Some(Asked::Attach(connection, timeout_ms)), true) => {
                if let Some(previous) = self.sessions.attach(session, connection) {
                    self.answer(previous, ReplyKind::Close);
                }
                self.answer(connection, ReplyKind::Attached { session, timeout_ms });
            }
            (Some(Asked::Attach(connection, _)), false) => {
                self.answer(connection, ReplyKind::Refused);
            }
            (Some(Asked::Keep), false) => {
                if let Some(connection) = self.sessions.remove(session) {
                    self.answer(connection, ReplyKind::Close);
                }
            }
            (Some(Asked::Keep), true) | (None, _) => {}
        }
    }

    /// The leader's answer to the oldest sync: it is done when what is committed is applied here.
    pub fn on_synced(&mut self) {
        if self.learning.syncs_done.len() < self.learning.syncs.len() {
            self.learning.syncs_done.push_back(self.learning.commit_to);
        }
    }

    /// Answers the syncs that were forwarded before a write whose transaction comes now. A leader
    /// answers them before; but one that was lost had no time to, and left the transaction.
    /// What it had made when it took the sync lies in front of that transaction, too.
    fn answer_syncs_before(&mut self, number: u64) {
        while self.learning.syncs.front().is_some_and(|sync| sync.number < number) {
            self.learning.syncs_done.pop_front();
            self.answer_sync();
        }
    }

    fn answer_sync(&mut self) {
        let Some(forwarded) = self.learning.syncs.pop_front() else { return };
        let Forwarded { request, body, refusal, .. } = forwarded;
        if request.cut {
            self.cut();
        }
        let applied = self.tree.applied();
        self.group.begin_plain(applied);
        let replies = &mut self.group.replies;
        match refusal {
            None => prep::sync(request.xid, applied, &body, replies),
            Some(code) => {
                write_bare_reply(replies, request.xid, applied.to_wire(), code.to_wire());
            }
        }
        self.group.end_plain(request.connection, request.xid);
    }

    /// The leader says that everything up to here is committed.
    pub fn committed_by_leader(&self) -> Zxid {
        self.learning.commit_to
    }

    /// What there is to say to the leader.
    pub fn take_to_leader(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.learning.to_leader)
    }

    /// Sessions that were heard of since the last call, with their timeouts, as PING carries them.
    pub fn take_touched(&mut self) -> Vec<u8> {
        let mut touched = std::mem::take(&mut self.learning.touched);
        touched.sort_unstable();
        touched.dedup();
        let mut data = Vec::with_capacity(touched.len() * 12);
        for session in touched {
            if let Some(timeout_ms) = self.session_timeout(session) {
                packet::push_session(session, timeout_ms, &mut data);
            }
        }
        data
    }

    /// Asks the new leader about every session that is connected here.
    pub(super) fn revalidate_all(&mut self) {
        for session in self.sessions.connected() {
            let timeout_ms = self.session_timeout(session).unwrap_or(0);
            self.ask(session, timeout_ms, Asked::Keep);
        }
    }
}

impl Learning {
    /// An answer to this will come.
    fn expect(&mut self, mut forwarded: Forwarded) {
        self.forwarded_count += 1;
        forwarded.number = self.forwarded_count;
        if forwarded.request.op == OpCode::Sync || forwarded.refusal.is_some() {
            self.syncs.push_back(forwarded);
        } else {
            self.forwarded.push_back(forwarded);
        }
    }

    /// The entry that this transaction answers, if it came from here.
    fn take_own(&mut self, header: &TxnHeader) -> Option<Forwarded> {
        self.forwarded.pop_front_if(|own| {
            own.request.session == header.session && own.request.xid == header.cxid
        })
    }

    /// What the next leader must be told again: a leader that is lost has no answers for it.
    /// What it has logged of it came with the synchronization and was answered.
    pub(super) fn take_unanswered(&mut self) -> Vec<Parked> {
        let mut unanswered: Vec<_> = self.forwarded.drain(..).chain(self.syncs.drain(..)).collect();
        unanswered.sort_by_key(|forwarded| forwarded.number);
        let park = |forwarded: Forwarded| {
            let Forwarded { request, body, timeout_ms, .. } = forwarded;
            let Some(timeout_ms) = timeout_ms else { return Parked::Request(request, body) };
            let (connection, session) = (request.connection, SessionId::NONE);
            Parked::Connect(Connect { connection, session, genuine: true, timeout_ms })
        };
        let mut parked: Vec<_> = unanswered.into_iter().map(park).collect();
        let mut asked: Vec<_> = self.asked.drain().collect();
        asked.sort_unstable_by_key(|(session, _)| *session);
        for (session, whys) in asked {
            parked.extend(whys.into_iter().filter_map(|why| match why {
                Asked::Attach(connection, timeout_ms) => {
                    let genuine = true;
                    Some(Parked::Connect(Connect { connection, session, genuine, timeout_ms }))
                }
                Asked::Keep => None,
            }));
        }
        self.syncs_done.clear();
        self.to_leader.clear();
        parked
    }

    /// Forgets proposals: the log was cut or replaced.
    pub(super) fn forget_proposals(&mut self) {
        self.incoming.clear();
        self.incoming_first = None;
        self.pending.clear();
        self.commit_to = Zxid::ZERO;
    }

    /// The leader's word counts no more.
    pub(super) fn begin(&mut self) {
        self.commit_to = Zxid::ZERO;
    }
}
