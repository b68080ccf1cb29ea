//! The floor of a message between cores: from sending to running, when the receiver sleeps.

use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use io_uring::{IoUring, opcode, types};
use rustix::event::{EventfdFlags, eventfd};

use super::{Group, LimitsReport};
use crate::recorder::histogram;

/// Pause between messages, so that the receiver is asleep.
const PAUSE: Duration = Duration::from_micros(300);
/// The message that ends the receiver.
const END: u64 = u64::MAX;

/// Measures each way of waking.
pub fn measure(time: Duration, report: &mut LimitsReport) {
    report.add(Group::Wake, "thread park and unpark (futex)", by_park(time));
    report.add(Group::Wake, "eventfd read and write", by_eventfd(time));
    report.add(Group::Wake, "io_uring message between rings", by_ring(time));
}

/// Sends the time every [`PAUSE`]; `send` stores it and wakes the receiver.
fn send_times(
    clock: Instant,
    time: Duration,
    mut send: impl FnMut(u64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    while clock.elapsed() < time {
        thread::sleep(PAUSE);
        send(clock.elapsed().as_nanos() as u64)?;
    }
    thread::sleep(PAUSE);
    send(END)
}

fn record(latencies: &mut Histogram<u64>, clock: Instant, sent_ns: u64) {
    let now_ns = clock.elapsed().as_nanos() as u64;
    latencies.saturating_record(now_ns.saturating_sub(sent_ns).max(1));
}

fn by_park(time: Duration) -> anyhow::Result<Histogram<u64>> {
    let (clock, message) = (Instant::now(), AtomicU64::new(0));
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut latencies = histogram();
            loop {
                match message.swap(0, Ordering::AcqRel) {
                    0 => thread::park(),
                    END => return latencies,
                    sent_ns => record(&mut latencies, clock, sent_ns),
                }
            }
        });
        let thread: Thread = receiver.thread().clone();
        send_times(clock, time, |sent_ns| {
            message.store(sent_ns, Ordering::Release);
            thread.unpark();
            Ok(())
        })?;
        Ok(receiver.join().expect("the receiver does not panic"))
    })
}

fn by_eventfd(time: Duration) -> anyhow::Result<Histogram<u64>> {
    let (clock, message) = (Instant::now(), AtomicU64::new(0));
    let event = eventfd(0, EventfdFlags::CLOEXEC)?;
    thread::scope(|scope| {
        let receiver = scope.spawn(|| -> anyhow::Result<_> {
            let mut latencies = histogram();
            loop {
                rustix::io::read(&event, &mut [0; 8])?;
                match message.swap(0, Ordering::AcqRel) {
                    0 => {}
                    END => return Ok(latencies),
                    sent_ns => record(&mut latencies, clock, sent_ns),
                }
            }
        });
        send_times(clock, time, |sent_ns| {
            message.store(sent_ns, Ordering::Release);
            rustix::io::write(&event, &1_u64.to_ne_bytes())?;
            Ok(())
        })?;
        receiver.join().expect("the receiver does not panic")
    })
}

fn by_ring(time: Duration) -> anyhow::Result<Histogram<u64>> {
    let clock = Instant::now();
    let (to_sender, address) = mpsc::channel();
    thread::scope(|scope| {
        let receiver = scope.spawn(move || -> anyhow::Result<_> {
            let mut latencies = histogram();
            let mut ring: IoUring =
                IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(64)?;
            to_sender.send(ring.as_raw_fd())?;
            loop {
                ring.submit_and_wait(1)?;
                for completion in ring.completion() {
                    match completion.user_data() {
                        END => return Ok(latencies),
                        sent_ns => record(&mut latencies, clock, sent_ns),
                    }
                }
            }
        });
        let descriptor = address.recv()?;
        let mut ring = IoUring::new(64)?;
        send_times(clock, time, |sent_ns| {
            let message = opcode::MsgRingData::new(types::Fd(descriptor), 0, sent_ns, None);
            // SAFETY: the entry points to no memory; the other ring lives until it got END.
            unsafe { ring.submission().push(&message.build())? };
            ring.submit_and_wait(1)?;
            ring.completion().for_each(drop);
            Ok(())
        })?;
        receiver.join().expect("the receiver does not panic")
    })
}
