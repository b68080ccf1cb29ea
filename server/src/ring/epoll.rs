//! The ring on epoll, for kernels and sandboxes without io_uring: the same calls, the same events.
//!
//! Descriptors are registered once, edge-triggered; what an edge said is remembered per connection
//! until a short read or a full socket says otherwise. A send is tried when it is called, so that
//! most sends cost one system call; its event waits in `outcomes` for the next turn. Files are
//! written by a thread of their own ([`writer`]).
//!
//! *Invariants*: a connection with unread input that may be read is in `ready` or has an edge
//! to come. A turn does not wait while `outcomes` or `ready` has something.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io, mem};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;

use super::park::{Park, Shared, Waker};
use super::slots::{Slot, Slots};
use super::tag::{Kind, Tag};
use super::timers::{Lingering, bounded};
use super::{Config, FileWrite, Handler, RingError};
use connection::{Connection, Outcome};
use listening::Listeners;
use writer::Writer;

mod connection;
mod listening;
mod writer;

/// Most descriptors that one turn hears of.
const EVENTS_MAX: usize = 1024;

/// Longest wait given to the kernel; a turn may report nothing.
const WAIT_MAX: Duration = Duration::from_hours(24);

pub(super) struct Epoll {
    epoll: OwnedFd,
    shared: Arc<Shared>,
    connections: Slots<Connection>,
    listeners: Listeners,
    lingering: Lingering,
    /// How sends ended that were decided when they were called.
    outcomes: VecDeque<(Slot, Outcome)>,
    /// Whether the last turn only reported such outcomes.
    has_skipped_wait: bool,
    /// Connections that may have more input than was read.
    ready: Vec<Slot>,
    writer: Option<Writer>,
    /// Kept for their memory.
    events: Vec<Event>,
    buffer: Vec<u8>,
    /// Descriptors that end a turn's wait.
    watched: Vec<OwnedFd>,
}

impl Epoll {
    pub(super) fn new(config: &Config) -> Result<Self, RingError> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let signal = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let edges = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &signal, data(Tag::single(Kind::Wake)), edges)?;
        Ok(Self {
            epoll,
            shared: Arc::new(Shared { park: Park::new(), signal }),
            connections: Slots::new(),
            listeners: Listeners::new(),
            lingering: Lingering::new(config),
            outcomes: VecDeque::new(),
            has_skipped_wait: false,
            ready: Vec::new(),
            writer: None,
            events: Vec::with_capacity(EVENTS_MAX),
            buffer: vec![0; config.receive_buffer_bytes.max(64 * 1024) as usize],
            watched: Vec::new(),
        })
    }

    pub(super) fn waker(&self) -> Waker {
        Waker::new(Arc::clone(&self.shared))
    }

    pub(super) fn connections_count(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn submit_write(&mut self, write: FileWrite) {
        let waker = self.waker();
        self.writer.get_or_insert_with(|| Writer::start(waker)).submit(write);
    }

    pub(super) fn watch(&mut self, descriptor: OwnedFd) {
        let added = self.register(&descriptor, Tag::single(Kind::Watch), EventFlags::IN);
        added.expect("an open descriptor that can be polled can be watched");
        self.watched.push(descriptor);
    }

    pub(super) fn turn(
        &mut self,
        timeout: Option<Duration>,
        handler: &mut impl Handler,
    ) -> io::Result<()> {
        let asks_kernel = timeout == Some(Duration::ZERO);
        let timeout = bounded(timeout, self.run_timers());
        let has_outcomes = !self.outcomes.is_empty();
        if has_outcomes {
            handler.on_begin();
        }
        self.report_outcomes(handler);
        // Saves a system call per turn of request and answer. Every other turn asks the
        // kernel, so that nobody's answers can keep the rest waiting; and so does one that the
        // caller does not want to wait: it is there to hear what has come.
        let may_skip = !asks_kernel && !self.has_skipped_wait;
        self.has_skipped_wait = has_outcomes && self.ready.is_empty() && may_skip;
        if !self.has_skipped_wait {
            let is_idle = !has_outcomes && self.ready.is_empty() && timeout != Some(Duration::ZERO);
            self.wait(timeout, is_idle)?;
        }
        if !has_outcomes {
            handler.on_begin();
        }
        if self.shared.park.unpark() {
            handler.on_wake();
            self.report_writes(handler);
        }

        let ready = mem::take(&mut self.ready);
        let events = mem::take(&mut self.events);
        for event in &events {
            self.on_event(*event, handler);
        }
        for slot in &ready {
            self.read(*slot, handler);
        }
        self.events = events;
        self.events.clear();
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>, is_idle: bool) -> io::Result<()> {
        let parked = is_idle && self.shared.park.park();
        let limit = match timeout {
            _ if !parked => Some(Duration::ZERO),
            timeout => timeout.map(|timeout| timeout.min(WAIT_MAX)),
        };
        let limit = limit.map(|limit| {
            Timespec::try_from(limit).expect("a limit of a day fits the kernel's seconds")
        });
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn on_event(&mut self, event: Event, handler: &mut impl Handler) {
        let flags = event.flags;
        let tag = Tag::unpack(event.data.u64());
        match tag.kind {
            Kind::Accept => self.accept(tag.slot, handler),
            Kind::Ready => self.on_ready(tag.slot, flags, handler),
            Kind::Wake | Kind::Watch => {}
            Kind::Receive | Kind::Send | Kind::Write | Kind::Cancel => {
                unreachable!("epoll watches the signal, listeners and connections")
            }
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

    fn report_writes(&mut self, handler: &mut impl Handler) {
        if let Some(writer) = &mut self.writer {
            for (write, result) in writer.done() {
                handler.on_written(write.token, write.buffer, result);
            }
        }
    }

    fn register(&self, descriptor: impl AsFd, tag: Tag, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, descriptor, data(tag), flags)?)
    }
}

/// What an idle connection takes.
#[cfg(test)]
pub(super) const CONNECTION_BYTES: usize = Slots::<Connection>::PLACE_BYTES;

impl fmt::Debug for Epoll {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Epoll")
            .field("connections", &self.connections.len())
            .finish_non_exhaustive()
    }
}

fn data(tag: Tag) -> EventData {
    EventData::new_u64(tag.pack())
}
