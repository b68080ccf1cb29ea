//! One learner as its leader sees it, and how it is brought up to date.

use std::collections::VecDeque;
use std::time::Duration;

use super::reading::Reading;
use super::{Leader, Stage};
use crate::btree::Version;
use crate::ids::{LinkId, ServerId};
use crate::jute::Writer;
use crate::replica::{Now, Replica};
use crate::time::Instant;
use crate::txnlog::history::Place;
use crate::zab::link::LinkOp;
use crate::zab::outbox::Outbox;
use crate::zab::packet::{self, PacketKind, PacketReader, SNAP_SIGNATURE};
use crate::zookeeper_files::TreeWriter;
use crate::zxid::{Epoch, Zxid};

/// How much of a tree is sent before what was sent before has left, bytes. Writes wait for as long
/// as it takes to put one piece together.
const SNAP_PIECE_BYTES: usize = 64 << 10;

/// How far a learner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing is known of it.
    Introducing,
    /// It waits for an epoch.
    Introduced,
    /// It was told the epoch.
    AckingEpoch,
    /// It waits to be brought up to date.
    Waiting,
    /// What memory lacks of its history is being read from the log's files.
    Reading,
    /// Everything up to NEWLEADER is on its way.
    AckingLeader,
    /// It has the leader's history on disk.
    Synchronized,
    /// It serves.
    Active,
}

/// One learner.
#[derive(Debug)]
pub(super) struct Handler {
    pub(super) step: Step,
    pub(super) server: Option<ServerId>,
    pub(super) is_observer: bool,
    pub(super) reader: PacketReader,
    /// The epoch that it had accepted before.
    pub(super) accepted: Epoch,
    /// It accepts this leader's epoch.
    pub(super) accepts: bool,
    /// Where its log ends; none if it has no data.
    pub(super) last: Option<Zxid>,
    /// What was committed when it said so: it may have acknowledged all of that, and lost it.
    pub(super) committed: Zxid,
    /// It has everything up to here on disk.
    pub(super) acked: Zxid,
    /// It was sent proposals up to here, the last of them then.
    pub(super) proposed: Zxid,
    proposed_at: Instant,
    /// A proposal whose way to the learner's disk and back is timed, and when it was sent.
    timed: Option<(Zxid, Instant)>,
    pub(super) heard: Instant,
    /// Rounds of pings that it has not answered, and the last one that it has.
    pings: VecDeque<u64>,
    pub(super) answered: u64,
    sending: Option<Box<Sending>>,
    pub(super) reading: Option<Reading>,
}

/// A tree that is being sent.
#[derive(Debug)]
struct Sending {
    version: Version,
    writer: TreeWriter,
    /// What must follow it.
    behind: Vec<u8>,
}

impl Handler {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            step: Step::Introducing,
            server: None,
            is_observer: false,
            reader: PacketReader::of_stranger(),
            accepted: Epoch(0),
            accepts: false,
            last: None,
            committed: Zxid::ZERO,
            acked: Zxid::ZERO,
            proposed: Zxid::ZERO,
            proposed_at: now,
            timed: None,
            heard: now,
            pings: VecDeque::new(),
            answered: 0,
            sending: None,
            reading: None,
        }
    }

    pub(super) fn introduce(&mut self, server: ServerId, is_observer: bool, zxid: i64) {
        self.server = Some(server);
        self.is_observer = is_observer;
        self.accepted = Zxid::from_wire(zxid).map_or(Epoch(0), Zxid::epoch);
        self.step = Step::Introduced;
        self.reader.on_introduced();
    }

    /// Who it is, once it has said so.
    pub(super) fn introduced(&self) -> ServerId {
        self.server.expect("the first packet says who a learner is")
    }

    /// Sends, behind a tree that is under way.
    pub(super) fn send(&mut self, link: LinkId, bytes: Vec<u8>, out: &mut Outbox) {
        match &mut self.sending {
            Some(sending) => sending.behind.extend_from_slice(&bytes),
            None => out.links.push(LinkOp::Send { link, bytes }),
        }
    }

    /// How much waits behind a tree.
    pub(super) fn backlog(&self) -> usize {
        self.sending.as_ref().map_or(0, |sending| sending.behind.len())
    }

    /// Whether proposals and commits concern it.
    pub(super) fn takes_broadcasts(&self) -> bool {
        matches!(self.step, Step::AckingLeader | Step::Synchronized | Step::Active)
    }

    /// Asks for a sign of life; each ping is answered by one, in order.
    pub(super) fn ping(&mut self, link: LinkId, round: u64, out: &mut Outbox) {
        let mut bytes = Vec::new();
        packet::write_bare(PacketKind::Ping, self.proposed, &mut bytes);
        self.pings.push_back(round);
        self.send(link, bytes, out);
    }

    pub(super) fn on_pong(&mut self) {
        self.answered = self.pings.pop_front().unwrap_or(self.answered);
    }

    /// Proposals up to this one are sent.
    pub(super) fn on_proposed(&mut self, last: Zxid, now: Instant) {
        (self.proposed, self.proposed_at) = (last, now);
        if self.step != Step::AckingLeader {
            self.timed.get_or_insert((last, now));
        }
    }

    /// It has acknowledged NEWLEADER. What it was sent before it could log it is timed from now on;
    /// an observer was sent nothing that it would acknowledge.
    pub(super) fn on_synchronized(&mut self, now: Instant) {
        self.step = Step::Synchronized;
        let owes = self.acked < self.proposed && !self.is_observer;
        self.timed = owes.then_some((self.proposed, now));
    }

    /// Says how long the proposal took that was timed, if this is its ACK. One at a time is: a
    /// sample of those of a busy leader. The next is the last one that was sent, so that a learner
    /// that falls behind is seen to, though it acknowledges something all the time.
    ///
    // Compat: LearnerHandler.SyncLimitCheck
    pub(super) fn on_ack(&mut self, zxid: Zxid, now: Instant) -> Option<Duration> {
        self.acked = self.acked.max(zxid);
        let (_, sent) = self.timed.take_if(|(timed, _)| *timed <= zxid)?;
        self.timed = (zxid < self.proposed).then_some((self.proposed, self.proposed_at));
        Some(now.since(sent))
    }

    /// For how long the proposal that is timed has waited for its ACK.
    pub(super) fn lag(&self, now: Instant) -> Duration {
        self.timed.map_or(Duration::ZERO, |(_, sent)| now.since(sent))
    }

    /// Sends the next piece of a tree, and what follows it when it is complete.
    fn send_tree(&mut self, link: LinkId, out: &mut Outbox) {
        let Some(sending) = &mut self.sending else { return };
        let Sending { version, writer, behind } = &mut **sending;
        let mut bytes = Vec::with_capacity(SNAP_PIECE_BYTES + 4096);
        if writer.write(version, SNAP_PIECE_BYTES, &mut bytes) {
            Writer::new(&mut bytes).string(SNAP_SIGNATURE);
            bytes.append(behind);
            self.sending = None;
        }
        out.links.push(LinkOp::Send { link, bytes });
    }
}

impl Leader {
    /// There is room for more of what is being sent piece by piece.
    pub(super) fn go_on_sending(
        &mut self,
        now: Now,
        link: LinkId,
        replica: &mut Replica,
        out: &mut Outbox,
    ) {
        let Some(handler) = self.handlers.get_mut(&link) else { return };
        if handler.sending.is_some() || handler.reading.is_some() {
            // It takes what it is sent: that is a sign of life.
            handler.heard = now.instant;
        }
        handler.send_tree(link, out);
        self.go_on_reading(now, link, replica, out);
    }

    /// The epoch that learners are to be brought into, and what of the log is committed in it.
    pub(super) fn history_of(&self, replica: &Replica) -> Option<(Epoch, Zxid)> {
        match self.stage {
            // All of the log becomes the ensemble's history.
            Stage::Synchronizing(epoch) => Some((epoch, replica.last_logged())),
            Stage::Broadcasting(epoch) => Some((epoch, replica.committed())),
            Stage::Gathering | Stage::Proposing(_) => None,
        }
    }

    /// Brings a learner to the end of the log: from here on it gets every proposal and commit.
    ///
    // Compat: LearnerHandler.syncFollower, Leader.startForwarding
    pub(super) fn synchronize(
        &mut self,
        now: Now,
        link: LinkId,
        replica: &mut Replica,
        out: &mut Outbox,
    ) {
        let Some((_, committed)) = self.history_of(replica) else { return };
        let Some(handler) = self.handlers.get_mut(&link) else { return };
        if handler.step != Step::Waiting {
            return;
        }
        let history = replica.history();
        // One without data gets the tree: all that ever happened may be much more.
        let is_empty = |last| last == Zxid::ZERO && history.last() != last;
        let last = handler.last.filter(|last| !is_empty(*last));
        let place = match last.map_or(Place::Unknown, |last| history.place(last)) {
            // What is still outstanding it must log, and acknowledge, to this leader.
            Place::Behind(zxid) if zxid > committed => {
                let same = zxid.epoch() == committed.epoch();
                if same { Place::Cut(committed) } else { Place::Unknown }
            }
            Place::Cut(zxid) => Place::Cut(zxid.min(committed)),
            place => place,
        };
        if place == Place::Unknown {
            let reads = last.is_some() && self.begin_reading(link, replica, out);
            if reads || !self.has_tree_for(link, replica) {
                return;
            }
        }
        let from = self.announce(link, place, replica, out);
        self.complete(now, link, from, replica, out);
    }

    /// Whether there is a tree that a learner may keep for good, whatever becomes of what would
    /// follow it: its vote must not fall behind what it has acknowledged before. A leader that is
    /// not established yet brings all of its log; later, others may have committed what this
    /// server's own disk has yet to write.
    fn has_tree_for(&self, link: LinkId, replica: &Replica) -> bool {
        let handler = &self.handlers[&link];
        let any_will_do = handler.is_observer || self.established().is_none();
        any_will_do || replica.published().zxid() >= handler.committed
    }

    /// Those who wait for a tree get it as soon as there is one.
    pub(super) fn synchronize_waiting(
        &mut self,
        now: Now,
        replica: &mut Replica,
        out: &mut Outbox,
    ) {
        let waiting = self.handlers.iter().filter(|(_, handler)| handler.step == Step::Waiting);
        for link in waiting.map(|(link, _)| *link).collect::<Vec<_>>() {
            self.synchronize(now, link, replica, out);
        }
    }

    /// Tells a learner how it is brought up to date: from which transaction on it gets the rest.
    pub(super) fn announce(
        &mut self,
        link: LinkId,
        place: Place,
        replica: &mut Replica,
        out: &mut Outbox,
    ) -> Zxid {
        replica.count_sync(place == Place::Unknown);
        let (_, committed) = self.history_of(replica).expect("it is being synchronized");
        let handler = self.handlers.get_mut(&link).expect("it is being synchronized");
        let (server, last) = (handler.server, handler.last);
        let from_log = handler.reading.is_some();
        tracing::info!(?server, ?last, ?place, %committed, from_log, "synchronizing a learner");
        self.read_in_vain.remove(&handler.introduced());
        let mut bytes = Vec::new();
        let from = match place {
            Place::Behind(zxid) => {
                packet::write_bare(PacketKind::Diff, committed, &mut bytes);
                zxid
            }
            Place::Cut(zxid) => {
                packet::write_bare(PacketKind::Trunc, zxid, &mut bytes);
                zxid
            }
            Place::Unknown => {
                let version = match self.stage {
                    Stage::Synchronizing(_) => replica.adopted(),
                    _ => replica.published(),
                };
                let version = version.clone();
                let zxid = version.zxid();
                packet::write_bare(PacketKind::Snap, zxid, &mut bytes);
                out.links.push(LinkOp::Send { link, bytes: std::mem::take(&mut bytes) });
                let (writer, behind) = (TreeWriter::new(), Vec::new());
                handler.sending = Some(Box::new(Sending { version, writer, behind }));
                zxid
            }
        };
        handler.send(link, bytes, out);
        from
    }

    /// Sends what memory has behind `from`, and NEWLEADER.
    pub(super) fn complete(
        &mut self,
        now: Now,
        link: LinkId,
        from: Zxid,
        replica: &Replica,
        out: &mut Outbox,
    ) {
        let (epoch, committed) = self.history_of(replica).expect("it is being synchronized");
        let handler = self.handlers.get_mut(&link).expect("it is being synchronized");
        let history = replica.history();
        assert!(from >= history.base(), "a gap between {from} and {}", history.base());
        let mut bytes = Vec::new();
        for (zxid, txn) in history.behind(from) {
            if zxid > committed && handler.is_observer {
                break;
            }
            packet::write(PacketKind::Proposal, zxid.to_wire(), Some(txn), &mut bytes);
            if zxid <= committed {
                packet::write_bare(PacketKind::Commit, zxid, &mut bytes);
            }
        }
        let zxid = Zxid::new(epoch, 0).to_wire();
        let config = self.members.text().as_bytes();
        packet::write(PacketKind::NewLeader, zxid, Some(config), &mut bytes);
        handler.send(link, bytes, out);
        handler.send_tree(link, out);
        // Its ACK of NEWLEADER says that it has these on disk, and no more.
        handler.acked = committed;
        (handler.proposed, handler.proposed_at) = (replica.last_logged(), now.instant);
        handler.step = Step::AckingLeader;
    }
}
