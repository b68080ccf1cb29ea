//! `fill`: makes a tree of N znodes, and says what one costs.

use std::fmt;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use engine::op::OpCode;
use serde::Serialize;

use crate::client::Client;
use crate::cpu::Resident;
use crate::load::Target;
use crate::load::keys::Keyspace;
use crate::load::setup;
use crate::progress::Progress;
use crate::wire;

/// The arguments of `fill`.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct FillOptions {
    #[command(flatten)]
    #[serde(flatten)]
    /// Where.
    pub target: Target,
    /// Znodes to create
    #[arg(short, long, default_value_t = 1_000_000)]
    pub znodes: u64,
    /// Connections, each with a thread
    #[arg(short, long, default_value_t = 4)]
    pub connections: u64,
    /// Creates per multi; 1: plain creates, pipelined
    #[arg(long, default_value_t = 1)]
    pub multi: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    pub value_bytes: usize,
    /// Znodes per directory
    #[arg(long, default_value_t = 1000)]
    pub per_directory: u64,
    /// Bytes of a path
    #[arg(long, default_value_t = 30)]
    pub path_bytes: usize,
    /// The znode below which they are created
    #[arg(long, default_value = "/fill")]
    pub root: String,
    /// Seconds to wait before memory is read
    #[arg(long, default_value_t = 1.0)]
    pub settle: f64,
}

impl FillOptions {
    /// The znodes.
    pub fn keyspace(&self) -> Keyspace {
        Keyspace::new(&self.root, self.znodes, self.per_directory, self.path_bytes)
    }
}

/// The figures of `fill`.
#[derive(Clone, Debug, Serialize)]
pub struct FillReport {
    /// What was asked for.
    pub options: FillOptions,
    /// Creates per second.
    pub rate_per_s: f64,
    /// Resident memory before.
    pub before: Option<Resident>,
    /// Resident memory at the end.
    pub after: Option<Resident>,
    /// Growth per znode, bytes.
    pub bytes_per_znode: Option<f64>,
    /// The server's CPU time per create, microseconds.
    pub server_cpu_us_per_op: Option<f64>,
}

/// Creates the znodes.
pub fn run(options: &FillOptions, progress: &Progress) -> anyhow::Result<FillReport> {
    ensure!(options.connections > 0 && options.multi > 0, "--connections, --multi: at least 1");
    let before = options.target.resident()?;
    let cpu_begin = options.target.cpu_time()?;
    let hosts = options.target.addresses()?;
    let keys = options.keyspace();
    let mut client = connect(&hosts, 0, options)?;
    client.ensure_path(&options.root)?;
    setup::create_all(&mut client, 0..keys.directories(), 0, |number, path| {
        keys.directory(number, path);
    })?;
    client.close()?;
    setup::catch_up(&hosts, options.target.timeout())?;
    progress.say(&format!("creating {} znodes", options.znodes));
    let begin = Instant::now();
    let share = options.znodes.div_ceil(options.connections);
    thread::scope(|scope| {
        let fillers: Vec<_> = (0..options.connections)
            .map(|number| {
                let (hosts, keys) = (&hosts, &keys);
                let range = number * share..((number + 1) * share).min(options.znodes);
                scope.spawn(move || fill_range(hosts, number as usize, keys, range, options))
            })
            .collect();
        fillers.into_iter().try_for_each(|filler| filler.join().expect("no panics here"))
    })?;
    let rate_per_s = options.znodes as f64 / begin.elapsed().as_secs_f64();
    let cpu_end = options.target.cpu_time()?;
    thread::sleep(Duration::from_secs_f64(options.settle.max(0.0)));
    let after = options.target.resident()?;
    let znodes = options.znodes.max(1) as f64;
    Ok(FillReport {
        options: options.clone(),
        rate_per_s,
        before,
        after,
        bytes_per_znode: before
            .zip(after)
            .map(|(before, after)| (after.all_bytes as f64 - before.all_bytes as f64) / znodes),
        server_cpu_us_per_op: cpu_begin
            .zip(cpu_end)
            .map(|(begin, end)| (end - begin).as_secs_f64() * 1e6 / znodes),
    })
}

fn connect(hosts: &[SocketAddr], number: usize, options: &FillOptions) -> anyhow::Result<Client> {
    let host = hosts.get(number % hosts.len().max(1)).context("no host was given")?;
    Client::connect(*host, options.target.timeout())
}

fn fill_range(
    hosts: &[SocketAddr],
    number: usize,
    keys: &Keyspace,
    range: std::ops::Range<u64>,
    options: &FillOptions,
) -> anyhow::Result<()> {
    let mut client = connect(hosts, number, options)?;
    let count = range.end.saturating_sub(range.start);
    if options.multi == 1 {
        setup::create_all(&mut client, range, options.value_bytes, |number, path| {
            keys.path(number, path);
        })?;
        return client.close();
    }
    let (mut path, mut value) = (Vec::new(), setup::noise(options.value_bytes));
    client.pipeline(
        count.div_ceil(options.multi),
        |step, xid, out| {
            let first = range.start + step * options.multi;
            wire::request(out, xid, OpCode::Multi, |writer| {
                for key in first..(first + options.multi).min(range.end) {
                    path.clear();
                    keys.path(key, &mut path);
                    setup::stamp(&mut value, key);
                    wire::multi_header(writer, OpCode::Create);
                    wire::create_body(writer, &path, &value, 0);
                }
                wire::multi_end(writer);
            });
        },
        |_, header, body| {
            ensure!(header.err == 0, "multi: {}", wire::error_name(header.err));
            let (_, err) = wire::multi_results(body)?;
            ensure!(err == 0, "a create of a multi: {}", wire::error_name(err));
            Ok(())
        },
    )?;
    client.close()
}

impl fmt::Display for FillReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        writeln!(
            f,
            "fill: {} znodes, {}-byte paths, {}-byte values",
            options.znodes,
            options.keyspace().path_bytes(),
            options.value_bytes
        )?;
        writeln!(f, "  {:.0} creates/s", self.rate_per_s)?;
        if let (Some(before), Some(after)) = (self.before, self.after) {
            writeln!(
                f,
                "  server memory {:.1} MB before, {:.1} MB after (peak {:.1} MB); {:.0} bytes per \
                 znode",
                before.all_bytes as f64 / 1e6,
                after.all_bytes as f64 / 1e6,
                after.peak_bytes as f64 / 1e6,
                self.bytes_per_znode.unwrap_or_default()
            )?;
        }
        if let Some(cpu) = self.server_cpu_us_per_op {
            writeln!(f, "  server CPU {cpu:.2} us/create")?;
        }
        Ok(())
    }
}
