//! A server: its machines, what drives them, and its disk.

mod clock;
mod cores;
mod event;
mod life;
mod medium;
mod readings;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use engine::btree::Version;
use engine::client_core::{self, ClientCore};
use engine::disk::{AlignedBuf, DiskDone, DiskOp};
use engine::ids::{ConnectionId, CoreId, LinkId};
use engine::order::{Batch, Service};
use engine::quorum_peer::{Input, Output, QuorumPeer, RoleKind};
use engine::replica::{self, Kept, Now};
use engine::txnlog::format::segment_name;
use engine::txnlog::history::Run;
use engine::zab::data::{DataDone, DataOp};
use engine::zab::link::Plane;
use engine::zxid::Epoch;

use super::coverage::Role;
use super::healing::Ailment;
use super::store::Store;
use super::{Planted, SECOND, World};
use crate::sim::random::Random;
use medium::Medium;

pub(super) use clock::Clock;
pub use event::{ClientEvent, Event};
pub(super) use life::End;

/// What waits for the thread beside the cores.
enum Slow {
    Disk(DiskOp),
    Data(DataOp),
    /// A snapshot, and of which generation.
    Snapshot(Version, Kept, u64),
}

/// A message to a core.
enum Message {
    Batch(Arc<Batch>),
    Collect(u64),
    Service(Service),
}

struct Core {
    clients: ClientCore,
    inbox: VecDeque<Message>,
    batch: u64,
    slots: u32,
    outputs: Vec<client_core::Output>,
    wakes_at: u64,
    submitted_at: u64,
}

/// A server that runs.
pub struct Process {
    /// The machine.
    pub peer: QuorumPeer,
    cores: Vec<Core>,
    learner_port: bool,
    accepted: u64,
    pipes: BTreeMap<LinkId, (usize, usize)>,
    /// Links that are being dialled.
    dialled: BTreeSet<LinkId>,
    published: Option<Arc<Batch>>,
    late: VecDeque<Arc<Batch>>,
    version: Version,
    slow: VecDeque<Slow>,
    writes: usize,
    /// What learners are still to be sent of the log's files.
    readings: BTreeMap<LinkId, VecDeque<Run>>,
    tick: u64,
    leads: bool,
    role: RoleKind,
    /// It has data, as far as it can tell: it votes.
    votes: bool,
}

/// A server, running or not.
pub struct Host {
    /// Counts from 0.
    pub index: usize,
    /// Counts its starts and ends.
    pub life: u32,
    /// What runs.
    pub process: Option<Box<Process>>,
    /// It does nothing for the moment.
    pub paused: bool,
    /// Since then.
    pub paused_at: u64,
    /// What it will do then.
    pub deferred: Vec<(u32, Event)>,
    /// Its machine is off: nobody refuses connections.
    pub is_silent: bool,
    /// What it is not healed of.
    pub(super) ailment: Option<Ailment>,
    pub(super) store: Store,
    pub(super) medium: Medium,
    clock: Clock,
    slots: u32,
}

impl Host {
    pub(super) fn new(index: usize, clock: Clock) -> Self {
        Self {
            index,
            life: 0,
            process: None,
            paused: false,
            paused_at: 0,
            deferred: Vec::new(),
            is_silent: false,
            ailment: None,
            store: Store::default(),
            medium: Medium::default(),
            clock,
            slots: 0,
        }
    }

    pub(super) fn pipe(&self, link: LinkId) -> Option<(usize, usize)> {
        self.process.as_ref()?.pipes.get(&link).copied()
    }

    /// Notes that a link is being dialled, or not any more; whether it was.
    pub(super) fn dialled(&mut self, link: LinkId, begins: bool) -> bool {
        let dialled = &mut self.process.as_mut().expect("it runs").dialled;
        if begins { !dialled.insert(link) } else { dialled.remove(&link) }
    }

    pub(super) fn remove_pipe(&mut self, link: LinkId) -> Option<(usize, usize)> {
        self.process.as_mut()?.pipes.remove(&link)
    }

    pub(super) fn add_pipe(&mut self, link: LinkId, pipe: usize, end: usize) {
        self.process.as_mut().expect("it runs").pipes.insert(link, (pipe, end));
    }

    pub(super) fn set_learner_port(&mut self, open: bool) {
        self.process.as_mut().expect("it runs").learner_port = open;
    }

    pub(super) fn listens(&self, plane: Plane) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| plane == Plane::Election || process.learner_port)
    }

    pub(super) fn next_accepted(&mut self) -> LinkId {
        let process = self.process.as_mut().expect("it runs");
        process.accepted += 2;
        LinkId(process.accepted - 1)
    }

    /// Its disk is empty: it was replaced.
    pub(super) fn lose_disk(&mut self) {
        assert!(self.process.is_none(), "it does not run");
        self.store = Store::default();
        self.medium = Medium::default();
    }

    /// Whether what a leader has brought it is on its disk, and sound.
    pub(super) fn has_data(&self) -> bool {
        !self.medium.is_rotten
            && match &self.process {
                Some(process) => process.role != RoleKind::Looking,
                None => self.store.has_data(),
            }
    }

    /// Whether its vote will count once it runs. Not that of one which has never had a leader,
    /// though its tree may be a leader's already.
    pub(super) fn votes(&self) -> bool {
        let runs = self.process.as_ref();
        !self.medium.is_rotten && runs.map_or_else(|| self.store.has_data(), |it| it.votes)
    }

    pub(super) fn role(&self) -> Option<RoleKind> {
        Some(self.process.as_ref()?.role)
    }

    pub(super) fn published(&self) -> Option<&Version> {
        Some(&self.process.as_ref()?.version)
    }

    pub(super) fn election_role(&self) -> Role {
        self.process.as_ref().map_or(Role::Looking, |process| Role::of(process.role))
    }

    pub(super) fn leads(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.leads)
    }

    pub(super) fn digest_differs(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.peer.replica().digest_differs())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.peer.replica().is_idle())
    }

    /// A clock jumps ahead.
    pub(super) fn jump(&mut self, by: u64, wall_by: i64) {
        self.clock.jump(by, wall_by);
    }

    fn time(&self, now: u64) -> Now {
        self.clock.at(now)
    }

    /// A client connects to a core.
    pub(super) fn next_connection(&mut self, random: &mut Random) -> Option<ConnectionId> {
        let process = self.process.as_mut()?;
        let core = random.below(process.cores.len());
        self.slots += 1;
        process.cores[core].slots += 1;
        let slot = process.cores[core].slots - 1;
        Some(ConnectionId { core: CoreId(core as u16), slot, generation: self.slots })
    }
}

impl World {
    pub(super) fn happen_at(&mut self, index: usize, event: Event) {
        if let Event::Connected(link, _) | Event::Failed(link, _) = event
            && !self.hosts[index].dialled(link, false)
        {
            // It was given up meanwhile.
            if let Event::Connected(_, pipe) = event {
                self.abandon(pipe);
            }
            return;
        }
        if let Event::Connected(link, pipe) = event {
            self.hosts[index].add_pipe(link, pipe, 0);
        }
        if let Event::LinkClosed(link) = event {
            self.hosts[index].remove_pipe(link);
        }
        if event.link_event().is_some() {
            let held = event;
            let link = held.link_event().expect("it is one");
            return self.step(index, Input::Link(link));
        }
        match event {
            Event::Written(name, id, done) => self.on_written(index, &name, id, done),
            Event::Slow => self.on_slow(index),
            Event::Read(done) => self.step(index, Input::Log(done)),
            Event::Submission(submission) => {
                self.tell(|| format!("server {}: {:?}", index + 1, submission.orders));
                self.step(index, Input::Replica(replica::Input::Submission(submission)));
            }
            Event::Core(core) => self.run_core(index, core, |_, _| {}),
            Event::Sent(id, buffer) => {
                let sent = client_core::Input::Sent(id, buffer);
                self.run_core(index, id.core.0, |core, now| {
                    core.clients.step(now, sent, &mut core.outputs);
                });
            }
            Event::Client(id, event) => self.on_client_event(index, id, &event),
            Event::Late => {
                let process = self.hosts[index].process.as_mut().expect("it runs");
                process.published = process.late.pop_front();
            }
            Event::Tick(tick) => {
                let process = self.hosts[index].process.as_ref().expect("it runs");
                if process.tick == tick {
                    self.step(index, Input::Replica(replica::Input::Tick));
                }
            }
            _ => unreachable!("events of links were dealt with"),
        }
    }

    fn on_client_event(&mut self, index: usize, id: ConnectionId, event: &ClientEvent) {
        let input = match event {
            ClientEvent::Accepted => {
                let peer: SocketAddr = "127.0.0.1:40000".parse().expect("an address");
                client_core::Input::Accepted(id, peer)
            }
            ClientEvent::Received(bytes) => client_core::Input::Received(id, bytes),
            ClientEvent::Closed => client_core::Input::Closed(id),
        };
        self.run_core(index, id.core.0, |core, now| {
            core.clients.step(now, input, &mut core.outputs);
        });
    }

    fn on_written(&mut self, index: usize, name: &str, id: u64, done: DiskDone) {
        let early = self.options.planted == Some(Planted::AckBeforeDurable);
        let host = &mut self.hosts[index];
        let process = host.process.as_mut().expect("it runs");
        process.writes -= 1;
        if host.medium.fails() || !host.store.generation().log.finish_write(name, id) {
            return self.end(index, End::WriteFailed);
        }
        if !early {
            self.step(index, Input::Replica(replica::Input::Disk(done)));
        }
    }

    /// The thread beside the cores does the next thing.
    fn on_slow(&mut self, index: usize) {
        let (seed, planted) = (self.random.any(), self.options.planted);
        let fails = self.hosts[index].medium.fails();
        if fails || self.random.percent(if self.faulty { 3 } else { 0 }) {
            let points = self.random.below(8) as u64;
            self.hosts[index].store.crash_after(Some(points));
        }
        let host = &mut self.hosts[index];
        let process = host.process.as_mut().expect("it runs");
        let slow = process.slow.pop_front().expect("there is one");
        let more = !process.slow.is_empty();
        let what = match &slow {
            Slow::Disk(op) => format!("{op:?}"),
            Slow::Data(DataOp::Replace(version)) => format!("replace {}", version.zxid()),
            Slow::Data(op) => format!("{op:?}"),
            Slow::Snapshot(version, ..) => format!("snapshot {}", version.zxid()),
        };
        let input = match slow {
            Slow::Disk(op) => {
                host.store.change_log(op).map(|done| Input::Replica(replica::Input::Disk(done)))
            }
            Slow::Data(op) => {
                assert!(matches!(op, DataOp::Epochs(_)) || process.writes == 0, "writes are out");
                host.store.execute(op, seed, planted).map(|done| {
                    match done {
                        DataDone::Truncated(_) => self.stats.truncations += 1,
                        DataDone::Replaced(_) => self.stats.replacements += 1,
                        DataDone::Epochs(epochs) => process.votes |= epochs.current > Epoch(0),
                        DataDone::CannotTruncate(_) => {}
                    }
                    Input::Data(Box::new(done))
                })
            }
            Slow::Snapshot(version, kept, generation) => {
                let written = match host.store.generation_number() == generation {
                    true => host.store.snapshot(&version, kept).map(Ok),
                    false => Ok(Err(version.zxid())),
                };
                let written = match written {
                    Err(error) if error.is_no_space() => Ok(Err(version.zxid())),
                    written => written,
                };
                written.map(|done| Input::Replica(replica::Input::SnapshotDone(done)))
            }
        };
        let ok = input.is_ok();
        if self.is_told {
            eprintln!(
                "{:>12.6} server {}: {what} {ok}",
                self.now as f64 / SECOND as f64,
                index + 1
            );
        }
        self.hosts[index].store.crash_after(None);
        match input {
            Err(error) if self.hosts[index].medium.explains(&error) => {
                self.end(index, End::Killed);
                self.refuse(index, &error);
            }
            Err(error) => {
                let power = !fails && !error.is_no_space();
                self.end(index, if power { End::PowerLost } else { End::WriteFailed });
            }
            Ok(input) => {
                if more {
                    self.schedule_slow(index);
                }
                self.step(index, input);
            }
        }
    }

    fn schedule_slow(&mut self, index: usize) {
        let (delay, life) = (self.disk_delay(index), self.hosts[index].life);
        self.at(delay, super::Event::Host(index, life, Event::Slow));
    }

    fn push_slow(&mut self, index: usize, slow: Slow) {
        let process = self.hosts[index].process.as_mut().expect("it runs");
        process.slow.push_back(slow);
        if process.slow.len() == 1 {
            self.schedule_slow(index);
        }
    }

    /// A turn of the ordering core.
    fn step(&mut self, index: usize, input: Input<'_>) {
        let mut outputs = Vec::new();
        let host = &mut self.hosts[index];
        let now = host.time(self.now);
        let process = host.process.as_mut().expect("it runs");
        process.peer.step(now, input, &mut outputs);
        process.peer.finish_turn(now, &mut outputs);
        let role = process.peer.role();
        let leads = matches!(role, RoleKind::Leading { .. });
        let begins = leads && !std::mem::replace(&mut process.leads, leads);
        if std::mem::replace(&mut process.role, role) != role {
            let epochs = process.peer.replica().last_durable();
            self.tell(|| format!("server {}: {role:?}, log to {epochs}", index + 1));
        }
        self.execute(index, outputs);
        self.schedule_tick(index);
        if begins {
            self.stats.leaderships += 1;
            self.note_leader(index);
            self.plan_strike(index);
        }
    }

    /// The ordering core is told the time.
    pub(super) fn tick(&mut self, index: usize) {
        if self.hosts[index].process.is_some() {
            self.step(index, Input::Replica(replica::Input::Tick));
        }
    }

    fn schedule_tick(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let Some(process) = host.process.as_mut() else { return };
        let Some(at) = process.peer.next_timeout() else { return };
        process.tick += 1;
        let delay = host.clock.delay_until(self.now, at).max(1000);
        let event = Event::Tick(process.tick);
        let life = host.life;
        self.at(delay, super::Event::Host(index, life, event));
    }

    fn execute(&mut self, index: usize, outputs: Vec<Output>) {
        for output in outputs {
            if self.hosts[index].process.is_none() {
                return;
            }
            match output {
                Output::Replica(replica::Output::Disk(op)) => self.execute_write(index, op),
                Output::Replica(replica::Output::Publish(batch, _)) => self.publish(index, batch),
                Output::Replica(replica::Output::Collect(round)) => {
                    self.send_to_cores(index, || Message::Collect(round));
                }
                Output::Replica(replica::Output::Snapshot(version, kept)) => {
                    let generation = self.hosts[index].store.generation_number();
                    self.push_slow(index, Slow::Snapshot(version, kept, generation));
                }
                Output::Link(op) => self.execute_link(index, op),
                Output::Data(op) => self.push_slow(index, Slow::Data(op)),
                Output::Log(op) => self.read_log(index, op),
                Output::Service(service) => {
                    self.send_to_cores(index, || Message::Service(service));
                }
            }
        }
    }

    fn execute_write(&mut self, index: usize, op: DiskOp) {
        let DiskOp::Append { segment, offset, sequence, frame } = op else {
            return self.push_slow(index, Slow::Disk(op));
        };
        let (delay, life) = (self.disk_delay(index), self.hosts[index].life);
        let host = &mut self.hosts[index];
        host.process.as_mut().expect("it runs").writes += 1;
        let name = segment_name(segment);
        let log = &mut host.store.generation().log;
        let Some(id) = log.begin_write(&name, offset, frame.as_slice()) else {
            return self.end(index, End::WriteFailed);
        };
        let done = DiskDone::Appended { sequence, frame };
        if self.options.planted == Some(Planted::AckBeforeDurable) {
            let copy = DiskDone::Appended { sequence, frame: AlignedBuf::with_capacity(0) };
            self.at(delay, super::Event::Host(index, life, Event::Written(name, id, copy)));
            self.step(index, Input::Replica(replica::Input::Disk(done)));
        } else {
            self.at(delay, super::Event::Host(index, life, Event::Written(name, id, done)));
        }
    }
}
