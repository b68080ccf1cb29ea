//! What the server counts and times, under ZooKeeper's names.
//!
//! Each core has [`Metrics`] of its own, plain numbers that nobody else touches: counting is an
//! addition, without atomics or locks. When somebody asks, each core hands over a copy, and the
//! copies are merged. A reset is a message to each core, too.
//!
//! Times are recorded in microseconds. ZooKeeper's names mean milliseconds, so its lines show
//! these (averages with decimals); lines whose names end in `_us` are ringkeeper's own.

use hdrhistogram::Histogram;

use crate::four_letter::monitor::{Metric, Value};
use crate::four_letter::text::Average;

/// Declares an enum of metrics, their names, and how many there are.
macro_rules! metrics {
    ($(#[$about:meta])* $kind:ident { $($(#[$doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $kind {
            $($(#[$doc])* $variant,)*
        }

        impl $kind {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// ZooKeeper's name for it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

metrics! {
    /// What is counted.
    Counter {
        /// Bytes received from clients.
        BytesReceived = "bytes_received_count",
        /// Bytes of replies, without events.
        ResponseBytes = "response_bytes",
        /// Bytes of watch events.
        WatchBytes = "watch_bytes",
        /// Connect requests.
        ConnectionRequests = "connection_request_count",
        /// Connect requests for a session that exists.
        Revalidations = "connection_revalidate_count",
        /// Connections that the server closed, for whatever reason.
        ConnectionsDropped = "connection_drop_count",
        /// Connections refused because there were too many.
        ConnectionsRejected = "connection_rejected",
        /// Connections closed because they did not open a session in time.
        SessionlessExpired = "sessionless_connections_expired",
        /// Sessions that expired.
        SessionsExpired = "stale_sessions_expired",
        /// Times that a connection was not read from because too much was under way.
        Throttled = "request_throttle_wait_count",
        /// Packets refused because they were too large.
        LargeRequestsRejected = "large_requests_rejected",
        /// Writes that reached the ordering core.
        WritesQueued = "prep_processor_request_queued",
        /// Transactions given to the log.
        TransactionsLogged = "sync_processor_request_queued",
        /// Transactions whose digest was not that of the tree after them.
        DigestMismatches = "digest_mismatches_count",
        /// Connections that named this ensemble.
        EnsembleAuthenticated = "ensemble_auth_success",
        /// Connections that named another ensemble.
        EnsembleAuthFailed = "ensemble_auth_fail",
        /// Connections that named an ensemble while there was nothing to compare it with.
        EnsembleAuthSkipped = "ensemble_auth_skip",
    }
}

metrics! {
    /// What is summed up: numbers without a unit.
    Size {
        /// Transactions made durable by one sync.
        BatchSize = "sync_processor_batch_size",
        /// Transactions replayed at the start.
        StartupTransactions = "startup_txns_loaded",
        /// Watches that fired for one creation.
        WatchesOnCreate = "node_created_watch_count",
        /// Watches that fired for one deletion.
        WatchesOnDelete = "node_deleted_watch_count",
        /// Watches that fired for one change of data.
        WatchesOnChange = "node_changed_watch_count",
        /// Watches that fired for one change of children.
        WatchesOnChildren = "node_children_watch_count",
    }
}

metrics! {
    /// What is timed.
    Timing {
        /// One durable write of the log.
        Sync = "fsynctime",
        /// Writing one snapshot.
        Snapshot = "snapshottime",
        /// From the start until everything is recovered.
        Recovery = "dbinittime",
        /// Of that, opening the snapshot.
        StartupSnapshot = "startup_snap_load_time",
        /// Of that, replaying the log.
        StartupTransactions = "startup_txns_load_time",
        /// Turning one write into a transaction and applying it.
        Prepare = "prep_process_time",
    }
}

metrics! {
    /// What is timed often enough for percentiles to mean something.
    Latency {
        /// A read, from its arrival to its reply.
        Read = "readlatency",
        /// A write, from its arrival to its reply.
        Update = "updatelatency",
        /// A write, from its arrival until the ordering core takes it up.
        PrepareQueue = "prep_processor_queue_time_ms",
        /// A transaction, from its making until it is durable.
        LogQueueAndSync = "sync_processor_queue_and_flush_time_ms",
    }
}

/// Counts and times of one core, or of several together.
#[derive(Clone, Debug)]
pub struct Metrics {
    counters: [u64; Counter::ALL.len()],
    sizes: [Summary; Size::ALL.len()],
    timings: [Summary; Timing::ALL.len()],
    latencies: Vec<(Summary, Histogram<u32>)>,
    longest_turn_us: u64,
}

/// Smallest, largest, sum and count of some numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    min: u64,
    max: u64,
    sum: u64,
    count: u64,
}

impl Summary {
    const EMPTY: Self = Self { min: u64::MAX, max: 0, sum: 0, count: 0 };

    fn record(&mut self, number: u64) {
        self.min = self.min.min(number);
        self.max = self.max.max(number);
        self.sum = self.sum.saturating_add(number);
        self.count += 1;
    }

    fn merge(&mut self, other: Self) {
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum = self.sum.saturating_add(other.sum);
        self.count += other.count;
    }

    // Compat: AvgMinMaxCounter.values
    fn list(self, name: &str, unit: u64, out: &mut Vec<Metric>) {
        let average = Average::of(self.sum, self.count.saturating_mul(unit));
        let min = if self.count == 0 { 0 } else { self.min / unit };
        out.push((format!("avg_{name}"), Value::Float(average.rounded())));
        let whole = [("min", min), ("max", self.max / unit), ("cnt", self.count)];
        let whole = whole.into_iter().chain([("sum", self.sum / unit)]);
        out.extend(whole.map(|(part, number)| (format!("{part}_{name}"), whole_number(number))));
    }
}

/// Microseconds in ZooKeeper's unit of time.
const US_PER_MS: u64 = 1_000;

/// Latencies above this, an hour, count as this in percentiles.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// Percentiles are exact to one in a hundred.
const SIGNIFICANT_DIGITS: u8 = 2;

/// The percentiles that `mntr` shows, with the beginnings of their names.
// Compat: AvgMinMaxPercentileCounter.values
const PERCENTILES: [(&str, f64); 4] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999)];

fn whole_number(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, SIGNIFICANT_DIGITS)
            .expect("the bounds and digits are ones that a histogram allows");
        Self {
            counters: [0; Counter::ALL.len()],
            sizes: [Summary::EMPTY; Size::ALL.len()],
            timings: [Summary::EMPTY; Timing::ALL.len()],
            latencies: vec![(Summary::EMPTY, histogram); Latency::ALL.len()],
            longest_turn_us: 0,
        }
    }
}

impl Metrics {
    /// Counts `number` more.
    pub fn add(&mut self, counter: Counter, number: u64) {
        let sum = &mut self.counters[counter as usize];
        *sum = sum.wrapping_add(number);
    }

    /// The count.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// Takes a size into account.
    pub fn size(&mut self, size: Size, number: u64) {
        self.sizes[size as usize].record(number);
    }

    /// Takes a time into account.
    pub fn time(&mut self, timing: Timing, us: u64) {
        self.timings[timing as usize].record(us);
    }

    /// Takes a latency into account.
    pub fn latency(&mut self, latency: Latency, us: u64) {
        let (summary, histogram) = &mut self.latencies[latency as usize];
        summary.record(us);
        histogram.saturating_record(us);
    }

    /// Takes the length of a turn of the core's loop into account.
    pub fn turn(&mut self, us: u64) {
        self.longest_turn_us = self.longest_turn_us.max(us);
    }

    /// The longest turn so far.
    pub fn longest_turn_us(&self) -> u64 {
        self.longest_turn_us
    }

    /// Adds what another core has counted.
    pub fn merge(&mut self, other: &Self) {
        for (sum, number) in self.counters.iter_mut().zip(other.counters) {
            *sum = sum.wrapping_add(number);
        }
        for (one, other) in self.sizes.iter_mut().zip(other.sizes) {
            one.merge(other);
        }
        for (one, other) in self.timings.iter_mut().zip(other.timings) {
            one.merge(other);
        }
        for ((one, numbers), (other, others)) in self.latencies.iter_mut().zip(&other.latencies) {
            one.merge(*other);
            numbers.add(others).expect("all histograms have the same bounds");
        }
        self.longest_turn_us = self.longest_turn_us.max(other.longest_turn_us);
    }

    /// Begins anew, as `srst` asks for.
    // Compat: ServerMetrics.resetAll
    pub fn reset(&mut self) {
        self.counters.fill(0);
        self.sizes.fill(Summary::EMPTY);
        self.timings.fill(Summary::EMPTY);
        for (summary, histogram) in &mut self.latencies {
            *summary = Summary::EMPTY;
            histogram.reset();
        }
        self.longest_turn_us = 0;
    }

    /// The lines for `mntr`.
    pub fn list(&self) -> Vec<Metric> {
        let mut out = Vec::new();
        for &counter in Counter::ALL {
            out.push((counter.name().to_owned(), whole_number(self.count(counter))));
        }
        for &size in Size::ALL {
            self.sizes[size as usize].list(size.name(), 1, &mut out);
        }
        for &timing in Timing::ALL {
            self.timings[timing as usize].list(timing.name(), US_PER_MS, &mut out);
        }
        for &latency in Latency::ALL {
            let (summary, histogram) = &self.latencies[latency as usize];
            summary.list(latency.name(), US_PER_MS, &mut out);
            let stem = latency.name().trim_end_matches("_ms");
            for (percentile, quantile) in PERCENTILES {
                let us = histogram.value_at_quantile(quantile);
                let ms = (us + US_PER_MS / 2) / US_PER_MS;
                out.push((format!("{percentile}_{}", latency.name()), whole_number(ms)));
                out.push((format!("{percentile}_{stem}_us"), whole_number(us)));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests;
