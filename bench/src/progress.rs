//! What the program says while it runs: one line per step and per second, on standard error.

use crate::recorder::Interval;

/// Says what happens, or keeps quiet.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    quiet: bool,
}

impl Progress {
    /// Talks unless `quiet`.
    pub fn new(quiet: bool) -> Self {
        Self { quiet }
    }

    /// One line.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            eprintln!("ringkeeper-bench: {line}");
        }
    }

    /// The rate and the worst of one second, so far.
    pub fn rate(&self, second: usize, interval: &Interval) {
        if self.quiet {
            return;
        }
        let latencies = interval.tally.all_latencies();
        let errors = interval.tally.errors_count();
        eprintln!(
            "  {second:>4} s  {:>9} ops  p50 {:>9.1} us  max {:>9.1} us{}",
            interval.completions(),
            latencies.value_at_quantile(0.5) as f64 / 1e3,
            latencies.max() as f64 / 1e3,
            if errors == 0 { String::new() } else { format!("  {errors} errors") },
        );
    }
}
