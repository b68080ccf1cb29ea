//! Figures that operators ask for: numbers that are cheap to add to and to join.
//!
//! Each core counts in values of its own, and whoever asks joins them: nothing here is shared
//! between threads.

use std::time::Duration;

/// Smallest, largest, sum and count of numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The smallest; 0 if there are none.
    pub min: u64,
    /// The largest; 0 if there are none.
    pub max: u64,
    /// All of them.
    pub sum: u64,
    /// How many.
    pub count: u64,
}

impl Summary {
    /// Counts one more.
    pub fn record(&mut self, value: u64) {
        self.record_many(value, 1);
    }

    /// Counts the same number several times.
    pub fn record_many(&mut self, value: u64, times: u64) {
        if times == 0 {
            return;
        }
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.max = self.max.max(value);
        self.sum = self.sum.saturating_add(value.saturating_mul(times));
        self.count += times;
    }

    /// Joins what another core has counted.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.min = if self.count == 0 { other.min } else { self.min.min(other.min) };
        self.max = self.max.max(other.max);
        self.sum = self.sum.saturating_add(other.sum);
        self.count += other.count;
    }
}

/// The last, the smallest and the largest of sizes, if there were any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// The last.
    pub last: Option<u64>,
    /// The smallest.
    pub min: Option<u64>,
    /// The largest.
    pub max: Option<u64>,
}

impl Sizes {
    /// Counts one more.
    pub fn record(&mut self, bytes: u64) {
        self.last = Some(bytes);
        self.min = Some(self.min.map_or(bytes, |min| min.min(bytes)));
        self.max = self.max.max(Some(bytes));
    }

    /// Joins what another core has counted; whose last one was the last, nobody knows.
    pub fn merge(&mut self, other: &Self) {
        self.last = self.last.or(other.last);
        self.min = [self.min, other.min].into_iter().flatten().min();
        self.max = self.max.max(other.max);
    }
}

/// Milliseconds up to here have a counter each.
const EXACT_MS: u64 = 16;

/// Beyond, each doubling is divided into this many parts.
const PARTS: u64 = 8;

/// Counters: up to 2^26 ms, about 18 hours; what takes longer counts as that.
const BUCKETS: usize = EXACT_MS as usize + 22 * PARTS as usize;

/// How long things took.
#[derive(Clone, Debug)]
pub struct Times {
    /// In microseconds.
    summary: Summary,
    /// How often each number of milliseconds came.
    buckets: Box<[u64; BUCKETS]>,
}

impl Default for Times {
    fn default() -> Self {
        Self { summary: Summary::default(), buckets: Box::new([0; BUCKETS]) }
    }
}

impl Times {
    /// Counts one more.
    pub fn record(&mut self, took: Duration) {
        self.record_many(took, 1);
    }

    /// Counts the same time for several things.
    pub fn record_many(&mut self, took: Duration, times: u64) {
        self.summary.record_many(micros(took), times);
        self.buckets[bucket_of(micros(took) / 1_000)] += times;
    }

    /// Joins what another core has counted.
    pub fn merge(&mut self, other: &Self) {
        self.summary.merge(&other.summary);
        for (own, others) in self.buckets.iter_mut().zip(other.buckets.iter()) {
            *own += others;
        }
    }

    /// Shortest, longest, sum and count, in microseconds.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The time within which `per_mille` of a thousand were done, in whole milliseconds: exact up
    /// to 15, and at most an eighth too high beyond. 0 if there are none.
    pub fn percentile_ms(&self, per_mille: u64) -> u64 {
        let rank = u128::from(self.summary.count) * u128::from(per_mille);
        let rank = rank.div_ceil(1_000).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= rank {
                return highest_in(index).min(self.summary.max / 1_000);
            }
        }
        0
    }
}

/// Whole microseconds.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn bucket_of(ms: u64) -> usize {
    if ms < EXACT_MS {
        return ms as usize;
    }
    let doublings = u64::from(ms.ilog2() - EXACT_MS.ilog2());
    let part = (ms >> (ms.ilog2() - PARTS.ilog2())) % PARTS;
    ((EXACT_MS + doublings * PARTS + part) as usize).min(BUCKETS - 1)
}

fn highest_in(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < EXACT_MS {
        return bucket;
    }
    let (doublings, part) = ((bucket - EXACT_MS) / PARTS, (bucket - EXACT_MS) % PARTS);
    let width = (EXACT_MS / PARTS) << doublings;
    (PARTS + part + 1) * width - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_joins_what_several_have_counted() {
        let (mut first, mut second) = (Summary::default(), Summary::default());
        first.record(7);
        second.record_many(3, 2);
        second.record_many(99, 0);
        let mut both = Summary::default();
        both.merge(&Summary::default());
        both.merge(&first);
        both.merge(&second);
        assert_eq!(both, Summary { min: 3, max: 7, sum: 13, count: 3 });
    }

    #[test]
    fn each_number_of_milliseconds_has_a_bucket_that_is_not_much_wider() {
        let mut last = 0;
        for ms in (0..3_000).chain((12..26).map(|doublings| 1 << doublings)) {
            let bucket = bucket_of(ms);
            assert!(bucket >= last, "{ms}");
            assert!((ms..=ms + ms / 8).contains(&highest_in(bucket)), "{ms}");
            last = bucket;
        }
        assert_eq!(highest_in(BUCKETS - 1), (1 << 26) - 1);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_whole_milliseconds() {
        let mut times = Times::default();
        assert_eq!(times.percentile_ms(500), 0);
        times.record_many(Duration::from_micros(1_900), 990);
        times.record_many(Duration::from_millis(12), 9);
        times.record(Duration::from_secs(1));
        let at = |per_mille| times.percentile_ms(per_mille);
        assert_eq!((at(500), at(990), at(999), at(1_000)), (1, 1, 12, 1_000));
        let mut twice = times.clone();
        twice.merge(&times);
        assert_eq!(twice.summary().count, 2_000);
        assert_eq!(twice.percentile_ms(999), 12);
    }
}
