//! One server of several cores in one thread: the production machines, with messages between
//! cores and completions of the disk that take as long as a seed says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use engine::auth::AuthRules;
use engine::client_core::{self, ClientCore};
use engine::disk::{DiskDone, DiskOp};
use engine::ids::{ConnectionId, CoreId};
use engine::order::{Batch, Submission};
use engine::records::ConnectRequest;
use engine::replica::{self, Now, Replica};
use engine::rules::Rules;
use engine::session::TimeoutLimits;
use engine::time::{Instant, WallTime};
use engine::tree::{Counters, OwnerMode, Tree};
use engine::txnlog::{LogConfig, LogEnd, TxnLog};

use crate::sim::random::Random;

/// A message on its way to a core.
#[derive(Debug)]
enum Message {
    Batch(Arc<Batch>),
    Collect(u64),
}

/// One core and what waits for it.
struct Core {
    clients: ClientCore,
    inbox: VecDeque<Message>,
    batch: u64,
    slots: u32,
    outputs: Vec<client_core::Output>,
    /// Sends whose completion the core has not heard of.
    sending: VecDeque<(ConnectionId, Vec<u8>)>,
}

/// A server without sockets, files, threads or a clock.
pub struct Server {
    /// Decides about every delay.
    pub rng: Random,
    cores: Vec<Core>,
    replica: Replica,
    submissions: VecDeque<Submission>,
    disk: VecDeque<DiskOp>,
    published: Option<Arc<Batch>>,
    time: u64,
    /// What clients have sent and the server has not read,
    unread: BTreeMap<ConnectionId, Vec<u8>>,
    /// and whose connections it leaves unread for now.
    paused: BTreeSet<ConnectionId>,
    /// What clients have received, by connection, in order.
    pub received: Vec<(ConnectionId, Vec<u8>)>,
    /// Connections that the server has closed.
    pub closed: Vec<ConnectionId>,
}

const TICK_MS: u32 = 2000;
/// What a turn reads of a connection at most.
const READ_BYTES: usize = 100_000;

impl Server {
    /// A fresh server.
    pub fn new(seed: u64, cores: u16) -> Self {
        Self::with_tree(seed, cores, Tree::new(OwnerMode::Plain))
    }

    /// A server with this state.
    pub fn with_tree(seed: u64, cores: u16, tree: Tree) -> Self {
        Self::with_rules(seed, cores, tree, Rules::default())
    }

    /// A server with this state and these rules.
    pub fn with_rules(seed: u64, cores: u16, tree: Tree, rules: Rules) -> Self {
        let now = Now { instant: Instant::ZERO, wall: WallTime(1_700_000_000_000) };
        let mut ops = Vec::new();
        let end = LogEnd { zxid: tree.applied(), ..LogEnd::default() };
        let log_config =
            LogConfig::for_groups(replica::group_bytes_most(replica::GROUP_BYTES, &rules));
        let log = TxnLog::open(log_config, end, now.instant, &mut ops);
        let config = replica::Config {
            tick_ms: TICK_MS,
            cores,
            rules: rules.clone(),
            ..replica::Config::default()
        };
        let replica = Replica::new(config, tree, log, now);
        let clients = Arc::new(client_core::Config {
            rules,
            auth: AuthRules::default(),
            session_timeouts: TimeoutLimits::of_tick(TICK_MS as i32),
            outstanding_max: 1000,
            sessionless_timeout: Duration::from_secs(10),
        });
        let core = |index| {
            let version = replica.published().clone();
            Core {
                clients: ClientCore::new(CoreId(index), Arc::clone(&clients), version, 0),
                inbox: VecDeque::new(),
                batch: 0,
                slots: 0,
                outputs: Vec::new(),
                sending: VecDeque::new(),
            }
        };
        Self {
            rng: Random::new(seed),
            cores: (0..cores).map(core).collect(),
            replica,
            submissions: VecDeque::new(),
            disk: ops.into(),
            published: None,
            time: 0,
            unread: BTreeMap::new(),
            paused: BTreeSet::new(),
            received: Vec::new(),
            closed: Vec::new(),
        }
    }

    /// Fails unless the map of the published state is sound.
    pub fn check_tree(&self) {
        self.replica.published().check().expect("a sound map");
    }

    /// How many watches there are on all cores.
    pub fn watches_count(&self) -> usize {
        self.cores.iter().map(|core| core.clients.report(false).watches_count).sum()
    }

    /// Counters of what is ordered.
    pub fn counters(&self) -> Counters {
        self.replica.tree().counters()
    }

    /// The server's time.
    pub fn now(&self) -> Now {
        Now {
            instant: Instant::from_nanos(self.time),
            wall: WallTime(1_700_000_000_000 + i64::try_from(self.time / 1_000_000).unwrap()),
        }
    }

    /// Lets time pass without anything else happening.
    pub fn advance(&mut self, duration: Duration) {
        self.time += u64::try_from(duration.as_nanos()).unwrap();
    }

    /// Connects a client to a core.
    pub fn connect(&mut self, core: u16) -> ConnectionId {
        let instant = self.now().instant;
        let target = &mut self.cores[usize::from(core)];
        let id = ConnectionId { core: CoreId(core), slot: target.slots, generation: 1 };
        target.slots += 1;
        let peer: SocketAddr = "127.0.0.1:40000".parse().unwrap();
        let accepted = client_core::Input::Accepted(id, peer);
        target.clients.step(instant, accepted, &mut target.outputs);
        id
    }

    /// Connects a client that opens a session, and lets everything happen until it has one.
    pub fn connect_with_session(&mut self, core: u16) -> ConnectionId {
        let id = self.connect(core);
        let mut frame = Vec::new();
        ConnectRequest::new_session(10_000).write(&mut frame);
        self.receive(id, &frame);
        self.settle();
        id
    }

    /// A client sends `bytes`. The server receives them now, unless it leaves the connection
    /// unread; in one turn of the client's core, if they are few.
    pub fn receive(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.unread.entry(id).or_default().extend_from_slice(bytes);
        self.read(id.core);
    }

    fn readable(&self, core: CoreId) -> Option<ConnectionId> {
        let mut unread = self.unread.iter().filter(|(_, bytes)| !bytes.is_empty());
        let found = unread.find(|(id, _)| id.core == core && !self.paused.contains(id));
        found.map(|(id, _)| *id)
    }

    /// A core reads what may be read of its connections.
    fn read(&mut self, id: CoreId) {
        let instant = self.now().instant;
        while let Some(connection) = self.readable(id) {
            // What is published when the bytes arrive must be visible to them.
            self.catch_up(id);
            let unread = self.unread.get_mut(&connection).expect("it was just there");
            let bytes: Vec<u8> = unread.drain(..unread.len().min(READ_BYTES)).collect();
            let core = &mut self.cores[usize::from(id.0)];
            let received = client_core::Input::Received(connection, &bytes);
            core.clients.step(instant, received, &mut core.outputs);
            self.finish_turn(id);
        }
    }

    /// One thing happens somewhere. False if there is nothing left to happen.
    pub fn step(&mut self) -> bool {
        self.time += 1_000 + self.rng.below(49_000) as u64;
        let mut choices: Vec<usize> = (0..self.cores.len())
            .filter(|&core| {
                let Core { inbox, sending, clients, .. } = &self.cores[core];
                let has_waited = clients.next_timeout() == Some(Instant::ZERO);
                has_waited || !inbox.is_empty() || !sending.is_empty()
            })
            .collect();
        let cores = self.cores.len();
        if !self.submissions.is_empty() {
            choices.push(cores);
        }
        if !self.disk.is_empty() {
            choices.push(cores + 1);
        }
        if choices.is_empty() {
            return false;
        }
        match choices[self.rng.below(choices.len())] {
            core if core < cores => self.run_core(CoreId(core as u16)),
            choice if choice == cores => {
                let submission = self.submissions.pop_front().expect("there is one");
                self.run_replica(replica::Input::Submission(submission));
            }
            _ => {
                let op = self.disk.remove(self.rng.below(self.disk.len()));
                if let Some(done) = op.and_then(complete) {
                    self.run_replica(replica::Input::Disk(done));
                }
            }
        }
        true
    }

    /// Everything that can happen happens.
    pub fn settle(&mut self) {
        while self.step() {}
    }

    /// The ordering core looks at the time.
    pub fn tick(&mut self) {
        self.run_replica(replica::Input::Tick);
    }

    fn run_core(&mut self, id: CoreId) {
        self.catch_up(id);
        let instant = self.now().instant;
        let core = &mut self.cores[usize::from(id.0)];
        if let Some((connection, buffer)) = core.sending.pop_front() {
            let sent = client_core::Input::Sent(connection, buffer);
            core.clients.step(instant, sent, &mut core.outputs);
        }
        self.finish_turn(id);
        self.read(id);
    }

    fn catch_up(&mut self, id: CoreId) {
        let instant = self.now().instant;
        let published = self.published.as_ref().map_or(0, |batch| batch.number);
        let core = &mut self.cores[usize::from(id.0)];
        while let Some(message) = core.inbox.pop_front() {
            let input = match message {
                Message::Batch(batch) => {
                    assert!(batch.number <= published, "a batch before its publication");
                    core.batch = batch.number;
                    client_core::Input::Batch(batch)
                }
                Message::Collect(round) => client_core::Input::Collected(round),
            };
            core.clients.step(instant, input, &mut core.outputs);
        }
        if core.batch < published {
            core.batch = published;
            let version = self.published.as_ref().expect("there is one").version().clone();
            let input = client_core::Input::Published(version, published);
            core.clients.step(instant, input, &mut core.outputs);
        }
    }

    fn finish_turn(&mut self, id: CoreId) {
        let instant = self.now().instant;
        let core = &mut self.cores[usize::from(id.0)];
        core.clients.step(instant, client_core::Input::Tick, &mut core.outputs);
        core.clients.finish_turn(instant, &mut core.outputs);
        for output in std::mem::take(&mut core.outputs) {
            match output {
                client_core::Output::Send(connection, bytes) => {
                    self.received.push((connection, bytes.clone()));
                    core.sending.push_back((connection, bytes));
                }
                client_core::Output::Close(connection) => self.closed.push(connection),
                client_core::Output::Submit(submission) => self.submissions.push_back(submission),
                client_core::Output::Pause(connection) => {
                    assert!(self.paused.insert(connection), "it is left unread already");
                }
                client_core::Output::Resume(connection) => {
                    assert!(self.paused.remove(&connection), "it is being read");
                }
                client_core::Output::FourLetter(connection, ..) => {
                    let answer = client_core::Input::Answer(connection, Vec::new());
                    core.clients.step(instant, answer, &mut core.outputs);
                }
            }
        }
    }

    fn run_replica(&mut self, input: replica::Input) {
        let now = self.now();
        let mut outputs = Vec::new();
        self.replica.step(now, input, &mut outputs);
        self.replica.finish_turn(now, &mut outputs);
        for output in outputs {
            match output {
                replica::Output::Disk(op) => self.disk.push_back(op),
                replica::Output::Publish(batch, _) => self.publish(batch),
                replica::Output::Collect(round) => {
                    for core in &mut self.cores {
                        core.inbox.push_back(Message::Collect(round));
                    }
                }
                // Nobody writes it: a start reads all of the log.
                replica::Output::Snapshot(..) => {}
            }
        }
    }

    /// As the server does it: cores that wait for nothing are passed over.
    fn publish(&mut self, batch: Arc<Batch>) {
        for (index, core) in self.cores.iter_mut().enumerate() {
            let concerned = batch.has_replies_for(CoreId(index as u16));
            if concerned || core.clients.needs_all_batches() {
                core.inbox.push_back(Message::Batch(Arc::clone(&batch)));
            }
        }
        self.published = Some(batch);
    }
}

/// What the disk answers.
fn complete(op: DiskOp) -> Option<DiskDone> {
    match op {
        DiskOp::Append { sequence, frame, .. } => Some(DiskDone::Appended { sequence, frame }),
        DiskOp::Prepare(plan) => Some(DiskDone::Prepared(plan.segment)),
        DiskOp::Retire(segment) => Some(DiskDone::Retired(segment)),
    }
}
