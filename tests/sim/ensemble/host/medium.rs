//! What is wrong with a server's disk: it is slow, full, about to fail, or bits have changed.

use engine::disk::StorageError;

use crate::sim::ensemble::rot::Sound;
use crate::sim::ensemble::{MS, World};

/// A slow disk takes up to so many times as long, and this.
const SLOW_FACTOR: u64 = 8;
const SLOW_MORE: u64 = 60 * MS;

/// The state of a disk besides what is on it.
#[derive(Debug, Default)]
pub(in crate::sim::ensemble) struct Medium {
    /// It is slow until then.
    slow_until: u64,
    /// This many more operations succeed.
    pub(in crate::sim::ensemble) good_for: Option<u64>,
    /// What was there before bits changed, until somebody starts from it.
    pub(in crate::sim::ensemble) sound: Option<Sound>,
    /// Bits have changed since it was new, and may be found at any time.
    pub(in crate::sim::ensemble) is_rotten: bool,
    /// The server has refused to start.
    pub(in crate::sim::ensemble) is_refused: bool,
}

impl Medium {
    pub(in crate::sim::ensemble) fn slow_until(&mut self, until: u64) {
        self.slow_until = until;
    }

    /// It works as it should.
    pub(in crate::sim::ensemble) fn heal(&mut self) {
        (self.slow_until, self.good_for) = (0, None);
    }

    /// Whether this operation fails.
    pub(super) fn fails(&mut self) -> bool {
        let Some(left) = &mut self.good_for else { return false };
        let fails = *left == 0;
        *left = left.saturating_sub(1);
        fails
    }

    /// Whether an error is of bits that have changed.
    pub(super) fn explains(&self, error: &StorageError) -> bool {
        self.is_rotten && error.damage().is_some()
    }
}

impl World {
    /// How long an operation of a disk takes this time.
    pub(super) fn disk_delay(&mut self, index: usize) -> u64 {
        let most = self.options.disk_max;
        let is_slow = self.now < self.hosts[index].medium.slow_until;
        let most = if is_slow { most * SLOW_FACTOR + SLOW_MORE } else { most };
        1 + self.random.any() % most + self.disk_lag(index)
    }
}
