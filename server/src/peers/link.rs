//! One link: its socket, what waits to be sent, and how far its life has come.
//!
//! ```text
//!   Dialling ──> Open ──leave──> Leaving: sends the rest, says goodbye, waits for the other's
//!       │         │                 │
//!       └─────────┴── broken ───────┴──> dropped, and with it the socket
//! ```

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use engine::ids::LinkId;
use engine::time::Instant;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::dial::Dial;
use super::watching::{Interest, watch, watch_again};
use crate::ring;

/// Sends of up to this are joined in one buffer.
const JOINED_BYTES_MAX: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Link {
    phase: Phase,
    /// While dialling, the attempt has its own.
    pub(super) socket: Option<OwnedFd>,
    out: Out,
    /// The machine takes nothing now: what comes stays in the socket.
    is_paused: bool,
    /// A write has failed: nothing more comes when what is there is read.
    is_spoilt: bool,
    /// The other side has thrown away what it was sent, as a write has told.
    is_reset: bool,
}

#[derive(Debug)]
enum Phase {
    Dialling(Dial),
    Open,
    Leaving { deadline: Instant, has_said_goodbye: bool },
}

/// What waits to be sent.
#[derive(Debug, Default)]
struct Out {
    buffers: VecDeque<Vec<u8>>,
    /// How much of the first the kernel has taken.
    sent: usize,
    /// Of all that was not written yet.
    bytes: usize,
    /// Whether the machine is still to be told that everything has been sent.
    owes_drained: bool,
    /// Whether the epoll watches for room.
    waits_for_room: bool,
}

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// There is nothing now.
    Nothing,
    /// So many bytes.
    Bytes(usize),
    /// The link is over.
    End,
    /// And what was sent last was not read.
    Reset,
}

impl Link {
    fn new(phase: Phase, socket: Option<OwnedFd>) -> Self {
        let (out, is_paused) = (Out::default(), false);
        Self { phase, socket, out, is_paused, is_spoilt: false, is_reset: false }
    }

    /// A link that is to be connected.
    pub(super) fn dialling(dial: Dial) -> Self {
        Self::new(Phase::Dialling(dial), None)
    }

    /// A link that somebody else has opened.
    pub(super) fn open(
        epoll: &OwnedFd,
        id: LinkId,
        socket: OwnedFd,
        silence: Option<Duration>,
    ) -> io::Result<Self> {
        ring::prepare_connection(&socket)?;
        ring::limit_silence(&socket, silence)?;
        watch(epoll, &socket, id, Interest::INPUT)?;
        Ok(Self::new(Phase::Open, Some(socket)))
    }

    /// The socket of the attempt is connected; the epoll knows it already.
    pub(super) fn connected(
        &mut self,
        epoll: &OwnedFd,
        id: LinkId,
        socket: OwnedFd,
    ) -> io::Result<()> {
        watch_again(epoll, &socket, id, Interest::INPUT)?;
        self.phase = Phase::Open;
        self.socket = Some(socket);
        Ok(())
    }

    pub(super) fn dial(&mut self) -> Option<&mut Dial> {
        match &mut self.phase {
            Phase::Dialling(dial) => Some(dial),
            Phase::Open | Phase::Leaving { .. } => None,
        }
    }

    pub(super) fn is_dialling(&self) -> bool {
        matches!(self.phase, Phase::Dialling(_))
    }

    /// Whether the machine hears of it.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Dialling(dial) => Some(dial.due()),
            Phase::Open => None,
            Phase::Leaving { deadline, .. } => Some(*deadline),
        }
    }

    /// Whether it is over when what has come is read.
    pub(super) fn is_spoilt(&self) -> bool {
        self.is_spoilt
    }

    /// Bytes that the socket has not taken yet.
    pub(super) fn unsent(&self) -> usize {
        self.out.bytes
    }

    /// Adds bytes to be sent; whether there were none before.
    pub(super) fn push(&mut self, bytes: Vec<u8>) -> bool {
        if bytes.is_empty() || self.is_spoilt || matches!(self.phase, Phase::Leaving { .. }) {
            return false;
        }
        self.out.push(bytes)
    }

    /// The machine has closed the link. False if there is nobody to say goodbye to.
    pub(super) fn leave(&mut self, deadline: Instant) -> bool {
        match &self.phase {
            Phase::Dialling(_) => false,
            Phase::Open if self.is_spoilt => false,
            Phase::Open => {
                self.phase = Phase::Leaving { deadline, has_said_goodbye: false };
                true
            }
            Phase::Leaving { .. } => true,
        }
    }

    /// Leaves what comes in the socket, or reads it again.
    pub(super) fn set_paused(
        &mut self,
        epoll: &OwnedFd,
        id: LinkId,
        is_paused: bool,
    ) -> io::Result<()> {
        let was_paused = std::mem::replace(&mut self.is_paused, is_paused);
        let Some(socket) = self.socket.as_ref().filter(|_| was_paused != is_paused) else {
            return Ok(());
        };
        let room = self.out.waits_for_room;
        watch_again(epoll, socket, id, Interest { input: !is_paused, room })
    }

    /// The socket takes nothing more: whether it has been reset.
    pub(super) fn spoil(&mut self, is_reset: bool) {
        self.is_spoilt = true;
        self.is_reset = is_reset;
        self.out = Out::default();
    }

    /// Writes what the socket takes; whether the machine is to hear that all is written.
    pub(super) fn flush(&mut self, epoll: &OwnedFd, id: LinkId) -> io::Result<bool> {
        let Some(socket) = self.socket.as_ref().filter(|_| !self.is_spoilt) else {
            return Ok(false);
        };
        let is_empty = self.out.write(socket)?;
        if self.out.waits_for_room == is_empty {
            let interest = Interest { input: !self.is_paused, room: !is_empty };
            watch_again(epoll, socket, id, interest)?;
            self.out.waits_for_room = !is_empty;
        }
        if !is_empty {
            return Ok(false);
        }
        if let Phase::Leaving { has_said_goodbye, .. } = &mut self.phase {
            // The other side closes when it has read all; closing here, with its bytes unread,
            // would reset the connection and could destroy what is on its way.
            if !std::mem::replace(has_said_goodbye, true) {
                ring::shutdown_write(socket);
            }
            return Ok(false);
        }
        Ok(std::mem::take(&mut self.out.owes_drained))
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Read {
        let Some(socket) = &self.socket else { return Read::Nothing };
        match rustix::net::recv(socket, buffer, RecvFlags::DONTWAIT) {
            Ok((count @ 1.., _)) => Read::Bytes(count),
            Err(Errno::AGAIN | Errno::INTR) if !self.is_spoilt => Read::Nothing,
            Err(Errno::CONNRESET) => Read::Reset,
            Ok((0, _)) | Err(_) if self.is_reset => Read::Reset,
            Ok((0, _)) | Err(_) => Read::End,
        }
    }
}

impl Out {
    /// Adds bytes; whether there were none before.
    fn push(&mut self, bytes: Vec<u8>) -> bool {
        let was_empty = self.buffers.is_empty();
        self.owes_drained = true;
        self.bytes += bytes.len();
        match self.buffers.back_mut() {
            Some(last) if last.len() + bytes.len() <= JOINED_BYTES_MAX => {
                last.extend_from_slice(&bytes);
            }
            _ => self.buffers.push_back(bytes),
        }
        was_empty
    }

    /// Writes until the socket takes no more; whether all is written.
    fn write(&mut self, socket: &OwnedFd) -> io::Result<bool> {
        while let Some(buffer) = self.buffers.front() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(socket, &buffer[self.sent..], flags) {
                Ok(count) => {
                    self.sent += count;
                    self.bytes -= count;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            }
            if self.sent == self.buffers[0].len() {
                self.buffers.pop_front();
                self.sent = 0;
            }
        }
        Ok(true)
    }
}
