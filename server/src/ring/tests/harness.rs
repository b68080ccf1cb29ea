//! A ring under test, a recording handler, and clients.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use engine::disk::AlignedBuf;

use crate::ring::{Backend, Config, Handler, ListenerId, Ring, Slot, choose};

/// Longer than anything takes that is not stuck.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What a turn reported, but for received bytes, which are joined per connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Eof(Slot),
    Sent(Slot, Vec<u8>),
    Closed(Slot, io::ErrorKind),
    Written(u64, usize, Result<(), io::ErrorKind>),
    Paused(io::ErrorKind),
    Wake,
}

#[derive(Default)]
pub(super) struct Record {
    pub(super) turns: usize,
    pub(super) accepted: VecDeque<OwnedFd>,
    pub(super) received: BTreeMap<Slot, Vec<u8>>,
    pub(super) calls_received: usize,
    pub(super) events: Vec<Event>,
}

impl Record {
    pub(super) fn has(&self, event: &Event) -> bool {
        self.events.contains(event)
    }

    pub(super) fn received(&self, slot: Slot) -> &[u8] {
        self.received.get(&slot).map_or(&[], Vec::as_slice)
    }

    pub(super) fn closed(&self, slot: Slot) -> Option<io::ErrorKind> {
        self.events.iter().find_map(|event| match event {
            Event::Closed(closed, kind) if *closed == slot => Some(*kind),
            _ => None,
        })
    }

    /// Whether anything was reported of `slot` at all.
    pub(super) fn mentions(&self, slot: Slot) -> bool {
        let named = self.events.iter().any(|event| match event {
            Event::Eof(other) | Event::Sent(other, _) | Event::Closed(other, _) => *other == slot,
            Event::Written(..) | Event::Paused(_) | Event::Wake => false,
        });
        named || self.received.contains_key(&slot)
    }
}

impl Handler for Record {
    fn on_begin(&mut self) {
        self.turns += 1;
    }

    fn on_accept(&mut self, _listener: ListenerId, socket: OwnedFd, peer: SocketAddr) {
        assert!(peer.ip().is_loopback());
        self.accepted.push_back(socket);
    }

    fn on_accept_paused(&mut self, _listener: ListenerId, error: &io::Error) {
        self.events.push(Event::Paused(error.kind()));
    }

    fn on_received(&mut self, slot: Slot, bytes: &[u8]) {
        assert!(!bytes.is_empty());
        self.calls_received += 1;
        self.received.entry(slot).or_default().extend_from_slice(bytes);
    }

    fn on_eof(&mut self, slot: Slot) {
        self.events.push(Event::Eof(slot));
    }

    fn on_sent(&mut self, slot: Slot, buffer: Vec<u8>) {
        self.events.push(Event::Sent(slot, buffer));
    }

    fn on_closed(&mut self, slot: Slot, error: io::Error) {
        self.events.push(Event::Closed(slot, error.kind()));
    }

    fn on_written(&mut self, token: u64, buffer: AlignedBuf, result: io::Result<()>) {
        let result = result.map_err(|error| error.kind());
        self.events.push(Event::Written(token, buffer.len(), result));
    }

    fn on_wake(&mut self) {
        self.events.push(Event::Wake);
    }
}

/// A ring that listens, and what it reported.
pub(super) struct Bed {
    pub(super) ring: Ring,
    pub(super) record: Record,
    pub(super) listener: ListenerId,
    pub(super) address: SocketAddr,
}

impl Bed {
    pub(super) fn new(backend: Backend, config: &Config) -> Self {
        let mut ring = Ring::new(backend, config).unwrap();
        assert_eq!(ring.backend(), backend);
        let socket: TcpListener = crate::ring::bind("127.0.0.1:0".parse().unwrap(), 4096).unwrap();
        let address = socket.local_addr().unwrap();
        let listener = ring.listen(socket).unwrap();
        Self { ring, record: Record::default(), listener, address }
    }

    /// Turns until `is_done`, or fails after a time that nothing takes.
    pub(super) fn until(&mut self, what: &str, is_done: impl Fn(&Record) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_done(&self.record) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} did not happen: {:?}", self.record.events);
            self.ring.turn(Some(left), &mut self.record).unwrap();
        }
    }

    /// Turns until the ring has nothing left to report by itself.
    pub(super) fn settle(&mut self) {
        for _ in 0..4 {
            self.ring.turn(Some(Duration::ZERO), &mut self.record).unwrap();
        }
    }

    /// Turns until the ring has let go of all but `count` connections.
    pub(super) fn until_connections(&mut self, count: usize) {
        let end = Instant::now() + PATIENCE;
        while self.ring.connections_count() > count {
            assert!(Instant::now() < end, "connections stay open");
            self.ring.turn(Some(Duration::from_millis(10)), &mut self.record).unwrap();
        }
        assert_eq!(self.ring.connections_count(), count);
    }

    /// A client, and the ring's end of its connection.
    pub(super) fn client(&mut self) -> (TcpStream, Slot) {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_write_timeout(Some(PATIENCE)).unwrap();
        self.until("the accept", |record| !record.accepted.is_empty());
        let socket = self.record.accepted.pop_front().unwrap();
        (client, self.ring.adopt(socket).unwrap())
    }

    pub(super) fn send(&mut self, slot: Slot, bytes: &[u8]) {
        self.ring.send(slot, bytes.to_vec()).unwrap();
    }
}

/// Runs a test on every implementation.
pub(super) fn on_both(test: impl Fn(Backend)) {
    on_both_with(&Config::default(), |backend, _| test(backend));
}

/// Runs a test on every implementation with a configuration. Where io_uring is refused, as in
/// containers, epoll is the only one there is to test.
pub(super) fn on_both_with(config: &Config, test: impl Fn(Backend, &Config)) {
    match choose(Some(Backend::IoUring)) {
        Ok(_) => test(Backend::IoUring, config),
        Err(error) => eprintln!("not tested on io_uring: {error}"),
    }
    test(Backend::Epoll, config);
}

/// A configuration that takes few resources.
pub(super) fn small() -> Config {
    Config { submissions: 8, receive_buffers: 4, receive_buffer_bytes: 64, ..Config::default() }
}

/// Bytes that reveal lost, doubled and exchanged pieces.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}
