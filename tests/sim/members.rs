//! Servers of one ensemble in one thread: links that never lose anything, disks that never fail,
//! and servers that can be killed. What happens is decided by time alone.

mod readings;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use engine::acl::Id;
use engine::disk::{DiskDone, DiskOp};
use engine::ids::{ConnectionId, CoreId, LinkId, ServerId, SessionId, Xid};
use engine::jute::Writer;
use engine::op::OpCode;
use engine::order::{Batch, Connect, Order, ReplyKind, Request, Submission};
use engine::quorum_peer::{Input, MemberConfig, MemberState, Output, QuorumPeer, RoleKind};
use engine::replica::{self, Now, Replica};
use engine::rules::Rules;
use engine::time::{Instant, WallTime};
use engine::tree::OwnerMode;
use engine::txnlog::history::Run;
use engine::txnlog::{LogConfig, TxnLog};
use engine::zab::data::DataDone;
use engine::zab::election::ElectorConfig;
use engine::zab::link::{LinkEvent, LinkOp, Plane};
use engine::zab::log_reading::LogDone;
use engine::zab::members::{Member, Members};
use engine::zab::outbox::Timing;
use engine::zxid::Zxid;

use crate::sim::ensemble::store::{Found, GROUP_BYTES, SEGMENT_BYTES, Store};

/// Epochs are short here.
pub const ROLLOVER_COUNTER: u32 = 2500;
const TICK: Duration = Duration::from_millis(200);
const HOP: Duration = Duration::from_micros(50);
const DISK: Duration = Duration::from_micros(200);

/// What happens at a server, at some time.
enum Event {
    Disk(DiskDone),
    Data(DataDone),
    Read(LogDone),
    Accepted(LinkId, Plane),
    Connected(LinkId),
    Refused(LinkId),
    Received(LinkId, Vec<u8>),
    Drained(LinkId),
    Closed(LinkId),
    Submit(Submission),
    Tick,
}

pub struct Server {
    /// Its machine.
    pub peer: QuorumPeer,
    learner_port: bool,
    /// The other end of each link.
    links: BTreeMap<LinkId, (usize, LinkId)>,
    accepted: u64,
    /// Replies that its clients got.
    replies: Vec<(ConnectionId, ReplyKind, Vec<u8>)>,
    batches: u64,
    /// What learners are still to be sent of the log's files.
    readings: BTreeMap<LinkId, VecDeque<Run>>,
}

/// How learners were brought up to date, but for those that memory was enough for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Logs that were cut.
    pub truncations: u64,
    /// Trees that were replaced.
    pub replacements: u64,
    /// Stretches of log that were read from files.
    pub readings: u64,
}

/// Some servers, and what is on its way between them.
pub struct World {
    /// Nanoseconds since the beginning.
    pub now: u64,
    /// None where one was killed.
    pub servers: Vec<Option<Server>>,
    /// What is on their disks.
    stores: Vec<Store>,
    history_bytes: usize,
    /// What it took.
    pub counts: Counts,
    events: BTreeMap<(u64, u64), (usize, Event)>,
    count: u64,
}

fn members(count: usize) -> Arc<Members> {
    let member = |id| Member {
        id: ServerId(id as i64),
        is_observer: false,
        text: format!("127.0.0.1:{}:{}:participant", 2888 + id, 3888 + id),
    };
    let members: Vec<_> = (1..=count).map(member).collect();
    Arc::new(Members::majority(&members, 0).unwrap())
}

fn replica_config(id: usize, history_bytes: usize) -> replica::Config {
    replica::Config {
        server_id: id as u8,
        tick_ms: TICK.as_millis() as u32,
        rules: Rules { packet_bytes_max: 16 << 10, ..Rules::default() },
        history_bytes,
        log_share: Some(0.33),
        rollover_counter: ROLLOVER_COUNTER,
        group_bytes: GROUP_BYTES,
        ..replica::Config::default()
    }
}

impl World {
    /// So many servers without data.
    pub fn new(count: usize) -> Self {
        Self::with_history(count, 1 << 20)
    }

    /// The same, with so much of the log in memory.
    pub fn with_history(count: usize, history_bytes: usize) -> Self {
        let mut world = Self {
            now: 0,
            servers: Vec::new(),
            stores: vec![Store::default(); count],
            history_bytes,
            counts: Counts::default(),
            events: BTreeMap::new(),
            count: 0,
        };
        for _ in 0..count {
            world.servers.push(None);
        }
        for index in 0..count {
            world.start(index);
        }
        world
    }

    fn time(&self) -> Now {
        let wall = WallTime(1_700_000_000_000 + (self.now / 1_000_000) as i64);
        Now { instant: Instant::from_nanos(self.now), wall }
    }

    /// Starts a server without data.
    pub fn start(&mut self, index: usize) {
        self.stores[index] = Store::default();
        self.restart(index);
    }

    /// Starts a server with what is on its disk.
    pub fn restart(&mut self, index: usize) {
        let id = ServerId(index as i64 + 1);
        let members = members(self.servers.len());
        let timing = Timing { tick: TICK, init_limit: 10, sync_limit: 5 };
        let elector = ElectorConfig {
            me: id,
            is_observer: false,
            members: Arc::clone(&members),
            my_election_address: format!("127.0.0.1:{}", 3888 + id.0),
            finalize_wait: Duration::from_millis(200),
            notification_interval_min: Duration::from_millis(200),
            notification_interval_max: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            tick: TICK,
            fast: true,
        };
        let config = MemberConfig {
            me: id,
            members,
            is_observer: false,
            timing,
            elector,
            leader_serves: true,
            grace: Duration::from_secs(1),
            mode: OwnerMode::Plain,
            log: LogConfig {
                seed: self.count + index as u64,
                ..LogConfig::with_segments(SEGMENT_BYTES)
            },
        };
        let Found { recovered, epochs, has_data } =
            self.stores[index].open(self.history_bytes).unwrap();
        let (mut ops, now) = (Vec::new(), self.time());
        let log = TxnLog::open(config.log, recovered.log, now.instant, &mut ops);
        let replica_config = replica_config(index + 1, self.history_bytes);
        let mut replica = Replica::new(replica_config, recovered.tree, log, now);
        replica.remember(recovered.history);
        let peer = QuorumPeer::member(replica, config, MemberState { epochs, has_data });
        self.servers[index] = Some(Server {
            peer,
            learner_port: false,
            links: BTreeMap::new(),
            accepted: 0,
            replies: Vec::new(),
            batches: 0,
            readings: BTreeMap::new(),
        });
        for op in ops {
            self.disk(index, op);
        }
        self.at(index, Duration::ZERO, Event::Tick);
    }

    /// Kills a server: its links close, and its disk stays.
    pub fn kill(&mut self, index: usize) {
        let server = self.servers[index].take().unwrap();
        self.events.retain(|_, (target, _)| *target != index);
        for (other, link) in server.links.into_values() {
            self.at(other, HOP, Event::Closed(link));
        }
    }

    fn at(&mut self, server: usize, delay: Duration, event: Event) {
        self.count += 1;
        let time = self.now + delay.as_nanos() as u64;
        self.events.insert((time, self.count), (server, event));
    }

    fn disk(&mut self, server: usize, op: DiskOp) {
        let done = self.stores[server].change_log(op).unwrap();
        self.at(server, DISK, Event::Disk(done));
    }

    /// Lets time pass until something holds.
    #[track_caller]
    pub fn run_until(&mut self, limit: Duration, mut holds: impl FnMut(&Self) -> bool) {
        let end = self.now + limit.as_nanos() as u64;
        while !holds(self) {
            let Some((&(time, number), _)) = self.events.first_key_value() else {
                panic!("nothing happens any more");
            };
            assert!(time <= end, "it did not come to pass within {limit:?}");
            let (server, event) = self.events.remove(&(time, number)).unwrap();
            self.now = time;
            self.happen(server, event);
        }
    }

    fn happen(&mut self, index: usize, event: Event) {
        let now = self.time();
        let Some(server) = &mut self.servers[index] else { return };
        let mut out = Vec::new();
        let input = match &event {
            Event::Tick => Input::Replica(replica::Input::Tick),
            Event::Accepted(link, plane) => {
                Input::Link(LinkEvent::Accepted { link: *link, plane: *plane })
            }
            Event::Connected(link) => Input::Link(LinkEvent::Connected(*link)),
            Event::Refused(link) => Input::Link(LinkEvent::Failed { link: *link, refused: true }),
            Event::Received(link, bytes) if server.links.contains_key(link) => {
                Input::Link(LinkEvent::Received(*link, bytes))
            }
            Event::Drained(link) if server.links.contains_key(link) => {
                Input::Link(LinkEvent::Drained(*link))
            }
            Event::Closed(link) if server.links.remove(link).is_some() => {
                Input::Link(LinkEvent::Closed(*link))
            }
            Event::Received(..) | Event::Drained(_) | Event::Closed(_) => return,
            Event::Disk(_) | Event::Data(_) | Event::Read(_) | Event::Submit(_) => {
                let input = match event {
                    Event::Disk(done) => Input::Replica(replica::Input::Disk(done)),
                    Event::Data(done) => Input::Data(Box::new(done)),
                    Event::Read(done) => Input::Log(done),
                    Event::Submit(submission) => {
                        Input::Replica(replica::Input::Submission(submission))
                    }
                    _ => unreachable!(),
                };
                server.peer.step(now, input, &mut out);
                server.peer.finish_turn(now, &mut out);
                return self.execute(index, out);
            }
        };
        server.peer.step(now, input, &mut out);
        server.peer.finish_turn(now, &mut out);
        self.execute(index, out);
    }

    fn execute(&mut self, index: usize, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Replica(replica::Output::Disk(op)) => self.disk(index, op),
                Output::Replica(replica::Output::Publish(batch, _)) => self.publish(index, &batch),
                Output::Replica(_) | Output::Service(_) => {}
                Output::Data(op) => {
                    let done = self.stores[index].execute(op, self.count, None).unwrap();
                    self.counts.truncations += u64::from(matches!(done, DataDone::Truncated(_)));
                    self.counts.replacements += u64::from(matches!(done, DataDone::Replaced(_)));
                    self.at(index, DISK, Event::Data(done));
                }
                Output::Log(op) => self.read_log(index, op),
                Output::Link(op) => self.link(index, op),
            }
        }
        let next = self.servers[index].as_ref().and_then(|server| server.peer.next_timeout());
        if let Some(at) = next {
            let delay = at.since(self.time().instant);
            self.events
                .retain(|_, (target, event)| !(*target == index && matches!(event, Event::Tick)));
            self.at(index, delay, Event::Tick);
        }
    }

    fn link(&mut self, index: usize, op: LinkOp) {
        match op {
            LinkOp::Dial { link, peer, plane } => {
                let other = peer.0 as usize - 1;
                let open = |server: &Server| plane == Plane::Election || server.learner_port;
                let target = self.servers[other].as_mut().filter(|server| open(server));
                let Some(target) = target else {
                    return self.at(index, HOP, Event::Refused(link));
                };
                target.accepted += 2;
                let accepted = LinkId(target.accepted - 1);
                target.links.insert(accepted, (index, link));
                self.servers[index].as_mut().unwrap().links.insert(link, (other, accepted));
                self.at(other, HOP, Event::Accepted(accepted, plane));
                self.at(index, HOP * 2, Event::Connected(link));
            }
            LinkOp::Send { link, bytes } => {
                let server = self.servers[index].as_ref().unwrap();
                let Some(&(other, far)) = server.links.get(&link) else { return };
                for piece in bytes.chunks(1000) {
                    self.at(other, HOP, Event::Received(far, piece.to_vec()));
                }
                self.at(index, HOP, Event::Drained(link));
            }
            // What has been read may still come, and here that is everything.
            LinkOp::Pause(_) | LinkOp::Resume(_) => {}
            LinkOp::Close(link) => {
                let server = self.servers[index].as_mut().unwrap();
                if let Some((other, far)) = server.links.remove(&link) {
                    self.at(other, HOP, Event::Closed(far));
                }
            }
            LinkOp::OpenLearnerPort | LinkOp::CloseLearnerPort => {
                self.servers[index].as_mut().unwrap().learner_port = op == LinkOp::OpenLearnerPort;
            }
        }
    }

    fn publish(&mut self, index: usize, batch: &Batch) {
        let server = self.servers[index].as_mut().unwrap();
        assert!(batch.number > server.batches);
        server.batches = batch.number;
        for item in batch.segments.iter().flat_map(|segment| &segment.items) {
            if let Some(reply) = &item.reply {
                let frame = match &reply.kind {
                    ReplyKind::Frame { frame, .. } => batch.replies[frame.clone()].to_vec(),
                    _ => Vec::new(),
                };
                let kind = match reply.kind {
                    ReplyKind::Attached { session, timeout_ms } => {
                        ReplyKind::Attached { session, timeout_ms }
                    }
                    ReplyKind::Refused => ReplyKind::Refused,
                    ReplyKind::Close => ReplyKind::Close,
                    ReplyKind::Frame { ref frame, xid, close } => {
                        ReplyKind::Frame { frame: frame.clone(), xid, close }
                    }
                };
                server.replies.push((reply.connection, kind, frame));
            }
        }
    }

    /// The server that leads.
    pub fn leader(&self) -> Option<usize> {
        let leads = |server: &Option<Server>| {
            server
                .as_ref()
                .is_some_and(|server| matches!(server.peer.role(), RoleKind::Leading { .. }))
        };
        self.servers.iter().position(leads)
    }

    /// Whether there is a leader and all who live follow it.
    pub fn stands(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        self.servers.iter().enumerate().all(|(index, server)| {
            let following = RoleKind::Following(ServerId(leader as i64 + 1));
            server.as_ref().is_none_or(|server| index == leader || server.peer.role() == following)
        })
    }

    /// The last transaction that a server shows.
    pub fn applied(&self, index: usize) -> Zxid {
        self.servers[index].as_ref().unwrap().peer.replica().published().zxid()
    }

    /// Opens a session at a server.
    pub fn connect(&mut self, index: usize, slot: u32) -> SessionId {
        let connection = connection(slot);
        let mut submission = Submission::new(CoreId(0));
        let session = SessionId::NONE;
        let connect = Connect { connection, session, genuine: true, timeout_ms: 10_000 };
        submission.orders.push(Order::Connect(connect));
        self.at(index, HOP, Event::Submit(submission));
        let attached = |world: &Self| {
            world.servers[index].as_ref().unwrap().replies.iter().find_map(|(to, kind, _)| {
                match kind {
                    ReplyKind::Attached { session, .. } if *to == connection => Some(*session),
                    _ => None,
                }
            })
        };
        self.run_until(Duration::from_secs(1), |world| attached(world).is_some());
        attached(self).unwrap()
    }

    /// Asks a server to create `/name` or to sync.
    pub fn request(&mut self, index: usize, slot: u32, session: SessionId, xid: i32, op: OpCode) {
        let mut body = Vec::new();
        let mut writer = Writer::new(&mut body);
        writer.string(&format!("/n{xid}"));
        if op == OpCode::Create {
            writer.buf(b"data");
            writer.count(1);
            writer.i32(31);
            writer.string("world");
            writer.string("anyone");
            writer.i32(0);
        }
        let mut submission = Submission::new(CoreId(0));
        let range = 0..body.len();
        submission.bodies = body;
        submission.orders.push(Order::Request(Request {
            connection: connection(slot),
            session,
            xid: Xid(xid),
            op,
            body: range,
            ids: Arc::from([Id::new("ip", "127.0.0.1")]),
            cut: false,
        }));
        self.at(index, HOP, Event::Submit(submission));
    }

    /// The xids and error codes of the replies to a connection.
    pub fn answers(&self, index: usize, slot: u32) -> Vec<(i32, i32)> {
        let replies = &self.servers[index].as_ref().unwrap().replies;
        let own =
            replies.iter().filter(|(to, _, frame)| *to == connection(slot) && !frame.is_empty());
        let answer = |frame: &[u8]| {
            let number = |at: usize| i32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
            (number(4), number(16))
        };
        own.map(|(_, _, frame)| answer(frame)).collect()
    }
}

fn connection(slot: u32) -> ConnectionId {
    ConnectionId { core: CoreId(0), slot, generation: 1 }
}
