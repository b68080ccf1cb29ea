//! The process's clocks: monotonic time for machines, wall time for transactions.

use std::time::{Instant as StdInstant, SystemTime, UNIX_EPOCH};

use engine::replica::Now;
use engine::time::{Instant, WallTime};

/// Reads both clocks. All threads use copies of one, so that their instants compare.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: StdInstant,
}

impl Clock {
    /// A clock whose origin is now.
    pub fn start() -> Self {
        Self { origin: StdInstant::now() }
    }

    /// Monotonic time.
    pub fn instant(&self) -> Instant {
        let nanos = self.origin.elapsed().as_nanos();
        Instant::from_nanos(u64::try_from(nanos).expect("584 years have not passed"))
    }

    /// Monotonic and wall time. A wall clock before 1970 counts as 1970.
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = WallTime(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX));
        Now { instant: self.instant(), wall }
    }
}
