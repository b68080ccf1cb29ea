//! What a learner's replica does: logs proposals and applies what is committed.
//!
//! ```text
//!   PROPOSAL ──> incoming ──one frame──> log       (ACK when durable)
//!      └──────> pending ──COMMIT, durable──> tree, batch, replies
//!   client's write ──REQUEST──> leader ──...──> its transaction comes back in `pending`
//! ```
//!
//! [`super::forwarding`] knows who waits for what of it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::group::USUAL_BYTES;
use super::{Mode, Now, Output, Replica, Run};
use crate::error_code::ErrorCode;
use crate::ids::ConnectionId;
use crate::jute::DecodeError;
use crate::order::{Reply, ReplyKind, Request};
use crate::prep;
use crate::txn::{Txn, codec};
use crate::txnlog::format;
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
    /// Clients are served when everything up to here is applied; and whether what they had asked
    /// a lost leader for is asked again.
    pub(super) serves_from: Option<(Zxid, bool)>,
    /// More is committed than one turn has time for.
    pub(super) is_behind: bool,
    /// Up to here the tree may be ahead of each transaction that is applied: no digest says what
    /// it must be.
    doubtful_to: Zxid,
    /// Whether the tree was found to differ from the leader's.
    digest_differs: bool,
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

    /// Whether the log keeps up with what comes.
    pub fn has_room(&self) -> bool {
        self.log.has_room(self.learning.incoming.len())
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

    /// Applies what is committed and durable here, as much as a turn has time for.
    pub(super) fn apply_committed(&mut self, now: Now, out: &mut Vec<Output>) {
        let end = match (self.mode, self.learning.serves_from) {
            (Mode::Learning, _) => {
                self.committed = self.committed.max(self.learning.commit_to);
                self.visible()
            }
            (Mode::Synchronizing, Some((end, _))) => end,
            _ => return,
        };
        let is_done = self.apply_pending(now, end, self.config.group_bytes, out);
        self.learning.is_behind = !is_done;
        if is_done && let Some((_, repeated)) = self.learning.serves_from.take() {
            self.begin_to_serve(now, repeated, out);
        }
    }

    /// Applies pending transactions up to `end`, and answers those who wait for them; whether it
    /// has come to the end with so many bytes.
    pub(super) fn apply_pending(
        &mut self,
        now: Now,
        end: Zxid,
        bytes_max: usize,
        out: &mut Vec<Output>,
    ) -> bool {
        let mut bytes = 0;
        loop {
            let next = self.learning.pending.front().map(|(zxid, _)| *zxid);
            let next = next.filter(|zxid| *zxid <= end);
            while let Some(at) = self.forwarding.syncs_done.front()
                && next.is_none_or(|next| next > *at)
                && *at <= end.max(self.tree.applied())
            {
                self.forwarding.syncs_done.pop_front();
                self.answer_sync();
            }
            if next.is_none() {
                return true;
            }
            if bytes > bytes_max {
                return false;
            }
            let (zxid, txn) = self.learning.pending.pop_front().expect("it was just there");
            // The shortest one takes its time, too.
            bytes += txn.len().max(USUAL_BYTES);
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
        let own = self.forwarding.take_own(header);
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
            return self.close(closed);
        };
        let Request { connection, xid, session, .. } = own.request;
        if let Some(timeout_ms) = own.timeout_ms {
            let opened = matches!(txn, Txn::CreateSession { .. });
            let kind = if opened {
                self.sessions.attach(session, connection, timeout_ms);
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
        // Another connection may have attached while that one's request to end it was under way.
        self.close(closed.filter(|other| *other != connection));
    }

    fn close(&mut self, connection: Option<ConnectionId>) {
        if let Some(connection) = connection {
            self.answer(connection, ReplyKind::Close);
        }
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

    /// The leader says that everything up to here is committed.
    pub fn committed_by_leader(&self) -> Zxid {
        self.learning.commit_to
    }
}

impl Learning {
    /// Forgets proposals: the log was cut or replaced.
    pub(super) fn forget_proposals(&mut self) {
        self.incoming.clear();
        self.incoming_first = None;
        self.pending.clear();
        self.commit_to = Zxid::ZERO;
    }

    /// The leader's word counts no more.
    pub(super) fn forget_leader(&mut self) {
        self.commit_to = Zxid::ZERO;
        (self.serves_from, self.is_behind) = (None, false);
    }
}
