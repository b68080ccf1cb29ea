//! What does not change while a replica runs.

use std::time::Duration;

use crate::rules::Rules;

/// A group is sealed at this size even while the log is busy, bytes of transactions.
pub const GROUP_BYTES: usize = 4 << 20;

/// The counter from which on a new epoch begins, in time before this one's zxids run out.
pub const ROLLOVER_COUNTER: u32 = 0xF000_0000;

/// What does not change while the server runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// This server's number; the top byte of the session ids it gives.
    pub server_id: u8,
    /// The unit of session expiry, milliseconds.
    pub tick_ms: u32,
    /// How many cores answer a collection of touched sessions.
    pub cores: u16,
    /// What requests may do.
    pub rules: Rules,
    /// How often containers and TTL znodes are looked at.
    pub container_check_interval: Duration,
    /// How many of them are deleted at most at one look.
    pub container_deletions_max: usize,
    /// An empty container that never had a child goes after this; never if zero.
    pub container_never_used_max: Duration,
    /// Writes that take longer from their preparation to their publication are logged.
    pub slow_write: Option<Duration>,
    /// Groups that take longer from the log's taking them until they are committed are logged.
    pub slow_sync: Duration,
    /// Beyond this much memory of the tree, growing writes are refused, bytes.
    pub memory_bytes_max: Option<u64>,
    /// A snapshot is due after this many transactions.
    pub snapshot_txns: u64,
    /// A snapshot is due after this many bytes of log; sooner where the tree is smaller.
    pub snapshot_log_bytes: u64,
    /// How much of the log is kept in memory for learners, bytes.
    pub history_bytes: usize,
    /// A learner that lacks more than that gets it from the log's files, if that is at most this
    /// part of the tree's size: beyond it, the tree is cheaper. None: always the tree; infinite:
    /// all of the log.
    pub log_share: Option<f64>,
    /// From this counter on, the next group begins a new epoch: [`ROLLOVER_COUNTER`], or less.
    pub rollover_counter: u32,
    /// A group is sealed at this size even while the log is busy, bytes of transactions:
    /// [`GROUP_BYTES`], or less.
    pub group_bytes: usize,
    /// Whether a sync proves that the leader still leads; else it is ZooKeeper's.
    pub linearizable_sync: bool,
    /// A mistake, for simulations to find: votes name what is committed, not what is logged.
    pub names_committed: bool,
}

/// A lone server that does nothing unasked: it takes no snapshot, keeps no log for learners, and
/// nothing is slow to it.
impl Default for Config {
    fn default() -> Self {
        Self {
            server_id: 1,
            tick_ms: 2_000,
            cores: 1,
            rules: Rules::default(),
            container_check_interval: Duration::from_mins(1),
            container_deletions_max: 100,
            container_never_used_max: Duration::ZERO,
            slow_write: None,
            slow_sync: Duration::MAX,
            memory_bytes_max: None,
            snapshot_txns: u64::MAX,
            snapshot_log_bytes: u64::MAX,
            history_bytes: 0,
            log_share: None,
            rollover_counter: ROLLOVER_COUNTER,
            group_bytes: GROUP_BYTES,
            linearizable_sync: true,
            names_committed: false,
        }
    }
}
