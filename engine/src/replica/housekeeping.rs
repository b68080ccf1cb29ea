//! What the ordering core does besides ordering: snapshots when due, containers and TTL znodes,
//! and the figures that operators ask for.

use std::time::Duration;

use super::group::Group;
use super::{Author, Config, GroupTimes, Mode, Now, Output, Replica, SnapshotWritten};
use crate::ids::SessionId;
use crate::prep;
use crate::time::{Instant, WallTime};
use crate::tree::{self, Owner};
use crate::zxid::Zxid;

/// When nothing was written for this long, a snapshot is taken of much less than is due under load:
/// an idle server is then back at once.
const IDLE: Duration = Duration::from_secs(1);

/// The part of a full interval that is worth a snapshot when idle.
const IDLE_PART: u64 = 20;

/// Logs a group that took too long, with the time of each stage.
pub(super) fn log_if_slow(config: &Config, times: GroupTimes) {
    let queue = times.sealed.since(times.opened);
    let log = times.published.since(times.sealed);
    if config.slow_write.is_some_and(|slow| queue + log >= slow) || log >= config.slow_sync {
        let (queue_ms, log_ms) = (queue.as_millis(), log.as_millis());
        tracing::warn!(queue_ms, log_ms, "slow writes: is the log's disk busy?");
    }
}

/// State of the background duties.
#[derive(Debug)]
pub(super) struct Housekeeping {
    container_check: Instant,
    txns_since_snapshot: u64,
    bytes_since_snapshot: u64,
    snapshot_running: bool,
    /// When a snapshot is due if nothing more is written.
    idle_at: Option<Instant>,
}

impl Housekeeping {
    pub(super) fn new(config: &Config, now: Instant) -> Self {
        Self {
            container_check: now.after(config.container_check_interval),
            txns_since_snapshot: 0,
            bytes_since_snapshot: 0,
            snapshot_running: false,
            idle_at: None,
        }
    }

    pub(super) fn next_timeout(&self) -> Instant {
        self.idle_at.map_or(self.container_check, |at| at.min(self.container_check))
    }

    /// The state is another one: a snapshot under way is none of it.
    pub(super) fn reset(&mut self) {
        self.txns_since_snapshot = 0;
        self.bytes_since_snapshot = 0;
        self.snapshot_running = false;
        self.idle_at = None;
    }

    /// Counts what went to the log, or what was replayed from it.
    pub(super) fn logged(&mut self, config: &Config, now: Instant, txns: u64, bytes: u64) {
        self.txns_since_snapshot += txns;
        self.bytes_since_snapshot += bytes;
        if self.txns_since_snapshot >= config.snapshot_txns / IDLE_PART {
            self.idle_at = Some(now.after(IDLE));
        }
    }
}

impl Replica {
    pub(super) fn keep_house(&mut self, now: Now, out: &mut Vec<Output>) {
        if now.instant >= self.housekeeping.container_check {
            self.housekeeping.container_check =
                now.instant.after(self.config.container_check_interval);
            self.delete_containers(now, out);
        }
        if self.housekeeping.idle_at.is_some_and(|at| at <= now.instant) {
            if self.is_idle() && !self.housekeeping.snapshot_running {
                self.begin_snapshot(out);
            } else {
                // The disk takes its time.
                self.housekeeping.idle_at = Some(now.instant.after(IDLE));
            }
        }
    }

    /// Deletes empty containers and TTL znodes whose time is over.
    ///
    // Compat: ContainerManager.checkContainers
    fn delete_containers(&mut self, now: Now, out: &mut Vec<Output>) {
        for path in self.deletable(now.wall) {
            self.order(now, &Author::server(SessionId::NONE), |tree, context, group| {
                let Group { txns, effects, .. } = group;
                prep::delete_container(tree, context, &path, txns, effects);
            });
            self.group.end_txn(None);
            self.seal_if_full(now, out);
        }
    }

    /// Containers and TTL znodes that may go, as many as one look may delete.
    ///
    // Compat: ContainerManager.getCandidates
    fn deletable(&self, now: WallTime) -> Vec<String> {
        let view = self.tree.view();
        let max = self.config.container_deletions_max;
        let mut candidates = Vec::new();
        let mut containers = tree::containers(view);
        while let Some(path) = containers.next_path()
            && candidates.len() < max
        {
            let goes = tree::znode(view, path).is_some_and(|znode| {
                let was_used = znode.stat().cversion > 0;
                let never_used = self.config.container_never_used_max;
                let waited = age(now, znode.stat().mtime_ms) > never_used;
                znode.children_count() == 0 && (was_used || (!never_used.is_zero() && waited))
            });
            if goes {
                candidates.push(path.to_owned());
            }
        }
        let mut ttls = tree::ttls(view);
        while let Some(path) = ttls.next_path()
            && candidates.len() < max
        {
            let goes = tree::znode(view, path).is_some_and(|znode| {
                let Owner::Ttl(ttl_ms) = znode.owner() else { return false };
                let ttl = Duration::from_millis(u64::try_from(ttl_ms).unwrap_or(u64::MAX));
                znode.children_count() == 0 && age(now, znode.stat().mtime_ms) > ttl
            });
            if goes {
                candidates.push(path.to_owned());
            }
        }
        candidates
    }

    /// Asks for a snapshot of what is published if enough has been logged since the last one.
    pub(super) fn request_snapshot(&mut self, out: &mut Vec<Output>) {
        if matches!(self.mode, Mode::Waiting | Mode::Synchronizing) {
            // What is in the log may have to go again.
            return;
        }
        let due = self.housekeeping.txns_since_snapshot >= self.config.snapshot_txns
            || self.housekeeping.bytes_since_snapshot >= self.config.snapshot_log_bytes;
        if due && !self.housekeeping.snapshot_running {
            self.begin_snapshot(out);
        }
    }

    fn begin_snapshot(&mut self, out: &mut Vec<Output>) {
        self.housekeeping.snapshot_running = true;
        self.housekeeping.txns_since_snapshot = 0;
        self.housekeeping.bytes_since_snapshot = 0;
        self.housekeeping.idle_at = None;
        out.push(Output::Snapshot(self.published.clone()));
    }

    /// A snapshot is written: the log that it replaces may go. After a failure the next one is due
    /// when as much again has been logged.
    pub(super) fn on_snapshot_done(
        &mut self,
        result: Result<SnapshotWritten, Zxid>,
        out: &mut Vec<Output>,
    ) {
        if !std::mem::take(&mut self.housekeeping.snapshot_running) {
            return;
        }
        if let Ok(written) = result {
            let mut ops = Vec::new();
            let needed_after = written.log_needed_after;
            let held = self.log_held.map_or(needed_after, |held| held.min(needed_after));
            self.log.purge(held, &mut ops);
            out.extend(ops.into_iter().map(Output::Disk));
        }
    }
}

/// How long ago `since_ms` was; nothing if it lies ahead.
fn age(now: WallTime, since_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(now.0.saturating_sub(since_ms)).unwrap_or(0))
}
