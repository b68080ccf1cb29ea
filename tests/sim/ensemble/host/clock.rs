//! The clocks of a server: each runs at its own rate, and neither knows what time it is.

use engine::replica::Now;
use engine::time::{Instant, WallTime};

use crate::sim::ensemble::{MS, SECOND};
use crate::sim::random::Random;

/// Parts of a rate.
const MILLION: i128 = 1_000_000;
/// The wall clocks of two servers differ by up to this, milliseconds.
const WALL_APART_MS: u64 = 600_000;

/// A monotonic clock and one on the wall.
pub(in crate::sim::ensemble) struct Clock {
    /// What the monotonic one showed at the beginning, nanoseconds.
    from: u64,
    /// What the wall's showed, milliseconds.
    wall: i64,
    /// How much faster than time itself they run, millionths.
    drift: i64,
}

impl Clock {
    /// Clocks that gain or lose up to so many millionths.
    pub(in crate::sim::ensemble) fn new(drift_max: u64, random: &mut Random) -> Self {
        let from = random.any() % (1000 * SECOND);
        let wall = 1_700_000_000_000 + (random.any() % WALL_APART_MS) as i64;
        let drift = (random.any() % (2 * drift_max + 1)) as i64 - drift_max as i64;
        Self { from, wall, drift }
    }

    /// What they show.
    pub(super) fn at(&self, now: u64) -> Now {
        let passed = i128::from(now) * (MILLION + i128::from(self.drift)) / MILLION;
        let passed = passed as u64;
        Now {
            instant: Instant::from_nanos(self.from + passed),
            wall: WallTime(self.wall + (passed / MS) as i64),
        }
    }

    /// How long it takes until the monotonic one shows this.
    pub(super) fn delay_until(&self, now: u64, at: Instant) -> u64 {
        let left = at.as_nanos().saturating_sub(self.at(now).instant.as_nanos());
        // One more, for what divisions lose.
        (i128::from(left) * MILLION / (MILLION + i128::from(self.drift))) as u64 + 1
    }

    /// They jump.
    pub(super) fn jump(&mut self, by: u64, wall_by: i64) {
        self.from += by;
        self.wall += wall_by;
    }
}
