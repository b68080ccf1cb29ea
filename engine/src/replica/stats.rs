//! What the ordering core counts.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{GroupTimes, Mode, Now, Replica};
use crate::ids::ServerId;
use crate::metrics::{Sizes, Summary, Times};
use crate::time::WallTime;

/// Figures of the ordering core since its start or the last reset.
#[derive(Clone, Debug, Default)]
pub struct ReplicaStats {
    /// Transactions in each frame of the log.
    pub frame_txns: Summary,
    /// From the preparation of a group's first transaction until the log takes the group; counted
    /// once for each of its transactions.
    pub queued: Times,
    /// From when a transaction was made, here or at the leader, until it is shown to clients. What
    /// was made here counts from its group's first one.
    pub propagation: Times,
    /// Sessions that ended because nobody heard of them.
    pub sessions_expired: u64,
    /// Whether the tree's digest was found to differ from a leader's: 0 or 1.
    pub digest_mismatches: u64,
    /// Transactions that this server proposed as a leader.
    pub proposals: u64,
    /// Their sizes.
    pub proposal_sizes: Sizes,
    /// Those of them that were committed.
    pub commits: u64,
    /// How old they were when a quorum had them, by the clock that they are stamped with.
    pub quorum_acks: Times,
    /// From sending a proposal to each follower until its ACK, of one at a time.
    pub acks: BTreeMap<ServerId, Times>,
    /// Proposals that came from a leader.
    pub proposals_received: u64,
    /// How old they were then, by the servers' clocks.
    pub proposal_latency: Times,
    /// Proposals of a leader that were applied here when it said that they are committed.
    pub commits_received: u64,
    /// How old they were then, by the servers' clocks.
    pub commit_latency: Times,
    /// Learners that were brought up to date from the log.
    pub diffs_sent: u64,
    /// Learners that were sent the whole tree.
    pub trees_sent: u64,
}

impl ReplicaStats {
    /// A proposal came in that was made at `made`.
    pub(super) fn count_proposal(&mut self, now: Now, made: WallTime) {
        self.proposals_received += 1;
        self.proposal_latency.record(age(now.wall, made));
    }

    /// A quorum has a transaction of this leader that was made at `made`.
    pub(super) fn count_quorum_ack(&mut self, now: Now, made: WallTime) {
        self.quorum_acks.record(age(now.wall, made));
    }

    /// A leader's transaction that was made at `made` is applied.
    pub(super) fn count_applied(&mut self, now: Now, mode: Mode, made: WallTime) {
        if mode != Mode::Learning {
            return;
        }
        let age = age(now.wall, made);
        self.commits_received += 1;
        self.commit_latency.record(age);
        self.propagation.record(age);
    }

    /// A group that was made here is shown to clients.
    pub(super) fn count_group(&mut self, now: Now, mode: Mode, times: GroupTimes, txns: u64) {
        self.queued.record_many(times.sealed.since(times.opened), txns);
        self.propagation.record_many(now.instant.since(times.opened), txns);
        if mode == Mode::Leading {
            self.commits += txns;
        }
    }
}

/// How long ago `made` was; nothing if it lies ahead.
fn age(now: WallTime, made: WallTime) -> Duration {
    Duration::from_millis(u64::try_from(now.0.saturating_sub(made.0)).unwrap_or(0))
}

impl Replica {
    /// What was counted.
    pub fn stats(&self) -> &ReplicaStats {
        &self.stats
    }

    /// Forgets what was counted.
    pub fn reset_stats(&mut self) {
        self.stats = ReplicaStats::default();
    }

    /// A learner is brought up to date: from the log, or with the whole tree.
    pub fn count_sync(&mut self, whole: bool) {
        self.stats.diffs_sent += u64::from(!whole);
        self.stats.trees_sent += u64::from(whole);
    }

    /// A follower took so long to acknowledge a proposal.
    pub fn count_ack(&mut self, follower: ServerId, took: Duration) {
        self.stats.acks.entry(follower).or_default().record(took);
    }

    /// Syncs, and refusals of sessions, that are not proven yet; only a leader has any.
    pub fn pending_syncs(&self) -> u64 {
        self.proofs_asked.saturating_sub(self.proofs_given)
    }
}
