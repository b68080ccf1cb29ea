//! What the loss of servers cost: each failure, and medians with their spread.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::stages::Stages;
use super::timeline::Timeline;
use crate::recorder::Violations;
use crate::recovery::{RecoveryOptions, median};

/// One failure.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// Who led before, by id.
    pub leader: usize,
    /// Who was lost, joined, or had no zxids left.
    pub victim: usize,
    /// The longest pause of each writer, milliseconds,
    pub gaps_ms: Vec<f64>,
    /// and the longest of them.
    pub gap_ms: f64,
    /// From the fault to the end of the first writer's pause, milliseconds; none if it is none.
    pub first_ack_ms: Option<f64>,
    /// From a kill or a cut to the end of file that an idle client of the lost server saw,
    /// milliseconds.
    pub close_ms: Option<f64>,
    /// Where the time until the first acknowledgement went, if the servers' logs tell.
    pub stages: Option<Stages>,
    /// From starting (or waking) the server until it served, milliseconds.
    pub rejoin_ms: Option<f64>,
    /// The longest pause of a writer meanwhile, milliseconds.
    pub rejoin_gap_ms: Option<f64>,
    /// 99th percentile of the writers' latency before the fault, milliseconds,
    pub p99_before_ms: Option<f64>,
    /// and while the server came back.
    pub p99_rejoin_ms: Option<f64>,
    /// Connections of the writers that broke.
    pub disconnects: u64,
    /// Sessions of theirs that were ended.
    pub expired: u64,
    /// Writes that were acknowledged, and looked for at every server.
    pub acknowledged: u64,
    /// Writes whose outcome the clients were not told.
    pub unknown: u64,
    /// Writes that were refused, by error.
    pub refused: BTreeMap<String, u64>,
    /// Acknowledged writes per millisecond.
    pub timeline: Timeline,
}

/// The middle and the ends of some figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The worst.
    pub worst: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.collect();
        let least = values.iter().copied().min_by(f64::total_cmp)?;
        let worst = values.iter().copied().max_by(f64::total_cmp)?;
        Some(Self { median: median(values), least, worst })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, least, worst } = self;
        write!(f, "{median:>9.2} ms  ({least:.2} - {worst:.2})")
    }
}

/// The figures of `recovery` of an ensemble, milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct FailoverReport {
    /// What was asked for.
    pub options: RecoveryOptions,
    /// The longest pause of any writer.
    pub gap_ms: Option<Spread>,
    /// The first write behind the pause.
    pub first_ack_ms: Option<Spread>,
    /// The lost server's end, as an idle client of it sees it: when the kernel closes, or, of one
    /// that is cut off, when it turns its clients away.
    pub close_ms: Option<Spread>,
    /// Where the time went: close, election, discovery, commit.
    pub stages: Vec<(&'static str, Spread)>,
    /// Until the lost server served again.
    pub rejoin_ms: Option<Spread>,
    /// Longest pause of a writer meanwhile.
    pub rejoin_gap_ms: Option<Spread>,
    /// 99th percentile of writes before,
    pub p99_before_ms: Option<Spread>,
    /// and meanwhile.
    pub p99_rejoin_ms: Option<Spread>,
    /// How many times the one the other is, within each failure.
    pub p99_rejoin_times: Option<Spread>,
    /// Connections of the writers that broke, all failures.
    pub disconnects: u64,
    /// Sessions of theirs that were ended.
    pub expired: u64,
    /// Every failure.
    pub failures: Vec<Failure>,
    /// What was lost.
    pub violations: Violations,
}

impl FailoverReport {
    /// Sums up.
    pub fn new(options: RecoveryOptions, failures: Vec<Failure>, violations: Violations) -> Self {
        let spread =
            |figure: fn(&Failure) -> Option<f64>| Spread::of(failures.iter().filter_map(figure));
        let stage = |part: usize| {
            let parts = failures.iter().filter_map(|failure| failure.stages);
            let mut parts = parts.map(|stages| stages.parts()[part]).peekable();
            let name = parts.peek()?.0;
            Some((name, Spread::of(parts.map(|(_, ms)| ms))?))
        };
        Self {
            options,
            gap_ms: spread(|failure| Some(failure.gap_ms)),
            first_ack_ms: spread(|failure| failure.first_ack_ms),
            close_ms: spread(|failure| failure.close_ms),
            stages: (0..4).filter_map(stage).collect(),
            rejoin_ms: spread(|failure| failure.rejoin_ms),
            rejoin_gap_ms: spread(|failure| failure.rejoin_gap_ms),
            p99_before_ms: spread(|failure| failure.p99_before_ms),
            p99_rejoin_ms: spread(|failure| failure.p99_rejoin_ms),
            p99_rejoin_times: spread(|failure| {
                Some(failure.p99_rejoin_ms? / failure.p99_before_ms?)
            }),
            disconnects: failures.iter().map(|failure| failure.disconnects).sum(),
            expired: failures.iter().map(|failure| failure.expired).sum(),
            failures,
            violations,
        }
    }

    /// The failures with the median, the least and the worst gap, the median one first.
    pub fn timelines(&self) -> Vec<Timeline> {
        let mut order: Vec<&Failure> = self.failures.iter().collect();
        order.sort_by(|one, other| one.gap_ms.total_cmp(&other.gap_ms));
        let places = match order.len() {
            0 => vec![],
            1 => vec![(0, "only")],
            2 => vec![(0, "least"), (1, "worst")],
            count => vec![((count - 1) / 2, "median"), (0, "least"), (count - 1, "worst")],
        };
        let timeline = |(place, which): (usize, &str)| {
            let Failure { gap_ms, timeline, .. } = order[place];
            let name = format!("{which} gap, {gap_ms:.1} ms: writes around the loss of a server");
            Timeline { name, ..timeline.clone() }
        };
        places.into_iter().map(timeline).collect()
    }
}

/// The 99th percentile of latencies in microseconds, as milliseconds.
pub fn p99_ms(latencies_us: impl Iterator<Item = u64>) -> Option<f64> {
    let mut latencies: Vec<u64> = latencies_us.collect();
    latencies.sort_unstable();
    let place = (latencies.len() * 99).div_ceil(100).checked_sub(1)?;
    latencies.get(place).map(|us| *us as f64 / 1e3)
}

impl fmt::Display for FailoverReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        let fault = serde_json::to_value(options.ensemble.fault).unwrap_or_default();
        writeln!(
            f,
            "recovery: {}, {}, {} times, {} znodes; median (least - worst)",
            options.server,
            fault.as_str().unwrap_or_default(),
            self.failures.len(),
            options.znodes.unwrap_or(0),
        )?;
        let lines = [
            ("longest gap of a writer", self.gap_ms),
            ("first write acknowledged after", self.first_ack_ms),
            ("close seen by an idle client", self.close_ms),
        ];
        let stages = self.stages.iter().map(|(name, spread)| (*name, Some(*spread)));
        let back = [
            ("back and serving after", self.rejoin_ms),
            ("longest gap meanwhile", self.rejoin_gap_ms),
            ("p99 of writes meanwhile", self.p99_rejoin_ms),
            ("p99 of writes before", self.p99_before_ms),
        ];
        for (name, spread) in lines.into_iter().chain(stages).chain(back) {
            if let Some(spread) = spread {
                writeln!(f, "  {name:<32}{spread}")?;
            }
        }
        if let Some(Spread { median, least, worst }) = self.p99_rejoin_times {
            let name = "the one times the other";
            writeln!(f, "  {name:<32}{median:>9.2} x   ({least:.2} - {worst:.2})")?;
        }
        let sum = |count: fn(&Failure) -> u64| self.failures.iter().map(count).sum::<u64>();
        writeln!(
            f,
            "  {} writes acknowledged and there, {} of unknown outcome, {} refused; {} connections \
             broken, {} sessions ended",
            sum(|failure| failure.acknowledged),
            sum(|failure| failure.unknown),
            sum(|failure| failure.refused.values().sum()),
            self.disconnects,
            self.expired
        )?;
        for failure in &self.failures {
            let outcome = options.ensemble.fault.blow().outcome();
            write!(f, "  server {} {outcome}: gaps", failure.victim)?;
            failure.gaps_ms.iter().try_for_each(|gap| write!(f, " {gap:.1}"))?;
            write!(f, " ms, ")?;
            if let Some(first_ack_ms) = failure.first_ack_ms {
                write!(f, "first write {first_ack_ms:.1} ms, ")?;
            }
            if let Some(rejoin_ms) = failure.rejoin_ms {
                write!(f, "serving after {rejoin_ms:.1} ms, ")?;
            }
            writeln!(f, "{} broken", failure.disconnects)?;
        }
        for (violation, count) in &self.violations.counts {
            writeln!(f, "  THE SERVERS ARE WRONG: {violation:?} {count} times")?;
        }
        self.violations.examples.iter().try_for_each(|words| writeln!(f, "  {words}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_there() {
        assert_eq!(p99_ms((1..=100).map(|ms| ms * 1000)), Some(99.0));
        assert_eq!(p99_ms([7000].into_iter()), Some(7.0));
        assert_eq!(p99_ms(std::iter::empty()), None);
    }

    #[test]
    fn a_spread_has_the_middle_and_the_ends() {
        let spread = Spread::of([9.0, 1.0, 5.0].into_iter()).unwrap();
        assert_eq!((spread.median, spread.least, spread.worst), (5.0, 1.0, 9.0));
        assert!(Spread::of(std::iter::empty()).is_none());
    }
}
