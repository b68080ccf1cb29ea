//! Readiness of many sockets: a thin, safe cover over epoll.

use std::fmt;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

/// How many sockets one wake may report.
const EVENTS_MAX: usize = 1024;

/// What is watched for on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to receive: reported as long as there is.
    Receive,
    /// Something to receive, or room to send: reported once when it comes. Who is told must take
    /// all there is, and the kernel need not look at the socket again to know that it is empty.
    Edges,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        use epoll::EventFlags as Flags;
        match self {
            Self::Receive => Flags::IN,
            Self::Edges => Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET,
        }
    }
}

/// A socket that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The number under which it was added.
    pub key: u64,
    /// Whether the peer has closed it: behind what there is to receive lies its end.
    pub is_ended: bool,
}

/// A set of sockets that are waited for together.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

impl Poller {
    /// An empty set. Timeouts of the calling thread become exact to a few microseconds.
    pub fn new() -> std::io::Result<Self> {
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Adds a socket under a number of the caller's.
    pub fn add(&self, socket: impl AsFd, key: u64, interest: Interest) -> std::io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(key), interest.flags())?)
    }

    /// Waits for at most `timeout`, then gives the sockets that are ready.
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
        ready: &mut Vec<Ready>,
    ) -> std::io::Result<()> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.clear();
        let ended = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        ready.extend(self.events.iter().map(|event| {
            let (flags, data) = (event.flags, event.data);
            Ready { key: data.u64(), is_ended: flags.intersects(ended) }
        }));
        Ok(())
    }
}
