//! What was measured: latencies, errors, losses and violations, gathered per interval.
//!
//! Every thread records into its own [`Interval`] and hands it over at its end, so that recording
//! takes no lock and a report can show how a figure moved. A [`Tally`] is the sum of intervals.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::load::mix::Kind;

/// Nanoseconds of the longest latency that is told apart from longer ones.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Significant digits: a value is off by less than 0.1 %.
const DIGITS: u8 = 3;
/// Examples of violations that are kept in words.
const EXAMPLES_MAX: usize = 5;
/// Bins of completions per interval of one second: a gap is known to a millisecond.
pub const BINS: usize = 1000;

/// A histogram of latencies in nanoseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS).expect("bounds and digits are allowed")
}

/// What a server did that it must not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Violation {
    /// A reply whose xid is not the next one's.
    WrongXid,
    /// A reply to nothing.
    UninvitedReply,
    /// A watch event that nobody asked for.
    UninvitedEvent,
    /// A reply of the wrong length.
    WrongLength,
    /// A reply with another znode's content, or an older one than its session has seen.
    WrongContent,
    /// A zxid below one that the same connection has seen before.
    ZxidWentBack,
    /// Bytes that are not the protocol.
    Garbage,
    /// An event that was never sent.
    MissedEvent,
    /// An event that came again, or after its cause was over.
    StaleEvent,
    /// A write that was acknowledged and is not there.
    LostWrite,
}

/// Violations by kind, with the first few in words.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Violations {
    /// How many of each.
    pub counts: BTreeMap<Violation, u64>,
    /// The first few.
    pub examples: Vec<String>,
}

impl Violations {
    /// Counts one; the words are made only while they are kept.
    pub fn add(&mut self, violation: Violation, words: impl FnOnce() -> String) {
        *self.counts.entry(violation).or_default() += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{violation:?}: {}", words()));
        }
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Adds another's.
    pub fn merge(&mut self, other: &Self) {
        for (violation, count) in &other.counts {
            *self.counts.entry(*violation).or_default() += count;
        }
        let room = EXAMPLES_MAX.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.iter().take(room).cloned());
    }
}

/// Counters and histograms of some time.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Latencies of what was answered without an error, per kind.
    pub latencies: BTreeMap<Kind, Histogram<u64>>,
    /// Answers with an error, per kind and code.
    pub errors: BTreeMap<(Kind, i32), u64>,
    /// What fell due in the measured window.
    pub due: u64,
    /// What of it was sent.
    pub sent: u64,
    /// What was sent and never answered, because the connection was lost or the run was over.
    pub lost: u64,
    /// What was sent more than a millisecond after it was due.
    pub late: u64,
    /// Connections lost while they were in use.
    pub disconnects: u64,
    /// Connections made again.
    pub reconnects: u64,
    /// Sessions that the server ended.
    pub expired: u64,
    /// What the server must not do.
    pub violations: Violations,
}

impl Tally {
    /// Records an answer without an error.
    pub fn answered(&mut self, kind: Kind, latency_ns: u64) {
        self.latencies.entry(kind).or_insert_with(histogram).saturating_record(latency_ns);
    }

    /// Records an answer with an error.
    pub fn refused(&mut self, kind: Kind, code: i32) {
        *self.errors.entry((kind, code)).or_default() += 1;
    }

    /// Adds another's.
    pub fn merge(&mut self, other: &Self) {
        for (kind, latencies) in &other.latencies {
            let into = self.latencies.entry(*kind).or_insert_with(histogram);
            into.add(latencies).expect("all histograms have the same bounds");
        }
        for (key, count) in &other.errors {
            *self.errors.entry(*key).or_default() += count;
        }
        self.due += other.due;
        self.sent += other.sent;
        self.lost += other.lost;
        self.late += other.late;
        self.disconnects += other.disconnects;
        self.reconnects += other.reconnects;
        self.expired += other.expired;
        self.violations.merge(&other.violations);
    }

    /// Answers without an error.
    pub fn ok_count(&self) -> u64 {
        self.latencies.values().map(Histogram::len).sum()
    }

    /// Answers with an error.
    pub fn errors_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Latencies of all kinds together.
    pub fn all_latencies(&self) -> Histogram<u64> {
        let mut all = histogram();
        for latencies in self.latencies.values() {
            all.add(latencies).expect("all histograms have the same bounds");
        }
        all
    }
}

/// A [`Tally`] of one second of a run, and when things were answered in it.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Seconds since the measured window began; the last one holds what came after its end too.
    pub second: u64,
    /// What was counted.
    pub tally: Tally,
    /// Answers without an error per millisecond of this second, whenever they were due.
    pub bins: [u32; BINS],
}

impl Interval {
    /// An empty one.
    pub fn new(second: u64) -> Self {
        Self { second, tally: Tally::default(), bins: [0; BINS] }
    }

    /// Adds what another thread counted in the same second.
    pub fn merge(&mut self, other: &Self) {
        self.tally.merge(&other.tally);
        for (bin, count) in self.bins.iter_mut().zip(other.bins) {
            *bin += count;
        }
    }

    /// Answers in this second.
    pub fn completions(&self) -> u64 {
        self.bins.iter().map(|bin| u64::from(*bin)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_off_by_less_than_a_thousandth() {
        for value in [999, 12_345, 1_234_567, 987_654_321, 59_999_999_999_u64] {
            let mut latencies = histogram();
            latencies.record(value).unwrap();
            let read = latencies.value_at_quantile(0.5);
            assert!(read.abs_diff(value) * 1000 < value, "{value} was read as {read}");
        }
    }

    #[test]
    fn sums_add_up() {
        let mut first = Tally { due: 3, sent: 3, ..Tally::default() };
        first.answered(Kind::Get, 10);
        first.refused(Kind::Get, -101);
        let mut second = first.clone();
        second.violations.add(Violation::WrongXid, || "7 for 8".into());
        first.merge(&second);
        assert_eq!((first.ok_count(), first.errors_count(), first.sent), (2, 2, 6));
        assert_eq!(first.violations.total(), 1);
    }
}
