//! How fast snapshots are written and read back: the log on the same device comes first.

use std::time::Duration;

/// Bytes per second at which a snapshot is written or read when there is time: the log, which
/// writes to the same device, is hardly held up.
const CALM_RATE: u64 = 256 << 20;

/// And at most.
const RATE_MAX: u64 = 1 << 30;

/// So many times a second, what was written is made durable.
const SYNCS_PER_SECOND: u64 = 256;

/// How fast a snapshot is written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    bytes_per_second: u64,
}

impl Pace {
    pub(super) const CALM: Self = Self { bytes_per_second: CALM_RATE };
    pub(super) const FASTEST: Self = Self { bytes_per_second: RATE_MAX };

    /// After so many bytes, they are made durable: one sync at the end of a large file would hold
    /// up the log.
    pub(super) fn sync_bytes(self) -> usize {
        (self.bytes_per_second / SYNCS_PER_SECOND) as usize
    }

    /// How long so many bytes take.
    pub(super) fn time_for(self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64)
    }

    /// When `bytes` were written at last, and that began so long ago. Under load, writing takes at
    /// most half of the time in which the next snapshot becomes due: what is logged until a
    /// snapshot is done has to be replayed at a restart.
    pub(super) fn write_after(bytes: u64, since: Duration) -> Self {
        Self::within(since / 2, bytes)
    }

    /// And reading back at most a quarter: the next one is written when it is over.
    pub(super) fn read_after(bytes: u64, since: Duration) -> Self {
        Self::within(since / 4, bytes)
    }

    fn within(time: Duration, bytes: u64) -> Self {
        let per_second = bytes as f64 / time.as_secs_f64();
        Self { bytes_per_second: (per_second as u64).clamp(CALM_RATE, RATE_MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_tree_takes_its_time() {
        assert_eq!(Pace::CALM.time_for(CALM_RATE), Duration::from_secs(1));
        assert_eq!(Pace::CALM.time_for(1 << 40), Duration::from_secs(4096));
    }

    #[test]
    fn a_snapshot_takes_half_of_the_time_until_the_next_one_if_need_be() {
        let rate = |mib: u64, ms| Pace::write_after(mib << 20, Duration::from_millis(ms));
        assert_eq!(rate(200, 1000), Pace { bytes_per_second: 400 << 20 });
        assert_eq!(rate(100, 1000), Pace::CALM, "there is time");
        assert_eq!(rate(100, 1), Pace::FASTEST);
        assert_eq!(rate(100, 0), Pace::FASTEST);
        assert_eq!((Pace::CALM.sync_bytes(), Pace::FASTEST.sync_bytes()), (1 << 20, 4 << 20));
    }

    #[test]
    fn it_is_read_back_in_a_quarter_of_that_time_if_need_be() {
        let rate = |mib: u64, ms| Pace::read_after(mib << 20, Duration::from_millis(ms));
        assert_eq!(rate(200, 1000), Pace { bytes_per_second: 800 << 20 });
        assert_eq!(rate(50, 1000), Pace::CALM, "there is time");
        assert_eq!(rate(100, 0), Pace::FASTEST);
    }
}
