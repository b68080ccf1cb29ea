//! The leader: finds an epoch, brings learners up to date, proposes and commits.
//!
//! ```text
//!   gathering ──quorum of FOLLOWERINFO──> proposing (LEADERINFO)
//!     ──quorum of ACKEPOCH──> synchronizing (DIFF, TRUNC, SNAP; NEWLEADER)
//!     ──quorum of ACK──> broadcasting (UPTODATE; PROPOSAL, COMMIT, INFORM)
//! ```
//!
//! This server's own word counts like a follower's: for the epoch when it is durably accepted, for
//! the history when the epoch is durably the current one. Followers need not wait for that, so its
//! writes go on beside theirs.
//!
//! Invariants:
//!
//!   * an epoch is led by one server once: a quorum has durably accepted it, and every later leader
//!     asks one of them
//!   * nothing is committed that a quorum of voters does not have on disk, this server's own disk
//!     counted like any other
//!   * what a learner is sent is in zxid order and without gaps
//!
// Compat: Leader, LearnerHandler

mod broadcast;
mod discovery;
mod handler;
mod reading;
mod requests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::link::{LinkEvent, LinkOp, Plane};
use super::log_reading::LogOp;
use super::members::Members;
use super::outbox::{Lost, Outbox, Timing};
use super::packet::{self, Packet, PacketKind};
use crate::epochs::Epochs;
use crate::ids::{LinkId, ServerId};
use crate::jute::DecodeError;
use crate::replica::{Now, Replica};
use crate::time::Instant;
use crate::zxid::{Epoch, Zxid};

use handler::{Handler, Step};
use requests::{Asked, Sync};

/// A server that leads, or is about to.
#[derive(Debug)]
pub struct Leader {
    me: ServerId,
    members: Arc<Members>,
    timing: Timing,
    epochs: Epochs,
    stage: Stage,
    /// The highest epoch that a voter has been heard to have promised.
    promised: Epoch,
    handlers: BTreeMap<LinkId, Handler>,
    /// When to give up unless a quorum has brought this server to the next stage.
    deadline: Instant,
    ping_at: Instant,
    /// Every second round of pings ends a tick.
    tick_ends: bool,
    /// Syncs of learners, in order.
    syncs: VecDeque<Sync>,
    /// Sessions that learners have asked for, in order.
    asked: VecDeque<Asked>,
    /// Proofs that answers to this server's own clients need: how many there were, and the round
    /// that gives them.
    own_proofs: VecDeque<(u64, u64)>,
    /// How many of them are given.
    proven: u64,
    /// Rounds of pings that were sent.
    rounds: u64,
    /// Servers to which the log's files were of no use, or that were gone before that was known:
    /// they get the tree.
    read_in_vain: BTreeSet<ServerId>,
}

/// How far the leader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Gathering,
    Proposing(Epoch),
    Synchronizing(Epoch),
    Broadcasting(Epoch),
}

/// What a learner did wrong: its link closes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("{0}")]
    Decode(#[from] DecodeError),
    #[error("{kind:?} is not expected now")]
    Unexpected { kind: PacketKind },
    #[error("server {0} is not a voter of this ensemble")]
    Stranger(ServerId),
    #[error("it says that it is server {0}, which is this one")]
    Myself(ServerId),
    #[error(
        "it says that it has promised epoch {0:?}, too far behind any that there can have been"
    )]
    NoSuchEpoch(Epoch),
    #[error("it acknowledges {zxid}, and was sent {proposed}")]
    NotProposed { zxid: Zxid, proposed: Zxid },
    #[error("its state, {its:?}, is ahead of the leader's, {ours:?}")]
    Ahead { its: (Epoch, Zxid), ours: (Epoch, Zxid) },
    #[error("its list of members has version {its:#x}, which is later than {ours:#x}")]
    NewerMembers { its: i64, ours: i64 },
    #[error("it does not take what it is sent")]
    Backlog,
    #[error("nothing was heard of it for too long")]
    Silent,
    #[error("it takes too long to log a proposal")]
    Slow,
    #[error("the log that it needs cannot be read any more")]
    LogLost,
    #[error("the log grows faster than it takes it")]
    Outrun,
}

impl Leader {
    /// Begins: this server was elected, and has heard of promises up to `promised`.
    pub fn new(
        me: ServerId,
        members: Arc<Members>,
        timing: Timing,
        epochs: Epochs,
        promised: Epoch,
        now: Now,
        out: &mut Outbox,
    ) -> Self {
        out.links.push(LinkOp::OpenLearnerPort);
        let mut leader = Self {
            me,
            members,
            timing,
            epochs,
            stage: Stage::Gathering,
            promised,
            handlers: BTreeMap::new(),
            deadline: now.instant.after(timing.init()),
            ping_at: now.instant.after(timing.tick / 2),
            tick_ends: false,
            syncs: VecDeque::new(),
            asked: VecDeque::new(),
            own_proofs: VecDeque::new(),
            proven: 0,
            rounds: 0,
            read_in_vain: BTreeSet::new(),
        };
        leader.advance_epoch(now, out);
        leader
    }

    /// The epoch, once a quorum is synchronized.
    pub fn established(&self) -> Option<Epoch> {
        if let Stage::Broadcasting(epoch) = self.stage { Some(epoch) } else { None }
    }

    /// Whether a voter has promised a later epoch than this leader's: it can follow nobody before
    /// there is one that is later still. The same goes for this epoch where it was promised to
    /// another, if the leader cannot do without these voters.
    pub fn is_outbid(&self) -> bool {
        self.epoch_proposed().is_some_and(|epoch| epoch < self.promised) || self.is_refused()
    }

    /// Whether all that were asked have answered, and make a quorum only with those that had
    /// promised this very epoch before.
    fn is_refused(&self) -> bool {
        let Stage::Proposing(epoch) = self.stage else { return false };
        let has_promised = |handler: &Handler| {
            handler.step == Step::Waiting && handler.accepted == epoch && handler.last.is_some()
        };
        self.epochs.accepted == epoch
            && self.handlers.values().all(|handler| handler.step != Step::AckingEpoch)
            && self.has_quorum(true, |handler| handler.accepts || has_promised(handler))
    }

    /// The highest epoch that a voter has been heard to have promised.
    pub fn promised(&self) -> Epoch {
        self.promised
    }

    /// Learners: how many there are, how many followers and observers of them are up to date.
    pub fn learners(&self) -> (usize, usize, usize) {
        let synced = self.handlers.values().filter(|handler| handler.step == Step::Active);
        let (observers, followers): (Vec<_>, Vec<_>) = synced.partition(|it| it.is_observer);
        (self.handlers.len(), followers.len(), observers.len())
    }

    /// When to call [`Leader::on_timeout`].
    pub fn next_timeout(&self) -> Instant {
        match self.stage {
            Stage::Broadcasting(_) => self.ping_at,
            _ => self.ping_at.min(self.deadline),
        }
    }

    /// Leadership is over: learners find out by their links.
    pub fn close(self, out: &mut Outbox) {
        out.links.push(LinkOp::CloseLearnerPort);
        for (link, handler) in self.handlers {
            out.links.push(LinkOp::Close(link));
            if handler.reading.is_some() {
                out.logs.push(LogOp::Close(link));
            }
        }
    }

    /// Whether the link is a learner's.
    pub fn owns(&self, link: LinkId) -> bool {
        self.handlers.contains_key(&link)
    }

    /// Something happened to a link of the learner port.
    pub fn on_link(
        &mut self,
        now: Now,
        event: LinkEvent<'_>,
        replica: &mut Replica,
        out: &mut Outbox,
    ) {
        match event {
            LinkEvent::Accepted { link, plane: Plane::Learner } => {
                self.handlers.insert(link, Handler::new(now.instant));
            }
            LinkEvent::Received(link, bytes) => self.on_bytes(now, link, bytes, replica, out),
            LinkEvent::Drained(link) => self.go_on_sending(now, link, replica, out),
            LinkEvent::Closed(link) | LinkEvent::Reset(link) => {
                // One of those who have not said who they are need not be told of.
                if let Some(server) = self.remove(link, out).and_then(|handler| handler.server) {
                    tracing::info!(%server, "a learner is gone");
                }
            }
            LinkEvent::Accepted { .. } | LinkEvent::Connected(_) | LinkEvent::Failed { .. } => {}
        }
    }

    fn remove(&mut self, link: LinkId, out: &mut Outbox) -> Option<Handler> {
        let handler = self.handlers.remove(&link)?;
        if let Some(reading) = &handler.reading {
            out.logs.push(LogOp::Close(link));
            self.read_in_vain.extend(handler.server.filter(|_| !reading.is_announced));
        }
        Some(handler)
    }

    fn on_bytes(
        &mut self,
        now: Now,
        link: LinkId,
        bytes: &[u8],
        replica: &mut Replica,
        out: &mut Outbox,
    ) {
        let Some(handler) = self.handlers.get_mut(&link) else { return };
        handler.heard = now.instant;
        handler.reader.stream.push(bytes);
        loop {
            let Some(handler) = self.handlers.get_mut(&link) else { return };
            let result = match handler.reader.take() {
                Ok(None) => return,
                Ok(Some(packet)) => self.on_packet(now, link, &packet, replica, out),
                Err(error) => Err(error.into()),
            };
            if let Err(fault) = result {
                return self.drop_learner(link, &fault, out);
            }
        }
    }

    pub(super) fn drop_learner(&mut self, link: LinkId, fault: &Fault, out: &mut Outbox) {
        let handler = self.remove(link, out).expect("it just did this");
        tracing::warn!(server = ?handler.server, "closing the link to a learner: {fault}");
        out.links.push(LinkOp::Close(link));
    }

    fn on_packet(
        &mut self,
        now: Now,
        link: LinkId,
        packet: &Packet,
        replica: &mut Replica,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let new_leader = self.epoch_proposed().map(|epoch| Zxid::new(epoch, 0));
        let handler = self.handlers.get_mut(&link).expect("it sent this");
        match (handler.step, packet.kind) {
            (Step::Introducing, PacketKind::FollowerInfo | PacketKind::ObserverInfo) => {
                self.on_info(now, link, packet, out)?;
            }
            (Step::AckingEpoch, PacketKind::AckEpoch) => {
                self.on_ack_epoch(now, link, packet, replica, out)?;
            }
            (Step::AckingLeader | Step::Synchronized | Step::Active, PacketKind::Ack) => {
                let zxid = Zxid::from_wire(packet.zxid).unwrap_or(Zxid::ZERO);
                if handler.step == Step::AckingLeader && Some(zxid) == new_leader {
                    handler.on_synchronized(now.instant);
                    self.advance_leadership(now, replica, out);
                    self.send_up_to_date(out);
                } else if zxid.counter() != 0 {
                    if zxid > handler.proposed {
                        return Err(Fault::NotProposed { zxid, proposed: handler.proposed });
                    }
                    // Some of ZooKeeper's followers acknowledge proposals before NEWLEADER. What
                    // is committed by it is at the end of the turn.
                    let took = handler.on_ack(zxid, now.instant);
                    if let (Some(server), Some(took)) = (handler.server, took) {
                        replica.count_ack(server, took);
                    }
                }
            }
            (Step::Active, PacketKind::Request) => {
                let learner = handler.introduced();
                self.on_request(now, (link, learner), packet, replica, out)?;
            }
            (Step::Active, PacketKind::Revalidate) => {
                let learner = handler.introduced();
                self.on_session(now, (link, learner), packet, replica, out)?;
            }
            (Step::Synchronized | Step::Active, PacketKind::Ping) => {
                handler.on_pong();
                let learner = handler.introduced();
                for (session, timeout_ms) in packet::read_sessions(&packet.data) {
                    replica.touch_forwarded(now, learner, session, timeout_ms);
                }
            }
            (_, kind) => return Err(Fault::Unexpected { kind }),
        }
        Ok(())
    }

    /// A server has one link at a time: a new one says that the older is broken.
    fn replace_older(&mut self, link: LinkId, server: ServerId, out: &mut Outbox) {
        let same = |(other, handler): (&LinkId, &Handler)| {
            (*other != link && handler.server == Some(server)).then_some(*other)
        };
        if let Some(older) = self.handlers.iter().find_map(same) {
            self.remove(older, out);
            out.links.push(LinkOp::Close(older));
        }
    }

    /// Each stage has initLimit for its quorum.
    fn enter(&mut self, stage: Stage, now: Now) {
        self.stage = stage;
        self.deadline = now.instant.after(self.timing.init());
    }

    /// The epochs are durable.
    pub fn on_epochs(&mut self, now: Now, epochs: Epochs, replica: &mut Replica, out: &mut Outbox) {
        self.epochs = epochs;
        self.advance_epoch_acks(now, replica, out);
        self.advance_leadership(now, replica, out);
    }

    fn epoch_proposed(&self) -> Option<Epoch> {
        match self.stage {
            Stage::Gathering => None,
            Stage::Proposing(epoch) | Stage::Synchronizing(epoch) | Stage::Broadcasting(epoch) => {
                Some(epoch)
            }
        }
    }

    /// A quorum that has the history makes it the ensemble's.
    fn advance_leadership(&mut self, now: Now, replica: &mut Replica, out: &mut Outbox) {
        let Stage::Synchronizing(epoch) = self.stage else { return };
        let own = self.epochs.current == epoch;
        if self.has_quorum(own, |handler| handler.step == Step::Synchronized) {
            self.stage = Stage::Broadcasting(epoch);
            tracing::info!(epoch = epoch.0, "leading");
            replica.establish(now, epoch, &mut out.replica);
            self.send_up_to_date(out);
        }
    }

    fn send_up_to_date(&mut self, out: &mut Outbox) {
        if self.established().is_none() {
            return;
        }
        for (&link, handler) in &mut self.handlers {
            if handler.step == Step::Synchronized {
                let mut bytes = Vec::new();
                packet::write(PacketKind::UpToDate, -1, None, &mut bytes);
                handler.send(link, bytes, out);
                handler.step = Step::Active;
                // A sync that comes now need not wait for the next round.
                handler.ping(link, self.rounds, out);
            }
        }
    }

    /// Whether the voters that do are a quorum, this server among them if it does.
    fn has_quorum(&self, own: bool, does: impl Fn(&Handler) -> bool) -> bool {
        let voters = self.handlers.values().filter(|handler| !handler.is_observer && does(handler));
        let voters: Vec<_> = voters.filter_map(|handler| handler.server).collect();
        self.members.is_quorum(|id| if id == self.me { own } else { voters.contains(&id) })
    }

    /// Time passed.
    pub fn on_timeout(&mut self, now: Now, out: &mut Outbox) -> Result<(), Lost> {
        if self.established().is_none() && now.instant >= self.deadline {
            return Err(Lost("no quorum of followers within initLimit"));
        }
        if now.instant < self.ping_at {
            return Ok(());
        }
        self.ping_at = now.instant.after(self.timing.tick / 2);
        self.drop_silent(now.instant, out);
        let ends = self.tick_ends;
        self.tick_ends = !ends;
        let quorum = self.has_quorum(true, |handler| handler.step == Step::Active);
        if ends && self.established().is_some() && !quorum {
            return Err(Lost("no quorum of synchronized followers"));
        }
        self.ping(out);
        Ok(())
    }
}
