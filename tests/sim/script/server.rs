//! A server of the script: its machine, its disk, and what is under way between them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use engine::disk::DiskOp;
use engine::epochs::Epochs;
use engine::ids::{CoreId, LinkId, ServerId};
use engine::order::{Service, Submission};
use engine::quorum_peer::{Input, MemberConfig, MemberState, Output, QuorumPeer};
use engine::replica::{self, Now, Replica};
use engine::rules::Rules;
use engine::tree::{self, OwnerMode};
use engine::txnlog::{LogConfig, TxnLog};
use engine::zab::data::{DataDone, DataOp};
use engine::zab::election::ElectorConfig;
use engine::zab::link::{LinkEvent, Plane};
use engine::zab::outbox::Timing;
use engine::zxid::Zxid;

use super::client::Connection;
use super::{DISK, Ensemble, Settings, TICK};
use crate::sim::ensemble::store::{SEGMENT_BYTES, Store};
use crate::sim::random::Random;

/// Largest packet of a client. Two of them and a group fit in a segment of the log.
const PACKET_BYTES_MAX: usize = 80 << 10;

/// What happens at a server that runs.
pub(super) enum Event {
    Tick(u64),
    Accepted(LinkId, Plane),
    Connected(LinkId),
    Failed(LinkId, bool),
    Drained(LinkId),
    /// The oldest write of the log ends.
    Written,
    /// The oldest operation on the data ends.
    DataDone,
    Submit(Submission),
}

/// A server, running or not.
#[derive(Default)]
pub(super) struct Server {
    /// Counts its starts and ends.
    pub(super) life: u32,
    pub(super) process: Option<Box<Process>>,
    pub(super) store: Store,
    /// As they are on the disk.
    epochs: Epochs,
    log_held: bool,
    data_held: bool,
    /// On their way to the log.
    writes: VecDeque<DiskOp>,
    /// On their way to the rest of the data.
    data: VecDeque<DataOp>,
    /// A script speaks for it.
    pub(super) is_puppet: bool,
}

/// A server that runs.
pub(super) struct Process {
    pub(super) peer: QuorumPeer,
    learner_port: bool,
    accepted: u64,
    pipes: BTreeMap<LinkId, (usize, usize)>,
    tick: u64,
    pub(super) connections: Vec<Connection>,
}

impl Server {
    pub(super) fn runs_in(&self, life: u32) -> bool {
        self.process.is_some() && self.life == life
    }

    fn running(&mut self) -> &mut Process {
        self.process.as_mut().expect("it runs")
    }

    pub(super) fn pipe(&self, link: LinkId) -> Option<(usize, usize)> {
        self.process.as_ref()?.pipes.get(&link).copied()
    }

    pub(super) fn remove_pipe(&mut self, link: LinkId) -> Option<(usize, usize)> {
        self.process.as_mut()?.pipes.remove(&link)
    }

    pub(super) fn add_pipe(&mut self, link: LinkId, pipe: usize, end: usize) {
        if !self.is_puppet {
            self.running().pipes.insert(link, (pipe, end));
        }
    }

    pub(super) fn set_learner_port(&mut self, open: bool) {
        self.running().learner_port = open;
    }

    /// A puppet is dialled as a leader alone.
    pub(super) fn listens(&self, plane: Plane) -> bool {
        let runs = |process: &Process| plane == Plane::Election || process.learner_port;
        self.process.as_deref().is_some_and(runs) || self.is_puppet && plane == Plane::Learner
    }

    pub(super) fn next_accepted(&mut self) -> LinkId {
        let Some(process) = &mut self.process else { return LinkId(1) };
        process.accepted += 2;
        LinkId(process.accepted - 1)
    }
}

impl Ensemble {
    /// Starts a server from what is on its disk.
    pub fn start(&mut self, index: usize) {
        let now = self.time();
        let server = &mut self.servers[index];
        assert!(server.process.is_none(), "it runs already");
        (server.life, server.is_puppet) = (server.life + 1, false);
        let found = server.store.open(0).unwrap();
        server.epochs = found.epochs;
        let log = LogConfig {
            frame_bytes_max: 16 << 10,
            backlog_bytes_max: 64 << 10,
            seed: u64::from(server.life),
            ..LogConfig::with_segments(SEGMENT_BYTES)
        };
        let mut ops = Vec::new();
        let writer = TxnLog::open(log, found.recovered.log, now.instant, &mut ops);
        let config = replica_config(index, &self.settings);
        let mut replica = Replica::new(config, found.recovered.tree, writer, now);
        let report = &found.recovered.report;
        replica.replayed(now, report.txns, report.bytes);
        let state = MemberState { epochs: found.epochs, has_data: found.has_data };
        let peer = QuorumPeer::member(replica, self.member_config(index, log), state);
        self.servers[index].process = Some(Box::new(Process {
            peer,
            learner_port: false,
            accepted: 0,
            pipes: BTreeMap::new(),
            tick: 0,
            connections: Vec::new(),
        }));
        self.checks.begin(index);
        self.execute(index, ops.into_iter().map(replica::Output::Disk).map(Output::Replica));
        self.step(index, Input::Replica(replica::Input::Tick));
    }

    fn member_config(&self, index: usize, log: LogConfig) -> MemberConfig {
        let me = ServerId(index as i64 + 1);
        let elector = ElectorConfig {
            me,
            is_observer: self.settings.is_observer(index),
            members: Arc::clone(&self.members),
            my_election_address: format!("127.0.0.1:{}", 3888 + me.0),
            finalize_wait: Duration::from_millis(200),
            notification_interval_min: Duration::from_millis(200),
            notification_interval_max: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(1),
            tick: TICK,
            fast: true,
        };
        MemberConfig {
            me,
            members: Arc::clone(&self.members),
            is_observer: self.settings.is_observer(index),
            timing: Timing { tick: TICK, init_limit: 10, sync_limit: 5 },
            elector,
            leader_serves: true,
            grace: self.settings.grace,
            mode: OwnerMode::Plain,
            log,
        }
    }

    /// A server crashes. What was on its way to its disk is lost.
    pub fn crash(&mut self, index: usize) {
        self.end(index, false);
    }

    /// A server crashes. What was on its way to its disk is there when it comes back, although
    /// nobody was told.
    pub fn crash_with_all_written(&mut self, index: usize) {
        self.end(index, true);
    }

    /// A server has lost its disk, and gets an empty one.
    pub fn wipe(&mut self, index: usize) {
        assert!(self.servers[index].process.is_none(), "it runs");
        self.servers[index].store = Store::default();
    }

    fn end(&mut self, index: usize, all_written: bool) {
        let server = &mut self.servers[index];
        let process = server.process.take().expect("it runs");
        server.life += 1;
        let writes = std::mem::take(&mut server.writes);
        let data = std::mem::take(&mut server.data);
        if all_written {
            writes.into_iter().for_each(|op| drop(server.store.change_log(op).unwrap()));
            data.into_iter().for_each(|op| drop(server.store.execute(op, 1, None)));
        }
        (server.log_held, server.data_held) = (false, false);
        server.store = server.store.after(false, &mut Random::new(1));
        for (pipe, end) in process.pipes.into_values() {
            self.end_pipe(pipe, 1 - end);
        }
    }

    /// From now on nothing that goes to a server's log becomes durable.
    pub fn hold_log(&mut self, index: usize) {
        self.servers[index].log_held = true;
    }

    /// From now on no change of a server's epochs becomes durable, and its log is neither cut nor
    /// replaced.
    pub fn hold_data(&mut self, index: usize) {
        self.servers[index].data_held = true;
    }

    /// What a server waits for of its disk is done.
    pub fn release_disk(&mut self, index: usize) {
        let server = &mut self.servers[index];
        (server.log_held, server.data_held) = (false, false);
        let (writes, data) = (server.writes.len(), server.data.len());
        (0..writes).for_each(|_| self.at_server(index, DISK, Event::Written));
        (0..data).for_each(|_| self.at_server(index, DISK, Event::DataDone));
    }

    /// From now on so many writes of a server end, of the log or of the other data, the older
    /// first, and no more. How many there were within a second.
    pub fn finish_writes(&mut self, index: usize, writes: usize) -> usize {
        self.hold_log(index);
        self.hold_data(index);
        let end = self.now + 1_000_000_000;
        for done in 0..writes {
            while self.waits_for_disk(index) == (false, false) {
                if self.now >= end {
                    return done;
                }
                self.run_ms(1);
            }
            let server = &mut self.servers[index];
            let held = (server.log_held, server.data_held);
            let of_log = !server.writes.is_empty();
            (server.log_held, server.data_held) = (false, false);
            if of_log {
                self.on_written(index)
            } else {
                self.on_data_done(index)
            }
            (self.servers[index].log_held, self.servers[index].data_held) = held;
        }
        writes
    }

    /// The disk of a server fails after so many more changes, and with it the server.
    pub fn fail_disk_after(&mut self, index: usize, changes: u64) {
        self.servers[index].store.crash_after(Some(changes));
    }

    /// Whether a server runs.
    pub fn runs(&self, index: usize) -> bool {
        self.servers[index].process.is_some()
    }

    /// Whether something waits for a server's log, or for the rest of its data.
    pub fn waits_for_disk(&self, index: usize) -> (bool, bool) {
        let Server { writes, data, .. } = &self.servers[index];
        (!writes.is_empty(), !data.is_empty())
    }

    /// A server's machine.
    pub fn peer(&self, index: usize) -> &QuorumPeer {
        &self.servers[index].process.as_ref().expect("it runs").peer
    }

    fn replica(&self, index: usize) -> &Replica {
        self.peer(index).replica()
    }

    /// The end of a server's log, as far as it is durable.
    pub fn log_end(&self, index: usize) -> Zxid {
        self.replica(index).last_durable()
    }

    /// What a server knows to be committed.
    pub fn committed(&self, index: usize) -> Zxid {
        self.replica(index).committed()
    }

    /// The last transaction of what a server shows.
    pub fn published(&self, index: usize) -> Zxid {
        self.replica(index).published().zxid()
    }

    /// The digest of what a server shows.
    pub fn digest(&self, index: usize) -> u64 {
        tree::digest(self.replica(index).published())
    }

    /// A server's epochs, as they are on its disk.
    pub fn epochs(&self, index: usize) -> Epochs {
        self.servers[index].epochs
    }

    /// The last transaction of the snapshot that a server would start with.
    pub fn snapshot(&self, index: usize) -> Option<Zxid> {
        self.servers[index].store.clone().look().unwrap().recovered.report.snapshot
    }

    /// Whether a server shows this znode.
    pub fn has(&self, index: usize, path: &str) -> bool {
        tree::znode(self.replica(index).published(), path).is_some()
    }

    pub(super) fn at_server(&mut self, index: usize, delay: Duration, event: Event) {
        let life = self.servers[index].life;
        self.at(delay, super::Event::Server(index, life, event));
    }

    pub(super) fn happen(&mut self, index: usize, event: Event) {
        let server = &mut self.servers[index];
        match event {
            Event::Tick(tick) if server.running().tick == tick => {
                self.step(index, Input::Replica(replica::Input::Tick));
            }
            Event::Tick(_) => {}
            Event::Accepted(link, plane) => {
                self.step_link(index, LinkEvent::Accepted { link, plane });
            }
            Event::Connected(link) if server.pipe(link).is_some() => {
                self.step_link(index, LinkEvent::Connected(link));
            }
            Event::Drained(link) if server.pipe(link).is_some() => {
                self.step_link(index, LinkEvent::Drained(link));
            }
            Event::Connected(_) | Event::Drained(_) => {}
            Event::Failed(link, refused) => {
                self.step_link(index, LinkEvent::Failed { link, refused });
            }
            Event::Written => self.on_written(index),
            Event::DataDone => self.on_data_done(index),
            Event::Submit(submission) => {
                self.step(index, Input::Replica(replica::Input::Submission(submission)));
            }
        }
    }

    pub(super) fn step_link(&mut self, index: usize, event: LinkEvent<'_>) {
        if !self.servers[index].is_puppet {
            self.step(index, Input::Link(event));
        }
    }

    fn on_written(&mut self, index: usize) {
        let server = &mut self.servers[index];
        if server.log_held {
            return;
        }
        let Some(op) = server.writes.pop_front() else { return };
        let done = server.store.change_log(op).unwrap();
        self.step(index, Input::Replica(replica::Input::Disk(done)));
    }

    fn on_data_done(&mut self, index: usize) {
        let server = &mut self.servers[index];
        if server.data_held {
            return;
        }
        let Some(op) = server.data.pop_front() else { return };
        let done = server.store.execute(op, 1, None);
        server.store.crash_after(None);
        match done {
            Ok(done) => {
                if let DataDone::Epochs(epochs) = done {
                    server.epochs = epochs;
                }
                self.step(index, Input::Data(Box::new(done)));
            }
            Err(_) => self.crash(index),
        }
    }

    fn step(&mut self, index: usize, input: Input<'_>) {
        let now: Now = self.time();
        let mut outputs = Vec::new();
        let process = self.servers[index].running();
        process.peer.step(now, input, &mut outputs);
        process.peer.finish_turn(now, &mut outputs);
        self.checks.look_at(index, &process.peer);
        self.execute(index, outputs);
        let Some(process) = &mut self.servers[index].process else { return };
        if let Some(at) = process.peer.next_timeout() {
            process.tick += 1;
            let tick = Event::Tick(process.tick);
            self.at_server(index, at.since(now.instant), tick);
        }
    }

    fn execute(&mut self, index: usize, outputs: impl IntoIterator<Item = Output>) {
        for output in outputs {
            match output {
                Output::Replica(replica::Output::Disk(op)) => {
                    self.servers[index].writes.push_back(op);
                    self.at_server(index, DISK, Event::Written);
                }
                Output::Replica(replica::Output::Publish(batch, _)) => self.publish(index, &batch),
                Output::Replica(replica::Output::Collect(round)) => self.collect(index, round),
                Output::Replica(replica::Output::Snapshot(version, kept)) => {
                    let written = self.servers[index].store.snapshot(&version, kept).unwrap();
                    self.checks.snapshot(index, version.zxid());
                    let done = replica::Input::SnapshotDone(Ok(written));
                    self.step(index, Input::Replica(done));
                }
                Output::Link(op) => self.execute_link(index, op),
                Output::Data(op) => {
                    self.servers[index].data.push_back(op);
                    self.at_server(index, DISK, Event::DataDone);
                }
                Output::Log(_) => {
                    assert!(self.settings.asks_for_log, "memory and trees are enough")
                }
                Output::Service(Service::Closed) => self.close_connections(index),
                Output::Service(_) => {}
            }
        }
    }

    /// Tells an ordering core what its clients were heard of.
    fn collect(&mut self, index: usize, round: u64) {
        let instant = self.time().instant;
        let mut submission = Submission::new(CoreId(0));
        let connections = &self.servers[index].running().connections;
        let alive = connections.iter().filter(|connection| connection.is_alive);
        let sessions = alive.filter_map(|connection| connection.session);
        submission.touched = sessions.map(|session| (session, instant)).collect();
        submission.collected = Some(round);
        self.at_server(index, super::HOP, Event::Submit(submission));
    }
}

fn replica_config(index: usize, settings: &Settings) -> replica::Config {
    replica::Config {
        server_id: index as u8 + 1,
        tick_ms: TICK.as_millis() as u32,
        rules: Rules {
            packet_bytes_max: PACKET_BYTES_MAX,
            local_sessions: settings.local_sessions,
            ..Rules::default()
        },
        snapshot_txns: settings.snapshot_txns,
        history_bytes: settings.history_bytes,
        log_share: settings.asks_for_log.then_some(f64::INFINITY),
        rollover_counter: settings.rollover_counter,
        group_bytes: settings.group_bytes,
        ..replica::Config::default()
    }
}
