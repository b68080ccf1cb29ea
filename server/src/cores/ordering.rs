//! The ordering core's other half: drives the replica, the log and publication.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use engine::disk::AlignedBuf;
use engine::disk::{DiskOp, StorageError};
use engine::ids::SessionId;
use engine::metrics::{Summary, Times, micros};
use engine::order::Submission;
use engine::quorum_peer::{Input, MemberStats, Output, QuorumPeer, RoleKind};
use engine::replica::{self, Now, ReplicaStats};
use engine::time::Instant;
use engine::zab::data::DataOp;
use engine::zxid::Zxid;

use super::core::Events;
use super::mailbox::{ToCore, ToOrdering};
use super::{Background, Beside, CoreError};
use crate::disk::{Disk, FrameWrite};
use crate::ensemble::data::Finished;
use crate::snapshots::Snapshots;

/// A frame that the ring has written.
pub(super) struct Written {
    pub(super) token: u64,
    pub(super) buffer: AlignedBuf,
    pub(super) result: io::Result<()>,
}

/// What is counted where the log and snapshots are written.
#[derive(Clone, Debug, Default)]
pub(super) struct OrderingStats {
    /// From handing a frame of the log to the kernel until it is durable.
    pub(super) appends: Times,
    /// How long snapshots took, microseconds.
    pub(super) snapshots: Summary,
    /// Snapshots that failed.
    pub(super) snapshots_failed: u64,
}

impl OrderingStats {
    fn count_snapshot(&mut self, is_written: bool, took: Duration) {
        if is_written {
            self.snapshots.record(micros(took));
        } else {
            self.snapshots_failed += 1;
        }
    }
}

/// The ordering core's part of a report.
#[derive(Clone, Debug)]
pub(super) struct OrderingReport {
    /// What the server is.
    pub(super) role: RoleKind,
    pub(super) stats: OrderingStats,
    pub(super) replica: ReplicaStats,
    pub(super) member: Option<MemberStats>,
    /// Syncs of clients that wait for a proof of leadership.
    pub(super) pending_syncs: u64,
}

/// The machine of the whole server, and what executes its outputs.
#[derive(Debug)]
pub(super) struct Ordering {
    peer: QuorumPeer,
    /// None between one log and the next.
    disk: Option<Disk>,
    /// None while the data's thread has log and snapshots.
    snapshots: Option<Snapshots>,
    beside: Beside,
    change: Change,
    outputs: Vec<Output>,
    submitted: Vec<Submission>,
    stats: OrderingStats,
    /// Frames for the ring.
    pub(super) writes: Vec<FrameWrite>,
}

/// How far a change of log and snapshots by the data's thread has come.
#[derive(Debug)]
enum Change {
    /// There is none.
    None,
    /// It begins when the log has come to rest; what the log wants meanwhile waits.
    Awaited(DataOp, Vec<DiskOp>),
    /// It is under way.
    Running(Vec<DiskOp>),
}

impl Ordering {
    pub(super) fn new(peer: QuorumPeer, background: Background, pending: Vec<DiskOp>) -> Self {
        let Background { disk, snapshots, beside } = background;
        let disk_op = |op| Output::Replica(replica::Output::Disk(op));
        let outputs = pending.into_iter().map(disk_op).collect();
        Self {
            peer,
            disk: Some(disk),
            snapshots: Some(snapshots),
            beside,
            change: Change::None,
            outputs,
            submitted: Vec::new(),
            stats: OrderingStats::default(),
            writes: Vec::new(),
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        if self.can_hand_over() {
            return Some(Instant::ZERO);
        }
        let links = match &self.beside {
            Beside::Alone(..) => None,
            Beside::Member(member) if member.peers.has_events() => Some(Instant::ZERO),
            Beside::Member(member) => member.peers.next_timeout(),
        };
        [self.peer.next_timeout(), links].into_iter().flatten().min()
    }

    /// What tells that there is something of the links.
    pub(super) fn links(&self) -> io::Result<Option<OwnedFd>> {
        match &self.beside {
            Beside::Alone(..) => Ok(None),
            Beside::Member(member) => member.peers.descriptor().map(Some),
        }
    }

    /// What only this core knows.
    pub(super) fn report(&self) -> OrderingReport {
        let replica = self.peer.replica();
        OrderingReport {
            role: self.peer.role(),
            stats: self.stats.clone(),
            replica: replica.stats().clone(),
            member: self.peer.member_stats(),
            pending_syncs: replica.pending_syncs(),
        }
    }

    /// Forgets what was counted.
    pub(super) fn reset_stats(&mut self) {
        self.stats = OrderingStats::default();
        self.peer.reset_stats();
    }

    /// When sessions expire, soonest first, and which.
    pub(super) fn session_deadlines(&self) -> Vec<(Instant, Vec<SessionId>)> {
        self.peer.replica().session_deadlines()
    }

    /// The tree's digests at earlier transactions, up to what is published.
    pub(super) fn digests(&self) -> Vec<(Zxid, u64)> {
        let replica = self.peer.replica();
        let published = replica.published().zxid();
        replica.tree().digest_log().filter(|(zxid, _)| *zxid <= published).collect()
    }

    /// Whether nothing has to be waited for before the server stops.
    pub(super) fn is_at_rest(&self) -> bool {
        self.peer.replica().is_at_rest()
    }

    /// Keeps what this core's own clients want ordered for [`Ordering::finish_turn`].
    pub(super) fn submit(&mut self, submission: Submission) {
        self.submitted.push(submission);
    }

    /// Takes in what the ring, the disk and other cores have for the replica.
    pub(super) fn turn(&mut self, events: &mut Events) -> Result<(), CoreError> {
        let now = events.clock.now();
        self.take_written(now, events)?;
        self.take_data(now)?;
        self.take_read(now);
        self.take_links(now, events)?;
        while let Some(message) = events.shared.receive_ordering() {
            match message {
                ToOrdering::Submission(submission) => {
                    self.step(now, replica::Input::Submission(submission));
                }
                ToOrdering::SnapshotDone(result, took) => {
                    self.stats.count_snapshot(result.is_ok(), took);
                    self.step(now, replica::Input::SnapshotDone(result));
                }
            }
        }
        self.step(now, replica::Input::Tick);
        self.finish(now, events);
        Ok(())
    }

    /// Orders what this core's own clients have submitted and executes all that follows.
    pub(super) fn finish_turn(&mut self, events: &mut Events) {
        let now = events.clock.now();
        for submission in std::mem::take(&mut self.submitted) {
            self.step(now, replica::Input::Submission(submission));
        }
        self.finish(now, events);
    }

    fn step(&mut self, now: Now, input: replica::Input) {
        self.peer.step(now, Input::Replica(input), &mut self.outputs);
    }

    /// Takes in what has become durable of the log.
    fn take_written(&mut self, now: Now, events: &mut Events) -> Result<(), StorageError> {
        // Nothing is on its way where there is no disk.
        let Some(disk) = &mut self.disk else { return Ok(()) };
        let mut done = Vec::new();
        for Written { token, buffer, result } in events.written.drain(..) {
            let (written, took) = disk.on_written(token, buffer, result)?;
            self.stats.appends.record(took);
            done.push(written);
        }
        while let Some(finished) = disk.finished()? {
            done.push(finished);
        }
        for done in done {
            self.step(now, replica::Input::Disk(done));
        }
        Ok(())
    }

    /// Whether a change can begin now.
    fn can_hand_over(&self) -> bool {
        let is_at_rest = self.disk.as_ref().is_some_and(Disk::is_idle);
        is_at_rest && matches!(self.change, Change::Awaited(..))
    }

    /// Takes in what the data's thread has finished; hands over to it when the log is at rest.
    fn take_data(&mut self, now: Now) -> Result<(), CoreError> {
        let can_hand_over = self.can_hand_over();
        let Beside::Member(apparatus) = &mut self.beside else { return Ok(()) };
        self.change = match std::mem::replace(&mut self.change, Change::None) {
            Change::Awaited(op, held) if can_hand_over => {
                let snapshots = self.snapshots.take();
                apparatus.data.change(op, snapshots.expect("only a change takes them"));
                Change::Running(held)
            }
            change => change,
        };
        while let Some(finished) = apparatus.data.finished() {
            let Finished { done, snapshots, log } = finished?;
            let is_another = log.is_some();
            if let Some(snapshots) = snapshots {
                self.snapshots = Some(apparatus.open_snapshots(snapshots)?);
                let change = std::mem::replace(&mut self.change, Change::None);
                if let Some(log) = log {
                    // The earlier one has its files locked.
                    self.disk = None;
                    self.disk = Some(apparatus.open_log(log)?);
                } else if let Change::Running(held) = change {
                    let disk_op = |op| Output::Replica(replica::Output::Disk(op));
                    self.outputs.extend(held.into_iter().map(disk_op));
                }
            }
            self.peer.step(now, Input::Data(Box::new(done)), &mut self.outputs);
            if is_another {
                apparatus.provide_memory(self.peer.replica().tree())?;
            }
        }
        Ok(())
    }

    /// Takes in what was read of the log's files.
    fn take_read(&mut self, now: Now) {
        let Beside::Member(apparatus) = &mut self.beside else { return };
        while let Some(done) = apparatus.log_readers.done() {
            self.peer.step(now, Input::Log(done), &mut self.outputs);
        }
    }

    /// Takes in what has come over the links. What it leads to is done before the next of it.
    fn take_links(&mut self, now: Now, events: &mut Events) -> io::Result<()> {
        if let Beside::Member(apparatus) = &mut self.beside {
            apparatus.peers.poll(now.instant)?;
        }
        while let Beside::Member(apparatus) = &mut self.beside
            && let Some(event) = apparatus.peers.take()
        {
            self.peer.step(now, Input::Link(event), &mut self.outputs);
            self.execute(now, events);
        }
        Ok(())
    }

    fn finish(&mut self, now: Now, events: &mut Events) {
        self.peer.finish_turn(now, &mut self.outputs);
        self.execute(now, events);
        if let Some(disk) = &mut self.disk {
            disk.set_awaited(self.peer.waits_for_rest());
        }
    }

    /// About how many links have something to send.
    pub(super) fn unsent_links(&self) -> usize {
        match &self.beside {
            Beside::Alone(..) => 0,
            Beside::Member(apparatus) => apparatus.peers.unsent_links(),
        }
    }

    /// Hands what was sent to other members to the kernel.
    pub(super) fn flush_links(&mut self) {
        if let Beside::Member(apparatus) = &mut self.beside {
            apparatus.peers.flush();
        }
    }

    fn execute(&mut self, now: Now, events: &mut Events) {
        for output in self.outputs.drain(..) {
            match output {
                Output::Replica(replica::Output::Disk(op)) => {
                    match (&mut self.change, &mut self.disk) {
                        (Change::Awaited(_, held) | Change::Running(held), _) => held.push(op),
                        (Change::None, disk) => {
                            let disk = disk.as_mut().expect("there is one but during a change");
                            disk.execute(op, &mut |write| self.writes.push(write));
                        }
                    }
                }
                Output::Replica(replica::Output::Publish(batch, times)) => {
                    events.shared.publish(events.id, &batch);
                    events.deliver(batch);
                    if let Some(times) = times {
                        self.peer.replica().on_published(times, events.clock.instant());
                    }
                }
                Output::Replica(replica::Output::Collect(round)) => {
                    events.shared.send_to_all(|| ToCore::Collect(round));
                }
                Output::Replica(replica::Output::Snapshot(version, kept)) => {
                    // None is begun before a member is up to date again.
                    let snapshots = self.snapshots.as_mut();
                    snapshots.expect("there is one but during a change").write(version, kept);
                }
                Output::Service(service) => {
                    events.shared.send_to_all(|| ToCore::Service(service));
                }
                Output::Link(op) => {
                    let Beside::Member(apparatus) = &mut self.beside else { continue };
                    apparatus.peers.execute(now.instant, op);
                }
                Output::Log(op) => {
                    let Beside::Member(apparatus) = &mut self.beside else { continue };
                    apparatus.log_readers.execute(op);
                }
                Output::Data(DataOp::Epochs(epochs)) => {
                    let Beside::Member(apparatus) = &mut self.beside else { continue };
                    apparatus.data.write(epochs);
                }
                Output::Data(op) => {
                    assert!(matches!(self.change, Change::None), "one change at a time");
                    self.change = Change::Awaited(op, Vec::new());
                }
            }
        }
    }
}
