//! What the load generator itself costs: getData against a server that does next to nothing.
//!
//! The server is a thread of this program. It answers every getData by the same prepared reply, in
//! which it writes the request's xid and the key that its path ends with; the generator judges the
//! replies as it does any server's.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::ensure;
use engine::ids::Xid;
use engine::jute::Writer;
use engine::records::begin_reply;
use engine::stat::{Stat, WireStat};
use serde::Serialize;

use super::LimitsReport;
use crate::connection::{Connection, Loss, State};
use crate::load::{self, LoadOptions};
use crate::poller::{Interest, Poller, Ready};
use crate::progress::Progress;
use crate::wire::Welcome;

/// Connections and depths that are tried.
const SHAPES: [(usize, usize); 2] = [(64, 16), (16, 256)];
/// The key under which the poller reports the listener.
const LISTENER: u64 = u64::MAX;
/// How long the server sleeps at most before it looks whether it is to end.
const LOOK_WAIT: Duration = Duration::from_millis(50);
/// The opcode of getData.
const GET_DATA: u8 = 4;
/// Bytes of a value.
const VALUE_BYTES: usize = 100;
/// Where the xid, and where the value stands in the reply's frame with its length.
const XID_AT: usize = 4;
const VALUE_AT: usize = 24;

/// The generator's cost at one shape.
#[derive(Clone, Debug, Serialize)]
pub struct ClientCost {
    /// Connections.
    pub connections: usize,
    /// Requests under way per connection.
    pub depth: usize,
    /// CPU time per getData, microseconds.
    pub cpu_us_per_op: f64,
    /// What one core of the generator's would do in a second.
    pub per_core_per_s: f64,
    /// What was done in a second here.
    pub rate_per_s: f64,
    /// How busy the generator's thread was, 0 to 1: near 1 the server kept up.
    pub busy: f64,
}

/// Measures each shape.
pub fn measure(time: Duration, report: &mut LimitsReport) -> anyhow::Result<()> {
    for (connections, depth) in SHAPES {
        let server = Answerer::start()?;
        let options = LoadOptions {
            connections,
            depth,
            seconds: time.as_secs_f64().max(0.1),
            warm_up: 0.1,
            ..LoadOptions::of("get".parse().expect("a known mix"), server.address)
        };
        let load = load::measure(&options, &Progress::new(true), &mut |_| {})?;
        server.stop()?;
        ensure!(load.is_clean(), "the answers were not believed:\n{load}");
        report.client.push(ClientCost {
            connections,
            depth,
            cpu_us_per_op: load.client_cpu_us_per_op,
            per_core_per_s: 1e6 / load.client_cpu_us_per_op,
            rate_per_s: load.rate_per_s,
            busy: load.client_busy,
        });
    }
    Ok(())
}

impl fmt::Display for ClientCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, depth, cpu_us_per_op, per_core_per_s, rate_per_s, busy } = self;
        write!(
            f,
            "getData, {connections} connections x depth {depth}: CPU {cpu_us_per_op:.3} us/op, \
             {per_core_per_s:.0}/s per core; here {rate_per_s:.0}/s, busy {:.0} %",
            busy * 100.0
        )
    }
}

/// The server: a thread.
struct Answerer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Answerer {
    fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || serve(&listener, &stopped));
        Ok(Self { address, stop, thread })
    }

    fn stop(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("an answerer does not panic")
    }
}

fn serve(listener: &TcpListener, stop: &AtomicBool) -> anyhow::Result<()> {
    listener.set_nonblocking(true)?;
    let mut poller = Poller::new()?;
    poller.add(listener, LISTENER, Interest::Receive)?;
    let mut peers: Vec<Connection> = Vec::new();
    let (mut ready, mut buf, reply) = (Vec::new(), Vec::new(), reply());
    while !stop.load(Ordering::Relaxed) {
        poller.wait(Some(LOOK_WAIT), &mut ready)?;
        for ready in &ready {
            if let Some(peer) = peers.get_mut(ready.key as usize) {
                if answer(peer, *ready, &reply, &mut buf).is_err() {
                    peer.hang_up();
                }
            } else if let Ok((stream, _)) = listener.accept() {
                peers.push(Connection::accept(peers.len() as u64, &poller, stream)?);
            }
        }
    }
    Ok(())
}

/// Answers all that has come.
fn answer(
    peer: &mut Connection,
    ready: Ready,
    reply: &[u8],
    buf: &mut Vec<u8>,
) -> Result<(), Loss> {
    peer.receive_frames(ready, buf, |peer, frame| {
        if peer.state == State::Greeting {
            peer.state = State::Up;
            let welcome = Welcome { timeout_ms: 30_000, session: 1, password: [1; 16] };
            welcome.encode(&mut peer.out);
            return Ok(());
        }
        let [x0, x1, x2, x3, 0, 0, 0, GET_DATA, path @ ..] = frame else {
            // The end of the session.
            return Err(Loss::Closed);
        };
        let start = peer.out.len();
        peer.out.extend_from_slice(reply);
        peer.out[start + XID_AT..][..4].copy_from_slice(&[*x0, *x1, *x2, *x3]);
        peer.out[start + VALUE_AT..][..8].copy_from_slice(&key(path).to_be_bytes());
        Ok(())
    })?;
    peer.flush()
}

/// The number that the path in a getData's record ends with.
fn key(record: &[u8]) -> u64 {
    // Behind the path stands whether a watch is wanted.
    let digits = record.iter().rev().skip(1).take_while(|byte| byte.is_ascii_digit());
    let mut place = 1_u64;
    let mut key = 0_u64;
    for digit in digits {
        key = key.wrapping_add(place.wrapping_mul(u64::from(digit - b'0')));
        place = place.wrapping_mul(10);
    }
    key
}

/// The frame of a getData's reply, without its xid and the value's beginning.
fn reply() -> Vec<u8> {
    let mut frame = Vec::new();
    let mut writer = Writer::new(&mut frame);
    let part = begin_reply(&mut writer, Xid(0), 1, 0);
    writer.buf(&[0; VALUE_BYTES]);
    let stat = Stat::default();
    WireStat { stat, data_length: VALUE_BYTES as i32, num_children: 0 }.encode(&mut writer);
    writer.end_part(part);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn a_key_is_read_off_the_end_of_its_path() {
        let mut record = Vec::new();
        let mut writer = Writer::new(&mut record);
        wire::read_body(&mut writer, b"/bench/d00002/0000000000002042", false);
        assert_eq!(key(&record), 2042);
        assert_eq!(key(&[]), 0);
    }
}
