//! Time as the engine sees it: values that the driver passes in.

use std::time::Duration;

/// A point on the driver's monotonic clock, nanoseconds from an origin that the driver picks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

/// Wall time in milliseconds since 1970: what transactions are stamped with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub i64);

impl Instant {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The instant `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the origin.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// This instant, `duration` later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// How long ago `earlier` was; zero if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Lets something be said once a second, however often it happens: a stranger must not fill the
/// log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rarely {
    last: Option<Instant>,
    unsaid: u64,
}

impl Rarely {
    /// How often it happened unsaid since the last time; `None` if it is not to be said now.
    pub fn say(&mut self, now: Instant) -> Option<u64> {
        const PAUSE: Duration = Duration::from_secs(1);
        if self.last.is_some_and(|last| now.since(last) < PAUSE) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// A delay that has doubled so many times, up to `most`: at most 4096 times the first.
pub(crate) fn doubled(first: Duration, times: u32, most: Duration) -> Duration {
    (first * (1 << times.min(12))).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_often_is_said_once_a_second_with_its_count() {
        let mut rarely = Rarely::default();
        let at = |ms| Instant::ZERO.after(Duration::from_millis(ms));
        let said = [0, 1, 999, 1000, 1001, 3000].map(|ms| rarely.say(at(ms)));
        assert_eq!(said, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
