//! The floor of noticing a death: from kill -9 to the end of file that the peer reads.
//!
//! The kernel closes a killed process's sockets after it has torn its memory down, so the time
//! grows with what is resident, and much less with huge pages.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use memmap2::{Advice, MmapMut};

use super::{Group, LimitsReport};
use crate::recorder::histogram;

/// How often each figure is taken.
const REPEATS: usize = 5;
/// The subcommand, not shown, that makes this program the victim.
pub const VICTIM: &str = "limits-victim";

/// The arguments of the victim.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct VictimOptions {
    /// Megabytes to hold
    pub megabytes: usize,
    /// In huge pages
    #[arg(long)]
    pub huge: bool,
}

/// Measures each size, with and without huge pages.
pub fn measure(sizes_mb: &[usize], report: &mut LimitsReport) {
    for megabytes in sizes_mb {
        for huge in [false, true] {
            let pages = if huge { "huge pages" } else { "4 KiB pages" };
            let name = format!("kill -9 to end of file, {megabytes} MB resident, {pages}");
            report.add(Group::Close, name, measure_one(*megabytes, huge));
        }
    }
}

fn measure_one(megabytes: usize, huge: bool) -> anyhow::Result<Histogram<u64>> {
    let mut latencies = histogram();
    for _ in 0..REPEATS {
        let mut victim = Command::new(std::env::current_exe()?);
        victim.arg(VICTIM).arg(megabytes.to_string()).stdout(Stdio::piped());
        if huge {
            victim.arg("--huge");
        }
        let mut victim = victim.spawn().context("cannot start a process to kill")?;
        let measured = kill_and_wait(&mut victim);
        victim.kill()?;
        victim.wait()?;
        latencies.saturating_record(measured?.as_nanos() as u64);
    }
    Ok(latencies)
}

fn kill_and_wait(victim: &mut Child) -> anyhow::Result<Duration> {
    let mut line = String::new();
    BufReader::new(victim.stdout.as_mut().context("no pipe")?).read_line(&mut line)?;
    let address: SocketAddr = line.trim().parse().context("the victim names no address")?;
    let mut peer = TcpStream::connect(address)?;
    peer.set_read_timeout(Some(Duration::from_secs(30)))?;
    peer.read_exact(&mut [0])?;
    let begin = Instant::now();
    victim.kill()?;
    // A reset is as good an end as an end of file.
    let _end = peer.read(&mut [0]);
    Ok(begin.elapsed())
}

/// Holds memory and one connection until it is killed.
pub fn be_victim(options: VictimOptions) -> anyhow::Result<()> {
    let mut memory = MmapMut::map_anon(options.megabytes.max(1) << 20)?;
    memory.advise(if options.huge { Advice::HugePage } else { Advice::NoHugePage })?;
    memory.fill(1);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?);
    let (mut stream, _) = listener.accept()?;
    stream.write_all(&[1])?;
    // Ends when the peer does, should it die before it kills.
    let _end = stream.read(&mut [0]);
    Ok(())
}
