//! What a learner asks its leader for on behalf of its clients, and which answers come back.
//!
//! A write's entry in `writes` is answered by its transaction. Writes come back in the order in
//! which they were forwarded, and each leads to exactly one transaction, so only the entry in front
//! is ever looked for.
//!
//! Session and xid alone don't tell whose answer a transaction is: a client that comes here from
//! another server may begin anew to count (kazoo does), and what it had asked for there may come as
//! late as what it asks for here. So an entry is answered by what was received behind it only; and
//! a leader says that a session may be attached to when what it has made for it is committed.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Parked, Replica};
use crate::acl::Id;
use crate::collections::FastMap;
use crate::error_code::ErrorCode;
use crate::ids::{ConnectionId, SessionId, Xid};
use crate::op::OpCode;
use crate::order::{Connect, ReplyKind, Request};
use crate::prep;
use crate::records::write_bare_reply;
use crate::txn::TxnHeader;
use crate::zab::packet;
use crate::zxid::Zxid;

/// What the leader is asked for.
#[derive(Debug, Default)]
pub(super) struct Forwarding {
    /// Writes whose transactions have not come back.
    writes: VecDeque<Forwarded>,
    /// Syncs that the leader has not answered, and refusals that wait for their turn.
    syncs: VecDeque<Forwarded>,
    /// Syncs that the leader has answered: each is done when this is applied.
    pub(super) syncs_done: VecDeque<Zxid>,
    /// How many of both there were.
    count: u64,
    /// Connections that want to attach to a session, and with what timeout: the leader is asked.
    asked: FastMap<SessionId, VecDeque<(ConnectionId, i32)>>,
    /// Packets for the leader.
    to_leader: Vec<u8>,
    /// Sessions that clients were heard of since the last PING.
    pub(super) touched: Vec<SessionId>,
}

/// A request that the leader has.
#[derive(Debug)]
pub(super) struct Forwarded {
    /// Counts what was forwarded.
    pub(super) number: u64,
    /// What had been received by then: no transaction up to here is the answer.
    behind: Zxid,
    pub(super) request: Request,
    body: Vec<u8>,
    /// For a session to be opened: its timeout.
    pub(super) timeout_ms: Option<i32>,
    /// Nothing that the leader is asked to do: the answer is known, and waits for its turn.
    refusal: Option<ErrorCode>,
}

impl Replica {
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
        let to_leader = &mut self.forwarding.to_leader;
        let body = if refused { &[0; 4][..] } else { body };
        packet::write_request(session, xid, sent.to_wire(), body, ids, to_leader);
        let refusal = refused.then_some(ErrorCode::MarshallingError);
        self.expect(request, body.to_vec(), None, refusal);
    }

    /// Asks the leader for a session to be opened, or whether one may be attached to.
    pub(super) fn forward_connect(&mut self, connect: &Connect) {
        let Connect { connection, session, genuine, timeout_ms } = *connect;
        if session != SessionId::NONE {
            if !genuine {
                return self.answer(connection, ReplyKind::Refused);
            }
            let mut data = Vec::with_capacity(12);
            packet::push_session(session, timeout_ms, &mut data);
            let kind = packet::PacketKind::Revalidate;
            packet::write(kind, -1, Some(&data), &mut self.forwarding.to_leader);
            let asked = self.forwarding.asked.entry(session).or_default();
            return asked.push_back((connection, timeout_ms));
        }
        let session = self.allocate_session();
        let (xid, op, ids) = (Xid(0), OpCode::CreateSession, Arc::<[Id]>::from([]));
        let body = timeout_ms.to_be_bytes().to_vec();
        packet::write_request(
            session,
            xid,
            op.to_wire(),
            &body,
            &[],
            &mut self.forwarding.to_leader,
        );
        let request = Request { connection, session, xid, op, body: 0..4, ids, cut: false };
        self.expect(request, body, Some(timeout_ms), None);
    }

    /// An answer to this will come.
    fn expect(
        &mut self,
        request: Request,
        body: Vec<u8>,
        timeout_ms: Option<i32>,
        refusal: Option<ErrorCode>,
    ) {
        let behind = self.last_received();
        let forwarding = &mut self.forwarding;
        forwarding.count += 1;
        let is_sync = request.op == OpCode::Sync || refusal.is_some();
        let number = forwarding.count;
        let forwarded = Forwarded { number, behind, request, body, timeout_ms, refusal };
        let queue = if is_sync { &mut forwarding.syncs } else { &mut forwarding.writes };
        queue.push_back(forwarded);
    }

    /// The leader's answer about a session.
    pub fn on_revalidated(&mut self, session: SessionId, valid: bool) {
        let Some(asked) = self.forwarding.asked.get_mut(&session) else { return };
        let Some((connection, timeout_ms)) = asked.pop_front() else { return };
        if asked.is_empty() {
            self.forwarding.asked.remove(&session);
        }
        if !valid {
            return self.answer(connection, ReplyKind::Refused);
        }
        if let Some(previous) = self.sessions.attach(session, connection, timeout_ms) {
            self.answer(previous, ReplyKind::Close);
        }
        self.answer(connection, ReplyKind::Attached { session, timeout_ms });
    }

    /// The leader's answer to the oldest sync: it is done when what is committed is applied here.
    pub fn on_synced(&mut self) {
        if self.forwarding.syncs_done.len() < self.forwarding.syncs.len() {
            self.forwarding.syncs_done.push_back(self.committed_by_leader());
        }
    }

    /// Answers the syncs that were forwarded before a write whose transaction comes now. A leader
    /// answers them before; but one that was lost had no time to, and left the transaction.
    /// What it had made when it took the sync lies in front of that transaction, too.
    pub(super) fn answer_syncs_before(&mut self, number: u64) {
        while self.forwarding.syncs.front().is_some_and(|sync| sync.number < number) {
            self.forwarding.syncs_done.pop_front();
            self.answer_sync();
        }
    }

    pub(super) fn answer_sync(&mut self) {
        let Some(forwarded) = self.forwarding.syncs.pop_front() else { return };
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

    /// What there is to say to the leader.
    pub fn take_to_leader(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.forwarding.to_leader)
    }

    /// Sessions that were heard of since the last call, with their timeouts, as PING carries them.
    pub fn take_touched(&mut self) -> Vec<u8> {
        let mut touched = std::mem::take(&mut self.forwarding.touched);
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

    /// Whoever is connected here counts as heard of by the new leader. It is not asked about the
    /// sessions: that would make them this server's, and take those whose clients have gone
    /// elsewhere, which nobody has told us yet, from the connections that they have now.
    pub(super) fn touch_all(&mut self) {
        let connected = self.sessions.connected();
        self.forwarding.touched.extend(connected);
    }
}

impl Forwarding {
    /// The entry that this transaction answers, if it came from here.
    pub(super) fn take_own(&mut self, header: &TxnHeader) -> Option<Forwarded> {
        self.writes.pop_front_if(|own| {
            let is_its = own.request.session == header.session && own.request.xid == header.cxid;
            is_its && header.zxid > own.behind
        })
    }

    /// What the next leader must be told again: a leader that is lost has no answers for it.
    /// What it has logged of it came with the synchronization and was answered.
    pub(super) fn take_unanswered(&mut self) -> Vec<Parked> {
        let mut unanswered: Vec<_> = self.writes.drain(..).chain(self.syncs.drain(..)).collect();
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
        for (session, connections) in asked {
            parked.extend(connections.into_iter().map(|(connection, timeout_ms)| {
                Parked::Connect(Connect { connection, session, genuine: true, timeout_ms })
            }));
        }
        self.syncs_done.clear();
        self.to_leader.clear();
        parked
    }
}
