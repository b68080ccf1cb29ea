//! `load`: a ratio of operations at a depth or at a rate, measured over a window.

pub mod created;
pub mod generator;
pub mod keys;
pub mod mix;
pub mod report;
pub mod schedule;
pub mod setup;
pub mod window;
pub mod worker;

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use self::generator::Generator;
use self::keys::{Distribution, Keyspace, Picker};
use self::mix::Mix;
use self::report::LoadReport;
use self::schedule::Schedule;
use self::window::{SECOND_NS, Settings, Window};
use self::worker::Worker;
use crate::cpu::{self, Resident};
use crate::progress::Progress;
use crate::recorder::Interval;

/// Where the servers are, and how sessions to them are opened.
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Target {
    /// Servers, as host:port, separated by commas; connections are spread over them
    #[arg(long, default_value = "127.0.0.1:2181", value_delimiter = ',')]
    pub hosts: Vec<String>,
    /// Session timeout that is asked for, milliseconds
    #[arg(long, default_value_t = 30_000)]
    pub timeout_ms: i32,
    /// Process ids of the servers, separated by commas, to report their CPU time and memory
    #[arg(long, value_delimiter = ',')]
    pub server_pid: Vec<u32>,
}

impl Target {
    /// One server, with the usual session timeout.
    pub fn of(address: SocketAddr) -> Self {
        Self::of_all(&[address], Vec::new())
    }

    /// Servers and their processes, with the usual session timeout.
    pub fn of_all(addresses: &[SocketAddr], server_pid: Vec<u32>) -> Self {
        let hosts = addresses.iter().map(SocketAddr::to_string).collect();
        Self { hosts, timeout_ms: 30_000, server_pid }
    }

    /// The servers' CPU time together, if their processes are known.
    pub fn cpu_time(&self) -> anyhow::Result<Option<Duration>> {
        cpu::processes_time(&self.server_pid)
    }

    /// The servers' memory together, if their processes are known.
    pub fn resident(&self) -> anyhow::Result<Option<Resident>> {
        cpu::processes_resident(&self.server_pid)
    }

    /// One address per host.
    pub fn addresses(&self) -> anyhow::Result<Vec<SocketAddr>> {
        let find = |host: &String| {
            let mut found =
                host.to_socket_addrs().with_context(|| format!("unknown host {host}"))?;
            found.next().with_context(|| format!("{host} has no address"))
        };
        self.hosts.iter().map(find).collect()
    }

    /// The session timeout.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.unsigned_abs().into())
    }
}

/// What is done how often: the arguments of `load`.
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct LoadOptions {
    /// What to do: create, set, get, exists, children, create-delete, multi, sync, or a ratio
    /// such as get=90,set=10
    pub mix: Mix,
    #[command(flatten)]
    #[serde(flatten)]
    /// Where.
    pub target: Target,
    /// Connections (each a session)
    #[arg(short, long, default_value_t = 1)]
    pub connections: usize,
    /// Requests under way per connection
    #[arg(short, long, default_value_t = 1)]
    pub depth: usize,
    /// Threads of this program
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Operations per second over all connections (open loop); without it the next request of a
    /// connection is made when a reply arrives (closed loop)
    #[arg(long)]
    pub rate: Option<f64>,
    /// Seconds that are measured
    #[arg(short, long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Seconds of the same load before that
    #[arg(long, default_value_t = 1.0)]
    pub warm_up: f64,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    pub value_bytes: usize,
    /// Znodes that are read and set
    #[arg(long, default_value_t = 1000)]
    pub keys: u64,
    /// How they are drawn: uniform, sequential, zipf:EXPONENT
    #[arg(long, default_value = "uniform")]
    pub distribution: Distribution,
    /// Znodes per directory
    #[arg(long, default_value_t = 1000)]
    pub per_directory: u64,
    /// Bytes of a path
    #[arg(long, default_value_t = 30)]
    pub path_bytes: usize,
    /// setData operations in one multi
    #[arg(long, default_value_t = 10)]
    pub multi_ops: u32,
    /// The znode below which everything happens
    #[arg(long, default_value = "/bench")]
    pub root: String,
    /// Leave the znodes there at the end
    #[arg(long)]
    pub keep: bool,
    /// Seed of every random draw
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Number of the last create before this load; for loads that follow each other.
    #[arg(skip)]
    #[serde(skip)]
    pub first_created: u64,
}

impl LoadOptions {
    /// The defaults of the command line.
    pub fn of(mix: Mix, address: SocketAddr) -> Self {
        Self {
            mix,
            target: Target::of(address),
            connections: 1,
            depth: 1,
            threads: 1,
            rate: None,
            seconds: 5.0,
            warm_up: 1.0,
            value_bytes: 100,
            keys: 1000,
            distribution: Distribution::Uniform,
            per_directory: 1000,
            path_bytes: 30,
            multi_ops: 10,
            root: "/bench".to_owned(),
            keep: false,
            seed: 1,
            first_created: 0,
        }
    }

    /// The znodes it works on.
    pub fn keyspace(&self) -> Keyspace {
        Keyspace::new(&self.root, self.keys, self.per_directory, self.path_bytes)
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.connections > 0, "--connections must be at least 1");
        ensure!(self.depth > 0, "--depth must be at least 1");
        ensure!(
            (1..=self.connections).contains(&self.threads),
            "--threads must be from 1 to the number of connections"
        );
        ensure!(self.seconds >= 0.1, "--seconds must be at least 0.1");
        ensure!(self.warm_up >= 0.0, "--warm-up must not be negative");
        ensure!(self.rate.is_none_or(|rate| rate > 0.0), "--rate must be more than 0");
        ensure!(self.keys > 0, "--keys must be at least 1");
        ensure!(self.multi_ops > 0, "--multi-ops must be at least 1");
        ensure!(self.root.starts_with('/') && self.root.len() > 1, "--root must be a path");
        ensure!(self.timeout_ms() > 0, "--timeout-ms must be more than 0");
        Ok(())
    }

    fn timeout_ms(&self) -> i32 {
        self.target.timeout_ms
    }

    fn generator(&self, thread: usize) -> Generator {
        let first = self.keys / self.threads as u64 * thread as u64;
        Generator::new(
            self.keyspace(),
            self.mix.clone(),
            Picker::new(self.distribution, self.keys, first),
            self.multi_ops,
            self.value_bytes,
            self.seed.wrapping_add(thread as u64),
        )
    }
}

/// Prepares the znodes, runs the load, removes them and reports.
pub fn run(options: &LoadOptions, progress: &Progress) -> anyhow::Result<LoadReport> {
    options.check()?;
    setup::prepare(options, progress)?;
    let report = measure(options, progress, &mut |_| {})?;
    if !options.keep {
        setup::remove(options, progress)?;
    }
    Ok(report)
}

/// Runs the load, and does something beside it, so long after requests began.
pub fn measure_beside<T>(
    options: &LoadOptions,
    progress: &Progress,
    after: Duration,
    strike: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, LoadReport)> {
    let (begun, begin) = mpsc::channel();
    let (struck, measured) = thread::scope(|scope| {
        let loading = scope
            .spawn(move || measure(options, progress, &mut |_| begun.send(()).unwrap_or_default()));
        let struck = begin.recv().context("the load did not begin").and_then(|()| {
            thread::sleep(after);
            strike()
        });
        (struck, loading.join().expect("a load does not panic"))
    });
    Ok((struck?, measured?))
}

/// Runs the load on znodes that are there. `started` is told the instant when requests begin.
pub fn measure(
    options: &LoadOptions,
    progress: &Progress,
    started: &mut dyn FnMut(Instant),
) -> anyhow::Result<LoadReport> {
    let settings = Settings {
        hosts: options.target.addresses()?,
        depth: options.depth,
        timeout_ms: options.target.timeout_ms,
        first_created: options.first_created,
    };
    let clock = Instant::now();
    let (to_main, intervals) = mpsc::channel();
    let (to_gate, gate) = mpsc::channel();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads)
            .map(|index| {
                let (settings, to_main, to_gate) =
                    (settings.clone(), to_main.clone(), to_gate.clone());
                scope.spawn(move || {
                    let (begin, window) = mpsc::channel();
                    let numbers = (index..options.connections).step_by(options.threads);
                    let numbers = numbers.map(|number| number as u64);
                    let generator = options.generator(index);
                    let worker = Worker::connect(settings, clock, numbers, generator, to_main);
                    let worker = match worker {
                        Ok(worker) => worker,
                        Err(error) => {
                            drop(to_gate);
                            return Err(error);
                        }
                    };
                    to_gate.send(begin).context("the run was given up")?;
                    drop(to_gate);
                    let (window, schedule) = window.recv().context("the run was given up")?;
                    worker.run(window, schedule)
                })
            })
            .collect();
        drop((to_main, to_gate));
        let ready: Vec<mpsc::Sender<_>> = gate.iter().collect();
        let begin_ns = clock.elapsed().as_nanos() as u64;
        let window = window_from(options, begin_ns);
        let mut gathered = None;
        if ready.len() == options.threads {
            started(Instant::now());
            for (index, begin) in ready.iter().enumerate() {
                let schedule = options.rate.map(|rate| {
                    let phase = index as f64 / options.threads as f64;
                    Schedule::new(begin_ns, rate / options.threads as f64, phase)
                });
                begin.send((window, schedule)).context("a thread is gone")?;
            }
            gathered = Some(gather(options, clock, window, &intervals, progress)?);
        }
        drop(ready);
        let mut ends = Vec::new();
        for thread in threads {
            ends.push(thread.join().expect("threads of a load do not panic")?);
        }
        let gathered = gathered.context("some threads could not connect")?;
        Ok(LoadReport::new(options, gathered, &ends))
    })
}

/// What the main thread has at the end of a run.
#[derive(Debug)]
pub struct Gathered {
    /// One interval per second, all threads together.
    pub intervals: Vec<Interval>,
    /// CPU time of the server in the window.
    pub server_cpu: Option<Duration>,
    /// When the window began.
    pub start: Instant,
}

fn window_from(options: &LoadOptions, begin_ns: u64) -> Window {
    let start_ns = begin_ns + (options.warm_up * SECOND_NS as f64) as u64;
    let end_ns = start_ns + (options.seconds * SECOND_NS as f64) as u64;
    let grace_ns = (options.seconds * SECOND_NS as f64) as u64;
    let stop_ns = end_ns + grace_ns.clamp(SECOND_NS, 10 * SECOND_NS);
    Window { start_ns, end_ns, stop_ns }
}

/// Takes the intervals of all threads, and the server's CPU time at the window's ends.
fn gather(
    options: &LoadOptions,
    clock: Instant,
    window: Window,
    intervals: &mpsc::Receiver<Interval>,
    progress: &Progress,
) -> anyhow::Result<Gathered> {
    let server_cpu = || options.target.cpu_time();
    let mut merged: Vec<Interval> = Vec::new();
    let (mut cpu_start, mut cpu) = (None, None);
    loop {
        let now = clock.elapsed().as_nanos() as u64;
        if now >= window.start_ns && cpu_start.is_none() {
            cpu_start = server_cpu()?;
        }
        if now >= window.end_ns && cpu.is_none() {
            cpu = server_cpu().unwrap_or_default();
        }
        let next = if now < window.start_ns { window.start_ns } else { window.end_ns };
        let wait = if now < next { next - now } else { SECOND_NS };
        match intervals.recv_timeout(Duration::from_nanos(wait)) {
            Ok(interval) => {
                let second = interval.second as usize;
                while merged.len() <= second {
                    merged.push(Interval::new(merged.len() as u64));
                }
                merged[second].merge(&interval);
                progress.rate(second, &merged[second]);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    let server_cpu = cpu_start.zip(cpu).map(|(start, end)| end.saturating_sub(start));
    let start = clock + Duration::from_nanos(window.start_ns);
    Ok(Gathered { intervals: merged, server_cpu, start })
}
