//! What the epoll of the links is to report of each socket.

use std::io;
use std::os::fd::OwnedFd;

use engine::ids::LinkId;
use rustix::event::epoll::{self, EventData, EventFlags};

/// What of a link's socket the epoll reports, beside that it is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interest {
    /// That something has come.
    pub(super) input: bool,
    /// That it can be written to.
    pub(super) room: bool,
}

impl Interest {
    /// What there is to hear of a link that has nothing to send.
    pub(super) const INPUT: Self = Self { input: true, room: false };
    pub(super) const ALL: Self = Self { input: true, room: true };

    fn flags(self) -> EventFlags {
        let input =
            if self.input { EventFlags::IN | EventFlags::RDHUP } else { EventFlags::empty() };
        if self.room { input | EventFlags::OUT } else { input }
    }
}

/// Watches the socket of a link.
pub(super) fn watch(
    epoll: &OwnedFd,
    socket: &OwnedFd,
    id: LinkId,
    interest: Interest,
) -> io::Result<()> {
    Ok(epoll::add(epoll, socket, EventData::new_u64(id.0), interest.flags())?)
}

/// Changes for what the socket of a link is watched.
pub(super) fn watch_again(
    epoll: &OwnedFd,
    socket: &OwnedFd,
    id: LinkId,
    interest: Interest,
) -> io::Result<()> {
    Ok(epoll::modify(epoll, socket, EventData::new_u64(id.0), interest.flags())?)
}
