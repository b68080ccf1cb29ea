//! Connections through io_uring: receiving, sending and every way to end.
//!
//! ```text
//!  Open ──────────────> Lingering ──> Closing ──> descriptor closed, slot free
//!   │  close_after_send     │            ^  when no operation refers to it any more
//!   └───────────────────────┴────────────┘
//!          close, error, linger time over
//! ```
//!
//! *Invariants*: `operations` counts what is in flight for the connection: one receive, one
//! send. Events are reported in `Open` only. In `Closing` everything in flight has a cancellation
//! queued behind it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::{io, mem};

use io_uring::opcode;
use io_uring::types::{CancelBuilder, Fd};
use rustix::io::Errno;

use super::Uring;
use super::buffers::GROUP;
use crate::ring::slots::Slot;
use crate::ring::tag::{Kind, Tag};
use crate::ring::{Handler, socket};

#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    phase: Phase,
    receive: Receive,
    /// Whether the owner wants to receive.
    is_reading: bool,
    has_eof: bool,
    operations: u8,
    /// What is being sent; empty if nothing is.
    pub(super) sending: Vec<u8>,
    /// How much of it the kernel has taken.
    sent: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Lingering,
    Closing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receive {
    Idle,
    Armed,
    /// A cancellation is on its way.
    Cancelling,
}

impl Connection {
    fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            phase: Phase::Open,
            receive: Receive::Idle,
            is_reading: true,
            has_eof: false,
            operations: 0,
            sending: Vec::new(),
            sent: 0,
        }
    }

    fn wants_to_receive(&self) -> bool {
        let reads = match self.phase {
            Phase::Open => self.is_reading,
            Phase::Lingering => true,
            Phase::Closing => false,
        };
        reads && !self.has_eof && self.receive == Receive::Idle
    }
}

impl Uring {
    pub(in crate::ring) fn adopt(&mut self, socket: OwnedFd) -> io::Result<Slot> {
        socket::prepare_connection(&socket)?;
        let slot = self.insert(Connection::new(socket))?;
        self.receive_if_wanted(slot);
        Ok(slot)
    }

    fn insert(&mut self, connection: Connection) -> io::Result<Slot> {
        self.connections.insert(connection).map_err(|_| Errno::MFILE.into())
    }

    pub(in crate::ring) fn send(&mut self, slot: Slot, buffer: Vec<u8>) -> Result<(), Vec<u8>> {
        match self.connections.get_mut(slot) {
            Some(connection) if connection.phase == Phase::Open => {
                assert!(connection.sending.is_empty(), "{slot:?} has a send in flight already");
                connection.sending = buffer;
                connection.sent = 0;
                connection.operations += 1;
                self.submit_send(slot);
                Ok(())
            }
            Some(_) | None => Err(buffer),
        }
    }

    pub(in crate::ring) fn pause_reading(&mut self, slot: Slot) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.is_reading = false;
        if connection.phase == Phase::Open && connection.receive == Receive::Armed {
            connection.receive = Receive::Cancelling;
            let tag = Tag::new(Kind::Receive, slot);
            self.submit_cancel(CancelBuilder::user_data(tag.pack()));
        }
    }

    pub(in crate::ring) fn resume_reading(&mut self, slot: Slot) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.is_reading = true;
        // A receive that is being cancelled is begun anew when its end is reported.
        self.receive_if_wanted(slot);
    }

    pub(in crate::ring) fn close(&mut self, slot: Slot) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if connection.phase == Phase::Closing {
            return;
        }
        connection.phase = Phase::Closing;
        if connection.operations > 0 {
            let descriptor = Fd(connection.socket.as_raw_fd());
            self.submit_cancel(CancelBuilder::fd(descriptor).all());
        }
        self.release_if_done(slot);
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
            Phase::Lingering | Phase::Closing => {}
        }
    }

    /// Says goodbye on a lingering connection, once there is nothing more to send.
    fn linger(&mut self, slot: Slot) {
        let connection = self.connections.get(slot).expect("a lingering connection exists");
        if connection.sending.is_empty() {
            socket::shutdown_write(&connection.socket);
        }
        self.drain(slot);
    }

    /// Waits for the peer's goodbye, and ends the connection if it was said.
    fn drain(&mut self, slot: Slot) {
        let connection = self.connections.get(slot).expect("a lingering connection exists");
        if connection.has_eof && connection.sending.is_empty() {
            self.close(slot);
        } else {
            self.receive_if_wanted(slot);
        }
    }

    fn submit_send(&mut self, slot: Slot) {
        let connection = self.connections.get(slot).expect("a connection with a send exists");
        let rest = &connection.sending[connection.sent..];
        // The kernel continues partial sends itself as long as it can.
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(Fd(connection.socket.as_raw_fd()), rest.as_ptr(), len)
            .flags(flags)
            .build();
        self.submit(entry, Tag::new(Kind::Send, slot));
    }

    fn receive_if_wanted(&mut self, slot: Slot) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if connection.wants_to_receive() {
            connection.receive = Receive::Armed;
            connection.operations += 1;
            let descriptor = Fd(connection.socket.as_raw_fd());
            let entry = opcode::RecvMulti::new(descriptor, GROUP).build();
            self.submit(entry, Tag::new(Kind::Receive, slot));
        }
    }

    pub(super) fn on_received(
        &mut self,
        slot: Slot,
        result: Result<u32, Errno>,
        buffer: Option<u16>,
        is_last: bool,
        handler: &mut impl Handler,
    ) {
        let connection = self.connections.get_mut(slot).expect("a receive keeps its connection");
        let phase = connection.phase;
        if is_last {
            connection.receive = Receive::Idle;
            connection.operations -= 1;
        }
        if result == Ok(0) {
            connection.has_eof = true;
        }
        let outcome = match (result, buffer) {
            (Ok(count @ 1..), Some(id)) => {
                if phase == Phase::Open {
                    handler.on_received(slot, self.buffers.bytes(id, count as usize));
                }
                Ok(())
            }
            (Ok(0), _) => {
                if phase == Phase::Open {
                    handler.on_eof(slot);
                }
                Ok(())
            }
            (Ok(_), None) => unreachable!("what is received lies in a buffer of the group"),
            // Begun anew below, behind the return of buffers.
            (Err(Errno::NOBUFS | Errno::CANCELED | Errno::INTR), _) => Ok(()),
            (Err(errno), _) => Err(errno),
        };
        if let Some(id) = buffer {
            self.buffers.give(id);
        }
        match (phase, outcome) {
            (Phase::Closing, _) => self.release_if_done(slot),
            (_, Err(errno)) => self.fail(slot, errno.into(), handler),
            (Phase::Lingering, Ok(())) => self.drain(slot),
            (Phase::Open, Ok(())) => self.receive_if_wanted(slot),
        }
    }

    pub(super) fn on_sent(
        &mut self,
        slot: Slot,
        result: Result<u32, Errno>,
        handler: &mut impl Handler,
    ) {
        let connection = self.ended(slot);
        if connection.phase == Phase::Closing {
            return self.release_if_done(slot);
        }
        match result {
            Ok(count) => connection.sent += count as usize,
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return self.fail(slot, errno.into(), handler),
        }
        if connection.sent < connection.sending.len() {
            connection.operations += 1;
            return self.submit_send(slot);
        }
        let buffer = mem::take(&mut connection.sending);
        match connection.phase {
            Phase::Lingering => self.linger(slot),
            Phase::Open | Phase::Closing => handler.on_sent(slot, buffer),
        }
    }

    /// Counts off an operation of the connection.
    fn ended(&mut self, slot: Slot) -> &mut Connection {
        let connection = self.connections.get_mut(slot).expect("operations keep a connection");
        connection.operations -= 1;
        connection
    }

    /// The connection broke: reports that to an owner who still cares, and cleans up.
    fn fail(&mut self, slot: Slot, error: io::Error, handler: &mut impl Handler) {
        let connection = self.connections.get(slot).expect("a connection fails while it exists");
        let is_reported = connection.phase == Phase::Open;
        self.close(slot);
        if is_reported {
            handler.on_closed(slot, error);
        }
    }

    fn release_if_done(&mut self, slot: Slot) {
        let connection = self.connections.get(slot).expect("released once");
        if connection.phase == Phase::Closing && connection.operations == 0 {
            drop(self.connections.remove(slot));
        }
    }
}
