//! Looking for a leader: proposals, rounds, tallies, and when a decision is final.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::ServerId;
use crate::time::Instant;
use crate::zab::link::LinkOp;
use crate::zab::members::Members;
use crate::zab::notification::{Notification, PeerState};
use crate::zab::vote::{ElectionRound, Vote};
use crate::zxid::Zxid;

use super::decided::{Decided, Ending};
use super::{Decision, Elector, ElectorConfig, OwnState, Role, State};

/// One election of a server.
#[derive(Debug)]
pub(super) struct Looking {
    /// The vote for ourselves; none for an observer.
    own: Option<Vote>,
    /// The best vote that we know; none for an observer that has heard of none.
    proposal: Option<Vote>,
    /// What others have cast in this round.
    received: BTreeMap<ServerId, Cast>,
    /// What those say that have a leader, of whatever round.
    outside: BTreeMap<ServerId, Cast>,
    /// While we have no data: what the voters that look have said last.
    answers: BTreeMap<ServerId, Notification>,
    notify_at: Instant,
    notify_interval: Duration,
    /// When the decision for the proposal, which has a quorum, is final.
    final_at: Option<Instant>,
    /// Quick decisions have failed lately.
    is_patient: bool,
    /// We take part without data, because nobody has any.
    begins: bool,
}

/// What a server has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cast {
    /// Its vote.
    pub(super) vote: Vote,
    state: PeerState,
    version: i32,
}

impl Looking {
    pub(super) fn proposal(&self) -> Option<&Vote> {
        self.proposal.as_ref()
    }

    pub(super) fn next_timeout(&self) -> Instant {
        self.final_at.map_or(self.notify_at, |at| at.min(self.notify_at))
    }

    pub(super) fn missing(&self, config: &ElectorConfig) -> Vec<ServerId> {
        if self.takes_part() {
            return Vec::new();
        }
        let silent = |id: &ServerId| *id != config.me && !self.answers.contains_key(id);
        config.members.voters().iter().copied().filter(silent).collect()
    }

    /// Whether votes concern this server: it has data, or it is an observer.
    fn takes_part(&self) -> bool {
        self.own.is_none_or(|own| own.zxid.is_some())
    }

    /// Whether the vote is better than what is proposed.
    ///
    // Compat: FastLeaderElection.totalOrderPredicate - a server without weight never wins.
    fn improves(&self, members: &Members, vote: &Vote) -> bool {
        members.weight(vote.leader) > 0
            && self.proposal.is_none_or(|proposal| vote.rank() > proposal.rank())
    }

    /// What the server has cast in this round, `me` being what we propose.
    fn cast(&self, me: ServerId, id: ServerId) -> Option<&Vote> {
        if id == me {
            return self.proposal.as_ref();
        }
        self.received.get(&id).map(|cast| &cast.vote)
    }

    /// Whether the server has the leader of this vote, which one that has decided has cast in this
    /// round.
    ///
    // Compat: FastLeaderElection.receivedFollowingNotification - of those that have decided only
    // the leader is compared here, because one side of the comparison has no version.
    fn agrees_in_round(&self, me: ServerId, id: ServerId, vote: &Vote) -> bool {
        if id == me {
            return self.takes_part() && self.proposal.as_ref() == Some(vote);
        }
        self.received.get(&id).is_some_and(|cast| match cast.state {
            PeerState::Looking => cast.vote == *vote,
            _ => cast.vote.leader == vote.leader,
        })
    }
}

impl Cast {
    fn of(vote: Vote, notification: &Notification) -> Self {
        Self { vote, state: notification.state, version: notification.version }
    }

    /// Whether both say the same. A vote of a server that looks must be equal; servers that have
    /// decided may have come to their leader on different ways, so of theirs only leader and epoch
    /// must be. Where the versions differ, so may the epochs.
    ///
    // Compat: Vote.equals
    fn agrees(&self, other: &Self) -> bool {
        if self.state == PeerState::Looking || other.state == PeerState::Looking {
            return self.vote == other.vote;
        }
        let same_epoch = self.vote.epoch == other.vote.epoch;
        self.vote.leader == other.vote.leader
            && (same_epoch || (self.version > 0) != (other.version > 0))
    }
}

impl Elector {
    /// Enters the state; `reopened` is the decision that this goes on from, in the same round.
    pub(super) fn begin_looking(
        &mut self,
        now: Instant,
        own: OwnState,
        reopened: Option<Decided>,
        out: &mut Vec<LinkOp>,
    ) {
        let tick = self.config.tick;
        let recent = |at: &Option<Instant>| at.is_some_and(|at| now.since(at) < tick);
        let OwnState { last: zxid, current_epoch: epoch } = own;
        let vote = Vote { leader: self.config.me, zxid, epoch, round: self.round };
        let own = (!self.config.is_observer).then_some(vote);
        let notify_interval = self.config.notification_interval_min;
        let mut looking = Looking {
            own,
            proposal: own,
            received: BTreeMap::new(),
            outside: BTreeMap::new(),
            answers: BTreeMap::new(),
            notify_at: now.after(notify_interval),
            notify_interval,
            final_at: None,
            is_patient: self.fast_failures.iter().all(recent),
            begins: false,
        };
        let mut kept = BTreeMap::new();
        if let Some(decided) = reopened {
            (looking.received, kept) = decided.into_parts();
            for cast in looking.received.clone().values() {
                if looking.takes_part() && looking.improves(&self.config.members, &cast.vote) {
                    looking.proposal = Some(cast.vote);
                }
            }
        }
        let proposal = looking.proposal;
        self.state = State::Looking(looking);
        tracing::info!(round = self.round.0, ?proposal, "looking for a leader");
        self.tell_all(now, out);
        for (sender, notification) in kept {
            if let State::Looking(_) = &self.state {
                self.on_peer_while_looking(now, sender, &notification, out);
            }
        }
        self.begin_ensemble_if_all_are_empty(now, out);
        self.conclude(now);
    }

    /// A voter has said something while we look.
    pub(super) fn on_peer_while_looking(
        &mut self,
        now: Instant,
        sender: ServerId,
        notification: &Notification,
        out: &mut Vec<LinkOp>,
    ) {
        // It lags behind; it should know.
        if notification.state == PeerState::Looking && notification.round < self.round {
            self.tell(now, sender, out);
        }
        let vote = notification.vote().filter(|vote| self.config.members.is_voter(vote.leader));
        let Some(vote) = vote else {
            tracing::warn!(server = %sender, ?notification, "election: ignoring: no such voter");
            return;
        };
        match notification.state {
            PeerState::Looking => self.on_candidate(now, sender, vote, notification, out),
            PeerState::Observing => {
                tracing::warn!(server = %sender, "election: ignoring: a voter that observes");
            }
            PeerState::Following | PeerState::Leading => {
                self.on_settled(sender, vote, notification);
            }
        }
    }

    /// A voter that looks, too, proposes `vote`.
    fn on_candidate(
        &mut self,
        now: Instant,
        sender: ServerId,
        vote: Vote,
        notification: &Notification,
        out: &mut Vec<LinkOp>,
    ) {
        let members = std::sync::Arc::clone(&self.config.members);
        let State::Looking(looking) = &mut self.state else { unreachable!("we look") };
        // Whatever it was following, it does so no more.
        looking.outside.remove(&sender);
        if !looking.takes_part() {
            looking.answers.insert(sender, *notification);
            self.begin_ensemble_if_all_are_empty(now, out);
            return;
        }
        if vote.zxid.is_none() {
            looking.received.remove(&sender);
            return;
        }
        if vote.round < self.round {
            return;
        }
        let mut changed = false;
        if vote.round > self.round {
            self.adopt_round(now, vote.round, out);
            changed = true;
        }
        let State::Looking(looking) = &mut self.state else { unreachable!("we look") };
        if looking.improves(&members, &vote) {
            looking.proposal = Some(vote);
            changed = true;
        }
        looking.received.insert(sender, Cast::of(vote, notification));
        let convinces = |ours: Vote| members.weight(ours.leader) > 0 && ours.rank() > vote.rank();
        let lags = looking.proposal.is_some_and(convinces);
        if changed {
            self.tell_all(now, out);
        } else if lags && members.is_voter(self.config.me) {
            // What we told it may have come before it began to look, and then it counted for
            // nothing. ZooKeeper leaves it to the next repetition, 200 ms later. Nothing is said
            // that it won't take: it would be answered, without end. So is whatever an observer
            // says.
            self.tell(now, sender, out);
        }
    }

    /// Others are ahead: our proposal is ourselves again, and nothing is counted yet.
    fn adopt_round(&mut self, now: Instant, round: ElectionRound, out: &mut Vec<LinkOp>) {
        self.round = round;
        self.links.begin_round(now, out);
        let State::Looking(looking) = &mut self.state else { unreachable!("we look") };
        looking.received.clear();
        looking.final_at = None;
        if let Some(own) = &mut looking.own {
            own.round = round;
        }
        looking.proposal = looking.own;
    }

    /// A voter that has a leader says which.
    ///
    // Compat: FastLeaderElection.receivedFollowingNotification
    fn on_settled(&mut self, sender: ServerId, vote: Vote, notification: &Notification) {
        let (me, round) = (self.config.me, self.round);
        let State::Looking(looking) = &mut self.state else { unreachable!("we look") };
        looking.answers.remove(&sender);
        if vote.leader == me && !(looking.own.is_some() && looking.takes_part()) {
            // It was us, before our data was lost.
            return;
        }
        let cast = Cast::of(vote, notification);
        looking.outside.insert(sender, cast);
        let mut voters = self.config.members.voters().to_vec();
        let mut supporters = Vec::new();
        if vote.round == round {
            looking.received.insert(sender, cast);
            // If all others take us for their leader, so we are; but in our round alone.
            if vote.leader == me || leads(&looking.received, vote.leader) {
                supporters.clone_from(&voters);
                supporters.retain(|id| looking.agrees_in_round(me, *id, &vote));
            }
        }
        let is_quorum =
            |supporters: &[ServerId]| self.config.members.is_quorum(|id| supporters.contains(&id));
        if !is_quorum(&supporters) && leads(&looking.outside, vote.leader) {
            let said = |id: &ServerId| looking.outside.get(id).copied();
            voters.retain(|id| said(id).is_some_and(|other| other.agrees(&cast)));
            supporters = voters;
        }
        if is_quorum(&supporters) {
            self.round = vote.round;
            let ending = if vote.leader == me { Ending::Waited } else { Ending::Joined };
            self.decide(vote, supporters, ending);
        }
    }

    /// A new ensemble: if every voter has answered, and nobody has data, we take part.
    fn begin_ensemble_if_all_are_empty(&mut self, now: Instant, out: &mut Vec<LinkOp>) {
        let State::Looking(looking) = &mut self.state else { return };
        if looking.takes_part() {
            return;
        }
        let me = self.config.me;
        // A server whose log has no transaction is without data, too: it may have been the first
        // leader of an ensemble that did not come to begin.
        let is_empty = |answer: &Notification| matches!(answer.zxid, -1 | 0);
        let mut others = self.config.members.voters().iter().filter(|id| **id != me);
        if !others.all(|id| looking.answers.get(id).is_some_and(is_empty)) {
            return;
        }
        tracing::info!("every voter is without data: a new ensemble begins");
        let own = looking.own.as_mut().expect("an observer takes part");
        // The epoch stays: a leader that has seen less than its followers would refuse them.
        own.zxid = Some(Zxid::ZERO);
        looking.begins = true;
        looking.proposal = Some(*own);
        let answers = std::mem::take(&mut looking.answers);
        self.tell_all(now, out);
        for (sender, answer) in answers {
            if matches!(self.state, State::Looking(_)) && answer.zxid >= 0 {
                self.on_peer_while_looking(now, sender, &answer, out);
            }
        }
    }

    /// Decides if there is nothing more to wait for.
    pub(super) fn conclude(&mut self, now: Instant) {
        let ElectorConfig { me, members, fast, finalize_wait, .. } = &self.config;
        let State::Looking(looking) = &mut self.state else { return };
        let Some(vote) = looking.proposal.filter(|vote| vote.zxid.is_some()) else { return };
        let agrees = |id| looking.cast(*me, id) == Some(&vote);
        if !members.is_quorum(agrees) {
            looking.final_at = None;
            return;
        }
        let all_known = || {
            let mut voters = members.voters().iter();
            voters.all(|id| agrees(*id) || self.links.refused(*id))
        };
        let ending = if *fast && !looking.is_patient && all_known() {
            Ending::Fast
        } else if now >= *looking.final_at.get_or_insert(now.after(*finalize_wait)) {
            Ending::Waited
        } else {
            return;
        };
        let supporters = members.voters().iter().copied();
        let looking = &*looking;
        let agrees = |id: &ServerId| looking.cast(*me, *id) == Some(&vote);
        let supporters = supporters.filter(agrees).collect();
        self.decide(vote, supporters, ending);
    }

    fn decide(&mut self, vote: Vote, supporters: Vec<ServerId>, ending: Ending) {
        let State::Looking(looking) = std::mem::replace(&mut self.state, State::Idle) else {
            unreachable!("only who looks decides")
        };
        let role = match vote.leader == self.config.me {
            true => Role::Leading,
            false if self.config.is_observer => Role::Observing,
            false => Role::Following,
        };
        // Those who were quicker begin with us, if their leader has nothing either.
        let is_new = ending != Ending::Joined || vote.zxid == Some(Zxid::ZERO);
        let begins = looking.begins && is_new;
        let decision = Decision { vote, role, begins };
        tracing::info!(?decision, ?ending, "decided");
        self.state = State::Decided(Decided::new(decision, ending, supporters, looking.received));
        self.news = Some(decision);
    }

    /// Sends our vote again when nothing has come of it for a while.
    ///
    // Compat: FastLeaderElection.lookForLeader
    pub(super) fn resend_if_due(&mut self, now: Instant, out: &mut Vec<LinkOp>) {
        let interval_max = self.config.notification_interval_max;
        let State::Looking(looking) = &mut self.state else { return };
        if now < looking.notify_at {
            return;
        }
        looking.notify_interval = (looking.notify_interval * 2).min(interval_max);
        looking.notify_at = now.after(looking.notify_interval);
        if !looking.takes_part() {
            let missing = looking.missing(&self.config);
            tracing::warn!(
                ?missing,
                "this server has no data, so it does not vote: {}",
                waits_for(&missing)
            );
        }
        self.tell_all(now, out);
    }
}

/// Whether the leader itself has said that it leads.
///
// Compat: FastLeaderElection.checkLeader
fn leads(casts: &BTreeMap<ServerId, Cast>, leader: ServerId) -> bool {
    casts.get(&leader).is_some_and(|cast| cast.state == PeerState::Leading)
}

/// What a server without data waits for, in words; `missing` have not answered it.
fn waits_for(missing: &[ServerId]) -> &'static str {
    match missing {
        [] => {
            "other voters have data, but no quorum of voters with data has a leader: start those \
             that had it, or restore all of them from one backup (docs/operations.md); if one \
             without data voted, what they had acknowledged could be lost"
        }
        _ => {
            "it waits for the missing ones, which may have some; only in a new ensemble, where no \
             voter has ever had data, may db.autocreate=true let it begin without them"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_data_is_not_talked_into_losing_that_of_others() {
        let with_data = waits_for(&[]);
        assert!(with_data.contains("other voters have data"), "{with_data}");
        assert!(!with_data.contains("autocreate"), "{with_data}");
        let silent = waits_for(&[ServerId(2)]);
        assert!(silent.contains("only in a new ensemble"), "{silent}");
    }
}
