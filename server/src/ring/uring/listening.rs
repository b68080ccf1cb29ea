//! Accepting connections through io_uring.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;
use std::{io, mem};

use io_uring::opcode;
use io_uring::types::{CancelBuilder, Fd};
use rustix::io::Errno;

use super::Uring;
use crate::ring::slots::{Slot, Slots};
use crate::ring::socket::{self, AcceptError};
use crate::ring::tag::{Kind, Tag};
use crate::ring::timers::ACCEPT_PAUSE;
use crate::ring::{Handler, ListenerId};

/// A listening socket. An accept is in flight, unless it pauses.
#[derive(Debug)]
struct Listening {
    socket: OwnedFd,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Accepting,
    /// Descriptors or memory ran out; no accept is in flight. Reported already.
    Paused,
    /// Accepts again after a pause; a failure would be the same one.
    Retrying,
    /// To be closed when the kernel lets go.
    Closing,
}

#[derive(Debug)]
pub(super) struct Listeners {
    table: Slots<Listening>,
    /// Those that pause, and until when.
    paused: Vec<(Instant, Slot)>,
}

impl Listeners {
    pub(super) fn new() -> Self {
        Self { table: Slots::new(), paused: Vec::new() }
    }
}

/// Takes the descriptor that an accept completed with.
pub(super) fn accepted(descriptor: u32) -> OwnedFd {
    // SAFETY: the kernel opened it for this completion, and each completion is seen once.
    unsafe { OwnedFd::from_raw_fd(descriptor as i32) }
}

impl Uring {
    pub(in crate::ring) fn listen(&mut self, socket: OwnedFd) -> io::Result<ListenerId> {
        // io_uring waits by itself, and would answer EAGAIN instead on a non-blocking socket.
        rustix::io::ioctl_fionbio(&socket, false)?;
        let listening = Listening { socket, state: State::Accepting };
        let slot = self.listeners.table.insert(listening).map_err(|_| Errno::MFILE)?;
        self.submit_accept(slot);
        Ok(ListenerId(slot))
    }

    pub(in crate::ring) fn unlisten(&mut self, ListenerId(slot): ListenerId) {
        let Some(listening) = self.listeners.table.get_mut(slot) else { return };
        match mem::replace(&mut listening.state, State::Closing) {
            State::Accepting | State::Retrying => {
                let tag = Tag::new(Kind::Accept, slot);
                self.submit_cancel(CancelBuilder::user_data(tag.pack()));
            }
            State::Paused => {
                self.listeners.paused.retain(|(_, paused)| *paused != slot);
                drop(self.listeners.table.remove(slot));
            }
            State::Closing => {}
        }
    }

    fn submit_accept(&mut self, slot: Slot) {
        let listening = self.listeners.table.get(slot).expect("a listener accepts while it exists");
        let entry = opcode::AcceptMulti::new(Fd(listening.socket.as_raw_fd()))
            .flags(libc::SOCK_CLOEXEC)
            .build();
        self.submit(entry, Tag::new(Kind::Accept, slot));
    }

    pub(super) fn on_accepted(
        &mut self,
        slot: Slot,
        result: Result<u32, Errno>,
        is_last: bool,
        handler: &mut impl Handler,
    ) {
        let socket = result.map(accepted);
        let listening =
            self.listeners.table.get_mut(slot).expect("a listener outlives its accepts");
        if listening.state == State::Closing {
            if is_last {
                drop(self.listeners.table.remove(slot));
            }
            return;
        }
        match socket {
            Ok(socket) => {
                listening.state = State::Accepting;
                if let Some(peer) = socket::peer_address(&socket) {
                    handler.on_accept(ListenerId(slot), socket, peer);
                }
            }
            Err(errno) if AcceptError::of(errno) == AcceptError::Pause && is_last => {
                if mem::replace(&mut listening.state, State::Paused) == State::Accepting {
                    handler.on_accept_paused(ListenerId(slot), &errno.into());
                }
                self.listeners.paused.push((Instant::now() + ACCEPT_PAUSE, slot));
                return;
            }
            Err(_) => {}
        }
        if is_last {
            self.submit_accept(slot);
        }
    }

    /// Lets listeners whose pause is over accept again; says when the next one is.
    pub(super) fn resume_listeners(&mut self) -> Option<Instant> {
        if self.listeners.paused.is_empty() {
            return None;
        }
        let now = Instant::now();
        let due: Vec<_> = self.listeners.paused.extract_if(.., |(end, _)| *end <= now).collect();
        for (_, slot) in due {
            let listening = self.listeners.table.get_mut(slot).expect("a paused listener exists");
            listening.state = State::Retrying;
            self.submit_accept(slot);
        }
        self.listeners.paused.iter().map(|(end, _)| *end).min()
    }
}
