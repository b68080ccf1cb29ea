//! The floor of a request: a round trip of its bytes between two threads over loopback.
//!
//! The asking side is always a plain blocking thread, as lean as a client can be; the answering
//! side is one too, or waits as an event loop does, by epoll or io_uring.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::Duration;

use anyhow::{bail, ensure};
use hdrhistogram::Histogram;
use io_uring::{IoUring, opcode, types};

use super::{Group, LimitsReport, repeat};
use crate::poller::{Interest, Poller};

/// Bytes of a request and of its reply.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    request: usize,
    reply: usize,
}

/// getData of a 30-byte path and a 100-byte value.
const GET: Sizes = Sizes { request: 47, reply: 192 };
/// setData of the same.
const SET: Sizes = Sizes { request: 154, reply: 88 };

type Answerer = fn(TcpStream, Sizes) -> anyhow::Result<()>;

/// Measures each way of answering.
pub fn measure(time: Duration, report: &mut LimitsReport) {
    let ways: [(&str, Answerer); 3] =
        [("blocking", answer_blocking), ("epoll", answer_by_epoll), ("io_uring", answer_by_ring)];
    for (sizes_name, sizes) in [("getData", GET), ("setData", SET)] {
        for (way, answer) in ways {
            let name = format!("{sizes_name} bytes, {way} answerer");
            report.add(Group::Echo, name, round_trips(sizes, answer, time));
        }
    }
}

fn round_trips(sizes: Sizes, answer: Answerer, time: Duration) -> anyhow::Result<Histogram<u64>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut asking = TcpStream::connect(listener.local_addr()?)?;
    asking.set_nodelay(true)?;
    asking.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (answering, _) = listener.accept()?;
    answering.set_nodelay(true)?;
    thread::scope(|scope| {
        let answerer = scope.spawn(move || answer(answering, sizes));
        let (request, mut reply) = (vec![1; sizes.request], vec![0; sizes.reply]);
        let measured = repeat(time, || {
            asking.write_all(&request)?;
            asking.read_exact(&mut reply)?;
            Ok(())
        });
        drop(asking);
        answerer.join().expect("an answerer does not panic")?;
        measured
    })
}

fn answer_blocking(mut stream: TcpStream, sizes: Sizes) -> anyhow::Result<()> {
    let (mut request, reply) = (vec![0; sizes.request], vec![2; sizes.reply]);
    loop {
        let mut got = 0;
        while got < sizes.request {
            match stream.read(&mut request[got..]) {
                Ok(0) | Err(_) => return Ok(()),
                Ok(count) => got += count,
            }
        }
        stream.write_all(&reply)?;
    }
}

fn answer_by_epoll(mut stream: TcpStream, sizes: Sizes) -> anyhow::Result<()> {
    stream.set_nonblocking(true)?;
    let mut poller = Poller::new()?;
    poller.add(&stream, 0, Interest::Receive)?;
    let (mut request, reply) = (vec![0; sizes.request], vec![2; sizes.reply]);
    let (mut ready, mut got) = (Vec::new(), 0);
    loop {
        poller.wait(None, &mut ready)?;
        match stream.read(&mut request[got..]) {
            Ok(0) => return Ok(()),
            Ok(count) => got += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return Ok(()),
        }
        if got == sizes.request {
            got = 0;
            stream.write_all(&reply)?;
        }
    }
}

fn answer_by_ring(stream: TcpStream, sizes: Sizes) -> anyhow::Result<()> {
    let mut ring: IoUring =
        IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(8)?;
    let descriptor = types::Fd(stream.as_raw_fd());
    let (mut request, reply) = (vec![0_u8; sizes.request], vec![2_u8; sizes.reply]);
    let (mut got, mut sent_first) = (0, false);
    loop {
        let room = &mut request[got..];
        let receive = opcode::Recv::new(descriptor, room.as_mut_ptr(), room.len() as u32);
        let send = opcode::Send::new(descriptor, reply.as_ptr(), reply.len() as u32);
        let mut count = 1;
        // SAFETY: both buffers and the stream live until the completions have been taken: nothing
        // returns in between but for an error of the wait, which drops the ring first.
        unsafe {
            if sent_first {
                ring.submission().push(&send.build().user_data(1))?;
                count = 2;
            }
            ring.submission().push(&receive.build().user_data(0))?;
        }
        sent_first = false;
        let mut seen = 0;
        while seen < count {
            ring.submit_and_wait(1)?;
            for completion in ring.completion() {
                seen += 1;
                match (completion.user_data(), completion.result()) {
                    (0, 0) => return Ok(()),
                    (0, received @ 1..) => got += received.unsigned_abs() as usize,
                    (1, sent) => ensure!(sent as usize == sizes.reply, "a short send"),
                    (_, error) => bail!("error {}", -error),
                }
            }
        }
        if got == sizes.request {
            got = 0;
            sent_first = true;
        }
    }
}
