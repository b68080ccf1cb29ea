//! The floor of a watch's fan-out: one message of an event's size to each of many connections.
//!
//! As many threads as there are cores write them, each its share, without doing anything else;
//! one thread with the poller of `watch` receives them all. Timed is from waking the writers to
//! the last message received.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use engine::records::WatchEvent;
use hdrhistogram::Histogram;
use io_uring::{IoUring, opcode, types};

use super::{Group, LimitsReport, repeat};
use crate::crowd::{self, Crowd, Happening};
use crate::wire::{LENGTH_BYTES, Welcome};

/// How long a round may take.
const ROUND_WAIT: Duration = Duration::from_secs(10);
/// Session timeout, milliseconds; nobody counts it.
const TIMEOUT_MS: i32 = 30_000;
/// Sends that one call hands to the kernel at most.
const RING_ENTRIES: u32 = 512;

/// Writes a message to each of some connections, whenever it is told to.
type Write = fn(&[TcpStream], &[u8], &Receiver<()>) -> anyhow::Result<()>;

/// Measures each way of writing.
pub fn measure(connections: usize, time: Duration, report: &mut LimitsReport) {
    let ways: [(&str, Write); 2] =
        [("plain writes", write_plainly), ("batches by io_uring", write_by_ring)];
    for (way, write) in ways {
        let name = format!("{connections} connections, {way}");
        report.add(Group::Fanout, name, rounds(connections, write, time));
    }
}

fn rounds(connections: usize, write: Write, time: Duration) -> anyhow::Result<Histogram<u64>> {
    ensure!(connections > 0, "--fanout must be at least 1");
    // Both ends are this program's.
    crowd::allow_descriptors(2 * connections as u64 + 64)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let greeting = thread::spawn(move || {
        let greet = |_| greet(listener.accept()?.0);
        (0..connections).map(greet).collect::<anyhow::Result<Vec<TcpStream>>>()
    });
    let mut crowd = Crowd::open(vec![address], connections, TIMEOUT_MS, |_| {})?;
    let streams = greeting.join().expect("greeting does not panic")?;
    let event = event();
    let writers = thread::available_parallelism()?.get();
    thread::scope(|scope| {
        let (starts, threads): (Vec<Sender<()>>, Vec<_>) = streams
            .chunks(connections.div_ceil(writers))
            .map(|share| {
                let (start, started) = mpsc::channel();
                let event = event.as_slice();
                (start, scope.spawn(move || write(share, event, &started)))
            })
            .unzip();
        let measured = repeat(time, || gather(&mut crowd, connections, &starts));
        drop(starts);
        for thread in threads {
            thread.join().expect("a writer does not panic")?;
        }
        measured
    })
}

/// Starts the writers, and receives what they write.
fn gather(crowd: &mut Crowd, connections: usize, starts: &[Sender<()>]) -> anyhow::Result<()> {
    starts.iter().try_for_each(|start| start.send(()).context("a writer has ended"))?;
    let (begin, mut received) = (Instant::now(), 0);
    while received < connections {
        ensure!(begin.elapsed() < ROUND_WAIT, "{received} messages of {connections} came");
        crowd.wait(Duration::from_millis(100), &mut |_, happening, _| {
            received += usize::from(matches!(happening, Happening::Frame(_)));
        })?;
    }
    Ok(())
}

/// Takes a ConnectRequest, and gives a session.
fn greet(mut stream: TcpStream) -> anyhow::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length)?;
    let length = u64::from(u32::from_be_bytes(length));
    let mut request = Vec::new();
    ensure!((&stream).take(length).read_to_end(&mut request)? as u64 == length, "a short greeting");
    let mut out = Vec::new();
    Welcome { timeout_ms: TIMEOUT_MS, session: 1, password: [1; 16] }.encode(&mut out);
    stream.write_all(&out)?;
    Ok(stream)
}

/// The event of a znode that was set.
fn event() -> Vec<u8> {
    let mut out = Vec::new();
    WatchEvent { kind: 3, path: "/bench-watch".into() }.write_notification(1, &mut out);
    out
}

fn write_plainly(
    streams: &[TcpStream],
    message: &[u8],
    started: &Receiver<()>,
) -> anyhow::Result<()> {
    for () in started {
        for mut stream in streams {
            stream.write_all(message)?;
        }
    }
    Ok(())
}

fn write_by_ring(
    streams: &[TcpStream],
    message: &[u8],
    started: &Receiver<()>,
) -> anyhow::Result<()> {
    let mut ring: IoUring =
        IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(RING_ENTRIES)?;
    for () in started {
        for batch in streams.chunks(RING_ENTRIES as usize) {
            for stream in batch {
                let descriptor = types::Fd(stream.as_raw_fd());
                let send = opcode::Send::new(descriptor, message.as_ptr(), message.len() as u32);
                // SAFETY: the message and the stream outlive the ring, which is dropped first.
                unsafe { ring.submission().push(&send.build())? };
            }
            ring.submit_and_wait(batch.len())?;
            for completion in ring.completion() {
                ensure!(completion.result() == message.len() as i32, "a short send");
            }
        }
    }
    Ok(())
}
