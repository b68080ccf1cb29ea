//! Accepting connections through epoll.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};

use super::{Epoll, data};
use crate::ring::slots::{Slot, Slots};
use crate::ring::socket::AcceptError;
use crate::ring::tag::{Kind, Tag};
use crate::ring::timers::ACCEPT_PAUSE;
use crate::ring::{Handler, ListenerId};

/// Connections accepted from one listener in one turn; established ones have a right to answers.
const ACCEPTS_PER_TURN: usize = 64;

/// A listening socket, level-triggered: what was left over is reported again.
#[derive(Debug)]
struct Listening {
    socket: OwnedFd,
    /// Whether the last attempt failed for want of descriptors or memory. Reported already.
    is_short: bool,
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

impl Epoll {
    pub(in crate::ring) fn listen(&mut self, socket: OwnedFd) -> io::Result<ListenerId> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let listening = Listening { socket, is_short: false };
        let slot = self.listeners.table.insert(listening).map_err(|_| Errno::MFILE)?;
        let listening = self.listeners.table.get(slot).expect("inserted above");
        match self.register(&listening.socket, Tag::new(Kind::Accept, slot), EventFlags::IN) {
            Ok(()) => Ok(ListenerId(slot)),
            Err(error) => {
                drop(self.listeners.table.remove(slot));
                Err(error)
            }
        }
    }

    pub(in crate::ring) fn unlisten(&mut self, ListenerId(slot): ListenerId) {
        self.listeners.paused.retain(|(_, paused)| *paused != slot);
        drop(self.listeners.table.remove(slot));
    }

    pub(super) fn accept(&mut self, slot: Slot, handler: &mut impl Handler) {
        let Some(listening) = self.listeners.table.get_mut(slot) else { return };
        for _ in 0..ACCEPTS_PER_TURN {
            match acceptfrom_with(&listening.socket, SocketFlags::CLOEXEC) {
                Ok((socket, peer)) => {
                    listening.is_short = false;
                    if let Some(peer) = peer.and_then(|peer| SocketAddr::try_from(peer).ok()) {
                        handler.on_accept(ListenerId(slot), socket, peer);
                    }
                }
                Err(Errno::AGAIN) => return,
                Err(errno) if AcceptError::of(errno) == AcceptError::Skip => {}
                Err(errno) => {
                    if !listening.is_short {
                        listening.is_short = true;
                        handler.on_accept_paused(ListenerId(slot), &errno.into());
                    }
                    self.listeners.paused.push((Instant::now() + ACCEPT_PAUSE, slot));
                    return self.set_interest(slot, EventFlags::empty());
                }
            }
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
            self.set_interest(slot, EventFlags::IN);
        }
        self.listeners.paused.iter().map(|(end, _)| *end).min()
    }

    fn set_interest(&self, slot: Slot, flags: EventFlags) {
        let listening = self.listeners.table.get(slot).expect("a listener that pauses exists");
        epoll::modify(&self.epoll, &listening.socket, data(Tag::new(Kind::Accept, slot)), flags)
            .expect("a registered descriptor can be registered differently");
    }
}
