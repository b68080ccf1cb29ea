//! A follower or an observer: finds its leader's epoch, gets its history, and then its proposals.
//!
//! ```text
//!   dialing ──FOLLOWERINFO──> registering ──LEADERINFO──> accepting ──durable, ACKEPOCH──>
//!     [truncating | receiving a tree ──> replacing] ──> synchronizing ──NEWLEADER──> logging
//!     ──durable──> adopting ──durable, ACK──> waiting ──UPTODATE, ACK──> active
//! ```
//!
//! Invariants:
//!
//!   * ACKEPOCH leaves when the epoch is durably accepted; the ACK of NEWLEADER when all that came
//!     before it, and then the epoch as the current one, are durable
//!   * one ACK per proposal, in order, when it is durable
//!   * no client is served before UPTODATE
//!
// Compat: Learner, Follower, Observer

mod broadcast;

use std::collections::VecDeque;
use std::time::Duration;

use super::data::{DataDone, DataOp};
use super::link::{LinkEvent, LinkOp};
use super::outbox::{Lost, Outbox, Timing};
use super::packet::{
    self, LearnerInfo, PROTOCOL_VERSION, Packet, PacketKind, PacketReader, SNAP_SIGNATURE,
};
use crate::epochs::Epochs;
use crate::ids::{LinkId, ServerId};
use crate::jute::DecodeError;
use crate::replica::{Now, Replica};
use crate::time::Instant;
use crate::tree::{OwnerMode, Tree};
use crate::zookeeper_files::TreeReader;
use crate::zxid::{Epoch, Zxid};

/// What a learner is and has when it begins.
#[derive(Clone, Copy, Debug)]
pub struct Begin {
    /// Its id.
    pub me: ServerId,
    /// Whether it only learns.
    pub is_observer: bool,
    /// Whose history it gets.
    pub leader: ServerId,
    /// The version of its configuration.
    pub config_version: i64,
    /// Its epochs, as they are on disk.
    pub epochs: Epochs,
    /// Where its log ends; none if it has no data.
    pub last: Option<Zxid>,
    /// How owners of znodes are read.
    pub mode: OwnerMode,
}

/// What may have come behind what must be on disk before it is taken, bytes.
const UNTAKEN_BYTES_MAX: usize = 64 << 20;

/// A server that learns from a leader.
#[derive(Debug)]
pub struct Learner {
    begin: Begin,
    timing: Timing,
    link: LinkId,
    reader: PacketReader,
    stage: Stage,
    epochs: Epochs,
    heard: Instant,
    /// When ACKEPOCH was sent.
    registered: Instant,
    /// The leader's epoch.
    epoch: Epoch,
    /// What of the learner's own log the leader's history has.
    base: Zxid,
    /// The zxid of a tree that the leader has sent, until NEWLEADER.
    tree: Option<Zxid>,
    /// Proposals whose ACKs are due, each its own, when they are durable. A leader may commit
    /// without this server: that leaves no ACK out.
    unacked: VecDeque<Zxid>,
    /// What the leader sends is left in the socket.
    is_paused: bool,
}

#[derive(Debug)]
enum Stage {
    Dialing,
    Registering,
    Accepting { counts: bool },
    Acknowledged,
    Truncating(Zxid),
    ReceivingTree { reader: Box<TreeReader>, zxid: Zxid },
    Signed { tree: Option<Box<Tree>>, zxid: Zxid },
    Replacing { tree: Box<Tree>, zxid: Zxid },
    Synchronizing,
    Logging,
    Adopting,
    Waiting,
    Active,
}

/// What must be done with a replica's data before the learner goes on.
#[derive(Debug)]
pub enum Progress {
    /// Nothing.
    None,
    /// The log was cut; this is what is left.
    Reloaded(Box<Tree>, crate::txnlog::LogEnd),
    /// This server may serve, so long after ACKEPOCH: its history is committed up to here.
    UpToDate(Zxid, Duration),
}

impl Learner {
    /// Begins on a link that is being dialled.
    pub fn new(begin: Begin, timing: Timing, link: LinkId, now: Now) -> Self {
        Self {
            begin,
            timing,
            link,
            reader: PacketReader::default(),
            stage: Stage::Dialing,
            epochs: begin.epochs,
            heard: now.instant,
            registered: now.instant,
            epoch: Epoch(0),
            base: begin.last.unwrap_or(Zxid::ZERO),
            tree: None,
            unacked: VecDeque::new(),
            is_paused: false,
        }
    }

    /// The link to the leader.
    pub fn link(&self) -> LinkId {
        self.link
    }

    /// Whom it learns from.
    pub fn leader(&self) -> ServerId {
        self.begin.leader
    }

    /// The leader's epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether clients are served.
    pub fn is_active(&self) -> bool {
        matches!(self.stage, Stage::Active)
    }

    /// When to call [`Learner::on_timeout`].
    pub fn next_timeout(&self) -> Instant {
        self.heard.after(self.patience())
    }

    fn patience(&self) -> Duration {
        if self.is_active() { self.timing.sync() } else { self.timing.init() }
    }

    /// Time passed.
    pub fn on_timeout(&mut self, now: Now) -> Result<(), Lost> {
        if now.instant < self.next_timeout() {
            return Ok(());
        }
        Err(Lost(if self.is_paused {
            "this server's disk does not keep up with what the leader sends"
        } else {
            "nothing was heard of the leader for too long"
        }))
    }

    /// Something happened to the link.
    pub fn on_link(
        &mut self,
        now: Now,
        event: LinkEvent<'_>,
        replica: &mut Replica,
        out: &mut Outbox,
    ) -> Result<Progress, Lost> {
        match event {
            LinkEvent::Connected(_) => {
                self.stage = Stage::Registering;
                self.heard = now.instant;
                let Begin { me, is_observer, config_version, .. } = self.begin;
                let info = LearnerInfo { server: me, protocol: PROTOCOL_VERSION, config_version };
                let kind = PacketKind::FollowerInfo;
                let kind = if is_observer { PacketKind::ObserverInfo } else { kind };
                let mut bytes = Vec::new();
                info.write(kind, self.epochs.accepted, &mut bytes);
                self.send(bytes, out);
                Ok(Progress::None)
            }
            LinkEvent::Received(_, bytes) => {
                self.heard = now.instant;
                self.reader.stream.push(bytes);
                self.go_on(now, replica, out)
            }
            LinkEvent::Closed(_) | LinkEvent::Reset(_) => {
                Err(Lost("the leader has closed the link"))
            }
            LinkEvent::Failed { .. } => Err(Lost("the leader cannot be reached")),
            LinkEvent::Accepted { .. } | LinkEvent::Drained(_) => Ok(Progress::None),
        }
    }

    /// Data operations that it asked for are done.
    pub fn on_data(
        &mut self,
        now: Now,
        done: DataDone,
        replica: &mut Replica,
        out: &mut Outbox,
    ) -> Result<Progress, Lost> {
        match (done, std::mem::replace(&mut self.stage, Stage::Registering)) {
            (DataDone::Epochs(epochs), Stage::Accepting { counts }) => {
                self.epochs = epochs;
                self.acknowledge_epoch(now, counts, replica, out);
            }
            (DataDone::Epochs(epochs), Stage::Adopting) => {
                self.epochs = epochs;
                self.stage = Stage::Waiting;
                let covered = self.base.max(replica.committed_by_leader());
                self.unacked.retain(|zxid| *zxid > covered);
                self.send_bare(PacketKind::Ack, Zxid::new(self.epoch, 0), out);
            }
            (DataDone::Truncated(loaded), Stage::Truncating(zxid)) => {
                self.base = zxid;
                self.stage = Stage::Synchronizing;
                return Ok(Progress::Reloaded(Box::new(loaded.tree), loaded.log));
            }
            (DataDone::CannotTruncate(_), Stage::Truncating(_)) => {
                return Err(Lost("the log cannot be cut there: the whole tree is needed"));
            }
            (DataDone::Replaced(log), Stage::Replacing { tree, zxid }) => {
                (self.base, self.tree) = (zxid, Some(zxid));
                self.stage = Stage::Synchronizing;
                replica.doubt_digests();
                return Ok(Progress::Reloaded(tree, log));
            }
            (_, stage) => self.stage = stage,
        }
        self.go_on(now, replica, out)
    }

    /// Whether no packet is taken before something is on disk.
    fn waits_for_disk(&self) -> bool {
        matches!(
            self.stage,
            Stage::Accepting { .. }
                | Stage::Truncating(_)
                | Stage::Replacing { .. }
                | Stage::Logging
                | Stage::Adopting
        )
    }

    /// Leaves what the leader sends in the socket while the disk does not keep up with it: memory
    /// must not take it all. A leader that is not answered for too long gives this server up.
    fn regulate(&mut self, replica: &Replica, out: &mut Outbox) {
        let is_full = self.waits_for_disk() && self.reader.stream.untaken() > UNTAKEN_BYTES_MAX;
        let pauses = is_full || !replica.has_room();
        if std::mem::replace(&mut self.is_paused, pauses) != pauses {
            let op = if pauses { LinkOp::Pause } else { LinkOp::Resume };
            out.links.push(op(self.link));
        }
    }

    /// Takes packets as far as nothing has to be waited for.
    pub fn go_on(
        &mut self,
        now: Now,
        replica: &mut Replica,
        out: &mut Outbox,
    ) -> Result<Progress, Lost> {
        loop {
            if self.waits_for_disk() {
                return Ok(Progress::None);
            }
            match &mut self.stage {
                Stage::ReceivingTree { .. } | Stage::Signed { .. } => {
                    if !self.receive_tree(out)? {
                        return Ok(Progress::None);
                    }
                }
                _ => {
                    let Some(packet) = self.reader.take().map_err(undecodable)? else {
                        return Ok(Progress::None);
                    };
                    let progress = self.on_packet(now, packet, replica, out)?;
                    if !matches!(progress, Progress::None) {
                        return Ok(progress);
                    }
                }
            }
        }
    }

    /// Reads what has come of the tree; false if more must come first.
    fn receive_tree(&mut self, out: &mut Outbox) -> Result<bool, Lost> {
        if let Stage::ReceivingTree { reader, .. } = &mut self.stage {
            let complete = reader.read(&mut self.reader.stream).map_err(|error| {
                tracing::error!("the leader's tree cannot be read: {error}");
                Lost("the leader's tree cannot be read")
            })?;
            if !complete {
                return Ok(false);
            }
            let stage = std::mem::replace(&mut self.stage, Stage::Registering);
            let Stage::ReceivingTree { reader, zxid } = stage else { unreachable!("it just was") };
            let tree = reader.finish(zxid).map_err(|error| {
                tracing::error!("the leader's tree is not whole: {error}");
                Lost("the leader's tree is not whole")
            })?;
            self.stage = Stage::Signed { tree: Some(Box::new(tree)), zxid };
        }
        let Stage::Signed { tree, zxid } = &mut self.stage else { return Ok(true) };
        let signature = self
            .reader
            .stream
            .take::<_, DecodeError>(|reader| Ok(reader.string("signature")? == SNAP_SIGNATURE));
        match signature.map_err(undecodable)? {
            None => Ok(false),
            Some(false) => Err(Lost("the leader's tree is not followed by its signature")),
            Some(true) => {
                let mut tree = tree.take().expect("it is taken once");
                let zxid = *zxid;
                out.data.push(DataOp::Replace(tree.freeze_at(zxid)));
                self.stage = Stage::Replacing { tree, zxid };
                Ok(true)
            }
        }
    }

    fn on_packet(
        &mut self,
        now: Now,
        packet: Packet,
        replica: &mut Replica,
        out: &mut Outbox,
    ) -> Result<Progress, Lost> {
        let zxid = Zxid::from_wire(packet.zxid);
        let registers = matches!(self.stage, Stage::Registering);
        if !registers && zxid.is_some_and(|zxid| zxid.epoch() > self.epoch) {
            tracing::error!(kind = ?packet.kind, ?zxid, "the leader is of an earlier epoch");
            return Err(CONFUSED);
        }
        match (&self.stage, packet.kind) {
            (Stage::Registering, PacketKind::LeaderInfo) => {
                self.on_leader_info(now, zxid.ok_or(CONFUSED)?.epoch(), replica, out)?;
            }
            (Stage::Acknowledged, PacketKind::Diff) => {
                self.base = self.base.min(zxid.ok_or(CONFUSED)?);
                self.stage = Stage::Synchronizing;
            }
            (Stage::Acknowledged, PacketKind::Trunc) => {
                let zxid = zxid.ok_or(CONFUSED)?;
                tracing::warn!(%zxid, "cutting the log: what lies behind was never committed");
                out.data.push(DataOp::Truncate(zxid));
                self.stage = Stage::Truncating(zxid);
            }
            (Stage::Acknowledged, PacketKind::Snap) => {
                let zxid = zxid.ok_or(CONFUSED)?;
                tracing::info!(%zxid, "receiving the leader's tree");
                let reader = Box::new(TreeReader::new(self.begin.mode));
                self.stage = Stage::ReceivingTree { reader, zxid };
            }
            (Stage::Synchronizing, PacketKind::NewLeader) => {
                if zxid != Some(Zxid::new(self.epoch, 0)) {
                    return Err(CONFUSED);
                }
                (self.stage, self.tree) = (Stage::Logging, None);
                replica.trust_digests();
                self.adopt_when_logged(replica, out);
            }
            (Stage::Waiting, PacketKind::UpToDate) => {
                self.send_bare(PacketKind::Ack, Zxid::new(self.epoch, 0), out);
                self.stage = Stage::Active;
                return Ok(Progress::UpToDate(self.base, now.instant.since(self.registered)));
            }
            (Stage::Synchronizing | Stage::Waiting | Stage::Active, _) => {
                self.on_broadcast(now, packet, replica, out)?;
            }
            (_, kind) => {
                tracing::error!(?kind, "the leader sends what does not belong there");
                return Err(CONFUSED);
            }
        }
        Ok(Progress::None)
    }

    fn on_leader_info(
        &mut self,
        now: Now,
        epoch: Epoch,
        replica: &Replica,
        out: &mut Outbox,
    ) -> Result<(), Lost> {
        self.epoch = epoch;
        if !epoch.may_follow(self.epochs.accepted) {
            tracing::error!(epoch = epoch.0, "the leader proposes an epoch that cannot be reached");
            return Err(CONFUSED);
        }
        // No leader counts on what an observer promises: it may go on with who came to lead.
        let is_free = self.begin.is_observer && epoch >= self.epochs.current;
        if epoch < self.epochs.accepted && !is_free {
            return Err(Lost("the leader's epoch is older than one that was accepted"));
        }
        // An epoch that was acknowledged before must not count again.
        let counts = epoch > self.epochs.accepted;
        if counts {
            self.stage = Stage::Accepting { counts };
            out.data.push(DataOp::Epochs(Epochs { accepted: epoch, ..self.epochs }));
        } else {
            self.acknowledge_epoch(now, counts, replica, out);
        }
        Ok(())
    }

    fn acknowledge_epoch(&mut self, now: Now, counts: bool, replica: &Replica, out: &mut Outbox) {
        let last = self.begin.last.map(|_| replica.last_named());
        let mut bytes = Vec::new();
        packet::write_ack_epoch(last, counts.then_some(self.epochs.current), &mut bytes);
        self.send(bytes, out);
        (self.stage, self.registered) = (Stage::Acknowledged, now.instant);
    }

    /// NEWLEADER has come: when everything before it is durable, the epoch becomes the current one.
    fn adopt_when_logged(&mut self, replica: &Replica, out: &mut Outbox) {
        if matches!(self.stage, Stage::Logging) && replica.is_settled() {
            self.stage = Stage::Adopting;
            out.data.push(DataOp::Epochs(Epochs { current: self.epoch, ..self.epochs }));
        }
    }

    fn send_bare(&self, kind: PacketKind, zxid: Zxid, out: &mut Outbox) {
        let mut bytes = Vec::new();
        packet::write_bare(kind, zxid, &mut bytes);
        self.send(bytes, out);
    }

    fn send(&self, bytes: Vec<u8>, out: &mut Outbox) {
        if !bytes.is_empty() {
            out.links.push(LinkOp::Send { link: self.link, bytes });
        }
    }
}

const CONFUSED: Lost = Lost("the leader does not keep to the protocol");

fn undecodable(error: DecodeError) -> Lost {
    tracing::error!("the leader sends what cannot be decoded: {error}");
    CONFUSED
}
