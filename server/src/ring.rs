//! One small completion loop per core: sockets, files and wake-ups in, one wait, handler calls out.
//!
//! ```text
//!   core:  loop { ring.turn(timeout, &mut handler)   on_received, on_sent, on_wake, ...
//!                 machines step, their outputs become
//!                 ring.send(..), ring.close(..), ... } only queued: what begins them is the next
//!                                                    turn, or `submit`
//!
//!   Ring ──┬── uring   io_uring: what a turn has queued in one io_uring_enter
//!          └── epoll   where io_uring is forbidden or too old: the same calls, the same events
//! ```
//!
//! A handler gets no access to the ring: a turn is input, what follows from it is output.
//!
//! *Invariants*, the same for both:
//! * A [`Slot`] names one connection for its life. After `close`, and after `on_closed`, no event
//!   of that slot follows; calls with it do nothing.
//! * At most one send per connection is in flight; its buffer comes back with `on_sent`.
//! * What a connection receives is delivered in order. Memory for it is bounded by the ring's
//!   receive buffers, however many connections there are.
//! * Memory that the kernel may still read or write is not freed before the kernel is done.
//!
//! A ring is made and used on one thread; only a [`Waker`] leaves it.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use engine::disk::AlignedBuf;

use epoll::Epoll;
use uring::Uring;

pub use error::RingError;
#[cfg(all(test, feature = "loom"))]
pub(crate) use park::Park;
pub use park::Waker;
pub use slots::Slot;
pub(crate) use socket::{
    AcceptError, begin_connect, finish_connect, limit_silence, prepare_connection, shutdown_write,
};
pub use socket::{bind, bind_when_free};
pub(crate) use timers::ACCEPT_PAUSE;

mod epoll;
mod error;
mod park;
mod slots;
mod socket;
mod tag;
#[cfg(test)]
mod tests;
mod timers;
mod uring;

/// Which of the kernel's interfaces a ring uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Completions: one system call per turn, or two.
    IoUring,
    /// Readiness, and a thread for files: works everywhere.
    Epoll,
}

/// What a process uses for all its rings.
#[derive(Debug)]
pub struct Choice {
    /// The one to make rings with.
    pub backend: Backend,
    /// One sentence for the log, if it is not the better one.
    pub warning: Option<String>,
}

/// Sizes of one ring.
#[derive(Clone, Debug)]
pub struct Config {
    /// Operations submitted by one turn; what exceeds it waits for the next.
    pub submissions: u32,
    /// Buffers that receives share, a power of two.
    pub receive_buffers: u32,
    /// Size of each.
    pub receive_buffer_bytes: u32,
    /// How long a connection may take to swallow its last bytes and close, once
    /// `close_after_send` was called.
    pub linger: Duration,
    /// So many may do so at a time, one at least. Beyond, the one that began first is closed at
    /// once.
    pub lingering_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            submissions: 1024,
            receive_buffers: 1024,
            receive_buffer_bytes: 4096,
            linger: Duration::from_secs(2),
            lingering_max: 256,
        }
    }
}

/// A listening socket of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(Slot);

/// What a turn reports. Events of one connection come in the order in which they happened.
pub trait Handler {
    /// The ring has waited long enough: what follows is what this turn is about.
    fn on_begin(&mut self) {}
    /// A client connected. Its socket belongs to the handler: to be adopted by this ring or
    /// another one, or dropped.
    fn on_accept(&mut self, listener: ListenerId, socket: OwnedFd, peer: SocketAddr);
    /// Descriptors or memory ran out: `listener` accepts nothing for a moment, then tries again.
    /// Called once until it accepts again.
    fn on_accept_paused(&mut self, listener: ListenerId, error: &io::Error);
    /// Bytes arrived; they are only valid during the call.
    fn on_received(&mut self, slot: Slot, bytes: &[u8]);
    /// The peer will send no more; it may still receive.
    fn on_eof(&mut self, slot: Slot);
    /// All of `buffer` was handed to the kernel; the next send may follow.
    fn on_sent(&mut self, slot: Slot, buffer: Vec<u8>);
    /// The connection broke or could not be made; the slot is gone.
    fn on_closed(&mut self, slot: Slot, error: io::Error);
    /// A write of `submit_write` ended: bytes written (all or an error).
    fn on_written(&mut self, token: u64, buffer: AlignedBuf, result: io::Result<()>);
    /// A waker was used since the last turn, by others or by the ring itself.
    fn on_wake(&mut self);
}

/// Finds out which backend works here. `wanted` is what the configuration says; without it,
/// io_uring is tried and epoll is used with a warning where that fails.
pub fn choose(wanted: Option<Backend>) -> Result<Choice, RingError> {
    match wanted {
        Some(Backend::Epoll) => Ok(Choice { backend: Backend::Epoll, warning: None }),
        Some(Backend::IoUring) => {
            uring::probe()?;
            Ok(Choice { backend: Backend::IoUring, warning: None })
        }
        None => choice_after(uring::probe()),
    }
}

fn choice_after(probe: Result<(), RingError>) -> Result<Choice, RingError> {
    match probe {
        Ok(()) => Ok(Choice { backend: Backend::IoUring, warning: None }),
        Err(error) if error.has_alternative() => {
            let warning = format!("using epoll, which is slower: {error}");
            Ok(Choice { backend: Backend::Epoll, warning: Some(warning) })
        }
        Err(error) => Err(error),
    }
}

/// One core's loop.
#[derive(Debug)]
pub struct Ring {
    backend: Implementation,
    /// io_uring takes submissions from the thread that made it only.
    not_send: PhantomData<*const ()>,
}

#[derive(Debug)]
enum Implementation {
    Uring(Box<Uring>),
    Epoll(Box<Epoll>),
}

/// Calls the same method of whichever implementation there is.
macro_rules! on_backend {
    ($ring:expr, $backend:ident => $call:expr) => {
        match &mut $ring.backend {
            Implementation::Uring($backend) => $call,
            Implementation::Epoll($backend) => $call,
        }
    };
}

impl Ring {
    /// Makes a ring for the calling thread.
    pub fn new(backend: Backend, config: &Config) -> Result<Self, RingError> {
        let backend = match backend {
            Backend::IoUring => Implementation::Uring(Box::new(Uring::new(config)?)),
            Backend::Epoll => Implementation::Epoll(Box::new(Epoll::new(config)?)),
        };
        Ok(Self { backend, not_send: PhantomData })
    }

    /// Which one it uses.
    pub fn backend(&self) -> Backend {
        match self.backend {
            Implementation::Uring(_) => Backend::IoUring,
            Implementation::Epoll(_) => Backend::Epoll,
        }
    }

    /// Something that wakes this ring's turn from any thread.
    pub fn waker(&self) -> Waker {
        match &self.backend {
            Implementation::Uring(uring) => uring.waker(),
            Implementation::Epoll(epoll) => epoll.waker(),
        }
    }

    /// Accepts connections on `socket` until `unlisten`.
    pub fn listen(&mut self, socket: TcpListener) -> io::Result<ListenerId> {
        on_backend!(self, backend => backend.listen(OwnedFd::from(socket)))
    }

    /// Accepts no more on `listener` and closes it, at the latest when the next turn has begun.
    pub fn unlisten(&mut self, listener: ListenerId) {
        on_backend!(self, backend => backend.unlisten(listener));
    }

    /// Takes over a connected socket and begins to receive from it.
    pub fn adopt(&mut self, socket: OwnedFd) -> io::Result<Slot> {
        on_backend!(self, backend => backend.adopt(socket))
    }

    /// Sends `buffer`, which must not be empty, on a connection with no send in flight. Gives the
    /// buffer back if the connection is gone.
    pub fn send(&mut self, slot: Slot, buffer: Vec<u8>) -> Result<(), Vec<u8>> {
        assert!(!buffer.is_empty(), "an empty send would never complete");
        on_backend!(self, backend => backend.send(slot, buffer))
    }

    /// Receives nothing more from `slot` for now. With io_uring, what arrives before the next
    /// turn has told the kernel may still be delivered: bounded by the ring's receive buffers.
    pub fn pause_reading(&mut self, slot: Slot) {
        on_backend!(self, backend => backend.pause_reading(slot));
    }

    /// Receives again.
    pub fn resume_reading(&mut self, slot: Slot) {
        on_backend!(self, backend => backend.resume_reading(slot));
    }

    /// Ends a connection at once; what was not sent yet is lost.
    pub fn close(&mut self, slot: Slot) {
        on_backend!(self, backend => backend.close(slot));
    }

    /// Ends a connection when its pending send is done: the peer gets all of it, then the end of
    /// stream. What it still sends is thrown away until it closes too, or `Config::linger` is
    /// over: closing with unread input would reset the connection and could destroy the answer.
    pub fn close_after_send(&mut self, slot: Slot) {
        on_backend!(self, backend => backend.close_after_send(slot));
    }

    /// Writes `buffer` to `file` at `offset`, as if followed by `fdatasync` of what was written;
    /// `on_written` with `token` says how it went.
    /// Several may be in flight, in no particular order.
    pub fn submit_write(&mut self, file: Arc<File>, offset: u64, buffer: AlignedBuf, token: u64) {
        let write = FileWrite { file, offset, buffer, token };
        on_backend!(self, backend => backend.submit_write(write));
    }

    /// From now on, turns do not wait while `descriptor`, which somebody else reads, has something
    /// to read. It must be one that can be polled. Nothing is reported.
    pub fn watch(&mut self, descriptor: OwnedFd) {
        on_backend!(self, backend => backend.watch(descriptor));
    }

    /// Has the kernel begin what is queued. What comes of it is reported by the next turn.
    pub fn submit(&mut self) -> io::Result<()> {
        match &mut self.backend {
            Implementation::Uring(uring) => uring.submit_queued(),
            // It queues nothing.
            Implementation::Epoll(_) => Ok(()),
        }
    }

    /// Submits what is queued, waits until something happens or `timeout` is over (`None`: for
    /// ever; zero: not at all), and reports what happened. It may report nothing.
    pub fn turn(
        &mut self,
        timeout: Option<Duration>,
        handler: &mut impl Handler,
    ) -> io::Result<()> {
        on_backend!(self, backend => backend.turn(timeout, handler))
    }

    /// Connections whose descriptors are open, those on their way out included.
    pub fn connections_count(&self) -> usize {
        match &self.backend {
            Implementation::Uring(uring) => uring.connections_count(),
            Implementation::Epoll(epoll) => epoll.connections_count(),
        }
    }
}

/// A write to a file on its way.
#[derive(Debug)]
struct FileWrite {
    file: Arc<File>,
    offset: u64,
    buffer: AlignedBuf,
    token: u64,
}
