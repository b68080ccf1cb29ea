//! Votes: who should lead, and why.
//!
//! A vote names a leader and how recent that leader's log is. Of two votes the one with the later
//! epoch wins, then the one with the later zxid, then the one for the larger server id, so that
//! who has the most recent log leads.

use crate::ids::ServerId;
use crate::zxid::{Epoch, Zxid};

/// Counts the elections that a server has begun or joined. Not an [`Epoch`]: most rounds end
/// without a new one, and nothing on disk remembers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElectionRound(pub i64);

/// A vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// Who should lead.
    pub leader: ServerId,
    /// The last record of that server's log; none if it has no data yet, and then nobody counts
    /// the vote.
    pub zxid: Option<Zxid>,
    /// The epoch of that server's log or, once it leads, the one that it has established.
    pub epoch: Epoch,
    /// The round that the vote belongs to.
    pub round: ElectionRound,
}

/// The place of a vote among those of its round; the greatest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    epoch: Epoch,
    zxid: Option<Zxid>,
    leader: ServerId,
}

impl Vote {
    /// Where it stands among the votes of its round.
    ///
    // Compat: FastLeaderElection.totalOrderPredicate
    pub fn rank(&self) -> Rank {
        Rank { epoch: self.epoch, zxid: self.zxid, leader: self.leader }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(greater: (u32, Option<u64>, i64), lesser: (u32, Option<u64>, i64)) {
        let rank = |(epoch, zxid, leader): (u32, Option<u64>, i64)| {
            let zxid = zxid.map(Zxid);
            let (leader, epoch) = (ServerId(leader), Epoch(epoch));
            Vote { leader, zxid, epoch, round: ElectionRound(1) }.rank()
        };
        assert!(rank(greater) > rank(lesser));
    }

    #[test]
    fn the_epoch_counts_most_then_the_zxid_then_the_id() {
        check((2, Some(0), 1), (1, Some(9), 9));
        check((1, Some(2), 1), (1, Some(1), 9));
        check((1, Some(1), 2), (1, Some(1), 1));
        check((1, Some(1), 2), (1, Some(1), -1));
        check((1, Some(0), 1), (1, None, 2));
    }
}
