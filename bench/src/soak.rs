//! `soak`: a mixed load for hours, cut into stretches, so that drift shows.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;

use crate::load::mix::Mix;
use crate::load::{self, LoadOptions, Target};
use crate::progress::Progress;
use crate::recorder::Violations;

/// Creates of one connection in one stretch.
const STRETCH_CREATES_MAX: u64 = 1_000_000;

/// The arguments of `soak`.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct SoakOptions {
    #[command(flatten)]
    #[serde(flatten)]
    /// Where.
    pub target: Target,
    /// What to do
    #[arg(long, default_value = "get=70,set=20,create-delete=10")]
    pub mix: Mix,
    /// Minutes
    #[arg(short, long, default_value_t = 60.0)]
    pub minutes: f64,
    /// Seconds of one stretch
    #[arg(long, default_value_t = 60.0)]
    pub stretch: f64,
    /// Operations per second (open loop)
    #[arg(long, default_value_t = 5000.0)]
    pub rate: f64,
    /// Connections
    #[arg(short, long, default_value_t = 64)]
    pub connections: usize,
    /// Znodes
    #[arg(long, default_value_t = 100_000)]
    pub keys: u64,
}

/// One stretch.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Stretch {
    /// Minutes since the beginning.
    pub minutes: f64,
    /// Answers per second.
    pub rate_per_s: f64,
    /// Median, microseconds.
    pub p50_us: f64,
    /// 99.9 % were shorter.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
    /// Errors, losses, disconnects and expired sessions.
    pub failures: u64,
    /// The server's resident memory, bytes.
    pub resident_bytes: Option<u64>,
}

/// The figures of `soak`.
#[derive(Clone, Debug, Serialize)]
pub struct SoakReport {
    /// What was asked for.
    pub options: SoakOptions,
    /// In order.
    pub stretches: Vec<Stretch>,
    /// What the server must not do, and did.
    pub violations: Violations,
}

/// Runs stretch after stretch.
pub fn run(options: &SoakOptions, progress: &Progress) -> anyhow::Result<SoakReport> {
    ensure!(options.minutes > 0.0 && options.stretch >= 0.1, "--minutes, --stretch: too short");
    let addresses = options.target.addresses()?;
    let mut load = LoadOptions {
        target: options.target.clone(),
        connections: options.connections,
        depth: 64,
        rate: Some(options.rate),
        seconds: options.stretch,
        warm_up: 0.0,
        keys: options.keys,
        root: "/bench-soak".to_owned(),
        ..LoadOptions::of(options.mix.clone(), addresses[0])
    };
    load::setup::prepare(&load, progress)?;
    let begin = Instant::now();
    let end = Duration::from_secs_f64(options.minutes * 60.0);
    let mut report =
        SoakReport { options: options.clone(), stretches: Vec::new(), violations: <_>::default() };
    while begin.elapsed() < end {
        load.seed += 1;
        // Names of one stretch must not meet those of another that was cut short.
        load.first_created += STRETCH_CREATES_MAX;
        let measured = load::measure(&load, &Progress::new(true), &mut |_| {})?;
        let resident = options.target.resident()?;
        let stretch = Stretch {
            minutes: begin.elapsed().as_secs_f64() / 60.0,
            rate_per_s: measured.rate_per_s,
            p50_us: measured.latency.p50_us,
            p999_us: measured.latency.p999_us,
            max_us: measured.latency.max_us,
            failures: measured.errors.values().sum::<u64>()
                + measured.lost
                + measured.disconnects
                + measured.expired,
            resident_bytes: resident.map(|resident| resident.all_bytes),
        };
        progress.say(&stretch.to_string());
        report.stretches.push(stretch);
        report.violations.merge(&measured.violations);
    }
    load::setup::remove(&load, progress)?;
    Ok(report)
}

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>7.1} min {:>9.0}/s  p50 {:>8.1}  p99.9 {:>9.1}  max {:>9.1} us  {} failures",
            self.minutes, self.rate_per_s, self.p50_us, self.p999_us, self.max_us, self.failures
        )?;
        match self.resident_bytes {
            Some(bytes) => write!(f, "  {:.1} MB", bytes as f64 / 1e6),
            None => Ok(()),
        }
    }
}

impl fmt::Display for SoakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        writeln!(f, "soak: {} at {}/s", options.mix.text, options.rate)?;
        self.stretches.iter().try_for_each(|stretch| writeln!(f, "  {stretch}"))?;
        if let (Some(first), Some(last)) = (self.stretches.first(), self.stretches.last()) {
            write!(f, "  drift: p50 x {:.2}", last.p50_us / first.p50_us)?;
            write!(f, ", p99.9 x {:.2}", last.p999_us / first.p999_us)?;
            if let (Some(before), Some(after)) = (first.resident_bytes, last.resident_bytes) {
                write!(f, ", memory {:+.1} MB", (after as f64 - before as f64) / 1e6)?;
            }
            writeln!(f)?;
        }
        for (violation, count) in &self.violations.counts {
            writeln!(f, "  THE SERVER IS WRONG: {violation:?} {count} times")?;
        }
        Ok(())
    }
}
