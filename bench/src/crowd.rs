//! Many connections of one thread, each waiting for what the server sends of itself.
//!
//! For watches and for idle sessions, where nothing is pipelined and little is sent.

use std::net::SocketAddr;
use std::ops::RangeFrom;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use engine::ids::Xid;
use engine::op::OpCode;
use engine::records::PING_XID;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::connection::{Connection, Loss, State};
use crate::poller::{Poller, Ready};
use crate::wire;

/// Connections that are being made at the same time: listen queues are short.
const DIALS_MAX: usize = 128;
/// How long the next session may take.
const SESSION_WAIT: Duration = Duration::from_secs(20);

/// What happened to one of the connections.
#[derive(Debug)]
pub enum Happening<'a> {
    /// It has a session.
    Up,
    /// A whole frame came.
    Frame(&'a [u8]),
    /// It is gone.
    Lost(Loss),
}

/// The connections; see the module.
#[derive(Debug)]
pub struct Crowd {
    /// All of them, by number.
    pub connections: Vec<Connection>,
    hosts: Vec<SocketAddr>,
    poller: Poller,
    ready: Vec<Ready>,
    buf: Vec<u8>,
}

impl Crowd {
    /// Opens `count` sessions; `opened` is told how long each took from its dial.
    pub fn open(
        hosts: Vec<SocketAddr>,
        count: usize,
        timeout_ms: i32,
        mut opened: impl FnMut(Duration),
    ) -> anyhow::Result<Self> {
        allow_descriptors(count as u64 + 64)?;
        let mut crowd = Self {
            connections: (0..count as u64).map(|key| Connection::new(key, timeout_ms)).collect(),
            hosts,
            poller: Poller::new()?,
            ready: Vec::new(),
            buf: Vec::new(),
        };
        let mut dialled = vec![Instant::now(); count];
        let (mut next, mut up, mut last_up) = (0, 0, Instant::now());
        while up < count {
            while next < count && next - up < DIALS_MAX {
                dialled[next] = Instant::now();
                let host = crowd.hosts[next % crowd.hosts.len()];
                crowd.connections[next].dial(&crowd.poller, host)?;
                next += 1;
            }
            let mut lost = None;
            crowd.wait(Duration::from_millis(100), &mut |index, happening, _| match happening {
                Happening::Up => {
                    up += 1;
                    last_up = Instant::now();
                    opened(dialled[index].elapsed());
                }
                Happening::Frame(_) => {}
                Happening::Lost(loss) => lost = Some((index, loss)),
            })?;
            if let Some((index, loss)) = lost {
                bail!(
                    "session {index} of {count} was not opened ({loss:?}); does the server limit \
                     connections (maxClientCnxns is 60 by default)?"
                );
            }
            ensure!(last_up.elapsed() < SESSION_WAIT, "only {up} of {count} sessions were opened");
        }
        Ok(crowd)
    }

    /// Waits once, and tells what happened. What `told` appends to the output is sent after it.
    pub fn wait(
        &mut self,
        timeout: Duration,
        told: &mut dyn FnMut(usize, Happening<'_>, &mut Vec<u8>),
    ) -> anyhow::Result<()> {
        self.poller.wait(Some(timeout), &mut self.ready)?;
        for at in 0..self.ready.len() {
            let ready = self.ready[at];
            let index = ready.key as usize;
            if let Err(loss) = self.on_ready(ready, told) {
                let connection = &mut self.connections[index];
                connection.hang_up();
                told(index, Happening::Lost(loss), &mut Vec::new());
            }
        }
        Ok(())
    }

    fn on_ready(
        &mut self,
        ready: Ready,
        told: &mut dyn FnMut(usize, Happening<'_>, &mut Vec<u8>),
    ) -> Result<(), Loss> {
        let index = ready.key as usize;
        let connection = &mut self.connections[index];
        match connection.state {
            State::Down => return Ok(()),
            State::Connecting => return connection.on_connected(),
            State::Greeting | State::Up => {}
        }
        connection.receive_frames(ready, &mut self.buf, |connection, frame| {
            let happening = if connection.state == State::Greeting {
                connection.on_welcome(frame)?;
                Happening::Up
            } else {
                Happening::Frame(frame)
            };
            told(index, happening, &mut connection.out);
            Ok(())
        })?;
        connection.flush()
    }

    /// Sends a request on one connection.
    pub fn send(&mut self, index: usize, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), Loss> {
        let connection = &mut self.connections[index];
        encode(&mut connection.out);
        connection.flush()
    }

    /// Appends a request to each of some connections that is up, and sends it.
    pub fn send_all(&mut self, which: RangeFrom<usize>, mut encode: impl FnMut(&mut Vec<u8>)) {
        for connection in &mut self.connections[which] {
            if connection.state == State::Up {
                encode(&mut connection.out);
                if connection.flush().is_err() {
                    connection.hang_up();
                }
            }
        }
    }

    /// Sends a ping on every connection.
    pub fn ping_all(&mut self) {
        self.send_all(0.., |out| wire::request(out, PING_XID, OpCode::Ping, |_| {}));
    }

    /// How many are up.
    pub fn up_count(&self) -> usize {
        self.connections.iter().filter(|connection| connection.state == State::Up).count()
    }

    /// Closes all sessions, and waits for the server to close the connections.
    pub fn close(mut self) -> anyhow::Result<()> {
        self.send_all(0.., |out| wire::request(out, Xid(0), OpCode::CloseSession, |_| {}));
        let deadline = Instant::now() + SESSION_WAIT;
        while self.up_count() > 0 && Instant::now() < deadline {
            self.wait(Duration::from_millis(100), &mut |_, _, _| {})?;
        }
        Ok(())
    }
}

/// Raises the limit of open files to what is needed, if it may be.
pub fn allow_descriptors(needed: u64) -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = Some(needed);
        if limit.maximum.is_some_and(|maximum| maximum < needed) {
            limit.maximum = Some(needed);
        }
        setrlimit(Resource::Nofile, limit).map_err(|error| {
            anyhow::anyhow!("{needed} open files are needed and not allowed (ulimit -n): {error}")
        })?;
    }
    Ok(())
}
