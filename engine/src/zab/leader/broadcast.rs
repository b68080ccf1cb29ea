//! Proposals out, ACKs in, commits out; pings, and learners that don't answer them.

use super::handler::Step;
use super::{Fault, Leader};
use crate::ids::LinkId;
use crate::op::OpCode;
use crate::replica::{Now, Replica};
use crate::time::Instant;
use crate::zab::outbox::Outbox;
use crate::zab::packet::{self, ForwardedRequest, Packet, PacketKind};
use crate::zxid::Zxid;

/// What may wait for a learner behind a tree that it is being sent, bytes.
const BACKLOG_BYTES_MAX: usize = 256 << 20;

impl Leader {
    /// Proposes what was logged, and commits what a quorum has; the end of each turn.
    pub fn broadcast(&mut self, now: Now, replica: &mut Replica, out: &mut Outbox) {
        for run in replica.take_proposals() {
            let mut bytes = Vec::with_capacity(run.txns.len() * 5 / 4 + 64);
            for (zxid, txn) in run.iter() {
                packet::write(PacketKind::Proposal, zxid.to_wire(), Some(txn), &mut bytes);
            }
            for (&link, handler) in &mut self.handlers {
                if !handler.takes_broadcasts() || handler.is_observer {
                    continue;
                }
                handler.proposed = run.last;
                handler.waiting_since.get_or_insert(now.instant);
                handler.send(link, bytes.clone(), out);
            }
        }
        self.advance_commit(replica, out);
    }

    /// Commits what a quorum has on disk.
    pub(super) fn advance_commit(&mut self, replica: &mut Replica, out: &mut Outbox) {
        if self.established().is_none() {
            return;
        }
        let learners = self.handlers.values().filter(|handler| {
            !handler.is_observer && matches!(handler.step, Step::Synchronized | Step::Active)
        });
        let learners = learners.filter_map(|handler| Some((handler.acked, handler.server?)));
        let own = (replica.last_durable(), self.me);
        let mut acks: Vec<_> = learners.chain([own]).collect();
        acks.sort_unstable_by(|a, b| b.cmp(a));
        let quorum = (1..=acks.len()).find(|&count| {
            self.members.is_quorum(|id| acks[..count].iter().any(|(_, server)| *server == id))
        });
        let Some(count) = quorum else { return };
        let committed = acks[count - 1].0;
        if committed <= replica.committed() {
            return;
        }
        while let Some(&(zxid, link)) = self.syncs.front()
            && zxid <= committed
        {
            self.syncs.pop_front();
            self.commit(zxid, replica, out);
            self.send_sync(link, out);
        }
        self.commit(committed, replica, out);
    }

    fn commit(&mut self, zxid: Zxid, replica: &mut Replica, out: &mut Outbox) {
        let before = replica.committed();
        if zxid <= before {
            return;
        }
        let (mut commits, mut informs) = (Vec::new(), Vec::new());
        let observers = self.handlers.values().any(|handler| handler.is_observer);
        for (zxid, txn) in replica.history().behind(before).take_while(|(at, _)| *at <= zxid) {
            packet::write_bare(PacketKind::Commit, zxid, &mut commits);
            if observers {
                packet::write(PacketKind::Inform, zxid.to_wire(), Some(txn), &mut informs);
            }
        }
        for (&link, handler) in &mut self.handlers {
            if handler.takes_broadcasts() {
                let bytes = if handler.is_observer { &informs } else { &commits };
                handler.send(link, bytes.clone(), out);
            }
        }
        replica.commit(zxid);
    }

    fn send_sync(&mut self, link: LinkId, out: &mut Outbox) {
        if let Some(handler) = self.handlers.get_mut(&link) {
            let mut bytes = Vec::new();
            packet::write(PacketKind::Sync, 0, None, &mut bytes);
            handler.send(link, bytes, out);
        }
    }

    pub(super) fn on_request(
        &mut self,
        now: Now,
        link: LinkId,
        packet: &Packet,
        replica: &mut Replica,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let request = ForwardedRequest::read(&packet.data)?;
        if request.op == OpCode::Sync.to_wire() {
            let made = replica.last_made();
            if made <= replica.committed() || made.counter() == 0 {
                self.send_sync(link, out);
            } else {
                self.syncs.push_back((made, link));
            }
            return Ok(());
        }
        let body = &packet.data[request.body.clone()];
        replica.order_forwarded(now, link, &request, body, &packet.ids, &mut out.replica);
        Ok(())
    }

    pub(super) fn ping(&mut self, out: &mut Outbox) {
        for (&link, handler) in &mut self.handlers {
            if handler.takes_broadcasts() {
                let mut bytes = Vec::new();
                packet::write_bare(PacketKind::Ping, handler.proposed, &mut bytes);
                handler.send(link, bytes, out);
            }
        }
    }

    /// Gives up learners that are silent, or slow to log.
    ///
    // Compat: LearnerHandler.synced, SyncLimitCheck
    pub(super) fn drop_silent(&mut self, now: Instant, out: &mut Outbox) {
        let (sync, init) = (self.timing.sync(), self.timing.init());
        let mut faults = Vec::new();
        for (&link, handler) in &self.handlers {
            let patience = if handler.step == Step::Active { sync } else { init };
            if handler.backlog() > BACKLOG_BYTES_MAX {
                faults.push((link, Fault::Backlog));
            } else if now.since(handler.heard) > patience {
                faults.push((link, Fault::Silent));
            } else if handler.step == Step::Active
                && handler.waiting_since.is_some_and(|since| now.since(since) > sync)
            {
                faults.push((link, Fault::Slow));
            }
        }
        for (link, fault) in faults {
            self.drop_learner(link, &fault, out);
        }
    }
}
