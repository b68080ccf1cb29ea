//! `soak`: a mixed load for hours, cut into stretches, so that drift shows; with servers that it
//! starts itself also `kill -9` and restarts, one server after the other.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;
use tempfile::TempDir;

use crate::ensemble::Ensemble;
use crate::load::mix::Mix;
use crate::load::report::LoadReport;
use crate::load::{self, LoadOptions, Target};
use crate::plan::PlanOptions;
use crate::progress::Progress;
use crate::recorder::Violations;
use crate::server::scratch_in;

/// Creates of one connection in one stretch.
const STRETCH_CREATES_MAX: u64 = 1_000_000;

/// The arguments of `soak`.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct SoakOptions {
    #[command(flatten)]
    #[serde(flatten)]
    /// Where.
    pub target: Target,
    #[command(flatten)]
    #[serde(flatten)]
    /// Where the template of --server is.
    pub plan: PlanOptions,
    /// Start this server or ensemble of the plan, in place of using --hosts
    #[arg(long)]
    pub server: Option<String>,
    /// In every so many stretches, kill -9 one of the processes, each in its turn, and start it
    /// again
    #[arg(long, requires = "server")]
    pub restart_every: Option<usize>,
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
    /// What was killed and started again in it.
    pub restart: Option<Restart>,
    /// The server's resident memory, bytes.
    pub resident_bytes: Option<u64>,
}

/// One kill -9.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Restart {
    /// Which server, from 1.
    pub server: usize,
    /// The time around the killing in which no connection had an answer, milliseconds.
    pub gap_ms: u64,
    /// From starting the process to the first answer, milliseconds.
    pub served_ms: f64,
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

/// Starts the servers of a template, in a directory that is removed with them.
fn start(options: &SoakOptions, name: &str) -> anyhow::Result<(Ensemble, TempDir)> {
    let plan = options.plan.read()?;
    let scratch = scratch_in(&options.plan.directory)?;
    let variables = options.plan.variables(&plan);
    let mut ensemble = Ensemble::prepare(plan.template(name)?, &variables, scratch.path())?;
    ensemble.start()?;
    Ok((ensemble, scratch))
}

/// A stretch in the middle of which a server is killed, and started again.
fn measure_with_restart(
    ensemble: &mut Ensemble,
    index: usize,
    load: &mut LoadOptions,
) -> anyhow::Result<(LoadReport, Restart)> {
    // The CPU time of a process that is gone cannot be asked for.
    load.target.server_pid.clear();
    let server = &mut ensemble.servers[index];
    let middle = Duration::from_secs_f64(load.seconds / 2.0);
    let kill = || {
        let killed = Instant::now();
        server.kill()?;
        server.start()?;
        Ok((killed, server.wait_serving()?))
    };
    let ((killed, served), measured) =
        load::measure_beside(load, &Progress::new(true), middle, kill)?;
    load.target.server_pid = ensemble.pids();
    let restart = Restart {
        server: index + 1,
        gap_ms: measured.silence_after(killed).length_ms,
        served_ms: served.as_secs_f64() * 1e3,
    };
    Ok((measured, restart))
}

/// Runs stretch after stretch.
pub fn run(options: &SoakOptions, progress: &Progress) -> anyhow::Result<SoakReport> {
    ensure!(options.minutes > 0.0 && options.stretch >= 0.1, "--minutes, --stretch: too short");
    ensure!(options.restart_every != Some(0), "--restart-every must be at least 1");
    let mut own = options.server.as_ref().map(|name| start(options, name)).transpose()?;
    let mut target = options.target.clone();
    if let Some((ensemble, _)) = &own {
        let started = Target::of_all(&ensemble.addresses(), ensemble.pids());
        target = Target { timeout_ms: target.timeout_ms, ..started };
    }
    let addresses = target.addresses()?;
    let mut load = LoadOptions {
        target,
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
        let number = report.stretches.len() + 1;
        let (measured, restart) = match (&mut own, options.restart_every) {
            (Some((ensemble, _)), Some(every)) if number.is_multiple_of(every) => {
                let index = (number / every - 1) % ensemble.servers.len();
                let (measured, restart) = measure_with_restart(ensemble, index, &mut load)?;
                (measured, Some(restart))
            }
            _ => (load::measure(&load, &Progress::new(true), &mut |_| {})?, None),
        };
        let resident = load.target.resident()?;
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
            restart,
            resident_bytes: resident.map(|resident| resident.all_bytes),
        };
        progress.say(&stretch.to_string());
        report.stretches.push(stretch);
        report.violations.merge(&measured.violations);
    }
    load::setup::remove(&load, progress)?;
    if let Some((ensemble, _)) = &mut own {
        ensemble.servers.iter_mut().try_for_each(|server| server.stop())?;
    }
    Ok(report)
}

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>7.1} min {:>9.0}/s  p50 {:>8.1}  p99.9 {:>9.1}  max {:>9.1} us  {} failures",
            self.minutes, self.rate_per_s, self.p50_us, self.p999_us, self.max_us, self.failures
        )?;
        if let Some(bytes) = self.resident_bytes {
            write!(f, "  {:.1} MB", bytes as f64 / 1e6)?;
        }
        let Some(Restart { server, gap_ms, served_ms }) = self.restart else { return Ok(()) };
        write!(f, "  server {server} killed: gap {gap_ms} ms, back after {served_ms:.0} ms")
    }
}

impl fmt::Display for SoakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        writeln!(f, "soak: {} at {}/s", options.mix.text, options.rate)?;
        self.stretches.iter().try_for_each(|stretch| writeln!(f, "  {stretch}"))?;
        // What a restart does to its own stretch is no drift.
        let mut calm = self.stretches.iter().filter(|stretch| stretch.restart.is_none());
        if let (Some(first), Some(last)) = (calm.next(), calm.next_back()) {
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
