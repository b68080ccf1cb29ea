//! Electors on a network that delays, cuts into pieces, closes and kills, all from a seed.
//!
//! What comes after an election is played by a stub: a leader is established once a quorum has
//! decided for it, and whoever has no leader to talk to looks for one again.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use super::*;
use crate::zab::members::Member;

const MS: u64 = 1_000_000;
/// How long a follower waits for its leader, and a leader for its quorum.
const PATIENCE: u64 = 1000 * MS;

type Step<'a> = dyn Fn(&mut Elector, Instant, &mut Vec<LinkOp>) + 'a;

struct Net {
    rng: Rng,
    now: u64,
    members: Arc<Members>,
    servers: BTreeMap<ServerId, Server>,
    pipes: Vec<Pipe>,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    delay_max: u64,
    /// Dials of dead servers are refused; otherwise nothing is heard of them.
    refuses: bool,
    fast: bool,
    /// Whether leaders come to be established.
    discovers: bool,
}

struct Server {
    elector: Option<Elector>,
    own: OwnState,
    life: u32,
    accepted: u64,
    pipes: BTreeMap<LinkId, (usize, usize)>,
    decision: Option<Decision>,
    since: u64,
    established: bool,
}

/// A connection: who is at either end, under which name, and when what was sent last arrives.
struct Pipe {
    ends: [(ServerId, u32, LinkId); 2],
    arrives: [u64; 2],
}

#[derive(Debug)]
enum Event {
    Dial(ServerId, u32, LinkId, ServerId),
    Failed(ServerId, u32, LinkId, bool),
    Connected(usize),
    Bytes(usize, usize, Vec<u8>),
    Closed(usize, usize),
    Review,
}

impl Net {
    fn new(seed: u64, voters: i64, observers: i64) -> Self {
        let member = |id| Member {
            id: ServerId(id),
            is_observer: id > voters,
            text: "h:1:2:participant".to_owned(),
        };
        let members: Vec<_> = (1..=voters + observers).map(member).collect();
        let server = |id| {
            let own = OwnState { last: Some(Zxid(0)), current_epoch: Epoch(0) };
            let server = Server {
                elector: None,
                own,
                life: 0,
                accepted: 1,
                pipes: BTreeMap::new(),
                decision: None,
                since: 0,
                established: false,
            };
            (ServerId(id), server)
        };
        let mut rng = Rng::with_seed(seed);
        let delay_max = [MS / 10, 2 * MS, 40 * MS][rng.usize(..3)];
        Self {
            rng,
            now: 0,
            members: Arc::new(Members::majority(&members, 0).unwrap()),
            servers: (1..=voters + observers).map(server).collect(),
            pipes: Vec::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            delay_max,
            refuses: true,
            fast: true,
            discovers: true,
        }
    }

    fn at(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((time, self.sequence), event);
    }

    fn soon(&mut self) -> u64 {
        self.now + 1 + self.rng.u64(..self.delay_max)
    }

    fn start(&mut self, id: ServerId) {
        let config = ElectorConfig {
            me: id,
            is_observer: false,
            members: Arc::clone(&self.members),
            my_election_address: "h:2".to_owned(),
            finalize_wait: Duration::from_millis(200),
            notification_interval_min: Duration::from_millis(200),
            notification_interval_max: Duration::from_secs(5),
            connect_timeout: Duration::from_millis(500),
            tick: Duration::from_secs(2),
            fast: self.fast,
        };
        let server = self.servers.get_mut(&id).unwrap();
        server.elector = Some(Elector::new(config));
        server.life += 1;
        self.look(id);
    }

    fn look(&mut self, id: ServerId) {
        let server = self.servers.get_mut(&id).unwrap();
        server.decision = None;
        server.established = false;
        let own = server.own;
        self.drive(id, |elector, now, out| elector.look(now, own, out));
    }

    fn kill(&mut self, id: ServerId) {
        let server = self.servers.get_mut(&id).unwrap();
        server.elector = None;
        server.life += 1;
        server.decision = None;
        server.established = false;
        for (pipe, end) in std::mem::take(&mut server.pipes).into_values() {
            self.close(pipe, end);
        }
    }

    /// An end of a pipe closes: the other one hears of it after everything that was sent.
    fn close(&mut self, pipe: usize, end: usize) {
        let time = self.soon().max(self.pipes[pipe].arrives[end] + 1);
        self.at(time, Event::Closed(pipe, 1 - end));
    }

    fn break_some_pipe(&mut self) {
        if !self.pipes.is_empty() {
            let pipe = self.rng.usize(..self.pipes.len());
            for end in [0, 1] {
                let time = self.soon();
                self.at(time, Event::Closed(pipe, end));
            }
        }
    }

    fn drive(&mut self, id: ServerId, step: impl Fn(&mut Elector, Instant, &mut Vec<LinkOp>)) {
        let mut step: Box<Step<'_>> = Box::new(step);
        loop {
            let mut out = Vec::new();
            let now = Instant::from_nanos(self.now);
            let server = self.servers.get_mut(&id).unwrap();
            let Some(elector) = &mut server.elector else { return };
            step(elector, now, &mut out);
            if let Some(decision) = elector.decided() {
                server.decision = Some(decision);
                server.since = self.now;
            }
            let reopened = elector.reopened();
            self.execute(id, out);
            if !reopened {
                return;
            }
            let server = self.servers.get_mut(&id).unwrap();
            server.decision = None;
            let own = server.own;
            step = Box::new(move |elector, now, out| elector.look(now, own, out));
        }
    }

    fn execute(&mut self, id: ServerId, out: Vec<LinkOp>) {
        for op in out {
            match op {
                LinkOp::Dial { link, peer, .. } => {
                    let (time, life) = (self.soon(), self.servers[&id].life);
                    assert_eq!(link.0 % 4, 0);
                    self.at(time, Event::Dial(id, life, link, peer));
                }
                LinkOp::Send { link, bytes } => {
                    let (pipe, end) = self.servers[&id].pipes[&link];
                    let mut rest = bytes;
                    while !rest.is_empty() {
                        let tail = rest.split_off(self.rng.usize(1..=rest.len()));
                        let time = self.soon().max(self.pipes[pipe].arrives[end] + 1);
                        self.pipes[pipe].arrives[end] = time;
                        self.at(time, Event::Bytes(pipe, 1 - end, rest));
                        rest = tail;
                    }
                }
                LinkOp::Close(link) => {
                    let found = self.servers.get_mut(&id).unwrap().pipes.remove(&link);
                    if let Some((pipe, end)) = found {
                        self.close(pipe, end);
                    }
                }
                _ => unreachable!("only learners and leaders want that"),
            }
        }
    }

    /// The server at an end of a pipe, if it is the one that opened it and has not closed it.
    fn end(&self, pipe: usize, end: usize) -> Option<(ServerId, LinkId)> {
        let (id, life, link) = self.pipes[pipe].ends[end];
        let server = &self.servers[&id];
        (server.life == life && server.pipes.get(&link) == Some(&(pipe, end))).then_some((id, link))
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Dial(id, life, link, target) => self.arrive(id, life, link, target),
            Event::Failed(id, life, link, refused) => {
                let knows = |elector: &Elector| elector.owns(link);
                let server = &self.servers[&id];
                if server.life == life && server.elector.as_ref().is_some_and(knows) {
                    let failed = LinkEvent::Failed { link, refused };
                    self.drive(id, |elector, now, out| elector.on_link(now, failed, out));
                }
            }
            Event::Connected(pipe) => {
                let (id, life, link) = self.pipes[pipe].ends[0];
                let server = self.servers.get_mut(&id).unwrap();
                let knows = |elector: &Elector| elector.owns(link);
                if server.life == life && server.elector.as_ref().is_some_and(knows) {
                    server.pipes.insert(link, (pipe, 0));
                    let connected = LinkEvent::Connected(link);
                    self.drive(id, |elector, now, out| elector.on_link(now, connected, out));
                } else {
                    self.close(pipe, 0);
                }
            }
            Event::Bytes(pipe, end, bytes) => {
                if let Some((id, link)) = self.end(pipe, end) {
                    let bytes = &bytes;
                    self.drive(id, move |elector, now, out| {
                        elector.on_link(now, LinkEvent::Received(link, bytes), out);
                    });
                    self.drive(id, move |elector, now, out| {
                        elector.on_link(now, LinkEvent::Drained(link), out);
                    });
                }
            }
            Event::Closed(pipe, end) => {
                if let Some((id, link)) = self.end(pipe, end) {
                    self.servers.get_mut(&id).unwrap().pipes.remove(&link);
                    let closed = LinkEvent::Closed(link);
                    self.drive(id, |elector, now, out| elector.on_link(now, closed, out));
                }
            }
            Event::Review => self.review(),
        }
    }

    /// A dial reaches the server that it is for.
    fn arrive(&mut self, id: ServerId, life: u32, link: LinkId, target: ServerId) {
        if self.servers[&target].elector.is_none() {
            let time = self.soon();
            if self.refuses {
                self.at(time, Event::Failed(id, life, link, true));
            }
            return;
        }
        let server = self.servers.get_mut(&target).unwrap();
        let accepted = LinkId(server.accepted);
        server.accepted += 2;
        let pipe = self.pipes.len();
        server.pipes.insert(accepted, (pipe, 1));
        let ends = [(id, life, link), (target, server.life, accepted)];
        self.pipes.push(Pipe { ends, arrives: [0; 2] });
        let time = self.soon();
        self.pipes[pipe].arrives[1] = time;
        self.at(time, Event::Connected(pipe));
        let event =
            LinkEvent::Accepted { link: accepted, plane: crate::zab::link::Plane::Election };
        self.drive(target, |elector, now, out| elector.on_link(now, event, out));
    }

    fn supporters(&self, leader: ServerId) -> BTreeSet<ServerId> {
        let follows = |server: &Server| {
            server.decision.is_some_and(|decision| decision.vote.leader == leader)
        };
        self.servers.iter().filter(|(_, server)| follows(server)).map(|(id, _)| *id).collect()
    }

    /// What comes after elections.
    fn review(&mut self) {
        let ids: Vec<ServerId> = self.servers.keys().copied().collect();
        for id in ids {
            let server = &self.servers[&id];
            let Some(decision) = server.decision else { continue };
            let leader = decision.vote.leader;
            let leading = self.servers[&leader].decision;
            let leads = leading.is_some_and(|decision| decision.role == Role::Leading);
            let supporters = self.supporters(leader);
            let is_quorum = self.members.is_quorum(|id| supporters.contains(&id));
            let (has_leader, waited) = (leads && is_quorum, self.now - server.since > PATIENCE);
            let server = self.servers.get_mut(&id).unwrap();
            if has_leader && !server.established && self.discovers {
                server.established = true;
                let epoch = Epoch(7);
                server.elector.as_mut().unwrap().established(epoch);
            } else if !leads && server.established || !has_leader && waited {
                self.look(id);
            }
        }
    }

    /// Lets things happen until `time`, or until nothing but time does and `is_done`.
    fn run(&mut self, time: u64, is_done: impl Fn(&Self) -> bool) -> bool {
        while self.now < time {
            if self.now.is_multiple_of(MS) && is_done(self) {
                return true;
            }
            let next = self.queue.first_key_value().map_or(u64::MAX, |((at, _), _)| *at);
            let timeouts = self.servers.iter().filter_map(|(id, server)| {
                let timeout = server.elector.as_ref()?.next_timeout()?;
                Some((timeout.as_nanos().max(self.now), *id))
            });
            let timeout = timeouts.min().unwrap_or((u64::MAX, ServerId(0)));
            let review = (self.now / MS + 1) * MS;
            if review <= next.min(timeout.0) {
                self.now = review;
                self.happen(Event::Review);
            } else if next <= timeout.0 {
                self.now = next;
                let (_, event) = self.queue.pop_first().unwrap();
                self.happen(event);
            } else {
                self.now = timeout.0;
                self.drive(timeout.1, Elector::on_timeout);
            }
        }
        is_done(self)
    }

    /// The leader that every living server has.
    fn agreed(&self) -> Option<ServerId> {
        let mut living = self.servers.values().filter(|server| server.elector.is_some());
        let leader = living.clone().find_map(|server| server.decision)?.vote.leader;
        let agrees = |server: &Server| {
            server.established && server.decision.is_some_and(|d| d.vote.leader == leader)
        };
        living.all(agrees).then_some(leader)
    }

    fn states(&self) -> Vec<String> {
        let state = |(id, server): (&ServerId, &Server)| {
            let round = server.elector.as_ref().map(Elector::round);
            format!("{id}: {round:?} {:?} {}", server.decision, server.established)
        };
        self.servers.iter().map(state).collect()
    }
}

mod scenarios;
