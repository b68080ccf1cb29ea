//! What must hold after each step and at the end, by what each server was told, not by what it
//! keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::super::*;
use super::world::{Server, World};
use crate::zab::vote::Rank;

/// How recent the sender's own data was.
type Own = (Epoch, Option<Zxid>);

/// What a server of one life has said and heard.
#[derive(Clone, Debug, Default)]
pub(super) struct Ghost {
    /// What it proposed last.
    said: Option<(ElectionRound, Rank)>,
    /// By sender, what was cast in the latest round that it was heard in.
    cast: BTreeMap<usize, (Notification, Own)>,
    /// What those say that have a leader.
    settled: BTreeMap<usize, Notification>,
}

impl Ghost {
    pub(super) fn hear(&mut self, sender: usize, heard: Notification, own: Own) {
        if heard.state == PeerState::Looking {
            self.settled.remove(&sender);
        } else {
            self.settled.insert(sender, heard);
        }
        let known = self.cast.get(&sender).map(|(cast, _)| cast.round);
        if known.is_none_or(|round| heard.round >= round) {
            self.cast.insert(sender, (heard, own));
        }
    }
}

impl World {
    fn fail(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    fn nobody_has_data(&self) -> bool {
        let voters = self.members().voters().iter();
        let last = |id: &ServerId| self.servers[id.0 as usize - 1].own.last;
        voters.map(last).all(|last| last.is_none_or(|last| last == Zxid::ZERO))
    }

    /// A server that looks proposes in its round, better and better until it decides; without data
    /// it does not.
    pub(super) fn check_sent(&mut self, id: usize, bytes: &[u8]) {
        // The first message of a connection is no notification.
        if bytes[..4] == [0xff; 4] {
            return;
        }
        let sent = Notification::decode(&bytes[4..]).unwrap();
        let server = &self.servers[id];
        let Some(vote) = sent.vote().filter(|_| sent.state == PeerState::Looking) else { return };
        let said = (vote.round, vote.rank());
        let round = server.elector.as_ref().unwrap().round();
        let is_worse = server.ghost.said.is_some_and(|last| last > said);
        let is_empty = server.own.last.is_none() && !server.config.is_observer;
        let votes = is_empty && vote.zxid.is_some() && !self.nobody_has_data();
        if vote.round > round || is_worse || votes {
            self.fail(format!("{} sends {sent:?} in {round:?}", id + 1));
        }
        Rc::make_mut(&mut self.servers[id]).ghost.said = Some(said);
    }

    /// A decision has a quorum of those that were heard, none of which knows better.
    pub(super) fn check_decision(&mut self, id: usize, decision: &Decision) {
        let (server, vote) = (&self.servers[id], decision.vote);
        let has_voted = |voter: ServerId| {
            let number = voter.0 as usize - 1;
            if number == id {
                let takes_part = server.own.last.is_some() || decision.begins;
                return takes_part && server.own_rank() <= vote.rank() || vote.leader == voter;
            }
            server.ghost.cast.get(&number).is_some_and(|(cast, (epoch, zxid))| {
                let own = Vote { leader: voter, zxid: *zxid, epoch: *epoch, round: vote.round };
                match cast.state {
                    PeerState::Looking => {
                        cast.vote() == Some(vote) && (own.rank() <= vote.rank() || zxid.is_none())
                    }
                    _ => cast.round == vote.round && cast.leader == vote.leader,
                }
            })
        };
        let has_leader = |voter: ServerId| {
            let settled = server.ghost.settled.get(&(voter.0 as usize - 1));
            settled.is_some_and(|settled| settled.leader == vote.leader)
        };
        let members = self.members();
        let is_backed = members.is_quorum(has_voted) || members.is_quorum(has_leader);
        let leads = decision.role == Role::Leading;
        let is_empty = leads && server.own.last.is_none() && !self.nobody_has_data();
        let right_role = leads == (vote.leader == server.config.me)
            && (decision.role == Role::Observing) == server.config.is_observer;
        if !is_backed || !members.is_voter(vote.leader) || !right_role || is_empty {
            self.fail(format!("{} decides {decision:?}, having heard {:?}", id + 1, server.ghost));
        }
        Rc::make_mut(&mut self.servers[id]).ghost.said = None;
    }

    /// In a round one leads at most that has a quorum.
    pub(super) fn check_state(&mut self) {
        let mut rounds = BTreeSet::new();
        for id in 0..self.servers.len() {
            let leads = self.leads(id) && self.supports(id);
            if leads && !rounds.insert(self.servers[id].decision.unwrap().vote.round) {
                self.fail("two lead in one round".to_owned());
            }
        }
    }

    /// Who is to agree at the end: all that live, if they can elect.
    pub(super) fn are_enough(&self) -> bool {
        let lives = |id: ServerId| self.servers[id.0 as usize - 1].elector.is_some();
        let has_data = |id: ServerId| self.servers[id.0 as usize - 1].own.last.is_some();
        let voters = self.members().voters();
        let all_empty = voters.iter().all(|id| lives(*id)) && self.nobody_has_data();
        all_empty || self.members().is_quorum(|id| lives(id) && has_data(id))
    }

    /// The leader that all have that live.
    pub(super) fn agreed(&self) -> Option<usize> {
        let mut living = self.servers.iter().filter(|server| server.elector.is_some());
        let leader = living.clone().find_map(|server| server.leader())?;
        let agrees =
            |server: &Rc<Server>| server.leader() == Some(leader) && server.established.is_some();
        living.all(agrees).then_some(leader)
    }
}
