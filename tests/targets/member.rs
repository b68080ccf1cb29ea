//! A production member of an ensemble whose links an input speaks on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use engine::ids::{CoreId, LinkId, ServerId};
use engine::order::{Order, Submission};
use engine::quorum_peer::{Input as PeerInput, MemberConfig, MemberState, Output, QuorumPeer};
use engine::replica::{self, Now, Replica};
use engine::rules::Rules;
use engine::time::{Instant, WallTime};
use engine::tree::OwnerMode;
use engine::txnlog::{LogConfig, TxnLog};
use engine::zab::election::ElectorConfig;
use engine::zab::link::{LinkEvent, LinkOp, Plane};
use engine::zab::members::{Member as Line, Members};
use engine::zab::notification::{Notification, PeerState};
use engine::zab::outbox::Timing;
use engine::zab::vote::Vote;

use super::input::Input;
use crate::sim::ensemble::store::{GROUP_BYTES, SEGMENT_BYTES, Store};

const TICK: Duration = Duration::from_millis(200);
/// Two packets of this length and a group fit in a segment of the log.
const PACKET_BYTES_MAX: usize = 80 << 10;

/// How much it may send for whatever happens, and for each byte that it is sent. A vote of 32
/// bytes is passed on to two others, each time with the list of the members.
const EVENT_BYTES_MAX: usize = 4 << 10;
const ANSWER_BYTES_MAX: usize = 32;

/// One server of three, and its disk.
pub(super) struct Member {
    pub(super) peer: QuorumPeer,
    store: Store,
    time: Duration,
    /// What the disk and the links are about to say.
    coming: VecDeque<PeerInput<'static>>,
    /// What was sent and not yet looked at.
    pub(super) sent: BTreeMap<LinkId, Vec<u8>>,
    pub(super) dialled: Vec<(LinkId, ServerId, Plane)>,
    closed: BTreeSet<LinkId>,
    pub(super) members: Arc<Members>,
    /// What it may still send.
    allowance: usize,
}

impl Member {
    /// It has an empty state, and looks for a leader.
    pub(super) fn new(me: ServerId, is_observer: bool) -> Self {
        let lines = [1, 2, 3].map(|id| Line {
            id: ServerId(id),
            is_observer: is_observer && me.0 == id,
            text: format!("127.0.0.1:{}:{}:participant", 2888 + id, 3888 + id),
        });
        let members = Arc::new(Members::majority(&lines, 0).expect("there are voters"));
        let now = Now { instant: Instant::ZERO, wall: WallTime(1_700_000_000_000) };
        let mut store = Store::default();
        let found = store.open(0).expect("the disk works");
        let log =
            LogConfig { frame_bytes_max: 16 << 10, ..LogConfig::with_segments(SEGMENT_BYTES) };
        let mut ops = Vec::new();
        let writer = TxnLog::open(log, found.recovered.log, now.instant, &mut ops);
        let replica = Replica::new(replica_config(me), found.recovered.tree, writer, now);
        let config = config(me, is_observer, &members, log);
        let state = MemberState { epochs: found.epochs, has_data: true };
        let mut member = Self {
            peer: QuorumPeer::member(replica, config, state),
            store,
            time: Duration::ZERO,
            coming: VecDeque::new(),
            sent: BTreeMap::new(),
            dialled: Vec::new(),
            closed: BTreeSet::new(),
            members,
            allowance: 0,
        };
        member.execute(ops.into_iter().map(replica::Output::Disk).map(Output::Replica));
        member.prompt(PeerInput::Replica(replica::Input::Tick));
        member.settle();
        member
    }

    fn now(&self) -> Now {
        let wall = WallTime(1_700_000_000_000 + self.time.as_millis() as i64);
        Now { instant: Instant::ZERO.after(self.time), wall }
    }

    /// Something happens that is no answer to what it wanted itself.
    fn prompt(&mut self, input: PeerInput<'_>) {
        self.allowance += EVENT_BYTES_MAX;
        self.step(input);
    }

    fn step(&mut self, input: PeerInput<'_>) {
        let (now, mut outputs) = (self.now(), Vec::new());
        self.peer.step(now, input, &mut outputs);
        self.peer.finish_turn(now, &mut outputs);
        self.execute(outputs);
    }

    fn execute(&mut self, outputs: impl IntoIterator<Item = Output>) {
        for output in outputs {
            match output {
                Output::Replica(replica::Output::Disk(op)) => {
                    let done = self.store.change_log(op).expect("the disk works");
                    self.coming.push_back(PeerInput::Replica(replica::Input::Disk(done)));
                }
                Output::Replica(replica::Output::Collect(round)) => {
                    let mut submission = Submission::new(CoreId(0));
                    submission.collected = Some(round);
                    let input = replica::Input::Submission(submission);
                    self.coming.push_back(PeerInput::Replica(input));
                }
                Output::Replica(replica::Output::Snapshot(version, kept)) => {
                    let written = self.store.snapshot(&version, kept).expect("the disk works");
                    let input = replica::Input::SnapshotDone(Ok(written));
                    self.coming.push_back(PeerInput::Replica(input));
                }
                Output::Data(op) => {
                    let done = self.store.execute(op, 1, None).expect("the disk works");
                    self.coming.push_back(PeerInput::Data(Box::new(done)));
                }
                Output::Link(op) => self.execute_link(op),
                Output::Log(_) => unreachable!("memory and trees are enough"),
                Output::Replica(replica::Output::Publish(..)) | Output::Service(_) => {}
            }
        }
    }

    fn execute_link(&mut self, op: LinkOp) {
        let cost = match op {
            LinkOp::Send { link, bytes } => {
                let cost = bytes.len();
                assert!(!self.closed.contains(&link), "it sends on {link:?}, which is closed");
                self.sent.entry(link).or_default().extend(bytes);
                self.coming.push_back(PeerInput::Link(LinkEvent::Drained(link)));
                cost
            }
            LinkOp::Close(link) => {
                self.closed.insert(link);
                0
            }
            LinkOp::Dial { link, peer, plane } => {
                self.dialled.push((link, peer, plane));
                0
            }
            LinkOp::Pause(_)
            | LinkOp::Resume(_)
            | LinkOp::OpenLearnerPort
            | LinkOp::CloseLearnerPort => 0,
        };
        let left = self.allowance.checked_sub(cost + size_of::<LinkOp>());
        self.allowance = left.expect("it sends no more than it was asked for");
    }

    /// Lets the disk and the links do what they are asked for.
    pub(super) fn settle(&mut self) {
        while let Some(input) = self.coming.pop_front() {
            match input {
                PeerInput::Link(LinkEvent::Drained(link)) if self.closed.contains(&link) => {}
                input => self.step(input),
            }
        }
    }

    /// Waits until it has something to do of itself.
    pub(super) fn tick(&mut self) {
        if let Some(at) = self.peer.next_timeout() {
            self.time += at.since(self.now().instant);
            self.prompt(PeerInput::Replica(replica::Input::Tick));
        }
    }

    /// Its own clients want this.
    pub(super) fn submit(&mut self, orders: Vec<Order>) {
        let mut submission = Submission::new(CoreId(0));
        submission.orders = orders;
        self.prompt(PeerInput::Replica(replica::Input::Submission(submission)));
        self.settle();
    }

    /// Somebody connects to a port.
    pub(super) fn accept(&mut self, link: LinkId, plane: Plane) {
        self.prompt(PeerInput::Link(LinkEvent::Accepted { link, plane }));
        self.settle();
    }

    /// The last link that it has dialled to a port of a server is there.
    pub(super) fn connect(&mut self, peer: ServerId, plane: Plane) -> LinkId {
        let is_it = |dial: &&(LinkId, ServerId, Plane)| (dial.1, dial.2) == (peer, plane);
        let (link, ..) = *self.dialled.iter().rfind(is_it).expect("it has dialled");
        self.prompt(PeerInput::Link(LinkEvent::Connected(link)));
        self.settle();
        link
    }

    /// Bytes come, and everything that follows of them happens.
    pub(super) fn receive(&mut self, link: LinkId, bytes: &[u8]) {
        self.hear(link, bytes);
        self.settle();
    }

    fn hear(&mut self, link: LinkId, bytes: &[u8]) {
        if self.is_open(link) && !bytes.is_empty() {
            self.allowance += ANSWER_BYTES_MAX * bytes.len();
            self.prompt(PeerInput::Link(LinkEvent::Received(link, bytes)));
        }
    }

    /// The other side closes a link.
    pub(super) fn close(&mut self, link: LinkId) {
        if self.is_open(link) {
            self.closed.insert(link);
            self.prompt(PeerInput::Link(LinkEvent::Closed(link)));
        }
        self.settle();
    }

    pub(super) fn is_open(&self, link: LinkId) -> bool {
        !self.closed.contains(&link)
    }

    /// Another server has this vote.
    pub(super) fn tell(&mut self, link: LinkId, state: PeerState, vote: &Vote) {
        let message = Notification::message(state, Some(vote), vote.round, self.members.text());
        self.receive(link, &message);
    }

    /// The input speaks on some links: each piece says on which, in how many parts it comes, and
    /// whether the disk has done meanwhile what it was asked for, or much time has passed.
    pub(super) fn listen(
        &mut self,
        input: &mut Input<'_>,
        links: &[LinkId],
        mut meanwhile: impl FnMut(&mut Self),
    ) {
        // What it might have sent before does not count.
        self.allowance = EVENT_BYTES_MAX;
        while !input.is_empty() && links.iter().any(|link| self.is_open(*link)) {
            let how = usize::from(input.u8());
            let link = links[how / 64 % links.len()];
            let piece = input.piece();
            let bytes = if how & 4 == 0 { piece.len().max(1) } else { 1 + how / 8 % 8 };
            piece.chunks(bytes).for_each(|part| self.hear(link, part));
            if how & 1 == 0 {
                self.settle();
                meanwhile(self);
            }
            if how & 2 != 0 {
                self.tick();
            }
        }
        links.iter().for_each(|link| self.close(*link));
        for _ in 0..4 {
            self.tick();
            self.settle();
        }
    }

    /// What it shows is sound, and it starts again from what it has on disk.
    pub(super) fn check(mut self) {
        self.peer.replica().published().check().expect("a sound tree");
        let mut found = self.store.open(0).expect("it can start again");
        found.recovered.tree.freeze().check().expect("a sound tree");
    }
}

fn config(me: ServerId, is_observer: bool, members: &Arc<Members>, log: LogConfig) -> MemberConfig {
    let elector = ElectorConfig {
        me,
        is_observer,
        members: Arc::clone(members),
        my_election_address: "127.0.0.1:3888".to_owned(),
        finalize_wait: Duration::from_millis(200),
        notification_interval_min: Duration::from_millis(200),
        notification_interval_max: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(1),
        tick: TICK,
        fast: true,
    };
    MemberConfig {
        me,
        members: Arc::clone(members),
        is_observer,
        timing: Timing { tick: TICK, init_limit: 10, sync_limit: 5 },
        elector,
        leader_serves: true,
        grace: Duration::from_secs(1),
        mode: OwnerMode::Plain,
        log,
    }
}

fn replica_config(me: ServerId) -> replica::Config {
    replica::Config {
        server_id: me.0 as u8,
        tick_ms: TICK.as_millis() as u32,
        rules: Rules { packet_bytes_max: PACKET_BYTES_MAX, ..Rules::default() },
        history_bytes: 1 << 20,
        group_bytes: GROUP_BYTES,
        ..replica::Config::default()
    }
}
