//! What runs were worth: counts of one, and the sum over many.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::coverage::Coverage;

/// A run with fewer operations answered does not count.
const ANSWERS_MIN: u64 = 100;

/// What happened in a run, counted.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Events.
    pub events: u64,
    /// Faults of each kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// What servers were left with while the others became well.
    pub ailments: BTreeMap<&'static str, u64>,
    /// How servers ended.
    pub ends: BTreeMap<&'static str, u64>,
    /// How often a server became an established leader.
    pub leaderships: u64,
    /// Logs that were cut.
    pub truncations: u64,
    /// Trees that were replaced by a leader's.
    pub replacements: u64,
    /// Learners that were brought up to date from the log's files.
    pub readings: u64,
    /// How often a learner left what its leader sent in its socket, because its disk was behind.
    pub held_back: u64,
    /// Operations that clients had answers to, by kind.
    pub answers: BTreeMap<&'static str, u64>,
    /// What passed between servers.
    pub coverage: Coverage,
}

impl Stats {
    /// Operations that clients had answers to.
    pub fn answered(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Whether the run counts: it had an election besides the first, a log that was cut or a tree
    /// that was replaced, and clients that were served.
    pub fn is_worthy(&self) -> bool {
        self.leaderships > 1
            && self.truncations + self.replacements > 0
            && self.answered() >= ANSWERS_MIN
    }

    fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.leaderships += other.leaderships;
        self.truncations += other.truncations;
        self.replacements += other.replacements;
        self.readings += other.readings;
        self.held_back += other.held_back;
        for (into, from) in [
            (&mut self.faults, &other.faults),
            (&mut self.ailments, &other.ailments),
            (&mut self.ends, &other.ends),
            (&mut self.answers, &other.answers),
        ] {
            for (kind, count) in from {
                *into.entry(kind).or_default() += count;
            }
        }
        self.coverage.add(&other.coverage);
    }
}

/// Many runs together.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How many there were.
    pub seeds: u64,
    /// How many of them count.
    pub worthy: u64,
    /// Those that failed, and how.
    pub failed: BTreeMap<u64, String>,
    total: Stats,
}

impl Summary {
    /// A run has ended well.
    pub fn add(&mut self, stats: &Stats) {
        self.seeds += 1;
        self.worthy += u64::from(stats.is_worthy());
        self.total.add(stats);
    }

    /// A run has failed.
    pub fn add_failure(&mut self, seed: u64, message: String) {
        self.seeds += 1;
        self.failed.insert(seed, message);
    }

    /// A table of it all.
    pub fn table(&self, took: Duration, threads: usize) -> String {
        let rate = self.seeds as f64 / took.as_secs_f64() / threads as f64;
        format!(
            "seeds: {}, {} of them worthy, {} failed; {:.0} s on {threads} threads, {rate:.1} per \
             second and thread\n{self}",
            self.seeds,
            self.worthy,
            self.failed.len(),
            took.as_secs_f64()
        )
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { events, leaderships, truncations, replacements, .. } = &self.total;
        writeln!(f, "events: {events}")?;
        writeln!(
            f,
            "leaderships: {leaderships}, truncations: {truncations}, replacements: {replacements}"
        )?;
        let Stats { readings, held_back, .. } = &self.total;
        writeln!(f, "brought up to date from the log: {readings}, held back: {held_back}")?;
        writeln!(f, "faults: {:?}", self.total.faults)?;
        writeln!(f, "left ill at first: {:?}", self.total.ailments)?;
        writeln!(f, "ends of servers: {:?}", self.total.ends)?;
        writeln!(f, "operations answered: {:?}", self.total.answers)?;
        write!(f, "messages between servers:\n{}", self.total.coverage)
    }
}
