//! The links to the other members of an ensemble: executes what the machines ask of them.
//!
//! ```text
//!   ordering core    loop { ring.turn(..)            ends when our own epoll has something
//!                           peers.poll(now)
//!                           while let Some(event) = peers.take() { machine.step(event) ──┐
//!                                                   peers.execute(op) <─────────────────────┘
//!                           }
//!                           peers.flush()            one write per link for all that was sent
//!                         }
//! ```
//!
//! Peers have an epoll of their own, which the core's ring only watches, and their sockets are read
//! and written by plain calls: traffic of peers can be taken before that of clients in each turn,
//! and the kernel closes the sockets of a process that dies at once, where an operation
//! outstanding in an io_uring would keep them open for some milliseconds.
//!
//! *Invariants*: as [`engine::zab::link`] says; and
//! * no call of a core waits: names are looked up by threads ([`resolver`])
//! * a link is in `links` as long as it has a socket or an attempt under way; its number is the
//!   epoll's key, and never comes again

mod accepted;
mod dial;
mod link;
mod ports;
mod resolver;
#[cfg(test)]
mod tests;
mod watching;

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Duration;
use std::{fmt, io};

use engine::ids::{LinkId, ServerId};
use engine::time::Instant;
use engine::zab::link::{LinkEvent, LinkOp, Plane};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::config::ensemble::PeerAddress;
use crate::descriptors;
use accepted::{Accepted, Place};
use dial::Dial;
use link::{Link, Read};
use ports::Ports;
use resolver::Resolver;

pub use ports::{BindError, bind, listen_addresses};

/// How long a link that the machine has closed may take to send what was sent on it.
const LEAVE_TIME: Duration = Duration::from_secs(3);
/// Most descriptors that one turn hears of.
const EVENTS_MAX: usize = 256;
/// Bytes that one read takes.
const READ_BYTES: usize = 256 << 10;
/// Reads of one link in one turn, so that a fast one does not keep the others waiting.
const READS_PER_TURN: u32 = 4;

/// Ports that others connect to: of the election, and of learners.
const PORTS: usize = 2;

/// Epoll keys with this bit are those of ports, the others those of links.
const PORT_KEY: u64 = 1 << 63;
/// The epoll key of the resolver's signal.
const RESOLVER_KEY: u64 = u64::MAX;

/// Whom there is to connect to, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the other members are.
    pub members: BTreeMap<ServerId, Vec<PeerAddress>>,
    /// How long an attempt to connect may take, all addresses of the member together.
    pub connect_timeout: Duration,
    /// Where to listen for learners while the machine wants that.
    pub learner_addresses: Vec<SocketAddr>,
    /// How much may wait for a member that does not read, bytes; then the link breaks.
    pub unsent_bytes_max: usize,
}

/// The links of a server.
pub struct Peers {
    plan: Plan,
    epoll: OwnedFd,
    links: BTreeMap<LinkId, Link>,
    ports: Ports,
    resolver: Resolver,
    accepted: Accepted,
    /// What has happened and was not told yet.
    events: VecDeque<Happened>,
    /// Links that can be read, each with the reads that it has left in this turn.
    readable: VecDeque<(LinkId, u32)>,
    /// Links that have something to send.
    unsent: Vec<LinkId>,
    kernel_events: Vec<Event>,
    buffer: Vec<u8>,
}

/// An event without bytes.
#[derive(Clone, Copy, Debug)]
enum Happened {
    Accepted(LinkId, Plane),
    Connected(LinkId),
    Failed(LinkId, bool),
    Drained(LinkId),
    Closed(LinkId),
    Reset(LinkId),
}

impl Peers {
    /// Accepts connections on the election port from now on.
    pub fn new(plan: Plan, election: Vec<TcpListener>) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let resolver = Resolver::new()?;
        epoll::add(&epoll, resolver.signal(), EventData::new_u64(RESOLVER_KEY), EventFlags::IN)?;
        let mut ports = Ports::default();
        for listener in election {
            ports.add(&epoll, listener, Plane::Election)?;
        }
        Ok(Self {
            plan,
            epoll,
            links: BTreeMap::new(),
            ports,
            resolver,
            accepted: Accepted::new(descriptors::peers_most(descriptors::limit()) / PORTS),
            events: VecDeque::new(),
            readable: VecDeque::new(),
            unsent: Vec::new(),
            kernel_events: Vec::with_capacity(EVENTS_MAX),
            buffer: vec![0; READ_BYTES],
        })
    }

    /// What can be read when there is something for [`Peers::poll`], for a ring to watch.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.epoll.try_clone()
    }

    /// When to call [`Peers::poll`] if nothing else happens.
    pub fn next_timeout(&self) -> Option<Instant> {
        let links = self.links.values().filter_map(Link::deadline).min();
        [links, self.ports.retry_at()].into_iter().flatten().min()
    }

    /// Whether there is something for [`Peers::take`] that needs no waiting for.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty() || !self.readable.is_empty()
    }

    /// The addresses at which learners can connect now.
    pub fn learner_addresses(&self) -> Vec<SocketAddr> {
        self.ports.learner_addresses()
    }

    /// Links that are open or on their way in or out.
    pub fn links_count(&self) -> usize {
        self.links.len()
    }

    /// Does what a machine wants.
    pub fn execute(&mut self, now: Instant, op: LinkOp) {
        match op {
            LinkOp::Dial { link, peer, plane } => self.dial(now, link, peer, plane),
            LinkOp::Send { link, bytes } => self.send(link, bytes),
            LinkOp::Pause(link) => self.set_paused(link, true),
            LinkOp::Resume(link) => self.set_paused(link, false),
            LinkOp::Close(link) => self.close(now, link),
            LinkOp::OpenLearnerPort => {
                self.ports.open_learner(&self.epoll, &self.plan.learner_addresses, now);
            }
            LinkOp::CloseLearnerPort => self.ports.close_learner(),
        }
    }

    /// Asks the kernel what has happened, without waiting.
    pub fn poll(&mut self, now: Instant) -> io::Result<()> {
        self.run_timers(now);
        let mut events = std::mem::take(&mut self.kernel_events);
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&zero)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for event in &events {
            match event.data.u64() {
                RESOLVER_KEY => self.take_resolved(now),
                key if key & PORT_KEY != 0 => self.accept(key & !PORT_KEY, now),
                key => self.on_link(LinkId(key), event.flags, now),
            }
        }
        events.clear();
        self.kernel_events = events;
        Ok(())
    }

    /// The next thing that has happened. What the machine wants because of it must be executed
    /// before this is called again.
    pub fn take(&mut self) -> Option<LinkEvent<'_>> {
        loop {
            if let Some(happened) = self.events.pop_front() {
                return Some(happened.event());
            }
            let (id, reads) = self.readable.pop_front()?;
            let Some(link) = self.links.get_mut(&id) else { continue };
            let is_open = link.is_open();
            match link.read(&mut self.buffer) {
                Read::Nothing => {}
                Read::Bytes(count) => {
                    if count == self.buffer.len() && reads > 1 {
                        self.readable.push_front((id, reads - 1));
                    } else if link.is_spoilt() {
                        // The epoll does not say that it is over.
                        self.readable.push_back((id, reads));
                    }
                    self.accepted.received(id, count);
                    if is_open {
                        return Some(LinkEvent::Received(id, &self.buffer[..count]));
                    }
                }
                Read::End => self.end(id, Happened::Closed(id)),
                Read::Reset => self.end(id, Happened::Reset(id)),
            }
        }
    }

    /// About how many links have something to send.
    pub fn unsent_links(&self) -> usize {
        self.unsent.len()
    }

    /// Hands what was sent to the kernel.
    pub fn flush(&mut self) {
        for id in std::mem::take(&mut self.unsent) {
            self.write(id);
        }
    }

    fn send(&mut self, id: LinkId, bytes: Vec<u8>) {
        // A link that is gone: its end is about to be told, or was while this was sent.
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.push(bytes) {
            self.unsent.push(id);
        }
        if link.unsent() > self.plan.unsent_bytes_max {
            let bytes = link.unsent();
            tracing::warn!(link = id.0, bytes, "a member does not take what it is sent");
            link.spoil(false);
            self.read_later(id);
        }
    }

    fn set_paused(&mut self, id: LinkId, is_paused: bool) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match link.set_paused(&self.epoll, id, is_paused) {
            Ok(()) if is_paused => self.readable.retain(|(waiting, _)| *waiting != id),
            Ok(()) => {}
            Err(_) => {
                link.spoil(false);
                self.read_later(id);
            }
        }
    }

    fn close(&mut self, now: Instant, id: LinkId) {
        self.events.retain(|happened| happened.link() != id);
        let Some(link) = self.links.get_mut(&id) else { return };
        if !link.leave(now.after(LEAVE_TIME)) {
            self.remove(id);
            return;
        }
        self.unsent.push(id);
        // It is read to its end.
        self.set_paused(id, false);
    }

    fn write(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match link.flush(&self.epoll, id) {
            Ok(is_drained) => {
                if is_drained {
                    self.events.push_back(Happened::Drained(id));
                }
            }
            // What the other side sent before is still told.
            Err(error) => {
                link.spoil(error.kind() == io::ErrorKind::ConnectionReset);
                self.read_later(id);
            }
        }
    }

    /// Nothing more will come on the link.
    fn end(&mut self, id: LinkId, how: Happened) {
        let Some(link) = self.links.get(&id) else { return };
        if link.is_open() {
            self.events.push_back(how);
        }
        self.remove(id);
    }

    fn remove(&mut self, id: LinkId) -> Option<Link> {
        let link = self.links.remove(&id)?;
        self.accepted.leave(id);
        Some(link)
    }

    fn on_link(&mut self, id: LinkId, flags: EventFlags, now: Instant) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.is_dialling() {
            let decided = EventFlags::OUT | EventFlags::HUP | EventFlags::ERR;
            if flags.intersects(decided) {
                self.on_attempt_decided(id, now);
            }
            return;
        }
        if flags.contains(EventFlags::OUT) {
            self.write(id);
        }
        let input = EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        if flags.intersects(input) {
            self.read_later(id);
        }
    }

    fn read_later(&mut self, id: LinkId) {
        if self.readable.iter().all(|(waiting, _)| *waiting != id) {
            self.readable.push_back((id, READS_PER_TURN));
        }
    }

    fn accept(&mut self, key: u64, now: Instant) {
        let Self { ports, epoll, .. } = self;
        let accepted = ports.accept(epoll, key, now);
        for (socket, plane) in accepted {
            match self.accepted.place(plane, now) {
                Place::Free => {}
                Place::InsteadOf(silent) => self.end(silent, Happened::Closed(silent)),
                Place::None(said) => {
                    if let Some(unsaid) = said {
                        tracing::warn!(?plane, unsaid, "connection refused: too many are open");
                    }
                    continue;
                }
            }
            let id = self.accepted.enter(plane);
            match Link::open(&self.epoll, id, socket, self.silence(plane)) {
                Ok(link) => {
                    self.links.insert(id, link);
                    self.events.push_back(Happened::Accepted(id, plane));
                }
                Err(error) => {
                    self.accepted.leave(id);
                    tracing::warn!(?plane, "connection dropped: {error}");
                }
            }
        }
    }

    fn run_timers(&mut self, now: Instant) {
        self.ports.run_timers(&self.epoll, &self.plan.learner_addresses, now);
        let due = |link: &Link| link.deadline().is_some_and(|at| at <= now);
        let late: Vec<_> =
            self.links.iter().filter(|(_, link)| due(link)).map(|(id, _)| *id).collect();
        for id in late {
            if self.links.get(&id).is_some_and(Link::is_dialling) {
                self.on_attempt_late(id, now);
            } else {
                self.remove(id);
            }
        }
    }
}

/// The accepting side numbers with odd numbers, see [`LinkId`].
fn is_accepted(id: LinkId) -> bool {
    id.0 % 2 == 1
}

/// Attempts to connect.
impl Peers {
    /// How long what is sent on a link may go unacknowledged. Votes must not wait for a lost
    /// packet's next turn once a cut cable is mended: a new link is there sooner. Learners and
    /// leaders hear each other all the time, and may be slow to read.
    fn silence(&self, plane: Plane) -> Option<Duration> {
        match plane {
            Plane::Election => Some(self.plan.connect_timeout),
            Plane::Learner => None,
        }
    }

    fn dial(&mut self, now: Instant, id: LinkId, peer: ServerId, plane: Plane) {
        assert!(!is_accepted(id), "a link that is dialled has an even number");
        let addresses = self.plan.members.get(&peer).map_or(&[][..], Vec::as_slice);
        let port = |address: &PeerAddress| match plane {
            Plane::Election => address.election_port,
            Plane::Learner => address.quorum_port,
        };
        let hosts = addresses.iter().map(|at| (at.host.clone(), port(at))).collect();
        let deadline = now.after(self.plan.connect_timeout);
        let dial = Dial::new(deadline, self.silence(plane));
        let before = self.links.insert(id, Link::dialling(dial));
        assert!(before.is_none(), "{id:?} was dialled before");
        if let Some(addresses) = self.resolver.resolve(peer, id, hosts) {
            self.on_resolved(id, addresses, now);
        }
    }

    fn take_resolved(&mut self, now: Instant) {
        while let Some((id, addresses)) = self.resolver.resolved() {
            self.on_resolved(id, addresses, now);
        }
    }

    fn on_resolved(&mut self, id: LinkId, addresses: Vec<SocketAddr>, now: Instant) {
        // It may have been given up meanwhile.
        let Some(dial) = self.links.get_mut(&id).and_then(Link::dial) else { return };
        dial.begin(addresses);
        self.attempt_next(id, now);
    }

    /// Tries the next address of a link.
    fn attempt_next(&mut self, id: LinkId, now: Instant) {
        let Some(dial) = self.links.get_mut(&id).and_then(Link::dial) else { return };
        if let Err(refused) = dial.attempt(&self.epoll, id, now) {
            self.remove(id);
            self.events.push_back(Happened::Failed(id, refused));
        }
    }

    fn on_attempt_decided(&mut self, id: LinkId, now: Instant) {
        let Some(dial) = self.links.get_mut(&id).and_then(Link::dial) else { return };
        let Some(socket) = dial.decide() else { return self.attempt_next(id, now) };
        let link = self.links.get_mut(&id).expect("looked up above");
        match link.connected(&self.epoll, id, socket) {
            Ok(()) => {
                self.events.push_back(Happened::Connected(id));
                self.unsent.push(id);
            }
            Err(error) => {
                tracing::warn!(link = id.0, "connection dropped: {error}");
                self.remove(id);
                self.events.push_back(Happened::Failed(id, false));
            }
        }
    }

    /// An address does not answer: on to the next, if there is one.
    fn on_attempt_late(&mut self, id: LinkId, now: Instant) {
        let Some(dial) = self.links.get_mut(&id).and_then(Link::dial) else { return };
        dial.give_up();
        self.attempt_next(id, now);
    }
}

impl Happened {
    fn link(self) -> LinkId {
        match self {
            Self::Accepted(link, _)
            | Self::Failed(link, _)
            | Self::Connected(link)
            | Self::Drained(link)
            | Self::Closed(link)
            | Self::Reset(link) => link,
        }
    }

    fn event(self) -> LinkEvent<'static> {
        match self {
            Self::Accepted(link, plane) => LinkEvent::Accepted { link, plane },
            Self::Connected(link) => LinkEvent::Connected(link),
            Self::Failed(link, refused) => LinkEvent::Failed { link, refused },
            Self::Drained(link) => LinkEvent::Drained(link),
            Self::Closed(link) => LinkEvent::Closed(link),
            Self::Reset(link) => LinkEvent::Reset(link),
        }
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Peers").field("links", &self.links).finish_non_exhaustive()
    }
}
