//! Proposals out, ACKs in, commits out; pings, and learners that don't answer them.

use super::handler::Step;
use super::requests::Sync;
use super::{Fault, Leader};
use crate::replica::{Now, Replica};
use crate::time::Instant;
use crate::zab::outbox::Outbox;
use crate::zab::packet::{self, PacketKind};
use crate::zxid::Zxid;

/// What may wait for a learner behind a tree that it is being sent, bytes.
const BACKLOG_BYTES_MAX: usize = 256 << 20;

impl Leader {
    /// Proposes what was logged, and commits what a quorum has; the end of each turn.
    pub fn broadcast(&mut self, now: Now, replica: &mut Replica, out: &mut Outbox) {
        self.synchronize_waiting(now, replica, out);
        for run in replica.take_proposals() {
            let mut bytes = Vec::with_capacity(run.txns.len() * 5 / 4 + 64);
            for (zxid, txn) in run.iter() {
                packet::write(PacketKind::Proposal, zxid.to_wire(), Some(txn), &mut bytes);
            }
            for (&link, handler) in &mut self.handlers {
                // One that was brought up to date in this turn has it already.
                let has_it = handler.proposed >= run.last;
                if !handler.takes_broadcasts() || has_it {
                    continue;
                }
                if handler.is_observer {
                    // It is told when it is committed; pings name it before.
                    handler.proposed = run.last;
                    continue;
                }
                handler.on_proposed(run.last, now.instant);
                handler.send(link, bytes.clone(), out);
            }
        }
        self.advance_commit(now, replica, out);
        self.answer_sessions(replica, out);
        self.hold_log(replica);
    }

    /// Commits what a quorum has on disk.
    fn advance_commit(&mut self, now: Now, replica: &mut Replica, out: &mut Outbox) {
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
        self.prove_leadership(replica, out);
        // What was asked for behind a sync is committed behind it.
        while let Some(&Sync { link, zxid, round }) = self.syncs.front() {
            let limit = zxid.min(committed);
            self.commit(now, limit, replica, out);
            if zxid > committed || !self.is_answered(round) {
                return;
            }
            self.syncs.pop_front();
            self.send_sync(link, out);
        }
        self.commit(now, committed, replica, out);
    }

    /// Tells the replica which proofs of leadership it has, and begins the round that whoever came
    /// during the last one waits for.
    fn prove_leadership(&mut self, replica: &mut Replica, out: &mut Outbox) {
        let asked = replica.proofs_asked();
        if self.own_proofs.back().map_or(self.proven, |(count, _)| *count) < asked {
            let round = self.begin_round(out);
            self.own_proofs.push_back((asked, round));
        }
        while let Some(&(count, round)) = self.own_proofs.front()
            && self.is_answered(round)
        {
            self.own_proofs.pop_front();
            self.proven = count;
            replica.prove(count);
        }
        let lasts = [
            self.syncs.back().map(|sync| sync.round),
            self.asked.front().map(|asked| asked.round),
            self.asked.back().map(|asked| asked.round),
            self.own_proofs.back().map(|(_, round)| *round),
        ];
        if lasts.into_iter().flatten().max() > Some(self.rounds) && self.is_answered(self.rounds) {
            self.ping(out);
        }
    }

    /// Whether a quorum has answered a ping of this round, or a later one; round 0 needs none.
    pub(super) fn is_answered(&self, round: u64) -> bool {
        round == 0 || self.has_quorum(true, |handler| handler.answered >= round)
    }

    fn commit(&mut self, now: Now, zxid: Zxid, replica: &mut Replica, out: &mut Outbox) {
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
        replica.commit(now, zxid);
    }

    /// The round of pings that proves leadership from now on.
    pub(super) fn begin_round(&mut self, out: &mut Outbox) -> u64 {
        // While a round is under way, whoever comes waits for the one behind it.
        if self.is_answered(self.rounds) {
            self.ping(out);
            return self.rounds;
        }
        self.rounds + 1
    }

    /// Begins a round of pings. Each is answered, in order, by who has been told that it is up to
    /// date; a learner of ZooKeeper's lets those pass that come before.
    ///
    // Compat: Learner.syncWithLeader
    pub(super) fn ping(&mut self, out: &mut Outbox) {
        self.rounds += 1;
        for (&link, handler) in &mut self.handlers {
            if handler.step == Step::Active {
                handler.ping(link, self.rounds, out);
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
            } else if handler.step == Step::Active && handler.lag(now) > sync {
                faults.push((link, Fault::Slow));
            }
        }
        for (link, fault) in faults {
            self.drop_learner(link, &fault, out);
        }
    }
}
