//! An ensemble that plays a script: production machines of several servers in one thread, with
//! disks that keep what is written, and a network that does as it is told.
//!
//! ```text
//!   hold, release, cut, break      what is under way between two servers, by kind and direction
//!   hold_log, hold_data, crash     what is under way to a disk, and what a crash leaves of it
//!   run_until                      lets time pass until something holds
//! ```
//!
//! Nothing is random: each step takes the same short time unless the script holds it back. Every
//! step is looked at by [`checks`], so that a scenario has to say only what is special about it.

pub mod checks;
mod client;
mod links;
pub mod puppet;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use engine::ids::ServerId;
use engine::quorum_peer::RoleKind;
use engine::replica::Now;
use engine::time::{Instant, WallTime};
use engine::zab::members::{Member, Members};

use checks::Checks;
use links::{Gate, Passed, Pipe};
use server::Server;

use crate::sim::ensemble::store::GROUP_BYTES;

pub use client::{Client, create_body};
pub use links::Kind;

/// The first server; ids count from 1, and among equals the largest leads.
pub const A: usize = 0;
/// The second.
pub const B: usize = 1;
/// The third.
pub const C: usize = 2;
/// The fourth.
pub const D: usize = 3;
/// The fifth.
pub const E: usize = 4;

const TICK: Duration = Duration::from_millis(200);
const HOP: Duration = Duration::from_micros(50);
const DISK: Duration = Duration::from_micros(200);
/// Nothing that a script waits for takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a script may want to be different.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many servers.
    pub servers: usize,
    /// So many of them, the last ones, only observe.
    pub observers: usize,
    /// The first one does, too.
    pub first_observes: bool,
    /// How much of the log is kept in memory for learners.
    pub history_bytes: usize,
    /// What memory lacks is asked of the log's files. Nobody answers: who needs it waits.
    pub asks_for_log: bool,
    /// A snapshot is taken after so many transactions.
    pub snapshot_txns: u64,
    /// An epoch ends at this counter.
    pub rollover_counter: u32,
    /// What one turn has time for, bytes of transactions.
    pub group_bytes: usize,
    /// How long connections outlive the loss of a leader.
    pub grace: Duration,
    /// Whether servers may have sessions that no other knows.
    pub local_sessions: bool,
}

/// Servers, what is on its way between them, and what they were seen to do.
pub struct Ensemble {
    now: u64,
    count: u64,
    settings: Settings,
    members: Arc<Members>,
    servers: Vec<Server>,
    events: BTreeMap<(u64, u64), Event>,
    pipes: Vec<Pipe>,
    gates: Vec<Gate>,
    /// Ends of links that leave what comes in their socket.
    paused: BTreeSet<(usize, usize)>,
    cuts: BTreeSet<(usize, usize)>,
    sent: Vec<Passed>,
    delivered: Vec<Passed>,
    checks: Checks,
    /// Paths that a client was told to have been created for good.
    acknowledged: BTreeSet<String>,
    connections: u32,
}

enum Event {
    /// At this server, in this of its lives.
    Server(usize, u32, server::Event),
    /// The next message of a pipe arrives at this end, unless it is held.
    Arrival(usize, usize),
}

impl Settings {
    /// The usual, for so many servers.
    pub fn of(servers: usize) -> Self {
        Self {
            servers,
            observers: 0,
            first_observes: false,
            history_bytes: 1 << 20,
            asks_for_log: false,
            snapshot_txns: u64::MAX,
            rollover_counter: 1 << 30,
            group_bytes: GROUP_BYTES,
            grace: Duration::from_secs(1),
            local_sessions: false,
        }
    }

    fn is_observer(&self, index: usize) -> bool {
        index + self.observers >= self.servers || index == 0 && self.first_observes
    }
}

impl Ensemble {
    /// So many servers without data; none runs yet.
    pub fn of(servers: usize) -> Self {
        Self::with(Settings::of(servers))
    }

    /// Servers without data; none runs yet.
    pub fn with(settings: Settings) -> Self {
        let member = |id| Member {
            id: ServerId(id),
            is_observer: settings.is_observer(id as usize - 1),
            text: format!("127.0.0.1:{}:{}:participant", 2888 + id, 3888 + id),
        };
        let members: Vec<_> = (1..=settings.servers as i64).map(member).collect();
        Self {
            now: 0,
            count: 0,
            settings,
            members: Arc::new(Members::majority(&members, 0).unwrap()),
            servers: (0..settings.servers).map(|_| Server::default()).collect(),
            events: BTreeMap::new(),
            pipes: Vec::new(),
            gates: Vec::new(),
            paused: BTreeSet::new(),
            cuts: BTreeSet::new(),
            sent: Vec::new(),
            delivered: Vec::new(),
            checks: Checks::new(settings.servers),
            acknowledged: BTreeSet::new(),
            connections: 0,
        }
    }

    /// Three servers, of which the third leads the first epoch.
    pub fn led_by_c() -> Self {
        Self::of(3).stand()
    }

    /// Starts all servers, and waits until one leads the others.
    #[must_use]
    pub fn stand(mut self) -> Self {
        for index in 0..self.servers.len() {
            self.start(index);
        }
        self.run_until("there is a leader", Self::stands);
        self
    }

    fn at(&mut self, delay: Duration, event: Event) {
        self.count += 1;
        let time = self.now + delay.as_nanos() as u64;
        self.events.insert((time, self.count), event);
    }

    fn time(&self) -> Now {
        let wall = WallTime(1_700_000_000_000 + (self.now / 1_000_000) as i64);
        Now { instant: Instant::from_nanos(self.now), wall }
    }

    /// Lets time pass until something holds.
    #[track_caller]
    pub fn run_until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let end = self.now + PATIENCE.as_nanos() as u64;
        while !holds(self) {
            let Some((&(time, _), _)) = self.events.first_key_value() else {
                panic!("nothing happens any more, but not yet: {what}\n{}", self.describe());
            };
            assert!(time <= end, "it does not come to pass: {what}\n{}", self.describe());
            self.go_on();
        }
    }

    /// How much time has passed, milliseconds.
    pub fn ms(&self) -> u64 {
        self.now / 1_000_000
    }

    /// Lets so much time pass.
    pub fn run_ms(&mut self, ms: u64) {
        let end = self.now + ms * 1_000_000;
        while self.events.first_key_value().is_some_and(|((time, _), _)| *time <= end) {
            self.go_on();
        }
        self.now = end;
    }

    fn go_on(&mut self) {
        let Some(((time, _), event)) = self.events.pop_first() else { return };
        self.now = time;
        match event {
            Event::Server(index, life, event) => {
                if self.servers[index].runs_in(life) {
                    self.happen(index, event);
                }
            }
            Event::Arrival(pipe, end) => self.arrive(pipe, end),
        }
    }

    /// What a server is.
    pub fn role(&self, index: usize) -> Option<RoleKind> {
        Some(self.servers[index].process.as_ref()?.peer.role())
    }

    /// Whether a server leads, and has its quorum.
    pub fn leads(&self, index: usize) -> bool {
        matches!(self.role(index), Some(RoleKind::Leading { .. }))
    }

    /// Whether a server follows another, and is up to date.
    pub fn follows(&self, index: usize, leader: usize) -> bool {
        self.role(index) == Some(RoleKind::Following(ServerId(leader as i64 + 1)))
    }

    /// Whether a server observes a leader, and is up to date.
    pub fn observes(&self, index: usize, leader: usize) -> bool {
        self.role(index) == Some(RoleKind::Observing(ServerId(leader as i64 + 1)))
    }

    /// The server that leads.
    pub fn leader(&self) -> Option<usize> {
        (0..self.servers.len()).find(|index| self.leads(*index))
    }

    /// Whether there is a leader, and all who run follow it.
    pub fn stands(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let fits = |index: usize| {
            let runs = self.servers[index].process.is_some();
            let learns = self.follows(index, leader) || self.observes(index, leader);
            !runs || index == leader || learns
        };
        (0..self.servers.len()).all(fits)
    }

    /// The end of every script: everything is let go, everybody runs, follows one leader, has the
    /// same state, and lacks nothing that was acknowledged.
    #[track_caller]
    pub fn all_agree(&mut self) {
        self.let_everything_go();
        for index in 0..self.servers.len() {
            if self.servers[index].process.is_none() {
                self.start(index);
            }
        }
        self.run_until("all follow one leader", Self::stands);
        let leader = self.leader().expect("it stands");
        let client = self.connect(leader);
        self.write(client, "/the-end");
        let end = self.published(leader);
        self.run_until("all have the same", |e| {
            e.stands() && (0..e.servers.len()).all(|index| e.published(index) == end)
        });
        for index in 0..self.servers.len() {
            assert_eq!(self.digest(index), self.digest(leader), "server {}", index + 1);
            for path in &self.acknowledged {
                assert!(self.has(index, path), "server {} has lost {path}", index + 1);
            }
        }
    }

    fn let_everything_go(&mut self) {
        self.cuts.clear();
        self.gates.clear();
        for pipe in 0..self.pipes.len() {
            self.schedule_arrivals(pipe);
        }
        for index in 0..self.servers.len() {
            self.release_disk(index);
        }
    }

    /// What everybody is and has, for messages of failure.
    fn describe(&self) -> String {
        let mut text = format!("after {} ms:\n", self.ms());
        for index in 0..self.servers.len() {
            let line = match &self.servers[index].process {
                None => "does not run".to_owned(),
                Some(process) => format!(
                    "{:?}, log to {}, shows {}, {:?}",
                    process.peer.role(),
                    self.log_end(index),
                    self.published(index),
                    self.epochs(index)
                ),
            };
            text += &format!("  server {}: {line}\n", index + 1);
        }
        let last = self.delivered.iter().rev().take(12).rev();
        last.for_each(|passed| text += &format!("  {passed:?}\n"));
        text
    }
}
