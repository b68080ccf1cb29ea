//! The result of a load: figures, histograms, and what to doubt about them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::created::Created;
use super::worker::End;
use super::{Gathered, LoadOptions};
use crate::recorder::{BINS, Interval, Tally, Violations};
use crate::wire;

/// A thread that was busy for more of its time than this was what limited the run.
const BUSY_MAX: f64 = 0.85;
/// More late sends than this in a hundred make an open loop's figures the client's own.
const LATE_PERCENT_MAX: f64 = 1.0;

/// Percentiles of a latency, microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// Mean.
    pub mean_us: f64,
    /// The shortest.
    pub min_us: f64,
    /// Half were shorter.
    pub p50_us: f64,
    /// 90 % were shorter.
    pub p90_us: f64,
    /// 99 % were shorter.
    pub p99_us: f64,
    /// 99.9 % were shorter.
    pub p999_us: f64,
    /// 99.99 % were shorter.
    pub p9999_us: f64,
    /// The longest.
    pub max_us: f64,
}

impl Latency {
    /// Reads the percentiles of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            count: histogram.len(),
            mean_us: histogram.mean() / 1e3,
            min_us: histogram.min() as f64 / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: histogram.max() as f64 / 1e3,
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {:.1}  p90 {:.1}  p99 {:.1}  p99.9 {:.1}  p99.99 {:.1}  max {:.1} us",
            self.p50_us, self.p90_us, self.p99_us, self.p999_us, self.p9999_us, self.max_us
        )
    }
}

/// The figures of one load.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    /// What was asked for.
    pub options: LoadOptions,
    /// Answers per second without an error, in the window.
    pub rate_per_s: f64,
    /// Answers without an error in the window.
    pub completed: u64,
    /// Operations that fell due in the window.
    pub due: u64,
    /// Those of them that were sent,
    pub sent: u64,
    /// answered without an error (also after the window's end),
    pub ok: u64,
    /// answered with one, by operation and code,
    pub errors: BTreeMap<String, u64>,
    /// never answered,
    pub lost: u64,
    /// sent more than 1 ms late.
    pub late: u64,
    /// Connections lost.
    pub disconnects: u64,
    /// Connections made again.
    pub reconnects: u64,
    /// Sessions that the server ended.
    pub expired: u64,
    /// The longest time without an answer, milliseconds.
    pub gap_max_ms: u64,
    /// Latency of everything.
    pub latency: Latency,
    /// Latency by operation.
    pub latency_of: BTreeMap<&'static str, Latency>,
    /// This program's CPU time per answer, microseconds.
    pub client_cpu_us_per_op: f64,
    /// How busy its busiest thread was, 0 to 1.
    pub client_busy: f64,
    /// The server's CPU time per answer, microseconds.
    pub server_cpu_us_per_op: Option<f64>,
    /// How many cores the server used.
    pub server_cores: Option<f64>,
    /// What the server must not do, and did.
    pub violations: Violations,
    /// What to doubt.
    pub warnings: Vec<String>,
    /// When the window began.
    #[serde(skip)]
    pub start: Instant,
    /// One per second, with histograms; for files and pictures.
    #[serde(skip)]
    pub intervals: Vec<Interval>,
    /// Their sum.
    #[serde(skip)]
    pub tally: Tally,
    /// What each connection created.
    #[serde(skip)]
    pub created: Vec<Created>,
}

impl LoadReport {
    /// Adds up a run.
    pub fn new(options: &LoadOptions, gathered: Gathered, ends: &[End]) -> Self {
        let Gathered { intervals, server_cpu, start } = gathered;
        let mut tally = Tally::default();
        intervals.iter().for_each(|interval| tally.merge(&interval.tally));
        let completed: u64 = intervals.iter().map(Interval::completions).sum();
        let per_op = |seconds: f64| seconds * 1e6 / completed.max(1) as f64;
        let client_cpu: f64 = ends.iter().map(|end| end.cpu.as_secs_f64()).sum();
        let busiest = ends.iter().map(|end| end.cpu.as_secs_f64()).fold(0.0, f64::max);
        let name = |(kind, code): &(_, i32)| format!("{kind}: {}", wire::error_name(*code));
        let mut report = Self {
            options: options.clone(),
            rate_per_s: completed as f64 / options.seconds,
            completed,
            due: tally.due,
            sent: tally.sent,
            ok: tally.ok_count(),
            errors: tally.errors.iter().map(|(key, count)| (name(key), *count)).collect(),
            lost: tally.lost,
            late: tally.late,
            disconnects: tally.disconnects,
            reconnects: tally.reconnects,
            expired: tally.expired,
            gap_max_ms: 0,
            latency: Latency::of(&tally.all_latencies()),
            latency_of: tally
                .latencies
                .iter()
                .map(|(kind, latencies)| (kind.word(), Latency::of(latencies)))
                .collect(),
            client_cpu_us_per_op: per_op(client_cpu),
            client_busy: busiest / options.seconds,
            server_cpu_us_per_op: server_cpu.map(|cpu| per_op(cpu.as_secs_f64())),
            server_cores: server_cpu.map(|cpu| cpu.as_secs_f64() / options.seconds),
            violations: tally.violations.clone(),
            warnings: Vec::new(),
            start,
            intervals,
            tally,
            created: ends.iter().flat_map(|end| end.created.iter().cloned()).collect(),
        };
        report.gap_max_ms = longest_run_of_zeros(&report.bins());
        report.warnings = report.doubts();
        report
    }

    /// Whether everything that fell due was answered well.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
            && self.lost == 0
            && self.due == self.sent
            && self.violations.total() == 0
    }

    /// Answers per millisecond of the window.
    pub fn bins(&self) -> Vec<u32> {
        let all = self.intervals.iter().flat_map(|interval| interval.bins);
        all.take((self.options.seconds * BINS as f64) as usize).collect()
    }

    /// The longest silence that did not end before an instant of the window, to a millisecond.
    ///
    /// The longest, because some answers may still lie in the sockets at that instant.
    pub fn silence_after(&self, at: Instant) -> Silence {
        let bins = self.bins();
        let at_bin = at.saturating_duration_since(self.start).as_millis() as usize;
        let (mut longest, mut begin) = (0..0, 0);
        for (bin, count) in bins.iter().chain([&1]).enumerate() {
            if *count == 0 {
                continue;
            }
            if bin > at_bin && bin - begin > longest.len() {
                longest = begin..bin;
            }
            begin = bin + 1;
        }
        let ended = longest.end < bins.len();
        let end = self.start + Duration::from_millis(longest.end as u64 + 1);
        Silence { length_ms: longest.len() as u64, end: ended.then_some(end) }
    }

    fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if self.client_busy > BUSY_MAX {
            doubts.push(format!(
                "this program was the bottleneck: a thread of it was busy for {:.0} % of the time \
                 (give it more --threads, or less to do)",
                self.client_busy * 100.0
            ));
        }
        let late_percent = self.late as f64 * 100.0 / self.sent.max(1) as f64;
        if self.options.rate.is_some() && late_percent > LATE_PERCENT_MAX {
            doubts.push(format!(
                "{late_percent:.1} % of the requests were sent more than 1 ms after they were due: \
                 all connections were at their --depth, or this machine is too busy"
            ));
        }
        if self.ok == 0 {
            doubts.push("nothing was answered".to_owned());
        }
        if self.due > self.sent {
            doubts.push(format!("{} requests fell due and were never sent", self.due - self.sent));
        }
        if self.lost > 0 {
            doubts.push(format!("{} requests were never answered", self.lost));
        }
        for (violation, count) in &self.violations.counts {
            doubts.push(format!("THE SERVER IS WRONG: {violation:?} {count} times"));
        }
        doubts
    }
}

/// A time without answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// How long it was, at least.
    pub length_ms: u64,
    /// When it ended, if it did before the window.
    pub end: Option<Instant>,
}

fn longest_run_of_zeros(bins: &[u32]) -> u64 {
    bins.split(|count| *count > 0).map(|run| run.len() as u64).max().unwrap_or(0)
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        let rate = options.rate.map_or("closed loop".into(), |rate| format!("{rate} due/s"));
        writeln!(
            f,
            "{}: {} connections x depth {}, {rate}, {}-byte values, {} s",
            options.mix.text,
            options.connections,
            options.depth,
            options.value_bytes,
            options.seconds
        )?;
        writeln!(f, "  {:.0} operations/s", self.rate_per_s)?;
        writeln!(f, "  latency    {}", self.latency)?;
        if self.latency_of.len() > 1 {
            for (kind, latency) in &self.latency_of {
                writeln!(f, "    {kind:<9}{latency}")?;
            }
        }
        writeln!(
            f,
            "  {} due = {} ok + {} errors + {} lost + {} unsent; {} late; longest gap {} ms",
            self.due,
            self.ok,
            self.errors.values().sum::<u64>(),
            self.lost,
            self.due - self.sent,
            self.late,
            self.gap_max_ms
        )?;
        for (name, count) in &self.errors {
            writeln!(f, "  {count} x {name}")?;
        }
        if self.disconnects + self.expired > 0 {
            writeln!(
                f,
                "  {} disconnects, {} reconnects, {} sessions expired",
                self.disconnects, self.reconnects, self.expired
            )?;
        }
        write!(
            f,
            "  client CPU {:.2} us/op, busiest thread {:.0} %",
            self.client_cpu_us_per_op,
            self.client_busy * 100.0
        )?;
        if let (Some(cpu), Some(cores)) = (self.server_cpu_us_per_op, self.server_cores) {
            write!(f, "; server CPU {cpu:.2} us/op, {cores:.2} cores")?;
        }
        writeln!(f)?;
        for example in &self.violations.examples {
            writeln!(f, "  violation: {example}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning: {warning}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(bins: &[(usize, u32)]) -> LoadReport {
        let mut options = LoadOptions::of("get".parse().unwrap(), ([127, 0, 0, 1], 1).into());
        options.seconds = 0.02;
        let mut interval = Interval::new(0);
        bins.iter().for_each(|(bin, count)| interval.bins[*bin] = *count);
        let gathered =
            Gathered { intervals: vec![interval], server_cpu: None, start: Instant::now() };
        LoadReport::new(&options, gathered, &[])
    }

    #[test]
    fn a_silence_is_known_to_a_millisecond() {
        let report = report(&[(0, 5), (1, 5), (4, 5), (5, 2), (13, 1), (19, 1)]);
        let ms = |count| report.start + Duration::from_millis(count);
        let silence = Silence { length_ms: 7, end: Some(ms(14)) };
        assert_eq!(report.silence_after(ms(5)), silence);
        assert_eq!(report.silence_after(ms(8)), silence);
        assert_eq!(report.gap_max_ms, 7);
    }

    #[test]
    fn a_silence_that_lasts_to_the_end_has_no_end() {
        let report = report(&[(0, 5), (4, 5)]);
        let at = report.start + Duration::from_millis(6);
        assert_eq!(report.silence_after(at), Silence { length_ms: 15, end: None });
    }
}
