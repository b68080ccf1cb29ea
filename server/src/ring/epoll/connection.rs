//! Connections through epoll: receiving, sending and every way to end.
//!
//! *Invariants*: `is_readable` holds from an edge on until a read found less than it asked for;
//! once the peer's end was signalled (`is_ending`), only the end itself or an error clears it. A
//! connection with a send in flight has bytes in `sending`, or an outcome in `Epoll::outcomes`.

use std::os::fd::OwnedFd;
use std::{io, mem};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::Epoll;
use crate::ring::slots::Slot;
use crate::ring::tag::{Kind, Tag};
use crate::ring::{Handler, socket};

/// Reads of one connection in one turn, so that a fast one does not starve the others.
const READS_PER_TURN: usize = 4;

#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    phase: Phase,
    input: Input,
    /// Whether the owner wants to receive.
    is_reading: bool,
    /// Whether a send was begun whose end the owner was not told yet.
    is_sending: bool,
    /// What is being sent; empty if the kernel has taken all of it.
    sending: Vec<u8>,
    /// How much of it the kernel has taken.
    sent: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Lingering,
}

/// What is known of bytes to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// None: an edge will tell.
    Drained,
    /// There may be some.
    Readable,
    /// The peer's end or an error comes behind them.
    Ending,
    /// The end was read.
    Ended,
}

/// How a send ended that was decided when it was called.
#[derive(Debug)]
pub(super) enum Outcome {
    Sent(Vec<u8>),
    Failed(io::Error),
}

enum Progress {
    Done,
    Blocked,
}

impl Connection {
    fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            phase: Phase::Open,
            input: Input::Drained,
            is_reading: true,
            is_sending: false,
            sending: Vec::new(),
            sent: 0,
        }
    }

    fn may_read(&self) -> bool {
        let wants = match self.phase {
            Phase::Open => self.is_reading,
            Phase::Lingering => true,
        };
        wants && matches!(self.input, Input::Readable | Input::Ending)
    }

    /// Sends as much as the socket takes.
    fn flush(&mut self) -> Result<Progress, Errno> {
        while self.sent < self.sending.len() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.socket, &self.sending[self.sent..], flags) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Progress::Blocked),
                Err(errno) => return Err(errno),
            }
        }
        Ok(Progress::Done)
    }
}

impl Epoll {
    pub(in crate::ring) fn adopt(&mut self, socket: OwnedFd) -> io::Result<Slot> {
        socket::prepare_connection(&socket)?;
        self.insert(Connection::new(socket))
    }

    fn insert(&mut self, connection: Connection) -> io::Result<Slot> {
        let slot = self.connections.insert(connection).map_err(|_| Errno::MFILE)?;
        let connection = self.connections.get(slot).expect("inserted above");
        let edges = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        match self.register(&connection.socket, Tag::new(Kind::Ready, slot), edges) {
            Ok(()) => Ok(slot),
            Err(error) => {
                drop(self.connections.remove(slot));
                Err(error)
            }
        }
    }

    pub(in crate::ring) fn send(&mut self, slot: Slot, buffer: Vec<u8>) -> Result<(), Vec<u8>> {
        let connection = match self.connections.get_mut(slot) {
            Some(connection) if connection.phase == Phase::Open => connection,
            Some(_) | None => return Err(buffer),
        };
        assert!(!connection.is_sending, "{slot:?} has a send in flight already");
        connection.is_sending = true;
        connection.sending = buffer;
        connection.sent = 0;
        match connection.flush() {
            Ok(Progress::Blocked) => {}
            Ok(Progress::Done) => {
                let buffer = mem::take(&mut connection.sending);
                self.outcomes.push_back((slot, Outcome::Sent(buffer)));
            }
            Err(errno) => self.outcomes.push_back((slot, Outcome::Failed(errno.into()))),
        }
        Ok(())
    }

    pub(in crate::ring) fn pause_reading(&mut self, slot: Slot) {
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.is_reading = false;
        }
    }

    pub(in crate::ring) fn resume_reading(&mut self, slot: Slot) {
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.is_reading = true;
            self.read_later(slot);
        }
    }

    pub(in crate::ring) fn close(&mut self, slot: Slot) {
        // The descriptor leaves the epoll set when it is closed: there is no other one for the
        // same socket.
        drop(self.connections.remove(slot));
    }

    pub(in crate::ring) fn close_after_send(&mut self, slot: Slot) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        match connection.phase {
            Phase::Open => {
                connection.phase = Phase::Lingering;
                let connections = &self.connections;
                let is_gone = |slot| connections.get(slot).is_none();
                if let Some(oldest) = self.lingering.push(slot, is_gone) {
                    self.close(oldest);
                }
                self.linger(slot);
            }
            Phase::Lingering => {}
        }
    }

    /// Says goodbye on a lingering connection, once there is nothing more to send.
    fn linger(&mut self, slot: Slot) {
        let connection = self.connections.get(slot).expect("a lingering connection exists");
        if connection.sending.is_empty() {
            socket::shutdown_write(&connection.socket);
            if connection.input == Input::Ended {
                return self.close(slot);
            }
        }
        self.read_later(slot);
    }

    fn read_later(&mut self, slot: Slot) {
        if self.connections.get(slot).is_some_and(Connection::may_read) {
            self.ready.push(slot);
        }
    }

    pub(super) fn report_outcomes(&mut self, handler: &mut impl Handler) {
        for (slot, outcome) in mem::take(&mut self.outcomes) {
            let Some(connection) = self.connections.get_mut(slot) else { continue };
            match outcome {
                Outcome::Sent(buffer) if connection.phase == Phase::Open => {
                    connection.is_sending = false;
                    handler.on_sent(slot, buffer);
                }
                Outcome::Sent(_) => {}
                Outcome::Failed(error) => self.fail(slot, error, handler),
            }
        }
    }

    pub(super) fn on_ready(&mut self, slot: Slot, flags: EventFlags, handler: &mut impl Handler) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let ends = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        if connection.input != Input::Ended {
            if flags.intersects(ends) {
                connection.input = Input::Ending;
            } else if flags.contains(EventFlags::IN) && connection.input == Input::Drained {
                connection.input = Input::Readable;
            }
        }
        if flags.intersects(EventFlags::OUT | ends) && !connection.sending.is_empty() {
            self.flush(slot, handler);
        }
        self.read(slot, handler);
    }

    fn flush(&mut self, slot: Slot, handler: &mut impl Handler) {
        let connection = self.connections.get_mut(slot).expect("looked up by the caller");
        match connection.flush() {
            Ok(Progress::Blocked) => {}
            Ok(Progress::Done) => {
                let buffer = mem::take(&mut connection.sending);
                connection.is_sending = false;
                match connection.phase {
                    Phase::Lingering => self.linger(slot),
                    Phase::Open => handler.on_sent(slot, buffer),
                }
            }
            Err(errno) => self.fail(slot, errno.into(), handler),
        }
    }

    /// Reads what there is, within bounds, if somebody wants it.
    pub(super) fn read(&mut self, slot: Slot, handler: &mut impl Handler) {
        for _ in 0..READS_PER_TURN {
            let Some(connection) = self.connections.get_mut(slot) else { return };
            if !connection.may_read() {
                return;
            }
            let room = self.buffer.len();
            let flags = RecvFlags::DONTWAIT;
            match rustix::net::recv(&connection.socket, self.buffer.as_mut_slice(), flags) {
                Ok((0, _)) => return self.on_end(slot, handler),
                Ok((count, _)) => {
                    if count < room && connection.input == Input::Readable {
                        connection.input = Input::Drained;
                    }
                    if connection.phase == Phase::Open {
                        handler.on_received(slot, &self.buffer[..count]);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    connection.input = Input::Drained;
                    return;
                }
                Err(errno) => return self.fail(slot, errno.into(), handler),
            }
        }
        self.read_later(slot);
    }

    fn on_end(&mut self, slot: Slot, handler: &mut impl Handler) {
        let connection = self.connections.get_mut(slot).expect("looked up by the caller");
        connection.input = Input::Ended;
        match connection.phase {
            Phase::Open => handler.on_eof(slot),
            Phase::Lingering if connection.sending.is_empty() => self.close(slot),
            Phase::Lingering => {}
        }
    }

    /// The connection broke: reports that to an owner who still cares, and cleans up.
    fn fail(&mut self, slot: Slot, error: io::Error, handler: &mut impl Handler) {
        let connection = self.connections.remove(slot).expect("a connection fails while it exists");
        if connection.phase != Phase::Lingering {
            handler.on_closed(slot, error);
        }
    }
}
