//! An attempt to connect to a member: its addresses one after the other.
//!
//! Each address gets an equal share of the time that is left, so that one that is silent does not
//! take it all. Only if every address has refused, nobody listens there: see `LinkEvent::Failed`.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use engine::ids::LinkId;
use engine::time::Instant;

use super::watching::{Interest, watch};
use crate::ring;

#[derive(Debug)]
pub(super) struct Dial {
    /// When all of it is over.
    deadline: Instant,
    /// How long what is sent may go unacknowledged, if there is a limit.
    silence: Option<Duration>,
    /// When the attempt under way is.
    attempt_until: Instant,
    rest: VecDeque<SocketAddr>,
    socket: Option<OwnedFd>,
    /// How many addresses have refused.
    refusals: usize,
    addresses: usize,
}

impl Dial {
    pub(super) fn new(deadline: Instant, silence: Option<Duration>) -> Self {
        Self {
            deadline,
            silence,
            attempt_until: deadline,
            rest: VecDeque::new(),
            socket: None,
            refusals: 0,
            addresses: 0,
        }
    }

    /// When the attempt under way is given up.
    pub(super) fn due(&self) -> Instant {
        self.attempt_until
    }

    /// The addresses are known now.
    pub(super) fn begin(&mut self, addresses: Vec<SocketAddr>) {
        self.addresses = addresses.len();
        self.rest = addresses.into();
    }

    /// Begins with the next address; the error is whether all have refused.
    pub(super) fn attempt(
        &mut self,
        epoll: &OwnedFd,
        id: LinkId,
        now: Instant,
    ) -> Result<(), bool> {
        let failed = |dial: &Self| dial.addresses > 0 && dial.refusals == dial.addresses;
        if now >= self.deadline {
            return Err(failed(self));
        }
        while let Some(address) = self.rest.pop_front() {
            let share = self.deadline.since(now) / (self.rest.len() as u32 + 1);
            match self.connect(epoll, id, address) {
                Ok(socket) => {
                    self.attempt_until = now.after(share);
                    self.socket = Some(socket);
                    return Ok(());
                }
                Err(error) => self.note(&error),
            }
        }
        Err(failed(self))
    }

    fn connect(&self, epoll: &OwnedFd, id: LinkId, address: SocketAddr) -> io::Result<OwnedFd> {
        let socket = ring::begin_connect(address)?;
        ring::limit_silence(&socket, self.silence)?;
        watch(epoll, &socket, id, Interest::ALL)?;
        Ok(socket)
    }

    /// The kernel knows how the attempt ended: the socket, if it is connected.
    pub(super) fn decide(&mut self) -> Option<OwnedFd> {
        let socket = self.socket.take()?;
        match ring::finish_connect(&socket) {
            Ok(()) => Some(socket),
            Err(error) => {
                self.note(&error);
                None
            }
        }
    }

    /// No answer came in time.
    pub(super) fn give_up(&mut self) {
        self.socket = None;
    }

    fn note(&mut self, error: &io::Error) {
        self.refusals += usize::from(error.kind() == io::ErrorKind::ConnectionRefused);
    }
}
