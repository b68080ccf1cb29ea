//! `limits`: what this machine allows, so that a figure can be stated as a multiple of it.
//!
//! A durable setData cannot be faster than a loopback round trip of its bytes plus one durable
//! append; a restart not faster than mapping and checking the state; a client cannot learn of a
//! killed server before the kernel has torn its memory down. And what this program costs itself.

pub mod append;
pub mod client;
pub mod close;
pub mod echo;
pub mod fanout;
pub mod map;
pub mod wake;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

pub use self::client::ClientCost;
use crate::load::report::Latency;
use crate::progress::Progress;
use crate::recorder::histogram;

/// The arguments of `limits`.
#[derive(Clone, Debug, clap::Args)]
pub struct LimitsOptions {
    /// Which floors: append, echo, fanout, wake, map, close, client; all of them by default
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<Group>,
    /// A directory on the disk that the server's log would be on
    #[arg(long, default_value = ".")]
    pub directory: PathBuf,
    /// Files that are appended to at once, each by a thread: servers that share a disk, as the
    /// members of an ensemble on one machine do
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub appenders: u16,
    /// Seconds for each figure
    #[arg(short, long, default_value_t = 1.0)]
    pub seconds: f64,
    /// Connections that a fan-out reaches
    #[arg(long, default_value_t = 1000)]
    pub fanout: usize,
    /// Megabytes of the file that is mapped and checked (140 is about a million znodes)
    #[arg(long, default_value_t = 140)]
    pub map_mb: usize,
    /// Megabytes that a process holds when it is killed
    #[arg(long, value_delimiter = ',', default_value = "16,300,1000")]
    pub close_mb: Vec<usize>,
}

/// A family of floors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// A durable append of one block, by each way of doing it.
    Append,
    /// A round trip over loopback, by the bytes of a getData and of a setData.
    Echo,
    /// A message to each of many connections, by the bytes of a watch event.
    Fanout,
    /// A message to a thread that sleeps.
    Wake,
    /// Mapping and checking a file.
    Map,
    /// From kill -9 to the peer's end of file.
    Close,
    /// What the load generator itself costs; no floor of a server's.
    Client,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Append, Self::Echo, Self::Fanout, Self::Wake, Self::Map, Self::Close, Self::Client];
}

/// One floor.
#[derive(Clone, Debug, Serialize)]
pub struct Floor {
    /// Its family.
    pub group: Group,
    /// How it is done.
    pub way: String,
    /// How long it takes.
    pub latency: Latency,
}

/// All floors of one run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LimitsReport {
    /// In the order of measuring.
    pub floors: Vec<Floor>,
    /// The load generator's own cost.
    pub client: Vec<ClientCost>,
    /// What could not be measured here, and why.
    pub missing: Vec<String>,
}

impl LimitsReport {
    /// Adds a floor, or why there is none.
    fn add(
        &mut self,
        group: Group,
        way: impl Into<String>,
        measured: anyhow::Result<Histogram<u64>>,
    ) {
        let way = way.into();
        match measured {
            Ok(latency) => {
                self.floors.push(Floor { group, way, latency: Latency::of(&latency) });
            }
            Err(error) => self.missing.push(format!("{way}: {error:#}")),
        }
    }

    /// The lowest median of those floors of a family whose way begins with `way`, microseconds.
    pub fn best_us(&self, group: Group, way: &str) -> Option<f64> {
        let of_group =
            self.floors.iter().filter(|floor| floor.group == group && floor.way.starts_with(way));
        of_group.map(|floor| floor.latency.p50_us).min_by(f64::total_cmp)
    }
}

/// Measures the floors one after the other.
pub fn run(options: &LimitsOptions, progress: &Progress) -> anyhow::Result<LimitsReport> {
    let mut report = LimitsReport::default();
    let time = Duration::from_secs_f64(options.seconds.max(0.01));
    for group in Group::ALL {
        if !options.only.is_empty() && !options.only.contains(&group) {
            continue;
        }
        progress.say(&format!("measuring: {group:?}"));
        match group {
            Group::Append => {
                append::measure(&options.directory, options.appenders, time, &mut report)?;
            }
            Group::Echo => echo::measure(time, &mut report),
            Group::Fanout => fanout::measure(options.fanout, time, &mut report),
            Group::Wake => wake::measure(time, &mut report),
            Group::Map => map::measure(&options.directory, options.map_mb, &mut report)?,
            Group::Close => close::measure(&options.close_mb, &mut report),
            Group::Client => client::measure(time, &mut report)?,
        }
    }
    Ok(report)
}

/// Repeats `work` for `time`, a first tenth of it unmeasured.
fn repeat(
    time: Duration,
    mut work: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Histogram<u64>> {
    let mut latencies = histogram();
    let begin = Instant::now();
    let mut last = begin;
    while last - begin < time {
        work()?;
        let now = Instant::now();
        if now - begin > time / 10 {
            latencies.saturating_record((now - last).as_nanos() as u64);
        }
        last = now;
    }
    Ok(latencies)
}

impl fmt::Display for LimitsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut group = None;
        for floor in &self.floors {
            if group != Some(floor.group) {
                group = Some(floor.group);
                writeln!(f, "{:?}", floor.group)?;
            }
            let Latency { count, min_us, p50_us, p99_us, max_us, .. } = floor.latency;
            writeln!(
                f,
                "  {:<52} p50 {p50_us:>9.1}  min {min_us:>8.1}  p99 {p99_us:>9.1}  \
                 max {max_us:>9.1} us  ({count})",
                floor.way
            )?;
        }
        if !self.client.is_empty() {
            writeln!(f, "Client")?;
        }
        for cost in &self.client {
            writeln!(f, "  {cost}")?;
        }
        for missing in &self.missing {
            writeln!(f, "not measured: {missing}")?;
        }
        Ok(())
    }
}
