//! How a member comes by its role, and loses it.

use std::time::Duration;

use super::{Member, MemberStats, QuorumPeer, Role, Standing, Writing};
use crate::ids::ServerId;
use crate::metrics::micros;
use crate::order::Service;
use crate::replica::{Now, Output as ReplicaOutput, Replica};
use crate::time::doubled;
use crate::txnlog::{LogConfig, LogEnd, TxnLog};
use crate::zab::data::{DataDone, DataOp};
use crate::zab::election::{Decision, OwnState, Role as Elected};
use crate::zab::leader::Leader;
use crate::zab::learner::{Begin, Learner, Progress};
use crate::zab::link::{LinkEvent, LinkOp, Plane};
use crate::zab::log_reading::LogDone;
use crate::zab::outbox::{Lost, Outbox};
use crate::zxid::Epoch;

/// A leader that refuses is dialled again after this: it opens its port when it knows that it was
/// elected, which may be later than others know it.
const REDIAL_DELAY: Duration = Duration::from_millis(1);
/// Each time twice as long, up to this.
const REDIAL_DELAY_MAX: Duration = Duration::from_millis(20);
/// How often; then it is given up. Together more than ZooKeeper's two waits of 200 ms.
const REDIALS_MAX: u32 = 25;

/// A leader that could not be followed the last two times is dialled only after this: it may not
/// be possible for long, because of a promise of a later epoch say, and each try costs an election,
/// or a tree.
const RETRY_DELAY: Duration = Duration::from_millis(20);
/// Each time twice as long, up to this.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(1);

impl QuorumPeer {
    pub(super) fn on_tick(&mut self, now: Now) {
        let Some(member) = &mut self.member else { return };
        let (replica, out) = (&mut self.replica, &mut self.outbox);
        member.elector.on_timeout(now.instant, &mut out.links);
        if member.grace_ends.is_some_and(|at| at <= now.instant) {
            member.serve(Service::Closed, out);
            replica.forget_parked();
        }
        let result = match &mut member.role {
            Role::Leading(leader) => leader.on_timeout(now, out),
            Role::Learning(learner) => learner.on_timeout(now),
            Role::Dialling { leader, at } if *at <= now.instant => {
                let leader = *leader;
                member.dial(now, leader, replica, out);
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(lost) = result {
            member.lose(now, lost, replica, out);
        }
    }

    pub(super) fn on_link(&mut self, now: Now, event: LinkEvent<'_>) {
        let member = self.member.as_mut().expect("a server alone has no links");
        let (replica, out) = (&mut self.replica, &mut self.outbox);
        let link = match event {
            LinkEvent::Accepted { link, plane } => {
                match (plane, &mut member.role) {
                    (Plane::Election, _) => {
                        member.elector.on_link(now.instant, event, &mut out.links);
                    }
                    (Plane::Learner, Role::Leading(leader)) => {
                        leader.on_link(now, event, replica, out);
                    }
                    (Plane::Learner, _) => out.links.push(LinkOp::Close(link)),
                }
                return;
            }
            LinkEvent::Connected(link)
            | LinkEvent::Failed { link, .. }
            | LinkEvent::Received(link, _)
            | LinkEvent::Drained(link)
            | LinkEvent::Closed(link)
            | LinkEvent::Reset(link) => link,
        };
        if member.elector.owns(link) {
            return member.elector.on_link(now.instant, event, &mut out.links);
        }
        let result = match &mut member.role {
            Role::Leading(leader) => {
                leader.on_link(now, event, replica, out);
                Ok(Progress::None)
            }
            Role::Learning(learner) if learner.link() == link => match event {
                LinkEvent::Failed { refused: true, .. } if member.dials <= REDIALS_MAX => {
                    let delay = doubled(REDIAL_DELAY, member.dials, REDIAL_DELAY_MAX);
                    let at = now.instant.after(delay);
                    let leader = learner.leader();
                    member.role = Role::Dialling { leader, at };
                    Ok(Progress::None)
                }
                event => learner.on_link(now, event, replica, out),
            },
            _ => Ok(Progress::None),
        };
        member.make_progress(now, result, replica, out);
    }

    pub(super) fn on_data(&mut self, now: Now, done: DataDone) {
        let member = self.member.as_mut().expect("a server alone has no such data");
        let (replica, out) = (&mut self.replica, &mut self.outbox);
        if !matches!(done, DataDone::Epochs(epochs) if epochs != member.epochs_wanted) {
            member.writing = Writing::Nothing;
        }
        match done {
            DataDone::Epochs(epochs) => {
                member.epochs = epochs;
                // What a leader had is durable before its epoch is: a start would find it, too.
                member.has_data |= epochs.current > Epoch(0);
            }
            DataDone::CannotTruncate(_) => {
                member.wants_tree = true;
                replica.wake_log(now, &mut out.replica);
            }
            DataDone::Replaced(_) => member.wants_tree = false,
            DataDone::Truncated(_) => {}
        }
        let result = match (&mut member.role, done) {
            (Role::Leading(leader), DataDone::Epochs(epochs)) => {
                leader.on_epochs(now, epochs, replica, out);
                Ok(Progress::None)
            }
            (Role::Learning(learner), done) => learner.on_data(now, done, replica, out),
            _ => Ok(Progress::None),
        };
        member.make_progress(now, result, replica, out);
        if let Some(lost) = member.lost.take() {
            member.lose(now, lost, replica, out);
        }
    }

    /// Something was read for a learner.
    pub(super) fn on_log(&mut self, now: Now, done: LogDone) {
        let member = self.member.as_mut().expect("a server alone has no learners");
        if let Role::Leading(leader) = &mut member.role {
            leader.on_log(now, done, &mut self.replica, &mut self.outbox);
        }
    }

    /// Ends a turn: roles go on with what has become durable, elections with what was heard.
    pub(super) fn advance(&mut self, now: Now) {
        let Some(member) = &mut self.member else { return };
        let (replica, out) = (&mut self.replica, &mut self.outbox);
        let result = match &mut member.role {
            Role::Leading(leader) => {
                leader.broadcast(now, replica, out);
                if leader.established().is_some() && replica.wants_new_epoch() {
                    Err(Lost("the zxids of this epoch are nearly used up"))
                } else if leader.is_outbid() {
                    member.promised = leader.promised();
                    Err(Lost("a voter has promised another leader this epoch, or a later one"))
                } else {
                    Ok(Progress::None)
                }
            }
            Role::Learning(learner) => learner.finish_turn(now, replica, out),
            _ => Ok(Progress::None),
        };
        member.make_progress(now, result, replica, out);
        if member.held.is_some() && replica.rest_log() {
            out.data.extend(member.held.take());
        }
        member.note_establishment(out);
        member.note_caught_up(replica, out);
        member.look_for_leader(now, replica, out);
        member.note_standing(now);
    }
}

impl Member {
    fn serve(&mut self, service: Service, out: &mut Outbox) {
        if self.service != service {
            self.service = service;
            out.service.push(service);
        }
        if service != Service::Parked {
            self.grace_ends = None;
        }
    }

    /// Does what a role has led to, until it leads to nothing more.
    fn make_progress(
        &mut self,
        now: Now,
        mut result: Result<Progress, Lost>,
        replica: &mut Replica,
        out: &mut Outbox,
    ) {
        loop {
            match out.data.last() {
                None => {}
                Some(DataOp::Epochs(epochs)) => {
                    self.writing = Writing::Epochs;
                    self.epochs_wanted = *epochs;
                }
                Some(DataOp::Truncate(_) | DataOp::Replace(_)) => {
                    self.writing = Writing::State;
                    self.held = out.data.pop();
                }
            }
            match result {
                Ok(Progress::None) => return,
                Err(lost) => return self.lose(now, lost, replica, out),
                Ok(Progress::Reloaded(mut tree, log)) => {
                    // Nobody who was connected has seen this state.
                    self.serve(Service::Closed, out);
                    // Compat: Learner.syncWithLeader: what the leader's configuration says of
                    // the members does not count here.
                    self.config.members.write_into(&mut tree, now.wall);
                    let log = self.open_log(now, log, out);
                    replica.reload(now, *tree, log, &mut out.replica);
                }
                Ok(Progress::UpToDate(base, took)) => {
                    let Role::Learning(learner) = &self.role else { return };
                    let (leader, epoch) = (learner.leader(), learner.epoch());
                    let repeated = epoch > self.served;
                    self.served = epoch;
                    self.wants_tree = false;
                    self.elector.established(epoch);
                    tracing::info!(%leader, epoch = epoch.0, "up to date");
                    self.count_sync(took);
                    replica.serve(now, base, repeated, &mut out.replica);
                    self.note_caught_up(replica, out);
                }
            }
            let Role::Learning(learner) = &mut self.role else { return };
            result = learner.go_on(now, replica, out);
        }
    }

    fn open_log(&mut self, now: Now, end: LogEnd, out: &mut Outbox) -> TxnLog {
        self.openings += 1;
        let seed = self.config.log.seed.wrapping_add(self.openings);
        let mut ops = Vec::new();
        let log = TxnLog::open(LogConfig { seed, ..self.config.log }, end, now.instant, &mut ops);
        out.replica.extend(ops.into_iter().map(ReplicaOutput::Disk));
        log
    }

    /// A leader that has just got its quorum serves.
    fn note_establishment(&mut self, out: &mut Outbox) {
        if let Role::Leading(leader) = &self.role
            && let Some(epoch) = leader.established()
            && self.served != epoch
        {
            self.served = epoch;
            (self.wants_tree, self.in_vain) = (false, None);
            self.elector.established(epoch);
            // Compat: Leader.lead - `leaderServes=no` leaves it the work of the ensemble alone.
            let serves = self.config.leader_serves;
            self.serve(if serves { Service::Serving } else { Service::Closed }, out);
        }
    }

    /// A learner that has applied what it lacked serves.
    fn note_caught_up(&mut self, replica: &Replica, out: &mut Outbox) {
        if matches!(self.role, Role::Learning(_)) && replica.serves() {
            self.serve(Service::Serving, out);
        }
    }

    // Compat: Follower.followLeader, Observer.observeLeader
    fn count_sync(&mut self, took: Duration) {
        let MemberStats { follower_syncs, observer_syncs, .. } = &mut self.stats;
        let syncs = if self.config.is_observer { observer_syncs } else { follower_syncs };
        syncs.record(micros(took));
    }

    /// Ends a turn: counts how long there was no established role, when there is one again.
    ///
    // Compat: QuorumPeer.setZabState
    fn note_standing(&mut self, now: Now) {
        let (is_established, leads) = match &self.role {
            Role::Leading(leader) => (leader.established().is_some(), true),
            Role::Learning(learner) => (learner.is_active(), false),
            Role::Settling | Role::Looking | Role::Dialling { .. } => (false, false),
        };
        if self.standing.is_some_and(|before| before.is_established == is_established) {
            return;
        }
        let before = self.standing.replace(Standing { is_established, since: now.instant });
        if is_established && let Some(before) = before {
            let took = micros(now.instant.since(before.since));
            self.stats.unavailable.record(took);
            if leads {
                self.stats.leader_unavailable.record(took);
            }
        }
    }

    /// The role is over: back to looking for a leader. While the data are being changed, that must
    /// come to its end first.
    fn lose(&mut self, now: Now, lost: Lost, replica: &mut Replica, out: &mut Outbox) {
        if self.writing == Writing::State {
            self.lost = Some(lost);
            return;
        }
        tracing::warn!("looking for a leader: {lost}");
        match std::mem::replace(&mut self.role, Role::Settling) {
            Role::Leading(leader) => leader.close(out),
            Role::Learning(learner) => {
                self.count_try(&learner);
                out.links.push(LinkOp::Close(learner.link()));
            }
            Role::Settling | Role::Looking | Role::Dialling { .. } => {}
        }
        replica.wait(now, &mut out.replica);
        if self.service == Service::Serving {
            let parks = !self.config.grace.is_zero();
            self.serve(if parks { Service::Parked } else { Service::Closed }, out);
            self.grace_ends = parks.then(|| now.instant.after(self.config.grace));
        }
    }

    /// A leader is followed no more.
    fn count_try(&mut self, learner: &Learner) {
        let leader = learner.leader();
        let before = self.in_vain.filter(|(other, _)| *other == leader).map_or(0, |(_, n)| n);
        self.in_vain = (!learner.is_active()).then_some((leader, before + 1));
    }

    /// How long to wait before this leader is tried again.
    fn retry_delay(&self, leader: ServerId) -> Duration {
        match self.in_vain {
            Some((other, tries @ 2..)) if other == leader => {
                doubled(RETRY_DELAY, tries - 2, RETRY_DELAY_MAX)
            }
            _ => Duration::ZERO,
        }
    }

    /// Whether what a vote says is what is on the disk.
    pub(super) fn can_look(&self, replica: &Replica) -> bool {
        replica.is_settled() && self.writing == Writing::Nothing
    }

    fn look_for_leader(&mut self, now: Now, replica: &mut Replica, out: &mut Outbox) {
        if self.elector.reopened() && !matches!(self.role, Role::Settling | Role::Looking) {
            self.lose(now, Lost("there is a better candidate"), replica, out);
        }
        if matches!(self.role, Role::Settling) && self.can_look(replica) {
            self.role = Role::Looking;
            self.looking_since = now.instant;
            self.stats.lookings += 1;
            let last = self.has_data.then(|| replica.last_named());
            let own = OwnState { last, current_epoch: self.epochs.current };
            self.elector.look(now.instant, own, &mut out.links);
        }
        if let Some(decision) = self.elector.decided() {
            self.take_role(now, decision, replica, out);
        }
    }

    fn take_role(&mut self, now: Now, decision: Decision, replica: &mut Replica, out: &mut Outbox) {
        let leader = decision.vote.leader;
        tracing::info!(%leader, role = ?decision.role, "elected");
        self.begins = decision.begins;
        self.stats.elections.record(micros(now.instant.since(self.looking_since)));
        match decision.role {
            Elected::Leading => {
                let (members, timing) = (self.config.members.clone(), self.config.timing);
                let (me, epochs, promised) = (self.config.me, self.epochs, self.promised);
                let leader = Leader::new(me, members, timing, epochs, promised, now, out);
                self.role = Role::Leading(Box::new(leader));
                self.make_progress(now, Ok(Progress::None), replica, out);
            }
            Elected::Following | Elected::Observing => {
                replica.learn();
                self.dials = 0;
                let delay = self.retry_delay(leader);
                if delay.is_zero() {
                    return self.dial(now, leader, replica, out);
                }
                self.role = Role::Dialling { leader, at: now.instant.after(delay) };
            }
        }
    }

    fn dial(&mut self, now: Now, leader: ServerId, replica: &Replica, out: &mut Outbox) {
        self.dials += 1;
        let link = self.links.next();
        out.links.push(LinkOp::Dial { link, peer: leader, plane: Plane::Learner });
        let has_data = (self.has_data || self.begins) && !self.wants_tree;
        let begin = Begin {
            me: self.config.me,
            is_observer: self.config.is_observer,
            leader,
            config_version: self.config.members.version().cast_signed(),
            epochs: self.epochs,
            last: has_data.then(|| replica.last_named()),
            mode: self.config.mode,
        };
        let learner = Learner::new(begin, self.config.timing, link, now);
        self.role = Role::Learning(Box::new(learner));
    }
}
