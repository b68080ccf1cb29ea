//! The ordering core's other half: drives the replica, the log and publication.

use std::io;

use engine::disk::{DiskOp, StorageError};
use engine::ids::SessionId;
use engine::order::Submission;
use engine::quorum_peer::{Input, Output, QuorumPeer};
use engine::replica::{self, Now};
use engine::time::Instant;

use super::core::Events;
use super::mailbox::{ToCore, ToOrdering};
use crate::disk::{Disk, FrameWrite};
use crate::ring::AlignedBuffer;
use crate::snapshots::Snapshots;

/// A frame that the ring has written.
pub(super) struct Written {
    pub(super) token: u64,
    pub(super) buffer: AlignedBuffer,
    pub(super) result: io::Result<()>,
}

/// The machine of the whole server, and what executes its outputs.
#[derive(Debug)]
pub(super) struct Ordering {
    peer: QuorumPeer,
    disk: Disk,
    snapshots: Snapshots,
    outputs: Vec<Output>,
    submitted: Vec<Submission>,
    /// Frames for the ring.
    pub(super) writes: Vec<FrameWrite>,
}

impl Ordering {
    pub(super) fn new(
        peer: QuorumPeer,
        disk: Disk,
        snapshots: Snapshots,
        pending: Vec<DiskOp>,
    ) -> Self {
        let disk_op = |op| Output::Replica(replica::Output::Disk(op));
        let outputs = pending.into_iter().map(disk_op).collect();
        Self { peer, disk, snapshots, outputs, submitted: Vec::new(), writes: Vec::new() }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.peer.next_timeout()
    }

    /// When sessions expire, soonest first, and which.
    pub(super) fn session_deadlines(&self) -> Vec<(Instant, Vec<SessionId>)> {
        self.peer.replica().session_deadlines()
    }

    /// Whether everything that was ordered is published.
    pub(super) fn is_idle(&self) -> bool {
        self.peer.replica().is_idle()
    }

    /// Keeps what this core's own clients want ordered for [`Ordering::finish_turn`].
    pub(super) fn submit(&mut self, submission: Submission) {
        self.submitted.push(submission);
    }

    /// Takes in what the ring, the disk and other cores have for the replica.
    pub(super) fn turn(&mut self, events: &mut Events) -> Result<(), StorageError> {
        let now = events.clock.now();
        for Written { token, buffer, result } in events.written.drain(..) {
            let done = self.disk.on_written(token, buffer, result)?;
            self.step(now, replica::Input::Disk(done));
        }
        while let Some(done) = self.disk.finished()? {
            self.step(now, replica::Input::Disk(done));
        }
        while let Some(message) = events.shared.receive_ordering() {
            match message {
                ToOrdering::Submission(submission) => {
                    self.step(now, replica::Input::Submission(submission));
                }
                ToOrdering::SnapshotDone(result) => {
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

    fn finish(&mut self, now: Now, events: &mut Events) {
        self.peer.finish_turn(now, &mut self.outputs);
        for output in self.outputs.drain(..) {
            match output {
                Output::Replica(replica::Output::Disk(op)) => {
                    self.disk.execute(op, &mut |write| self.writes.push(write));
                }
                Output::Replica(replica::Output::Publish(batch)) => {
                    events.shared.publish(events.id, &batch);
                    events.deliver(batch);
                }
                Output::Replica(replica::Output::Collect(round)) => {
                    events.shared.send_to_all(|| ToCore::Collect(round));
                }
                Output::Replica(replica::Output::Snapshot(version)) => {
                    self.snapshots.write(version);
                }
                Output::Service(service) => {
                    events.shared.send_to_all(|| ToCore::Service(service));
                }
                Output::Link(_) | Output::Data(_) => unreachable!("a server alone"),
            }
        }
    }
}
