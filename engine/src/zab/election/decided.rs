//! What is left of an election once there is an outcome: the answer to those that still look, and
//! the doubts that may reopen it.

use std::collections::BTreeMap;

use crate::ids::ServerId;
use crate::zab::notification::{Notification, PeerState};
use crate::zab::vote::Vote;
use crate::zxid::Epoch;

use super::looking::Cast;
use super::{Decision, ElectorConfig, Role};

/// How a decision came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nobody was left who could have known better.
    Fast,
    /// Nobody who knew better has spoken for long enough.
    Waited,
    /// A quorum has this leader already.
    Joined,
}

/// An outcome.
#[derive(Debug)]
pub(super) struct Decided {
    decision: Decision,
    ending: Ending,
    is_established: bool,
    /// Those whose votes made the quorum and have not left it since.
    supporters: Vec<ServerId>,
    /// What was cast in the round.
    received: BTreeMap<ServerId, Cast>,
    /// What has reopened the decision, and what came after that.
    kept: BTreeMap<ServerId, Notification>,
}

impl Decided {
    pub(super) fn new(
        decision: Decision,
        ending: Ending,
        supporters: Vec<ServerId>,
        received: BTreeMap<ServerId, Cast>,
    ) -> Self {
        let kept = BTreeMap::new();
        Self { decision, ending, is_established: false, supporters, received, kept }
    }

    pub(super) fn vote(&self) -> &Vote {
        &self.decision.vote
    }

    pub(super) fn state(&self) -> PeerState {
        match self.decision.role {
            Role::Leading => PeerState::Leading,
            Role::Following => PeerState::Following,
            Role::Observing => PeerState::Observing,
        }
    }

    pub(super) fn establish(&mut self, epoch: Epoch) {
        self.decision.vote.epoch = epoch;
        self.is_established = true;
        self.kept.clear();
    }

    pub(super) fn is_reopened(&self) -> bool {
        !self.kept.is_empty()
    }

    pub(super) fn has_failed_fast(&self) -> bool {
        self.ending == Ending::Fast && !self.is_established
    }

    /// What the next election of the same round goes on from.
    pub(super) fn into_parts(self) -> (BTreeMap<ServerId, Cast>, BTreeMap<ServerId, Notification>) {
        (self.received, self.kept)
    }

    /// Takes what a voter says if it reopens the decision, or comes when it is open again.
    ///
    /// Nothing does once discovery has its quorum, nor for a server that joins others. Before, two
    /// things do: a better vote; and so many supporters having left that the leader cannot get its
    /// quorum, or the leader itself. Who has left looks again: in a later round, or started anew,
    /// in an earlier one or with a vote that is worse than what it had cast.
    pub(super) fn is_kept(
        &mut self,
        config: &ElectorConfig,
        sender: ServerId,
        notification: &Notification,
    ) -> bool {
        if self.is_reopened() {
            self.kept.insert(sender, *notification);
            return true;
        }
        if !config.fast
            || self.is_established
            || self.ending == Ending::Joined
            || notification.state != PeerState::Looking
        {
            return false;
        }
        let (members, decided) = (&config.members, self.decision.vote);
        let Some(vote) = notification.vote() else { return false };
        let counts = vote.zxid.is_some() && members.weight(vote.leader) > 0;
        let is_later = counts && vote.round > decided.round;
        let is_better = counts && vote.round >= decided.round && vote.rank() > decided.rank();
        // Also without data, and for nobody that could lead.
        let is_anew = vote.round < decided.round || vote.rank() < decided.rank();
        let is_left = sender == decided.leader
            && (is_later || (is_anew && self.supporters.contains(&sender)));
        if is_later || is_anew {
            self.supporters.retain(|id| *id != sender);
            self.received.remove(&sender);
        }
        let is_kept =
            is_better || is_left || !members.is_quorum(|id| self.supporters.contains(&id));
        if is_kept {
            tracing::info!(server = %sender, ?vote, ?decided, "the decision is open again");
            self.kept.insert(sender, *notification);
        }
        is_kept
    }
}
