//! A server's links, the ring that watches them, and a record of what was told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant as StdInstant};

use engine::disk::AlignedBuf;
use engine::ids::{LinkId, ServerId};
use engine::time::Instant;
use engine::zab::link::{LinkEvent, LinkOp, Plane};

use super::super::{Peers, Plan, bind};
use crate::clock::Clock;
use crate::config::ensemble::PeerAddress;
use crate::ring::{self, Backend, Handler, ListenerId, Ring, Slot, choose};

/// Longer than anything takes that is not stuck.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The member that tests dial.
pub(super) const PEER: ServerId = ServerId(2);

/// What was told, received bytes joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Accepted(LinkId, Plane),
    Connected(LinkId),
    Failed(LinkId, bool),
    Received(LinkId, Vec<u8>),
    Drained(LinkId),
    Closed(LinkId),
    Reset(LinkId),
}

/// A server's links under test.
pub(super) struct Bed {
    pub(super) peers: Peers,
    pub(super) told: Vec<Told>,
    pub(super) election: SocketAddr,
    ring: Ring,
    clock: Clock,
    /// Added to the time of the clock.
    ahead: Duration,
}

struct Nothing;

impl Handler for Nothing {
    fn on_accept(&mut self, _: ListenerId, _: std::os::fd::OwnedFd, _: SocketAddr) {}
    fn on_accept_paused(&mut self, _: ListenerId, _: &std::io::Error) {}
    fn on_received(&mut self, _: Slot, _: &[u8]) {}
    fn on_eof(&mut self, _: Slot) {}
    fn on_sent(&mut self, _: Slot, _: Vec<u8>) {}
    fn on_closed(&mut self, _: Slot, _: std::io::Error) {}
    fn on_written(&mut self, _: u64, _: AlignedBuf, _: std::io::Result<()>) {}
    fn on_wake(&mut self) {}
}

impl Bed {
    /// A server that knows the member [`PEER`] by these addresses.
    pub(super) fn new(backend: Backend, peer: &[PeerAddress]) -> Self {
        let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let listeners = bind(&[loopback]).unwrap();
        let election = listeners[0].local_addr().unwrap();
        let plan = Plan {
            members: [(PEER, peer.to_vec())].into(),
            connect_timeout: Duration::from_secs(5),
            learner_addresses: vec![loopback],
            unsent_bytes_max: 64 << 20,
        };
        let peers = Peers::new(plan, listeners).unwrap();
        let mut ring = Ring::new(backend, &ring::Config::default()).unwrap();
        ring.watch(peers.descriptor().unwrap());
        let clock = Clock::start();
        Self { peers, told: Vec::new(), election, ring, clock, ahead: Duration::ZERO }
    }

    pub(super) fn now(&self) -> Instant {
        self.clock.instant().after(self.ahead)
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, time: Duration) {
        self.ahead += time;
        self.turn(Duration::ZERO);
    }

    pub(super) fn execute(&mut self, op: LinkOp) {
        self.peers.execute(self.now(), op);
    }

    pub(super) fn dial(&mut self, link: u64) {
        self.execute(LinkOp::Dial { link: LinkId(link), peer: PEER, plane: Plane::Election });
    }

    pub(super) fn send(&mut self, link: LinkId, bytes: &[u8]) {
        self.execute(LinkOp::Send { link, bytes: bytes.to_vec() });
    }

    /// One turn of a core.
    pub(super) fn turn(&mut self, limit: Duration) {
        self.peers.flush();
        let due = self.peers.next_timeout().map_or(limit, |at| at.since(self.now()).min(limit));
        let timeout = if self.peers.has_events() { Duration::ZERO } else { due };
        self.ring.turn(Some(timeout), &mut Nothing).unwrap();
        self.peers.poll(self.now()).unwrap();
        while let Some(event) = self.peers.take() {
            let told = match event {
                LinkEvent::Accepted { link, plane } => Told::Accepted(link, plane),
                LinkEvent::Connected(link) => Told::Connected(link),
                LinkEvent::Failed { link, refused } => Told::Failed(link, refused),
                LinkEvent::Received(link, bytes) => {
                    assert!(!bytes.is_empty());
                    if let Some(Told::Received(last, all)) = self.told.last_mut()
                        && *last == link
                    {
                        all.extend_from_slice(bytes);
                        continue;
                    }
                    Told::Received(link, bytes.to_vec())
                }
                LinkEvent::Drained(link) => Told::Drained(link),
                LinkEvent::Closed(link) => Told::Closed(link),
                LinkEvent::Reset(link) => Told::Reset(link),
            };
            self.told.push(told);
        }
    }

    /// Turns until `is_done`, or fails after a time that nothing takes. The ring must not spin.
    pub(super) fn until(&mut self, what: &str, is_done: impl Fn(&Self) -> bool) {
        let end = StdInstant::now() + PATIENCE;
        while !is_done(self) {
            let left = end.saturating_duration_since(StdInstant::now());
            assert!(!left.is_zero(), "{what} did not happen: {:?}", self.told);
            self.turn(left.min(Duration::from_secs(1)));
        }
    }

    /// Turns until this is the last that was told.
    pub(super) fn until_told(&mut self, told: &Told) {
        self.until(&format!("{told:?}"), |bed| bed.told.contains(told));
    }

    /// Somebody else than this bed's own links may use it.
    pub(super) fn plan(&self) -> Plan {
        self.peers.plan.clone()
    }

    pub(super) fn until_links(&mut self, count: usize) {
        self.until("the end of links", |bed| bed.peers.links_count() == count);
    }

    /// Turns until the kernel has nothing more to say.
    pub(super) fn settle(&mut self) {
        for _ in 0..4 {
            self.turn(Duration::ZERO);
        }
    }

    /// Another member that has connected, and the link.
    pub(super) fn accepted(&mut self) -> (TcpStream, LinkId) {
        let stream = connect(self.election);
        let before = self.told.len();
        let accepted = |bed: &Self| {
            let mut new = bed.told[before..].iter().rev();
            new.find_map(|told| match told {
                Told::Accepted(link, Plane::Election) => Some(*link),
                _ => None,
            })
        };
        self.until("the accept", |bed| accepted(bed).is_some());
        let link = accepted(self).unwrap();
        self.told.clear();
        (stream, link)
    }
}

/// Where a member is whose two ports are the same here.
pub(super) fn at(address: SocketAddr) -> PeerAddress {
    PeerAddress {
        host: address.ip().to_string(),
        quorum_port: address.port(),
        election_port: address.port(),
    }
}

pub(super) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Somebody to dial.
pub(super) fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address where nobody listens.
pub(super) fn nobody() -> SocketAddr {
    listen().1
}

/// Closing it resets the connection.
pub(super) fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
}

pub(super) fn write(mut stream: &TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
}

pub(super) fn read_to_end(mut stream: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes)
}

/// Runs a test with a core on each kind of ring.
pub(super) fn on_both(test: impl Fn(Backend)) {
    match choose(Some(Backend::IoUring)) {
        Ok(_) => test(Backend::IoUring),
        Err(error) => eprintln!("not tested on io_uring: {error}"),
    }
    test(Backend::Epoll);
}

/// Bytes that reveal lost, doubled and exchanged pieces.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}
