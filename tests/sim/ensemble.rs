//! An ensemble in one thread: production machines of several servers and cores, clients, a clock,
//! a network and disks that a seed lets go wrong.
//!
//! ```text
//!   seed ──> options, then every delay and fault in order
//!   queue of events by virtual time ──> machine ──> outputs ──> later events
//! ```
//!
//! The same seed gives the same events: their hash is compared. Checkers look at what clients see
//! and at what servers publish while it happens; see [`checks`].

pub mod checks;
mod client;
mod coverage;
mod faults;
mod healing;
mod host;
mod network;
mod options;
mod planted;
pub mod report;
pub mod requests;
mod rot;
pub mod store;
mod strikes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::ids::{ConnectionId, LinkId};
use engine::zab::members::Members;

use crate::sim::random::Random;
use checks::Checks;
use client::Client;
use host::{Clock, Host};
use network::Network;
pub use options::Options;
pub use planted::Planted;
use report::Stats;

/// A microsecond, a millisecond, a second of virtual time.
pub const US: u64 = 1_000;
/// See [`US`].
pub const MS: u64 = 1_000_000;
/// See [`US`].
pub const SECOND: u64 = 1_000_000_000;

/// The tick of all servers.
const TICK: Duration = Duration::from_millis(200);

/// What happens, and where.
pub enum Event {
    /// Something at a server; void if that life of it is over.
    Host(usize, u32, host::Event),
    /// A dial arrives.
    Dial { from: usize, life: u32, link: LinkId, to: usize, plane: engine::zab::link::Plane },
    /// Bytes, or the end, arrive at an end of a pipe between servers.
    Pipe { pipe: usize, end: usize, bytes: Option<Vec<u8>> },
    /// An end of a pipe takes again what has arrived.
    Untaken { pipe: usize, end: usize },
    /// Bytes, or the end, arrive at a client.
    Client { client: usize, connection: u64, bytes: Option<Vec<u8>> },
    /// A client does what it does next.
    Wake(usize),
    /// A paused server goes on, in this life of it.
    Resume(usize, u32),
    /// This leader is lost, and others are, in the order that a planted mistake needs; which step
    /// of it this is.
    Strike(usize, u8),
    /// A disk has room again, unless it is another one by now.
    Room(usize),
    /// The links of a server end, because nobody acknowledges what is sent on them.
    LinksDie(usize),
    /// Somebody looks after a server that does not start, in this life of it.
    Operator(usize, u32),
    /// A fault.
    Fault,
}

/// A connection of a client to a server.
struct Attachment {
    client: usize,
    host: usize,
    life: u32,
    id: ConnectionId,
    /// When what was sent last arrives, at the client and at the server.
    arrives: [u64; 2],
    closed: bool,
}

/// All of it.
pub struct World {
    /// Where it all comes from.
    pub seed: u64,
    random: Random,
    /// Decides who is healed, what is slow then, and some options: a stream of its own, so that the
    /// other does not depend on it.
    care: Random,
    /// What was drawn.
    pub options: Options,
    now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    count: u64,
    members: Arc<Members>,
    hosts: Vec<Host>,
    network: Network,
    clients: Vec<Client>,
    attachments: BTreeMap<u64, Attachment>,
    checks: Checks,
    faulty: bool,
    /// When a clock jumped last.
    jumped_at: Option<u64>,
    /// When all servers stood still at once, from and to.
    stood_still: Vec<(u64, u64)>,
    /// What is slow while others are well is so now.
    lags: bool,
    /// Signs of life may have been late by more than sessions bear.
    touches_were_late: bool,
    is_told: bool,
    hash: u64,
    /// What happened so far.
    pub stats: Stats,
}

/// Mixes bytes into a hash.
pub fn fold(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3).rotate_left(5)
    })
}

impl World {
    /// The beginning.
    pub fn new(seed: u64, planted: Option<Planted>) -> Self {
        Self::with(seed, |options| options.plant(planted))
    }

    /// The beginning of what [`World::new`] would be with this mistake, without the mistake.
    pub fn control(seed: u64, planted: Planted) -> Self {
        Self::with(seed, |options| {
            options.plant(Some(planted));
            options.planted = None;
        })
    }

    /// The beginning, with options that are not left to the seed alone.
    pub fn with(seed: u64, change: impl FnOnce(&mut Options)) -> Self {
        let mut random = Random::new(seed);
        let mut care = Random::new(!seed).split();
        let mut options = Options::draw(&mut random, &mut care);
        change(&mut options);
        let count = options.voters + options.observers;
        let clients = options.clients;
        let mut world = Self {
            seed,
            now: 0,
            queue: BTreeMap::new(),
            count: 0,
            members: Arc::new(options.members()),
            hosts: (0..count)
                .map(|index| Host::new(index, Clock::new(options.drift_max, &mut random)))
                .collect(),
            network: Network::new(count),
            clients: (0..clients).map(|index| Client::new(index, &mut random)).collect(),
            attachments: BTreeMap::new(),
            checks: Checks::new(options.linearizable_sync),
            faulty: true,
            jumped_at: None,
            stood_still: Vec::new(),
            lags: false,
            touches_were_late: false,
            is_told: std::env::var_os("TRACE").is_some(),
            hash: seed,
            stats: Stats::default(),
            options,
            random,
            care,
        };
        world.tell(|| format!("{:?}", world.options));
        for host in 0..count {
            world.start(host);
        }
        for client in 0..clients {
            let at = world.random.below(MS as usize * 500) as u64;
            world.at(at, Event::Wake(client));
        }
        world.schedule_fault();
        world
    }

    /// Runs all of it: faults, then healing; the hash of all events.
    ///
    /// Faults go on for a while longer if so far the run is not worth much.
    pub fn run(mut self) -> (u64, Stats) {
        self.run_until(self.options.faulty, |_| false);
        self.run_until(self.options.faulty * 3, |world| world.stats.is_worthy());
        self.faulty = false;
        self.recover();
        (self.hash, self.stats)
    }

    fn run_until(&mut self, end: u64, is_done: impl Fn(&Self) -> bool) -> bool {
        let mut looked = 0;
        while self.now < end {
            if self.now >= looked {
                looked = self.now + 5 * MS;
                if is_done(self) {
                    return true;
                }
            }
            let Some(((time, _), event)) = self.queue.pop_first() else {
                panic!("nothing happens any more");
            };
            self.now = time;
            self.happen(event);
        }
        is_done(self)
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.count += 1;
        self.queue.insert((self.now + delay, self.count), event);
    }

    /// How long a message takes this time.
    fn hop(&mut self) -> u64 {
        let most =
            if self.random.percent(2) { self.options.hop_max * 8 } else { self.options.hop_max };
        1 + self.random.any() % most
    }

    /// A line of what happens, if anybody wants to read it.
    fn tell(&self, line: impl FnOnce() -> String) {
        if self.is_told {
            eprintln!("{:>12.6} {}", self.now as f64 / SECOND as f64, line());
        }
    }

    fn note(&mut self, kind: u8, bytes: &[u8]) {
        self.stats.events += 1;
        self.hash = fold(self.hash ^ u64::from(kind) ^ self.now.rotate_left(17), bytes);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Host(index, life, event) => {
                let host = &self.hosts[index];
                if host.life != life || host.process.is_none() {
                    return;
                }
                if host.paused {
                    return self.hosts[index].deferred.push((life, event));
                }
                self.note(event.kind(), &[index as u8]);
                self.happen_at(index, event);
            }
            Event::Dial { from, life, link, to, plane } => {
                self.note(100, &[from as u8, to as u8]);
                self.on_dial(from, life, link, to, plane);
            }
            Event::Pipe { pipe, end, bytes } => {
                self.note(101, bytes.as_deref().unwrap_or_default());
                self.on_pipe(pipe, end, bytes);
            }
            Event::Untaken { pipe, end } => self.take_untaken(pipe, end),
            Event::Client { client, connection, bytes } => {
                self.note(102, bytes.as_deref().unwrap_or_default());
                self.on_client(client, connection, bytes);
            }
            Event::Wake(client) => {
                self.note(103, &[client as u8]);
                self.on_wake(client);
            }
            Event::Strike(index, step) => self.strike(index, step),
            Event::Room(index) => self.hosts[index].store.set_full(false),
            Event::LinksDie(index) => self.lose_links(index),
            Event::Operator(index, life) => {
                if self.hosts[index].life == life {
                    self.repair(index);
                }
            }
            Event::Resume(index, life) => {
                if self.hosts[index].life != life {
                    return;
                }
                self.hosts[index].paused = false;
                if self.options.planted == Some(Planted::ExpiryAfterPause) {
                    self.live_through_pause(index);
                }
                for (life, event) in std::mem::take(&mut self.hosts[index].deferred) {
                    self.happen(Event::Host(index, life, event));
                }
            }
            Event::Fault => {
                if self.faulty {
                    self.do_harm();
                    self.schedule_fault();
                }
            }
        }
    }
}
