//! What a client session is made of, apart from its place in the tree: its id, its password, the
//! timeout it was granted, and the moment it expires.
//!
//! All of it is arithmetic on values that come in as arguments, so that every server of an
//! ensemble, ours or ZooKeeper's, arrives at the same answers.

pub mod expiry;
pub mod ids;
pub mod password;

pub use expiry::{Due, ExpiryQueue};
pub use ids::SessionIds;
pub use password::SessionPassword;

/// The session timeouts that a server grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutLimits {
    /// Shorter requests get this (`minSessionTimeout`), milliseconds.
    pub min_ms: i32,
    /// Longer requests get this (`maxSessionTimeout`), milliseconds.
    pub max_ms: i32,
}

impl TimeoutLimits {
    /// What ZooKeeper grants when only the tick is configured: 2 to 20 ticks.
    pub fn of_tick(tick_ms: i32) -> Self {
        Self { min_ms: tick_ms.saturating_mul(2), max_ms: tick_ms.saturating_mul(20) }
    }

    /// The timeout that a client gets which asked for `asked_ms`; never negative.
    // Compat: ZooKeeperServer.processConnectRequest raises first and lowers second, so the upper
    // limit wins where the two are the wrong way round.
    pub fn negotiate(self, asked_ms: i32) -> i32 {
        asked_ms.max(self.min_ms).min(self.max_ms).max(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(limits: TimeoutLimits, asked_ms: i32, granted_ms: i32) {
        assert_eq!(limits.negotiate(asked_ms), granted_ms);
    }

    #[test]
    fn a_timeout_is_moved_into_the_limits() {
        let limits = TimeoutLimits::of_tick(2_000);
        check(limits, 1, 4_000);
        check(limits, 10_000, 10_000);
        check(limits, 10_000_000, 40_000);
        check(limits, i32::MIN, 4_000);
    }

    #[test]
    fn limits_the_wrong_way_round_give_the_upper_one() {
        check(TimeoutLimits { min_ms: 9_000, max_ms: 5_000 }, 1, 5_000);
        check(TimeoutLimits { min_ms: -5, max_ms: -3 }, 1, 0);
    }
}
