//! What a leader's replica does for its learners: their requests become transactions in the order
//! in which they come, whatever is wrong with them, so that each is answered in its turn.

use super::{Author, Mode, Now, Output, Replica, Run};
use crate::acl::Id;
use crate::error_code::ErrorCode;
use crate::ids::{ServerId, SessionId};
use crate::jute::Reader;
use crate::op::OpCode;
use crate::order::ReplyKind;
use crate::prep;
use crate::records::OpClass;
use crate::records::op_class;
use crate::tree;
use crate::txn::codec;
use crate::txnlog::history::History;
use crate::zab::packet::ForwardedRequest;
use crate::zxid::Zxid;

use super::group::Group;

impl Replica {
    /// Takes the request that a learner forwards.
    ///
    // Compat: PrepRequestProcessor.pRequest, for requests with an owner
    pub fn order_forwarded(
        &mut self,
        now: Now,
        learner: ServerId,
        request: &ForwardedRequest,
        body: &[u8],
        ids: &[Id],
        out: &mut Vec<Output>,
    ) {
        self.order_for(now, learner, request, body, ids);
        self.seal_if_full(now, out);
    }

    fn order_for(
        &mut self,
        now: Now,
        learner: ServerId,
        request: &ForwardedRequest,
        body: &[u8],
        ids: &[Id],
    ) {
        assert_eq!(self.mode, Mode::Leading, "only a leader takes requests of others");
        let session = request.session;
        if request.op == OpCode::CreateSession.to_wire() {
            return self.open_forwarded(now, learner, session, body);
        }
        let author = Author { session, xid: request.xid, ids };
        let close = request.op == OpCode::CloseSession.to_wire();
        let may_be_local = self.config.rules.local_sessions && !self.sessions.is_own(session);
        let checked = self.sessions.check(session, learner);
        match checked {
            // Compat: LeaderSessionTracker.checkSession - its server may have it for itself.
            Err(ErrorCode::SessionExpired) if may_be_local && !close => {
                self.order_write(now, &author, request.op, body);
            }
            Err(code) => self.order_refusal(now, &author, code),
            Ok(()) if close => {
                self.sessions.remove(session);
                self.order(now, &author, |tree, context, group| {
                    let Group { txns, effects, replies, .. } = group;
                    prep::close_session(tree, context, txns, effects, replies);
                });
            }
            Ok(()) => self.order_write(now, &author, request.op, body),
        }
        self.group.end_txn(None);
    }

    fn order_write(&mut self, now: Now, author: &Author<'_>, op: i32, body: &[u8]) {
        let OpClass::Write(op) = op_class(op) else {
            return self.order_refusal(now, author, ErrorCode::Unimplemented);
        };
        let max = self.config.rules.packet_bytes_max;
        if body.len() > max {
            // Its learner takes longer packets than this server: no group of the log need have
            // room for them, nor need other members take them.
            let bytes = body.len();
            tracing::warn!(bytes, max, "refusing a forwarded request: jute.maxbuffer differs");
            return self.order_refusal(now, author, ErrorCode::MarshallingError);
        }
        match prep::decode(op, body) {
            Ok(write) if self.refuses(&write) => {
                self.order_refusal(now, author, ErrorCode::SystemError);
            }
            Ok(write) => self.order(now, author, |tree, context, group| {
                let Group { txns, effects, replies, .. } = group;
                prep::execute(tree, context, write, txns, effects, replies);
            }),
            Err(_) => self.order_refusal(now, author, ErrorCode::MarshallingError),
        }
    }

    fn order_refusal(&mut self, now: Now, author: &Author<'_>, code: ErrorCode) {
        self.order(now, author, |tree, context, group| {
            let Group { txns, effects, replies, .. } = group;
            prep::refuse(tree, context, code, txns, effects, replies);
        });
    }

    /// Opens a session under the id that the learner has chosen.
    fn open_forwarded(&mut self, now: Now, learner: ServerId, session: SessionId, body: &[u8]) {
        let Ok(timeout_ms) = Reader::new(body).i32() else {
            let author = Author::server(session);
            self.order_refusal(now, &author, ErrorCode::MarshallingError);
            return self.group.end_txn(None);
        };
        self.create_session(now, session, timeout_ms);
        self.sessions.track(now.instant, session, timeout_ms);
        self.sessions.hand_to(session, learner);
    }

    /// Whether requests of a session were taken since this server leads, or may have been.
    pub fn is_owned(&self, session: SessionId) -> bool {
        self.sessions.is_owned(session)
    }

    /// Whether a session may be attached to at a learner; if so, it is that learner's from now on.
    ///
    // Compat: Leader.revalidateSession
    pub fn revalidate(
        &mut self,
        now: Now,
        learner: ServerId,
        session: SessionId,
        timeout_ms: i32,
    ) -> bool {
        if self.mode != Mode::Leading || !self.sessions.is_open(session) {
            return false;
        }
        self.sessions.track(now.instant, session, timeout_ms);
        if let Some(previous) = self.sessions.hand_to(session, learner) {
            self.answer(previous, ReplyKind::Close);
        }
        true
    }

    /// A learner has heard of a session, whose connection there has this timeout.
    pub fn touch_forwarded(
        &mut self,
        now: Now,
        learner: ServerId,
        session: SessionId,
        timeout_ms: i32,
    ) {
        if self.mode == Mode::Leading {
            self.sessions.touch_at(now.instant, learner, session, timeout_ms);
        }
    }

    /// What was logged since the last call, to be proposed.
    pub fn take_proposals(&mut self) -> Vec<Run> {
        std::mem::take(&mut self.proposals)
    }

    /// The log's files are needed behind this, whatever snapshots there are.
    pub fn hold_log(&mut self, behind: Option<Zxid>) {
        self.log_held = behind;
    }

    /// The last transaction that was made: a sync is done when it is committed.
    pub fn last_made(&self) -> Zxid {
        self.tree.applied()
    }

    /// Whether a sync waits until it is known that this server still leads.
    pub fn proves_syncs(&self) -> bool {
        self.config.linearizable_sync
    }

    /// How many answers to this server's own clients have needed a proof of leadership since it
    /// leads.
    pub fn proofs_asked(&self) -> u64 {
        self.proofs_asked
    }

    /// No newer leader had a quorum when so many of them were asked for.
    pub fn prove(&mut self, count: u64) {
        self.proofs_given = count;
    }

    /// A quorum has everything up to here on disk.
    pub fn commit(&mut self, now: Now, zxid: Zxid) {
        assert!(zxid >= self.committed, "{zxid} is committed behind {}", self.committed);
        assert!(zxid <= self.log.submitted(), "{zxid} was never logged");
        for (_, txn) in self.history.behind(self.committed).take_while(|(at, _)| *at <= zxid) {
            let made = codec::made_at(txn).expect("it was made here");
            self.stats.count_quorum_ack(now, made);
        }
        self.committed = zxid;
    }

    /// Everything up to here is committed.
    pub fn committed(&self) -> Zxid {
        self.committed
    }

    /// The last transactions of the log.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The last transaction that was made or logged.
    pub fn last_logged(&self) -> Zxid {
        self.log.submitted()
    }

    /// The last transaction that survives a loss of power.
    pub fn last_durable(&self) -> Zxid {
        self.log.durable()
    }

    /// The last transaction that votes name, and what a leader is told: committed or not.
    pub fn last_named(&self) -> Zxid {
        if self.config.names_committed { self.published.zxid() } else { self.last_durable() }
    }

    /// Whether the zxids of this epoch are nearly used up, and nothing is under way; or nearly
    /// gone, whatever is under way.
    pub fn wants_new_epoch(&self) -> bool {
        let counter = self.tree.applied().counter();
        let soon = self.config.rollover_counter;
        let late = soon + (u32::MAX - soon) / 2;
        counter >= soon && (self.is_idle() || counter >= late)
    }

    /// The timeout of a session, milliseconds: what its last connection here was granted, or its
    /// first one anywhere. None if it has ended.
    pub fn session_timeout(&self, session: SessionId) -> Option<i32> {
        let first = tree::session(self.tree.view(), session)?;
        Some(self.sessions.timeout_ms(session).unwrap_or(first))
    }
}
