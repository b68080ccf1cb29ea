//! One server of an ensemble, or a server alone: election, role and replica as one machine.
//!
//! ```text
//!   alone:     replica
//!
//!   member:    settling ──log durable──> looking ──elected──> leading | learning
//!                 ^                                                │
//!                 └────────────────────── lost ────────────────────┘
//! ```
//!
//! Clients are served while the role is established. Between two leaders their connections are
//! *parked* for a grace: they hear nothing, and notice little; when it is over, or when the state
//! is no longer the one that they saw, they are closed.
//!
//! Invariants:
//!
//!   * a vote names the last transaction that is durable here, committed or not
//!   * no client is served by a role that is not established

mod roles;

use std::sync::Arc;
use std::time::Duration;

use crate::epochs::Epochs;
use crate::ids::{LinkId, ServerId};
use crate::metrics::Summary;
use crate::order::Service;
use crate::replica::{self, Now, Replica};
use crate::time::Instant;
use crate::tree::OwnerMode;
use crate::txnlog::LogConfig;
use crate::zab::data::{DataDone, DataOp};
use crate::zab::election::{Elector, ElectorConfig};
use crate::zab::leader::Leader;
use crate::zab::learner::Learner;
use crate::zab::link::{LinkEvent, LinkOp};
use crate::zab::log_reading::{LogDone, LogOp};
use crate::zab::members::Members;
use crate::zab::outbox::{Lost, Outbox, Timing};
use crate::zxid::Epoch;

/// A member's settings.
#[derive(Clone, Debug)]
pub struct MemberConfig {
    /// Its id.
    pub me: ServerId,
    /// Who else there is.
    pub members: Arc<Members>,
    /// Whether it only learns.
    pub is_observer: bool,
    /// How long things may take.
    pub timing: Timing,
    /// How it takes part in elections.
    pub elector: ElectorConfig,
    /// Whether clients are served while it leads.
    pub leader_serves: bool,
    /// How long clients' connections outlive the loss of a leader.
    pub grace: Duration,
    /// How owners of znodes are read.
    pub mode: OwnerMode,
    /// For the log that follows a cut or a new state.
    pub log: LogConfig,
}

/// What a member finds on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberState {
    /// The epochs.
    pub epochs: Epochs,
    /// Whether there is data: a member without any does not vote.
    pub has_data: bool,
}

/// What can happen to a server.
#[derive(Debug)]
pub enum Input<'a> {
    /// Something that concerns the replica.
    Replica(replica::Input),
    /// Something happened to a link.
    Link(LinkEvent<'a>),
    /// An operation on the data is done.
    Data(Box<DataDone>),
    /// Something of the log's files was read.
    Log(LogDone),
}

/// What a server wants done.
#[derive(Debug)]
pub enum Output {
    /// What the replica wants.
    Replica(replica::Output),
    /// Do this with a link.
    Link(LinkOp),
    /// Do this with the data.
    Data(DataOp),
    /// Read this of the log's files.
    Log(LogOp),
    /// Tell every core, behind the batches published before.
    Service(Service),
}

/// What the server is, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleKind {
    /// It has no ensemble.
    Standalone,
    /// It looks for a leader.
    Looking,
    /// It leads: learners, and those of them that are synchronized.
    Leading {
        /// Since when.
        since: Instant,
        /// How many learners there are.
        learners: usize,
        /// How many followers are synchronized.
        synced: usize,
        /// How many observers are.
        observers: usize,
    },
    /// It follows a leader.
    Following(ServerId),
    /// It observes a leader.
    Observing(ServerId),
}

/// The machine.
#[derive(Debug)]
pub struct QuorumPeer {
    replica: Replica,
    member: Option<Box<Member>>,
    outbox: Outbox,
}

/// The part of a server that its ensemble concerns.
#[derive(Debug)]
struct Member {
    config: MemberConfig,
    elector: Elector,
    links: LinkIds,
    role: Role,
    epochs: Epochs,
    has_data: bool,
    /// A cut was impossible: leaders are told that there is no data, and send all of it, until a
    /// tree is there or what could not be cut is the history of an ensemble.
    wants_tree: bool,
    /// The operation on the data that is under way.
    writing: Writing,
    /// The epochs that were last to be made durable.
    epochs_wanted: Epochs,
    /// That operation, while it waits for the log to come to rest.
    held: Option<DataOp>,
    /// The role is over when that operation is.
    lost: Option<Lost>,
    /// Nobody in the ensemble has data: that this server has none does not keep it from voting.
    begins: bool,
    /// How often the leader was dialled.
    dials: u32,
    /// The last leader that could not be followed, and how often in a row.
    in_vain: Option<(ServerId, u32)>,
    service: Service,
    /// When parked connections are closed.
    grace_ends: Option<Instant>,
    /// The epoch of the last leader whose history this server served or learned.
    served: Epoch,
    /// The highest promise that was heard of while leading, if a voter could not follow for it.
    promised: Epoch,
    /// How often the log was opened.
    openings: u64,
    /// When it began to look for a leader.
    looking_since: Instant,
    /// None before its first turn.
    standing: Option<Standing>,
    stats: MemberStats,
}

/// Whether a member has an established role, and since when it has or lacks one.
#[derive(Clone, Copy, Debug)]
struct Standing {
    is_established: bool,
    since: Instant,
}

/// What a member of an ensemble counts, since its start or the last reset.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemberStats {
    /// How often it began to look for a leader.
    pub lookings: u64,
    /// How long it then took until one was elected, microseconds.
    pub elections: Summary,
    /// From ACKEPOCH until a follower was up to date, microseconds.
    pub follower_syncs: Summary,
    /// The same of an observer.
    pub observer_syncs: Summary,
    /// How long it had no established role, until it had one, microseconds.
    pub unavailable: Summary,
    /// Those of these times that ended with its leading.
    pub leader_unavailable: Summary,
}

/// An operation on the data that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    Nothing,
    Epochs,
    /// Log and state change.
    State,
}

/// What a member does in its ensemble.
#[derive(Debug)]
enum Role {
    /// The log's last frames become durable first: only then may a vote name its end.
    Settling,
    Looking,
    Leading(Box<Leader>),
    /// The leader is dialled later: it has refused, or could not be followed.
    Dialling {
        leader: ServerId,
        at: Instant,
    },
    Learning(Box<Learner>),
}

/// Numbers the links that learners dial: the multiples of 4 are the elector's.
#[derive(Debug)]
struct LinkIds(u64);

impl LinkIds {
    fn next(&mut self) -> LinkId {
        self.0 += 4;
        LinkId(self.0 - 4)
    }
}

impl QuorumPeer {
    /// A server alone.
    pub fn alone(replica: Replica) -> Self {
        Self { replica, member: None, outbox: Outbox::default() }
    }

    /// A member of an ensemble. It begins to look for a leader with its first turn.
    pub fn member(mut replica: Replica, config: MemberConfig, state: MemberState) -> Self {
        replica.join();
        let member = Member {
            elector: Elector::new(config.elector.clone()),
            config,
            links: LinkIds(2),
            role: Role::Settling,
            epochs: state.epochs,
            has_data: state.has_data,
            wants_tree: false,
            writing: Writing::Nothing,
            epochs_wanted: state.epochs,
            held: None,
            lost: None,
            begins: false,
            dials: 0,
            in_vain: None,
            service: Service::Closed,
            grace_ends: None,
            served: Epoch(0),
            promised: Epoch(0),
            openings: 0,
            looking_since: Instant::ZERO,
            standing: None,
            stats: MemberStats::default(),
        };
        let service = vec![member.service];
        let outbox = Outbox { service, ..Outbox::default() };
        Self { replica, member: Some(Box::new(member)), outbox }
    }

    /// The replica, for figures.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// What clients get now.
    pub fn service(&self) -> Service {
        self.member.as_ref().map_or(Service::Serving, |member| member.service)
    }

    /// What the server is.
    pub fn role(&self) -> RoleKind {
        let Some(member) = &self.member else { return RoleKind::Standalone };
        match &member.role {
            Role::Leading(leader) if leader.established().is_some() => {
                let (learners, synced, observers) = leader.learners();
                let since = member.standing.map_or(Instant::ZERO, |standing| standing.since);
                RoleKind::Leading { since, learners, synced, observers }
            }
            Role::Learning(learner) if learner.is_active() && member.config.is_observer => {
                RoleKind::Observing(learner.leader())
            }
            Role::Learning(learner) if learner.is_active() => RoleKind::Following(learner.leader()),
            _ => RoleKind::Looking,
        }
    }

    /// What was counted of elections; none without an ensemble.
    pub fn member_stats(&self) -> Option<MemberStats> {
        self.member.as_ref().map(|member| member.stats)
    }

    /// Forgets what was counted.
    pub fn reset_stats(&mut self) {
        self.replica.reset_stats();
        if let Some(member) = &mut self.member {
            member.stats = MemberStats::default();
        }
    }

    /// Whether something waits until what the log has asked of the disk is done.
    pub fn waits_for_rest(&self) -> bool {
        self.member.as_ref().is_some_and(|member| member.held.is_some())
    }

    /// When to pass a tick if nothing else happens.
    pub fn next_timeout(&self) -> Option<Instant> {
        let replica = self.replica.next_timeout();
        let Some(member) = &self.member else { return replica };
        let role = match &member.role {
            // What its role ends with must come to its own end first.
            _ if member.lost.is_some() => None,
            // It can begin to look at once; nothing else may happen before.
            Role::Settling if member.can_look(&self.replica) => Some(Instant::ZERO),
            Role::Settling | Role::Looking => None,
            Role::Leading(leader) => Some(leader.next_timeout()),
            Role::Dialling { at, .. } => Some(*at),
            Role::Learning(learner) => Some(learner.next_timeout()),
        };
        let elector = member.elector.next_timeout();
        [replica, role, elector, member.grace_ends].into_iter().flatten().min()
    }

    /// Advances by one input and appends what must be done about it to `out`.
    pub fn step(&mut self, now: Now, input: Input<'_>, out: &mut Vec<Output>) {
        match input {
            Input::Replica(input) => {
                let is_tick = matches!(input, replica::Input::Tick);
                self.replica.step(now, input, &mut self.outbox.replica);
                if is_tick {
                    self.on_tick(now);
                }
            }
            Input::Link(event) => self.on_link(now, event),
            Input::Data(done) => self.on_data(now, *done),
            Input::Log(done) => self.on_log(now, done),
        }
        self.flush(out);
    }

    /// Ends a turn.
    pub fn finish_turn(&mut self, now: Now, out: &mut Vec<Output>) {
        self.replica.finish_turn(now, &mut self.outbox.replica);
        self.advance(now);
        // What the role has committed is published in the same turn.
        self.replica.finish_turn(now, &mut self.outbox.replica);
        self.flush(out);
    }

    /// What clients get changes with what was published before it.
    fn flush(&mut self, out: &mut Vec<Output>) {
        out.extend(self.outbox.replica.drain(..).map(Output::Replica));
        out.extend(self.outbox.links.drain(..).map(Output::Link));
        out.extend(self.outbox.data.drain(..).map(Output::Data));
        out.extend(self.outbox.logs.drain(..).map(Output::Log));
        out.extend(self.outbox.service.drain(..).map(Output::Service));
    }
}
