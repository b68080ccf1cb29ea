//! The ring on io_uring: multishot accepts and receives, one `io_uring_enter` per turn.
//!
//! ```text
//!  send, close, ... ──> submission queue ──┐                    ┌─> completions ──> handler
//!                       (overflow waits)   └─ io_uring_enter ───┘
//! ```
//!
//! This module, those below it and the page-aligned memory of `ring/memory.rs` are the server's
//! only `unsafe` code. The argument:
//! * The kernel reads and writes memory by the addresses in submitted operations. Each such
//!   address belongs to a value that is kept in a table ([`Connection::sending`],
//!   [`FileWrite`], [`Buffers`]) until the completion that ends the operation was seen. The tables
//!   move entries, but the addresses are of heap memory that entries own.
//! * `in_flight` counts operations that have not ended. Drop cancels them and waits until there
//!   are none; only then the tables and the buffers go.
//! * Descriptors in operations are kept open the same way, so that a number is never reused
//!   while an operation may refer to it.

#![expect(unsafe_code, reason = "io_uring works on addresses; the header says why they hold")]

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io, mem};

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::park::{Park, Shared, Waker};
use super::slots::{Slot, Slots};
use super::tag::{Kind, Tag};
use super::timers::{Lingering, bounded};
use super::{Config, FileWrite, Handler, RingError};
use buffers::Buffers;
use connection::Connection;
use listening::Listeners;

mod buffers;
mod connection;
mod listening;
mod memory;
mod setup;
mod writes;

pub(super) use setup::probe;

pub(super) struct Uring {
    ring: IoUring,
    buffers: Buffers,
    shared: Arc<Shared>,
    connections: Slots<Connection>,
    writes: Slots<FileWrite>,
    listeners: Listeners,
    lingering: Lingering,
    /// Descriptors that end a turn's wait.
    watched: Vec<OwnedFd>,
    /// Operations that found the submission queue full, in order.
    overflow: VecDeque<squeue::Entry>,
    /// Completions of this turn; kept for its memory.
    completions: Vec<cqueue::Entry>,
    /// Operations the kernel has not ended yet, those in the queues included.
    in_flight: usize,
}

impl Uring {
    pub(super) fn new(config: &Config) -> Result<Self, RingError> {
        let ring = setup::build(config.submissions)?;
        let signal = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let buffers = Buffers::new(&ring, config.receive_buffers, config.receive_buffer_bytes)
            .map_err(setup::buffers_error)?;
        let mut uring = Self {
            ring,
            buffers,
            shared: Arc::new(Shared { park: Park::new(), signal }),
            connections: Slots::new(),
            writes: Slots::new(),
            listeners: Listeners::new(),
            lingering: Lingering::new(config),
            watched: Vec::new(),
            overflow: VecDeque::new(),
            completions: Vec::new(),
            in_flight: 0,
        };
        uring.watch_signal();
        Ok(uring)
    }

    pub(super) fn waker(&self) -> Waker {
        Waker::new(Arc::clone(&self.shared))
    }

    pub(super) fn connections_count(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn watch(&mut self, descriptor: OwnedFd) {
        self.watched.push(descriptor);
        self.poll_watched(self.watched.len() - 1);
    }

    /// One poll at a time: begun anew, it looks at what there is and misses nothing.
    fn poll_watched(&mut self, index: usize) {
        let descriptor = Fd(self.watched[index].as_raw_fd());
        let entry = opcode::PollAdd::new(descriptor, libc::POLLIN as u32).build();
        self.submit(entry, Tag::new(Kind::Watch, Slot::new(index as u32, 0)));
    }

    pub(super) fn submit_queued(&mut self) -> io::Result<()> {
        self.fill_submissions();
        self.enter()
    }

    pub(super) fn turn(
        &mut self,
        timeout: Option<Duration>,
        handler: &mut impl Handler,
    ) -> io::Result<()> {
        let timeout = bounded(timeout, self.run_timers());
        self.fill_submissions();
        let may_wait = timeout != Some(Duration::ZERO) && self.overflow.is_empty();
        let parked = may_wait && self.shared.park.park();
        let entered = if parked { self.enter_and_wait(timeout) } else { self.enter() };
        handler.on_begin();
        if self.shared.park.unpark() {
            handler.on_wake();
        }
        entered?;

        let mut completions = mem::take(&mut self.completions);
        completions.extend(self.ring.completion());
        for completion in &completions {
            self.on_completion(completion, handler);
        }
        self.buffers.publish();
        completions.clear();
        self.completions = completions;
        Ok(())
    }

    fn on_completion(&mut self, completion: &cqueue::Entry, handler: &mut impl Handler) {
        let tag = Tag::unpack(completion.user_data());
        if tag.kind == Kind::Cancel {
            return;
        }
        let is_last = !cqueue::more(completion.flags());
        if is_last {
            self.in_flight -= 1;
        }
        let result = errno_or_count(completion.result());
        match tag.kind {
            Kind::Wake if is_last => self.watch_signal(),
            Kind::Wake | Kind::Cancel | Kind::Ready => {}
            Kind::Watch => self.poll_watched(tag.slot.index()),
            Kind::Accept => self.on_accepted(tag.slot, result, is_last, handler),
            Kind::Receive => {
                let buffer = cqueue::buffer_select(completion.flags());
                self.on_received(tag.slot, result, buffer, is_last, handler);
            }
            Kind::Send => self.on_sent(tag.slot, result, handler),
            Kind::Write => self.on_written(tag.slot, result, handler),
        }
    }

    /// Does what is due of our own and says when there will be more to do.
    fn run_timers(&mut self) -> Option<Instant> {
        while let Some(slot) = self.lingering.pop_due(|slot| self.connections.get(slot).is_none()) {
            self.close(slot);
        }
        let resume = self.resume_listeners();
        [resume, self.lingering.next_deadline()].into_iter().flatten().min()
    }

    /// Queues an operation that completes with `tag`.
    fn submit(&mut self, entry: squeue::Entry, tag: Tag) {
        self.in_flight += 1;
        self.push(entry.user_data(tag.pack()));
    }

    /// Queues the cancellation of whatever `builder` matches.
    fn submit_cancel(&mut self, builder: CancelBuilder) {
        let entry = opcode::AsyncCancel2::new(builder)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Tag::single(Kind::Cancel).pack());
        self.push(entry);
    }

    fn push(&mut self, entry: squeue::Entry) {
        // Order matters: a cancellation must not overtake what it cancels.
        if !self.overflow.is_empty() || !self.try_push(&entry) {
            self.overflow.push_back(entry);
        }
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: entries are made in this module and those below, from memory and descriptors that
        // stay until their completions (see the header).
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    fn fill_submissions(&mut self) {
        while let Some(entry) = self.overflow.pop_front() {
            if !self.try_push(&entry) {
                self.overflow.push_front(entry);
                return;
            }
        }
    }

    /// Submits and lets the kernel do what it has deferred, without waiting.
    fn enter(&mut self) -> io::Result<()> {
        let submission = self.ring.submission();
        let idle = submission.is_empty() && !submission.taskrun() && !submission.cq_overflow();
        drop(submission);
        if idle { Ok(()) } else { tolerate(self.ring.submit().map(drop)) }
    }

    fn enter_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let entered = match timeout {
            None => self.ring.submit_and_wait(1),
            Some(timeout) => {
                let limit = Timespec::from(timeout);
                let args = SubmitArgs::new().timespec(&limit);
                self.ring.submitter().submit_with_args(1, &args)
            }
        };
        tolerate(entered.map(drop))
    }

    fn watch_signal(&mut self) {
        let signal = Fd(self.shared.signal.as_raw_fd());
        let entry = opcode::PollAdd::new(signal, libc::POLLIN as u32).multi(true).build();
        self.submit(entry, Tag::single(Kind::Wake));
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            self.submit_cancel(CancelBuilder::any());
            self.fill_submissions();
            let entered = self.enter_and_wait(Some(Duration::from_millis(10)));
            // Going on would free memory that the kernel may still write to.
            entered.expect("a ring that worked can be emptied");
            let completions: Vec<_> = self.ring.completion().collect();
            for completion in completions {
                let tag = Tag::unpack(completion.user_data());
                if tag.kind != Kind::Cancel && !cqueue::more(completion.flags()) {
                    self.in_flight -= 1;
                }
                if tag.kind == Kind::Accept
                    && let Ok(descriptor) = errno_or_count(completion.result())
                {
                    drop(listening::accepted(descriptor));
                }
            }
        }
    }
}

/// What an idle connection takes.
#[cfg(test)]
pub(super) const CONNECTION_BYTES: usize = Slots::<Connection>::PLACE_BYTES;

impl fmt::Debug for Uring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Uring")
            .field("connections", &self.connections.len())
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

fn errno_or_count(result: i32) -> Result<u32, Errno> {
    u32::try_from(result).map_err(|_| Errno::from_raw_os_error(-result))
}

/// A wait that ended without an event is no error: by time, by a signal, or because completions
/// have to be taken first.
fn tolerate(entered: io::Result<()>) -> io::Result<()> {
    match entered {
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN) => Ok(()),
            _ => Err(error),
        },
        Ok(()) => Ok(()),
    }
}
