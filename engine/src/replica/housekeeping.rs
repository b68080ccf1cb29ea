//! What the ordering core does besides ordering: snapshots when due, containers and TTL znodes,
//! and the figures that operators ask for.

use std::time::Duration;

use super::group::Group;
use super::{Author, Config, Mode, Now, Output, Replica};
use crate::ids::SessionId;
use crate::prep;
use crate::time::{Instant, WallTime};
use crate::tree::{self, Owner};
use crate::txnlog::Space;
use crate::zxid::Zxid;

/// How many containers and TTL znodes are looked at together: about a millisecond's work.
const LOOK_PART: usize = 1000;

/// From one part of a look to the next: requests have the time between.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// When nothing was written for this long, a snapshot is taken of much less than is due under load:
/// an idle server is then back at once.
const IDLE: Duration = Duration::from_secs(1);

/// The part of a full interval that is worth a snapshot when idle.
const IDLE_PART: u64 = 40;

/// A snapshot is due when the log behind the last one is longer than this part of the tree: at a
/// restart, it would take longer to read and to apply than the snapshot takes to check.
const LOG_SHARE: u64 = 2;

/// But a log shorter than this is short, bytes.
const LOG_BYTES_MIN: u64 = 64 << 20;

/// While the log's disk is full, at least this long lies between two snapshots.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// And so many times as long as the last one took: one that does not help costs little.
const FULL_PAUSES: u32 = 9;

/// What stays when a snapshot has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Several snapshots, and the log behind the oldest of them.
    Several,
    /// The newest one and the log behind it: the disk is full. It is read back before the others
    /// go. If there is no room for a new one, they go as soon as the newest that is there has
    /// been read back, for that may make it.
    Newest,
}

/// A snapshot that is on disk.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotWritten {
    /// Its last transaction.
    pub zxid: Zxid,
    /// The snapshots that are kept need the log behind this.
    pub log_needed_after: Zxid,
}

/// State of the background duties.
#[derive(Debug)]
pub(super) struct Housekeeping {
    /// When containers and TTL znodes are looked at, or more of them.
    container_check: Instant,
    /// How far that look has come.
    look: Look,
    txns_since_snapshot: u64,
    bytes_since_snapshot: u64,
    /// When the snapshot under way was begun, and what is kept when it is done.
    running: Option<(Instant, Kept)>,
    /// When a snapshot is due if nothing more is written.
    idle_at: Option<Instant>,
    /// The snapshot that was taken last, if no other is kept, nor any log that it replaces.
    alone: Option<Zxid>,
    /// While the log's disk is full, no snapshot begins before this.
    pause_until: Instant,
}

/// How far a look at containers and TTL znodes has come.
#[derive(Debug, Default)]
struct Look {
    /// The containers are done.
    is_at_ttls: bool,
    /// The last one that was looked at; empty before the first.
    last: String,
    /// How many were to be deleted.
    found: usize,
}

impl Housekeeping {
    pub(super) fn new(config: &Config, now: Instant) -> Self {
        Self {
            container_check: now.after(config.container_check_interval),
            look: Look::default(),
            txns_since_snapshot: 0,
            bytes_since_snapshot: 0,
            running: None,
            idle_at: None,
            alone: None,
            pause_until: now,
        }
    }

    /// The state is another one: a snapshot under way is none of it.
    pub(super) fn reset(&mut self) {
        self.txns_since_snapshot = 0;
        self.bytes_since_snapshot = 0;
        self.running = None;
        self.idle_at = None;
        self.alone = None;
        self.look = Look::default();
    }

    /// Counts what went to the log, or what was replayed from it: transactions, and bytes of frames
    /// with their padding.
    pub(super) fn logged(&mut self, config: &Config, now: Instant, txns: u64, bytes: u64) {
        self.txns_since_snapshot += txns;
        self.bytes_since_snapshot += bytes;
        // Where nothing was logged, a snapshot would have nothing new.
        if self.txns_since_snapshot >= (config.snapshot_txns / IDLE_PART).max(1) {
            self.idle_at = Some(now.after(IDLE));
        }
    }
}

impl Replica {
    /// When [`Replica::keep_house`] has something to do.
    pub(super) fn house_timeout(&self) -> Option<Instant> {
        let containers = self.orders().then_some(self.housekeeping.container_check);
        let snapshot = self.housekeeping.idle_at.filter(|_| self.can_snapshot());
        containers.into_iter().chain(snapshot).min()
    }

    pub(super) fn keep_house(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.orders() && now.instant >= self.housekeeping.container_check {
            self.delete_containers(now, out);
        }
        if self.can_snapshot() && self.housekeeping.idle_at.is_some_and(|at| at <= now.instant) {
            let is_idle = self.log.submitted() <= self.published.zxid();
            if is_idle && self.housekeeping.running.is_none() {
                self.begin_snapshot(now, out);
            } else {
                // The disk takes its time.
                self.housekeeping.idle_at = Some(now.instant.after(IDLE));
            }
        }
    }

    /// Deletes empty containers and TTL znodes whose time is over, part by part.
    ///
    // Compat: ContainerManager.checkContainers
    fn delete_containers(&mut self, now: Now, out: &mut Vec<Output>) {
        let mut look = std::mem::take(&mut self.housekeeping.look);
        let (paths, is_over) = self.deletable(now.wall, &mut look);
        let pause = if is_over { self.config.container_check_interval } else { LOOK_PAUSE };
        self.housekeeping.container_check = now.instant.after(pause);
        if !is_over {
            self.housekeeping.look = look;
        }
        for path in paths {
            self.order(now, &Author::server(SessionId::NONE), |tree, context, group| {
                let Group { txns, effects, .. } = group;
                prep::delete_container(tree, context, &path, txns, effects);
            });
            self.group.end_txn(None);
            self.seal_if_full(now, out);
        }
    }

    /// The next part of a look: those that may go, and whether the look is over, because there are
    /// no more or because it has found as many as it may delete.
    ///
    // Compat: ContainerManager.getCandidates
    fn deletable(&self, now: WallTime, look: &mut Look) -> (Vec<String>, bool) {
        let view = self.tree.view();
        let mut candidates = Vec::new();
        let mut left = LOOK_PART;
        loop {
            let mut paths = if look.is_at_ttls { tree::ttls(view) } else { tree::containers(view) };
            if !look.last.is_empty() {
                paths.go_behind(view, &look.last);
            }
            while let Some(path) = paths.next_path() {
                if self.may_go(now, path) {
                    candidates.push(path.to_owned());
                    look.found += 1;
                    if look.found >= self.config.container_deletions_max {
                        return (candidates, true);
                    }
                }
                left -= 1;
                if left == 0 {
                    path.clone_into(&mut look.last);
                    return (candidates, false);
                }
            }
            if look.is_at_ttls {
                return (candidates, true);
            }
            look.is_at_ttls = true;
            look.last.clear();
        }
    }

    /// Whether an empty container or the time of a TTL znode is over.
    fn may_go(&self, now: WallTime, path: &str) -> bool {
        let Some(znode) = tree::znode(self.tree.view(), path) else { return false };
        let age = age(now, znode.stat().mtime_ms);
        let is_over = match znode.owner() {
            Owner::Container => {
                let never_used = self.config.container_never_used_max;
                znode.stat().cversion > 0 || (!never_used.is_zero() && age > never_used)
            }
            // Compat: ContainerManager.getCandidates - none is created with a TTL of zero.
            Owner::Ttl(0) | Owner::Persistent | Owner::Ephemeral(_) => false,
            Owner::Ttl(ttl_ms) => {
                age > Duration::from_millis(u64::try_from(ttl_ms).unwrap_or(u64::MAX))
            }
        };
        is_over && znode.children_count() == 0
    }

    /// Whether what is in the log stays there: of what may have to go again there is no snapshot.
    fn can_snapshot(&self) -> bool {
        !matches!(self.mode, Mode::Waiting | Mode::Synchronizing)
    }

    /// Asks for a snapshot of what is published if enough has been logged since the last one, or
    /// if it makes room on a full disk.
    pub(super) fn request_snapshot(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.can_snapshot() {
            return;
        }
        if self.log.space() == Space::Ample {
            self.housekeeping.pause_until = now.instant;
        }
        // What was logged first may not be published yet: there is nothing to take one of.
        let has_some = self.published.zxid() != Zxid::ZERO;
        let many = self.housekeeping.txns_since_snapshot >= self.config.snapshot_txns;
        let due = has_some && (many || self.has_long_log());
        if (due || self.snapshot_makes_room(now)) && self.housekeeping.running.is_none() {
            self.begin_snapshot(now, out);
        }
    }

    /// Whether the log behind the last snapshot takes long to read in comparison with it.
    fn has_long_log(&self) -> bool {
        let bytes = self.housekeeping.bytes_since_snapshot;
        bytes >= LOG_BYTES_MIN
            && bytes >= self.config.snapshot_log_bytes.min(self.tree_bytes() / LOG_SHARE)
    }

    /// Whether the log's disk is full, and a snapshot would be the end of log or of snapshots that
    /// are kept for safety: as long as none is due, nothing else gives up any log.
    fn snapshot_makes_room(&self, now: Now) -> bool {
        let Housekeeping { alone, pause_until, .. } = self.housekeeping;
        let zxid = self.published.zxid();
        let is_new = zxid != Zxid::ZERO && alone != Some(zxid);
        // The log tries again each second. What it takes meanwhile would be missing.
        let has_time = now.instant >= pause_until && !self.log.is_preparing();
        self.log.space() != Space::Ample && is_new && has_time
    }

    fn begin_snapshot(&mut self, now: Now, out: &mut Vec<Output>) {
        let kept = if self.log.space() == Space::Ample { Kept::Several } else { Kept::Newest };
        self.housekeeping.running = Some((now.instant, kept));
        self.housekeeping.txns_since_snapshot = 0;
        self.housekeeping.bytes_since_snapshot = 0;
        self.housekeeping.idle_at = None;
        out.push(Output::Snapshot(self.published.clone(), kept));
    }

    /// A snapshot is written: the log that it replaces may go. After a failure the next one is due
    /// when as much again has been logged, or after a pause if the disk is full.
    pub(super) fn on_snapshot_done(
        &mut self,
        now: Now,
        result: Result<SnapshotWritten, Zxid>,
        out: &mut Vec<Output>,
    ) {
        let Some((begun, kept)) = self.housekeeping.running.take() else { return };
        if kept == Kept::Newest {
            let pause = FULL_PAUSE.max(now.instant.since(begun) * FULL_PAUSES);
            self.housekeeping.pause_until = now.instant.after(pause);
        }
        let Ok(written) = result else { return };
        let needed_after = written.log_needed_after;
        let held = self.log_held.map_or(needed_after, |held| held.min(needed_after));
        let mut ops = Vec::new();
        // A leader's first state has a zxid beyond all that is in the log.
        let is_purged = self.log.purge(held.min(self.log.durable()), &mut ops);
        out.extend(ops.into_iter().map(Output::Disk));
        let alone = kept == Kept::Newest && held == needed_after && is_purged;
        self.housekeeping.alone = alone.then_some(written.zxid);
    }
}

/// How long ago `since_ms` was; nothing if it lies ahead.
fn age(now: WallTime, since_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(now.0.saturating_sub(since_ms)).unwrap_or(0))
}
