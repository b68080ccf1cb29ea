//! Discovery: learners introduce themselves, and a quorum of them accepts the leader's epoch.

use super::handler::{Handler, Step};
use super::{Fault, Leader, Stage};
use crate::epochs::Epochs;
use crate::ids::LinkId;
use crate::replica::{Now, Replica};
use crate::zab::data::DataOp;
use crate::zab::outbox::Outbox;
use crate::zab::packet::{self, LearnerInfo, Packet, PacketKind};
use crate::zxid::{Epoch, Zxid};

impl Leader {
    /// A learner says who it is, and which epoch it has accepted.
    ///
    // Compat: LearnerHandler.run
    pub(super) fn on_info(
        &mut self,
        now: Now,
        link: LinkId,
        packet: &Packet,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let handler = self.handlers.get_mut(&link).expect("it sent this");
        let info = LearnerInfo::read(&packet.data)?;
        let is_observer = packet.kind == PacketKind::ObserverInfo;
        if !is_observer && !self.members.is_voter(info.server) {
            return Err(Fault::Stranger(info.server));
        }
        if info.server == self.me {
            return Err(Fault::Myself(info.server));
        }
        let ours = self.members.version().cast_signed();
        if info.config_version > ours {
            return Err(Fault::NewerMembers { its: info.config_version, ours });
        }
        handler.introduce(info.server, is_observer, packet.zxid);
        if !handler.accepted.may_stand_beside(self.epochs.accepted) {
            return Err(Fault::NoSuchEpoch(handler.accepted));
        }
        if !is_observer {
            self.promised = self.promised.max(handler.accepted);
        }
        self.replace_older(link, info.server, out);
        self.advance_epoch(now, out);
        self.send_epoch(link, out);
        Ok(())
    }

    /// Proposes an epoch above all that a quorum has accepted.
    pub(super) fn advance_epoch(&mut self, now: Now, out: &mut Outbox) {
        if self.stage != Stage::Gathering {
            return;
        }
        let introduced = |handler: &&Handler| handler.step != Step::Introducing;
        if !self.has_quorum(true, |handler| introduced(&handler)) {
            return;
        }
        let accepted = self.handlers.values().filter(introduced).map(|handler| handler.accepted);
        let others = accepted.max().unwrap_or_default();
        let highest = others.max(self.epochs.accepted).max(self.promised);
        let epoch = Epoch(highest.0 + 1);
        self.enter(Stage::Proposing(epoch), now);
        out.data.push(DataOp::Epochs(Epochs { accepted: epoch, ..self.epochs }));
        let links: Vec<_> = self.handlers.keys().copied().collect();
        for link in links {
            self.send_epoch(link, out);
        }
    }

    fn send_epoch(&mut self, link: LinkId, out: &mut Outbox) {
        let Some(epoch) = self.epoch_proposed() else { return };
        let Some(handler) = self.handlers.get_mut(&link) else { return };
        if handler.step == Step::Introduced {
            let mut bytes = Vec::new();
            packet::write_leader_info(epoch, &mut bytes);
            handler.send(link, bytes, out);
            handler.step = Step::AckingEpoch;
        }
    }

    /// A learner accepts the epoch, and says where its log ends.
    ///
    // Compat: Leader.waitForEpochAck
    pub(super) fn on_ack_epoch(
        &mut self,
        now: Now,
        link: LinkId,
        packet: &Packet,
        replica: &mut Replica,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let established = self.established().is_some();
        let handler = self.handlers.get_mut(&link).expect("it sent this");
        let last = Zxid::from_wire(packet.zxid);
        let current = packet.data.first_chunk().map_or(-1, |bytes| i32::from_be_bytes(*bytes));
        if let Ok(current) = u32::try_from(current).map(Epoch) {
            let ours = (self.epochs.current, replica.last_logged());
            handler.accepts = match last {
                Some(last) if !established && (current, last) > ours => {
                    return Err(Fault::Ahead { its: (current, last), ours });
                }
                Some(_) => true,
                // Without data; or with what it cannot cut. Then it has been in an epoch, and if
                // that was before ours, it is behind us wherever its log ends.
                None => Epoch(0) < current && current < ours.0,
            };
        }
        handler.last = last;
        handler.committed = replica.committed();
        handler.step = Step::Waiting;
        self.advance_epoch_acks(now, replica, out);
        self.synchronize(now, link, replica, out);
        Ok(())
    }

    /// A quorum that accepts the epoch lets this server bring its history to everybody.
    pub(super) fn advance_epoch_acks(&mut self, now: Now, replica: &mut Replica, out: &mut Outbox) {
        let Stage::Proposing(epoch) = self.stage else { return };
        let own = self.epochs.accepted == epoch;
        if !self.has_quorum(own, |handler| handler.accepts) {
            return;
        }
        self.enter(Stage::Synchronizing(epoch), now);
        out.data.push(DataOp::Epochs(Epochs { accepted: epoch, current: epoch }));
        replica.adopt(now, &mut out.replica);
        self.synchronize_waiting(now, replica, out);
    }
}
