//! `recovery`: kill -9 of a server with N znodes, restart, and when the first session is served.
//!
//! The server is started from a plan's template and filled. Under load the killing hits a stream
//! of creates; afterwards every create that was acknowledged must be there, and the filled tree
//! too. The clients of the load stay and come back, so that the gap that they saw is known.

use std::fmt;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use engine::error_code::ErrorCode;
use engine::op::OpCode;
use serde::Serialize;

use crate::client::Client;
use crate::cpu::{self, Resident};
use crate::failover::EnsembleOptions;
use crate::fill::{self, FillOptions};
use crate::load::created::Created;
use crate::load::keys::Keyspace;
use crate::load::report::LoadReport;
use crate::load::{self, LoadOptions, Target};
use crate::plan::PlanOptions;
use crate::progress::Progress;
use crate::recorder::{Violation, Violations};
use crate::server::{Server, scratch_in};
use crate::wire;

/// Where the filled znodes are.
const FILL_ROOT: &str = "/fill";
/// Znodes that a single server holds.
const ZNODES: u64 = 1_000_000;
/// Znodes whose contents are read again after a restart.
const SAMPLES: u64 = 20_000;
/// When the killing comes, as a share of the load's time.
const KILL_AT: f64 = 0.5;

/// The arguments of `recovery`.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct RecoveryOptions {
    #[command(flatten)]
    #[serde(flatten)]
    /// Where the template is.
    pub plan: PlanOptions,
    /// Which server of the plan
    #[arg(long, default_value = "ringkeeper")]
    pub server: String,
    /// Znodes that it holds [default: 1000000, in an ensemble 0]
    #[arg(short, long)]
    pub znodes: Option<u64>,
    /// Kill it while nothing happens, in place of under a load of creates (one server)
    #[arg(long)]
    pub idle: bool,
    /// Seconds that nothing happens before it is killed idle: what a server does in the background
    /// after a fill or a restart is over then
    #[arg(long, default_value_t = 3.0)]
    pub idle_seconds: f64,
    /// Drop its files from the page cache before the restart
    #[arg(long)]
    pub cold: bool,
    /// How often it is killed
    #[arg(short, long, default_value_t = 3)]
    pub repeats: usize,
    /// Connections of the load (one server)
    #[arg(short, long, default_value_t = 64)]
    pub connections: usize,
    /// Requests under way per connection (one server)
    #[arg(short, long, default_value_t = 16)]
    pub depth: usize,
    /// Seconds of load, the killing in the middle
    #[arg(short, long, default_value_t = 4.0)]
    pub seconds: f64,
    #[command(flatten)]
    /// What is done to an ensemble.
    pub ensemble: EnsembleOptions,
}

impl RecoveryOptions {
    /// Whether the template is an ensemble.
    pub fn is_of_ensemble(&self) -> anyhow::Result<bool> {
        Ok(self.plan.read()?.template(&self.server)?.servers > 1)
    }
}

/// One killing.
#[derive(Clone, Debug, Serialize)]
pub struct Killing {
    /// From kill -9 to the end of file that an idle client saw, milliseconds.
    pub close_ms: f64,
    /// From starting the process to the first answer that any client got, milliseconds.
    pub served_ms: f64,
    /// The time around the killing in which the load had no answer, milliseconds.
    pub gap_ms: Option<u64>,
    /// Whether it lasted until the load ended, so that it may be longer.
    pub gap_open: bool,
    /// Creates that were acknowledged before and after, and looked for.
    pub acknowledged: u64,
    /// Creates that were under way when the connection broke.
    pub unknown: u64,
    /// Memory of the new process when it served.
    pub resident: Option<Resident>,
}

/// The figures of `recovery`.
#[derive(Clone, Debug, Serialize)]
pub struct RecoveryReport {
    /// What was asked for.
    pub options: RecoveryOptions,
    /// Median of [`Killing::served_ms`].
    pub served_ms: f64,
    /// Median of [`Killing::close_ms`].
    pub close_ms: f64,
    /// Every killing.
    pub killings: Vec<Killing>,
    /// What the server lost.
    pub violations: Violations,
    /// The loads, for pictures.
    #[serde(skip)]
    pub loads: Vec<LoadReport>,
}

/// Fills, kills, restarts and checks.
pub fn run(options: &RecoveryOptions, progress: &Progress) -> anyhow::Result<RecoveryReport> {
    ensure!(options.repeats > 0, "--repeats must be at least 1");
    ensure!(options.idle_seconds >= 0.0, "--idle-seconds must not be negative");
    let plan = options.plan.read()?;
    let template = plan.template(&options.server)?;
    let scratch = scratch_in(&options.plan.directory)?;
    let variables = options.plan.variables(&plan);
    let mut server = Server::prepare(template, &variables, scratch.path())?;
    server.start()?;
    server.wait_serving()?;
    let znodes = options.znodes.unwrap_or(ZNODES);
    let filled = fill_options(znodes, Target::of(server.address));
    fill::run(&filled, progress)?;
    let mut report = RecoveryReport {
        options: options.clone(),
        served_ms: 0.0,
        close_ms: 0.0,
        killings: Vec::new(),
        violations: Violations::default(),
        loads: Vec::new(),
    };
    for number in 0..options.repeats {
        progress.say(&format!("killing {} of {}", number + 1, options.repeats));
        let killing = if options.idle {
            thread::sleep(Duration::from_secs_f64(options.idle_seconds));
            kill_and_restart(&mut server, options)?.0
        } else {
            kill_under_load(&mut server, options, number, progress, &mut report)?
        };
        check_filled(server.address, &filled.keyspace(), &mut report.violations)?;
        report.killings.push(killing);
    }
    report.served_ms = median(report.killings.iter().map(|killing| killing.served_ms).collect());
    report.close_ms = median(report.killings.iter().map(|killing| killing.close_ms).collect());
    server.stop()?;
    Ok(report)
}

/// The middle one; the mean of the two in the middle of an even count.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

/// The tree that a server holds before anything is done to it.
pub fn fill_options(znodes: u64, target: Target) -> FillOptions {
    FillOptions {
        target,
        znodes,
        connections: 4,
        multi: 1,
        value_bytes: 100,
        per_directory: 1000,
        path_bytes: 30,
        root: FILL_ROOT.to_owned(),
        settle: 0.0,
    }
}

fn kill_and_restart(
    server: &mut Server,
    options: &RecoveryOptions,
) -> anyhow::Result<(Killing, Moments)> {
    let mut witness = Client::connect(server.address, Duration::from_secs(30))?.into_stream();
    let killed = Instant::now();
    let close = thread::spawn(move || wait_end(&mut witness).map(|()| killed.elapsed()));
    server.kill()?;
    let close = close.join().expect("waiting for an end does not panic")?;
    if options.cold {
        server.drop_page_cache()?;
    }
    let started = Instant::now();
    server.start()?;
    server.wait_serving()?;
    let served = started.elapsed();
    let killing = Killing {
        close_ms: close.as_secs_f64() * 1e3,
        served_ms: served.as_secs_f64() * 1e3,
        gap_ms: None,
        gap_open: false,
        acknowledged: 0,
        unknown: 0,
        resident: server.pid().map(cpu::resident).transpose()?,
    };
    Ok((killing, Moments { killed, started }))
}

/// When a server was killed, and when it was started again.
#[derive(Clone, Copy, Debug)]
struct Moments {
    killed: Instant,
    started: Instant,
}

/// Waits until the other side closes the connection.
pub fn wait_end(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut buf = [0; 256];
    loop {
        match stream.read(&mut buf) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Err(error).context("the connection stays open");
            }
            Err(_) => return Ok(()),
        }
    }
}

fn kill_under_load(
    server: &mut Server,
    options: &RecoveryOptions,
    number: usize,
    progress: &Progress,
    report: &mut RecoveryReport,
) -> anyhow::Result<Killing> {
    let load = LoadOptions {
        connections: options.connections,
        depth: options.depth,
        seconds: options.seconds,
        warm_up: 0.5,
        root: format!("/load{number}"),
        ..LoadOptions::of("create".parse().expect("a known mix"), server.address)
    };
    load::setup::prepare(&load, progress)?;
    let middle = Duration::from_secs_f64(load.warm_up + load.seconds * KILL_AT);
    let ((mut killing, moments), measured) =
        load::measure_beside(&load, progress, middle, || kill_and_restart(server, options))?;
    let silence = measured.silence_after(moments.killed);
    killing.gap_ms = Some(silence.length_ms);
    killing.gap_open = silence.end.is_none();
    // The load's clients may have been served before the probe was.
    if let Some(end) = silence.end.filter(|end| *end > moments.started) {
        killing.served_ms = killing.served_ms.min((end - moments.started).as_secs_f64() * 1e3);
    }
    for created in &measured.created {
        killing.acknowledged += created.acknowledged_count();
        killing.unknown += created.unknown_count();
    }
    check_created(server, &load.keyspace(), &measured.created, &mut report.violations)?;
    report.violations.merge(&measured.violations);
    report.loads.push(measured);
    Ok(killing)
}

/// Every acknowledged create must be there.
fn check_created(
    server: &Server,
    keys: &Keyspace,
    created: &[Created],
    violations: &mut Violations,
) -> anyhow::Result<()> {
    let mut client = Client::connect(server.address, Duration::from_secs(30))?;
    for connection in created {
        let mut path = Vec::new();
        keys.created_directory(connection.connection, &mut path);
        let path = String::from_utf8(path).context("paths of a load are text")?;
        let mut there: Vec<u64> =
            client.children(&path)?.iter().filter_map(|name| name.parse().ok()).collect();
        there.sort_unstable();
        for number in connection.acknowledged() {
            if there.binary_search(&number).is_err() {
                violations.add(Violation::LostWrite, || format!("{path}/{number} is gone"));
            }
        }
    }
    client.close()
}

/// The filled znodes must be there, with their contents.
pub fn check_filled(
    address: SocketAddr,
    keys: &Keyspace,
    violations: &mut Violations,
) -> anyhow::Result<()> {
    let mut client = Client::connect(address, Duration::from_secs(30))?;
    let count = keys.count.min(SAMPLES);
    let key_of = |sample: u64| sample * (keys.count / count.max(1)).max(1);
    let mut path = Vec::new();
    client.pipeline(
        count,
        |sample, xid, out| {
            path.clear();
            keys.path(key_of(sample), &mut path);
            wire::request(out, xid, OpCode::GetData, |w| wire::read_body(w, &path, false));
        },
        |sample, header, body| {
            let key = key_of(sample);
            if header.err == ErrorCode::NoNode.to_wire() {
                violations.add(Violation::LostWrite, || format!("filled znode {key} is gone"));
            } else if header.err != 0 || body.get(4..12) != Some(&key.to_be_bytes()) {
                violations.add(Violation::WrongContent, || format!("filled znode {key}"));
            }
            Ok(())
        },
    )?;
    client.close()
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        writeln!(
            f,
            "recovery: {}, {} znodes, killed {}, page cache {}",
            options.server,
            options.znodes.unwrap_or(ZNODES),
            if options.idle { "idle" } else { "under creates" },
            if options.cold { "dropped" } else { "warm" }
        )?;
        writeln!(f, "  first served after {:.1} ms (median)", self.served_ms)?;
        for killing in &self.killings {
            write!(
                f,
                "  close seen {:>8.2} ms, served {:>8.1} ms",
                killing.close_ms, killing.served_ms
            )?;
            if let Some(gap_ms) = killing.gap_ms {
                write!(
                    f,
                    ", clients' gap {}{gap_ms} ms; {} acknowledged and there, {} unknown",
                    if killing.gap_open { "over " } else { "" },
                    killing.acknowledged,
                    killing.unknown
                )?;
            }
            if let Some(resident) = killing.resident {
                write!(f, "; {:.0} MB", resident.all_bytes as f64 / 1e6)?;
            }
            writeln!(f)?;
        }
        for (violation, count) in &self.violations.counts {
            writeln!(f, "  THE SERVER IS WRONG: {violation:?} {count} times")?;
        }
        self.violations.examples.iter().try_for_each(|words| writeln!(f, "  {words}"))
    }
}
