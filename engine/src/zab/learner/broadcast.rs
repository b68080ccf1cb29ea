//! Proposals in, ACKs out, commits in; and what else a leader says to who is up to date, or nearly.

use super::{CONFUSED, Learner, Progress, Stage, undecodable};
use crate::replica::{Now, Output, Replica};
use crate::zab::outbox::{Lost, Outbox};
use crate::zab::packet::{self, Packet, PacketKind};
use crate::zxid::Zxid;

impl Learner {
    /// Packets of a leader that broadcasts, or has done so before.
    pub(super) fn on_broadcast(
        &mut self,
        now: Now,
        packet: Packet,
        replica: &mut Replica,
        out: &mut Outbox,
    ) -> Result<(), Lost> {
        let zxid = Zxid::from_wire(packet.zxid);
        match packet.kind {
            PacketKind::Proposal => {
                let zxid = zxid.ok_or(CONFUSED)?;
                if self.tree_has(zxid) {
                    return Ok(());
                }
                log(now, zxid, packet.data, replica, out)?;
                if !self.begin.is_observer {
                    self.unacked.push_back(zxid);
                }
            }
            PacketKind::Commit | PacketKind::CommitAndActivate => {
                commit(zxid.ok_or(CONFUSED)?, replica)?;
            }
            PacketKind::Inform | PacketKind::InformAndActivate => {
                let mut txn = packet.data;
                if packet.kind == PacketKind::InformAndActivate {
                    txn.drain(..8.min(txn.len()));
                }
                let zxid = zxid.ok_or(CONFUSED)?;
                if !self.tree_has(zxid) {
                    log(now, zxid, txn, replica, out)?;
                    commit(zxid, replica)?;
                }
            }
            // Compat: Learner.syncWithLeader lets pings pass; a leader counts on that.
            PacketKind::Ping if !self.is_active() => {}
            PacketKind::Ping => {
                // Cores tell what they hear when they are asked; this answer has what they told
                // since the last time.
                out.replica.push(Output::Collect(0));
                let mut bytes = Vec::new();
                let touched = replica.take_touched();
                packet::write(PacketKind::Ping, packet.zxid, Some(&touched), &mut bytes);
                self.send(bytes, out);
            }
            PacketKind::Revalidate => {
                let (session, valid) =
                    packet::read_revalidated(&packet.data).map_err(undecodable)?;
                replica.on_revalidated(session, valid);
            }
            PacketKind::Sync => replica.on_synced(),
            kind => {
                tracing::error!(?kind, "the leader sends what does not belong there");
                return Err(CONFUSED);
            }
        }
        Ok(())
    }

    /// Whether a tree that was just sent has this transaction. A leader of ZooKeeper's looks for
    /// the tree's zxid when proposals are queued already.
    ///
    // Compat: LearnerHandler.run
    fn tree_has(&self, zxid: Zxid) -> bool {
        self.tree.is_some_and(|tree| zxid <= tree)
    }

    /// Ends a turn: what became durable is acknowledged, and requests go to the leader.
    pub fn finish_turn(
        &mut self,
        now: Now,
        replica: &mut Replica,
        out: &mut Outbox,
    ) -> Result<Progress, Lost> {
        self.adopt_when_logged(replica, out);
        if matches!(self.stage, Stage::Waiting | Stage::Active) {
            let (durable, mut bytes) = (replica.last_durable(), Vec::new());
            while let Some(zxid) = self.unacked.pop_front_if(|zxid| *zxid <= durable) {
                packet::write_bare(PacketKind::Ack, zxid, &mut bytes);
            }
            self.send(bytes, out);
        }
        if self.is_active() {
            let bytes = replica.take_to_leader();
            self.send(bytes, out);
        }
        let progress = self.go_on(now, replica, out);
        self.regulate(replica, out);
        progress
    }
}

fn log(
    now: Now,
    zxid: Zxid,
    txn: Vec<u8>,
    replica: &mut Replica,
    out: &mut Outbox,
) -> Result<(), Lost> {
    replica.propose(now, zxid, txn, &mut out.replica).map_err(|error| {
        tracing::error!(%zxid, "the leader's proposal cannot be taken: {error}");
        Lost("a proposal cannot be taken")
    })
}

fn commit(zxid: Zxid, replica: &mut Replica) -> Result<(), Lost> {
    if zxid > replica.last_received() {
        return Err(Lost("the leader commits what it has not proposed"));
    }
    replica.commit_proposal(zxid);
    Ok(())
}
