//! What learners ask for on behalf of their clients: writes, syncs, sessions.

use super::{Fault, Leader};
use crate::ids::{LinkId, ServerId, SessionId};
use crate::op::OpCode;
use crate::replica::{Now, Replica};
use crate::zab::outbox::Outbox;
use crate::zab::packet::{self, ForwardedRequest, Packet, PacketKind};
use crate::zxid::Zxid;

/// A learner's sync.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sync {
    pub(super) link: LinkId,
    /// It is done when this is committed, and a quorum has answered a ping of this round: then no
    /// newer leader had a quorum when it came.
    pub(super) zxid: Zxid,
    pub(super) round: u64,
}

/// A session that a learner's client wants to attach to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    link: LinkId,
    session: SessionId,
    is_open: bool,
    /// The answer may go when this is committed, and a quorum has answered a ping of this round:
    /// only a leader may say that there is no such session, and it is not over before its end is
    /// committed.
    zxid: Zxid,
    pub(super) round: u64,
}

/// The last transaction that was made and can be committed.
fn last_made(replica: &Replica) -> Zxid {
    let made = replica.last_made();
    // The state that the epoch began with has a zxid, and no transaction.
    if made.counter() == 0 { replica.committed() } else { made }
}

impl Leader {
    pub(super) fn on_request(
        &mut self,
        now: Now,
        (link, learner): (LinkId, ServerId),
        packet: &Packet,
        replica: &mut Replica,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let request = ForwardedRequest::read(&packet.data)?;
        if request.op == OpCode::Sync.to_wire() {
            let zxid = last_made(replica);
            let round = if replica.proves_syncs() { self.begin_round(out) } else { 0 };
            self.syncs.push_back(Sync { link, zxid, round });
            return Ok(());
        }
        let body = &packet.data[request.body.clone()];
        replica.order_forwarded(now, learner, &request, body, &packet.ids, &mut out.replica);
        Ok(())
    }

    /// A session goes to the learner that asks for it. The answer waits until all that was made for
    /// the session elsewhere is committed, and so on its way to the learner: the client may begin
    /// anew to number its requests, and must not take an earlier answer for that to one of them.
    pub(super) fn on_session(
        &mut self,
        now: Now,
        (link, learner): (LinkId, ServerId),
        packet: &Packet,
        replica: &mut Replica,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let asked = packet::read_sessions(&packet.data).next();
        let (session, timeout_ms) = asked.ok_or(Fault::Unexpected { kind: packet.kind })?;
        let was_owned = replica.is_owned(session);
        let is_open = replica.revalidate(now, learner, session, timeout_ms);
        let zxid = if was_owned || !is_open { last_made(replica) } else { Zxid::ZERO };
        // They are answered in order.
        let earlier = self.asked.back().map_or(0, |asked| asked.round);
        let round = if is_open { earlier } else { self.begin_round(out) };
        self.asked.push_back(Asked { link, session, is_open, zxid, round });
        Ok(())
    }

    /// Answers learners about sessions, in the order in which they have asked.
    pub(super) fn answer_sessions(&mut self, replica: &Replica, out: &mut Outbox) {
        let committed = replica.committed();
        while let Some(&asked) = self.asked.front()
            && asked.zxid <= committed
            && self.is_answered(asked.round)
        {
            if asked.is_open && !replica.is_owned(asked.session) {
                // It has ended meanwhile; that must be committed, too.
                let (zxid, round) = (last_made(replica), self.begin_round(out));
                self.asked[0] = Asked { is_open: false, zxid, round, ..asked };
                continue;
            }
            self.asked.pop_front();
            if let Some(handler) = self.handlers.get_mut(&asked.link) {
                let is_open = asked.is_open;
                let mut bytes = Vec::new();
                packet::write_revalidated(asked.session, is_open, &mut bytes);
                handler.send(asked.link, bytes, out);
            }
        }
    }

    pub(super) fn send_sync(&mut self, link: LinkId, out: &mut Outbox) {
        if let Some(handler) = self.handlers.get_mut(&link) {
            let mut bytes = Vec::new();
            packet::write(PacketKind::Sync, 0, None, &mut bytes);
            handler.send(link, bytes, out);
        }
    }
}
