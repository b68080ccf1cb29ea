//! `sessions`: how fast sessions are opened, whether they are kept, and what one costs.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;

use crate::crowd::{Crowd, Happening};
use crate::load::Target;
use crate::load::report::Latency;
use crate::progress::Progress;
use crate::recorder::histogram;

/// Memory that has not changed for so long has settled; after the longest time it counts as it is.
const SETTLED: Duration = Duration::from_millis(300);
const SETTLING_MAX: Duration = Duration::from_secs(3);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The arguments of `sessions`.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct SessionsOptions {
    #[command(flatten)]
    #[serde(flatten)]
    /// Where.
    pub target: Target,
    /// Sessions to open, each on a connection of its own
    #[arg(short, long, default_value_t = 10_000)]
    pub count: usize,
    /// Seconds to hold them, with pings
    #[arg(short, long, default_value_t = 5.0)]
    pub seconds: f64,
}

/// The figures of `sessions`.
#[derive(Clone, Debug, Serialize)]
pub struct SessionsReport {
    /// What was asked for.
    pub options: SessionsOptions,
    /// Sessions opened per second.
    pub opened_per_s: f64,
    /// From the dial to the session.
    pub open: Latency,
    /// Sessions lost while they were held.
    pub lost: u64,
    /// Seconds that closing all of them took.
    pub close_s: f64,
    /// Growth of the server's resident memory per session, bytes.
    pub memory_bytes: Option<f64>,
    /// The server's CPU time while they were held, as a share of one core.
    pub held_cores: Option<f64>,
}

/// Opens, holds and closes the sessions.
pub fn run(options: &SessionsOptions, progress: &Progress) -> anyhow::Result<SessionsReport> {
    ensure!(options.count > 0, "--count must be at least 1");
    let resident = || options.target.resident().map(|now| now.map(|now| now.all_bytes));
    let before = settled(resident)?;
    let mut open = histogram();
    let begin = Instant::now();
    let hosts = options.target.addresses()?;
    let mut crowd = Crowd::open(hosts, options.count, options.target.timeout_ms, |took| {
        open.saturating_record(took.as_nanos() as u64);
    })?;
    let opened_s = begin.elapsed().as_secs_f64();
    progress.say(&format!("{} sessions in {opened_s:.2} s", options.count));
    let (lost, held_cores) = hold(&mut crowd, options)?;
    let after = resident()?;
    let begin = Instant::now();
    crowd.close()?;
    Ok(SessionsReport {
        options: options.clone(),
        opened_per_s: options.count as f64 / opened_s,
        open: Latency::of(&open),
        lost,
        close_s: begin.elapsed().as_secs_f64(),
        memory_bytes: before
            .zip(after)
            .map(|(before, after)| (after as f64 - before as f64) / options.count as f64),
        held_cores,
    })
}

/// A server's memory once it has stopped growing: what it sets aside at its start is no session's.
fn settled(resident: impl Fn() -> anyhow::Result<Option<u64>>) -> anyhow::Result<Option<u64>> {
    let (begin, mut last, mut since) = (Instant::now(), resident()?, Instant::now());
    while last.is_some() && since.elapsed() < SETTLED && begin.elapsed() < SETTLING_MAX {
        thread::sleep(LOOK_INTERVAL);
        let now = resident()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(last)
}

fn hold(crowd: &mut Crowd, options: &SessionsOptions) -> anyhow::Result<(u64, Option<f64>)> {
    let cpu_time = || options.target.cpu_time();
    let begin = Instant::now();
    let cpu_begin = cpu_time()?;
    let ping_every = options.target.timeout() / 3;
    let (mut lost, mut last_ping) = (0, begin);
    while begin.elapsed().as_secs_f64() < options.seconds {
        if last_ping.elapsed() > ping_every {
            last_ping = Instant::now();
            crowd.ping_all();
        }
        crowd.wait(Duration::from_millis(50), &mut |_, happening, _| {
            lost += u64::from(matches!(happening, Happening::Lost(_)));
        })?;
    }
    let cores = cpu_begin
        .zip(cpu_time()?)
        .map(|(begin, end)| (end - begin).as_secs_f64() / options.seconds.max(0.001));
    Ok((lost, cores))
}

impl fmt::Display for SessionsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        writeln!(f, "sessions: {}, held for {} s", options.count, options.seconds)?;
        writeln!(f, "  {:.0} opened/s; closed in {:.2} s", self.opened_per_s, self.close_s)?;
        writeln!(f, "  open      {}", self.open)?;
        write!(f, "  {} lost", self.lost)?;
        if let (Some(bytes), Some(cores)) = (self.memory_bytes, self.held_cores) {
            write!(f, "; {bytes:.0} bytes of server memory each; held with {cores:.3} cores")?;
        }
        writeln!(f)
    }
}
