//! What the threads of a load have in common: where they connect, and the times of the run.

use std::net::SocketAddr;

/// Nanoseconds of a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// What all threads of a load have in common.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Servers; connections are spread over them.
    pub hosts: Vec<SocketAddr>,
    /// Requests under way per connection.
    pub depth: usize,
    /// Session timeout asked for, milliseconds.
    pub timeout_ms: i32,
    /// Number of the last create before this load.
    pub first_created: u64,
}

/// The times of a run, nanoseconds on its clock.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// When measuring begins; what falls due before is warm-up.
    pub start_ns: u64,
    /// When it ends, and no more falls due.
    pub end_ns: u64,
    /// How long answers are still waited for.
    pub stop_ns: u64,
}

impl Window {
    /// Whether what falls due then is measured.
    pub fn holds(&self, due_ns: u64) -> bool {
        (self.start_ns..self.end_ns).contains(&due_ns)
    }

    /// The number of the last interval.
    pub fn last_second(&self) -> u64 {
        (self.end_ns - self.start_ns).div_ceil(SECOND_NS).saturating_sub(1)
    }
}
