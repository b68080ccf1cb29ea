//! A few electors, what is under way between them, and a clock that others move; copied cheaply,
//! and compared by a number.

use std::collections::VecDeque;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use super::super::*;
use super::checks::Ghost;
use super::copied::Copied;
use super::table::Pair;
use crate::zab::link::Plane;
use crate::zab::vote::Rank;

/// Nothing that is longer ago than this makes a difference to an elector.
const PAST: i64 = -2_000_000_000;
/// After so many attempts the pause before the next one grows no more.
const ATTEMPTS: i64 = 13;

/// What may yet happen besides deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    /// Timers that fire though something is under way.
    pub(super) slow: u8,
    /// Timers that fire while nothing is.
    pub(super) ticks: u8,
    pub(super) crashes: u8,
    pub(super) restarts: u8,
    pub(super) breaks: u8,
    /// Decisions that are given up, as nothing comes of them.
    pub(super) losses: u8,
}

/// What can happen next; servers and connections by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// What has been sent first arrives at this end of the connection.
    Deliver(usize, usize),
    /// The oldest dial of the server arrives.
    Dial(usize),
    /// The timer of this server fires: none is due earlier.
    Tick(usize),
    /// The process starts, or again. It accepts, and does not look yet.
    Start(usize),
    Look(usize),
    Crash(usize),
    Break(usize),
    /// Discovery is over.
    Establish(usize),
    /// Discovery has failed, or the leader is lost.
    GiveUp(usize),
}

#[derive(Clone)]
pub(super) struct World {
    pub(super) now: u64,
    pub(super) servers: Vec<Rc<Server>>,
    pub(super) pipes: Vec<Pipe>,
    pub(super) left: Budget,
    /// What the last action broke.
    pub(super) wrong: Option<String>,
    /// The last message that was heard, and what became of it.
    pub(super) pair: Option<(Pair, char)>,
}

#[derive(Clone)]
pub(super) struct Server {
    pub(super) config: ElectorConfig,
    pub(super) elector: Option<Copied>,
    pub(super) own: OwnState,
    /// The same when it began to look.
    looked: OwnState,
    pub(super) decision: Option<Decision>,
    pub(super) established: Option<Epoch>,
    pub(super) starts: u8,
    pub(super) ghost: Ghost,
    accepted: u64,
    dials: Vec<(LinkId, usize)>,
    /// The elector's state and, with what else belongs to the server, the server's.
    elector_key: u64,
    key: u64,
}

/// A connection: who is at either end, under which name, whether it is open there, and what is on
/// its way to there.
#[derive(Clone)]
pub(super) struct Pipe {
    pub(super) ends: [(usize, LinkId); 2],
    open: [bool; 2],
    pub(super) queues: [VecDeque<Item>; 2],
}

/// What is on its way; a message with how recent its sender's own data was.
#[derive(Clone, Debug, Hash)]
pub(super) enum Item {
    Message(Rc<[u8]>, (Epoch, Option<Zxid>)),
    Closed,
}

/// What a server did about an event at first.
struct Done {
    told: Vec<usize>,
    decided: bool,
    reopened: bool,
}

impl Pipe {
    pub(super) fn is_open(&self) -> bool {
        self.open == [true; 2]
    }

    /// Leaves one message of those that are the same.
    pub(super) fn say_once(&mut self) {
        self.queues.iter_mut().for_each(|queue| queue.truncate(1));
    }
}

impl Server {
    pub(super) fn new(config: ElectorConfig, own: OwnState) -> Self {
        Self {
            config,
            elector: None,
            own,
            looked: own,
            decision: None,
            established: None,
            starts: 0,
            ghost: Ghost::default(),
            accepted: 1,
            dials: Vec::new(),
            elector_key: 0,
            key: 0,
        }
    }

    pub(super) fn leader(&self) -> Option<usize> {
        Some(self.decision?.vote.leader.0 as usize - 1)
    }

    pub(super) fn is_looking(&self) -> bool {
        self.elector.as_ref().is_some_and(|elector| matches!(elector.state, State::Looking(_)))
    }

    pub(super) fn own_rank(&self) -> Rank {
        let OwnState { last: zxid, current_epoch: epoch } = self.own;
        Vote { leader: self.config.me, zxid, epoch, round: ElectionRound(0) }.rank()
    }

    fn text(&self, now: u64) -> String {
        let mut raw = String::new();
        if let Some(elector) = &self.elector {
            let Elector { links, round, state, fast_failures, .. } = &**elector;
            write!(raw, "{links:?} {round:?} {fast_failures:?}").unwrap();
            // What led to a decision matters no more once discovery is over.
            if self.established.is_none() {
                write!(raw, "{state:?}").unwrap();
            }
        }
        canonical(&raw, now)
    }

    fn refresh(&mut self, now: u64) {
        let mut hasher = DefaultHasher::new();
        self.text(now).hash(&mut hasher);
        self.elector_key = hasher.finish();
        let rest = (self.own, self.decision, self.established, &self.ghost);
        format!("{rest:?}").hash(&mut hasher);
        self.dials.iter().for_each(|(_, peer)| peer.hash(&mut hasher));
        self.key = hasher.finish();
    }
}

/// Without what makes no difference: names of links (each peer has one at most), when it is now.
fn canonical(raw: &str, now: u64) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(at);
        let end = from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
        let (digits, after) = from.split_at(end);
        text.push_str(before);
        if before.ends_with("Instant(") {
            let relative = digits.parse::<i64>().unwrap() - now as i64;
            write!(text, "{}", relative.max(PAST)).unwrap();
        } else if before.ends_with("attempts: ") {
            write!(text, "{}", digits.parse::<i64>().unwrap().min(ATTEMPTS)).unwrap();
        } else if !before.ends_with("LinkId(") {
            text.push_str(digits);
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

impl World {
    pub(super) fn new(servers: Vec<Server>, left: Budget) -> Self {
        let servers = servers.into_iter().map(Rc::new).collect();
        Self { now: 0, servers, pipes: Vec::new(), left, wrong: None, pair: None }
    }

    /// The same for worlds in which the same can happen.
    pub(super) fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.left.hash(&mut hasher);
        self.servers.iter().for_each(|server| server.key.hash(&mut hasher));
        let mut pipes: Vec<_> = self.pipes.iter().collect();
        pipes.sort_by_key(|pipe| pipe.ends.map(|(server, _)| server));
        for pipe in pipes {
            (pipe.ends.map(|(server, _)| server), pipe.open, &pipe.queues).hash(&mut hasher);
        }
        hasher.finish()
    }

    pub(super) fn members(&self) -> &Members {
        &self.servers[0].config.members
    }

    pub(super) fn is_quiet(&self) -> bool {
        let idle = |pipe: &Pipe| pipe.queues.iter().all(VecDeque::is_empty);
        self.pipes.iter().all(idle) && self.servers.iter().all(|server| server.dials.is_empty())
    }

    /// What is under way and can arrive.
    pub(super) fn arrivals(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (number, pipe) in self.pipes.iter().enumerate() {
            for end in [0, 1] {
                if !pipe.queues[end].is_empty() {
                    actions.push(Action::Deliver(number, end));
                }
            }
        }
        let dials = (0..self.servers.len()).filter(|id| !self.servers[*id].dials.is_empty());
        actions.extend(dials.map(Action::Dial));
        actions
    }

    /// Timers of which none is due earlier.
    pub(super) fn timers(&self) -> Vec<Action> {
        let due = |server: &Rc<Server>| server.elector.as_ref()?.next_timeout();
        let Some(first) = self.servers.iter().filter_map(due).min() else { return Vec::new() };
        let of = |id: &usize| due(&self.servers[*id]) == Some(first);
        (0..self.servers.len()).filter(of).map(Action::Tick).collect()
    }

    pub(super) fn supports(&self, leader: usize) -> bool {
        let has = |id: ServerId| self.servers[id.0 as usize - 1].leader() == Some(leader);
        self.members().is_quorum(has)
    }

    pub(super) fn leads(&self, id: usize) -> bool {
        self.servers[id].decision.is_some_and(|decision| decision.role == Role::Leading)
    }

    /// Whether discovery can end for this server now.
    pub(super) fn can_establish(&self, id: usize) -> bool {
        let server = &self.servers[id];
        let Some(leader) = server.leader().filter(|_| server.established.is_none()) else {
            return false;
        };
        let is_ready = leader == id || self.servers[leader].established.is_some();
        self.leads(leader) && self.supports(leader) && is_ready
    }

    /// Whether this server has a leader that does not lead, or leads too few.
    pub(super) fn can_give_up(&self, id: usize) -> bool {
        self.servers[id].leader().is_some_and(|leader| {
            !self.leads(leader)
                || !self.supports(leader)
                || self.servers[leader].established.is_none()
                    && self.servers[id].established.is_some()
        })
    }

    pub(super) fn perform(&mut self, action: Action) {
        self.pair = None;
        match action {
            Action::Deliver(pipe, end) => self.deliver(pipe, end),
            Action::Dial(id) => self.dial(id),
            Action::Tick(id) => {
                let due = self.servers[id].elector.as_ref().unwrap().next_timeout().unwrap();
                if due.as_nanos() > self.now {
                    self.now = due.as_nanos();
                    for server in &mut self.servers {
                        Rc::make_mut(server).refresh(self.now);
                    }
                }
                self.drive(id, Elector::on_timeout);
            }
            Action::Start(id) => {
                let now = self.now;
                let server = self.server(id);
                server.elector = Some(Copied::new(server.config.clone()));
                server.starts += 1;
                server.refresh(now);
            }
            Action::Look(id) | Action::GiveUp(id) => {
                self.server(id).ghost = Ghost::default();
                self.look(id);
            }
            Action::Crash(id) => self.crash(id),
            Action::Break(pipe) => {
                self.pipes[pipe].queues = [(); 2].map(|()| VecDeque::from([Item::Closed]));
            }
            Action::Establish(id) => self.establish(id),
        }
        let gone = |pipe: &Pipe| pipe.open == [false; 2];
        self.pipes.retain(|pipe| !gone(pipe));
    }

    fn server(&mut self, id: usize) -> &mut Server {
        Rc::make_mut(&mut self.servers[id])
    }

    fn look(&mut self, id: usize) {
        let server = self.server(id);
        (server.decision, server.established) = (None, None);
        let own = server.own;
        server.looked = own;
        self.drive(id, move |elector, now, out| elector.look(now, own, out));
    }

    fn crash(&mut self, id: usize) {
        for number in 0..self.pipes.len() {
            for end in [0, 1] {
                if self.pipes[number].ends[end].0 == id {
                    self.close(number, end);
                }
            }
        }
        let now = self.now;
        let server = self.server(id);
        let (config, own, starts) = (server.config.clone(), server.own, server.starts);
        *server = Server { starts, ..Server::new(config, own) };
        server.refresh(now);
    }

    /// A leader that is established, or one that follows it and has its history now.
    fn establish(&mut self, id: usize) {
        let leader = self.servers[id].leader().unwrap();
        let latest = self.servers.iter().map(|server| server.own.current_epoch).max().unwrap();
        let epoch = self.servers[leader].established.unwrap_or(Epoch(latest.0 + 1));
        let last = Some(self.servers[leader].own.last.unwrap_or(Zxid::ZERO));
        let now = self.now;
        let server = self.server(id);
        (server.established, server.ghost) = (Some(epoch), Ghost::default());
        server.own = OwnState { last, current_epoch: epoch };
        let established = move |elector: &mut Elector, _, _: &mut _| elector.established(epoch);
        server.elector.as_mut().unwrap().step(Instant::from_nanos(now), Rc::new(established));
        server.refresh(now);
    }

    /// An end closes: the other one hears of it after everything that was sent.
    fn close(&mut self, pipe: usize, end: usize) {
        let pipe = &mut self.pipes[pipe];
        if std::mem::take(&mut pipe.open[end]) && pipe.open[1 - end] {
            pipe.queues[1 - end].push_back(Item::Closed);
        }
        pipe.queues[end].clear();
    }

    /// Connecting and saying hello is one step: the links' own tests take it apart.
    fn dial(&mut self, id: usize) {
        let (link, peer) = self.server(id).dials.remove(0);
        let knows = |elector: &Elector| elector.owns(link);
        if !self.servers[id].elector.as_deref().is_some_and(knows) {
            let now = self.now;
            self.server(id).refresh(now);
            return;
        }
        if self.servers[peer].elector.is_none() {
            let failed = LinkEvent::Failed { link, refused: true };
            self.drive(id, move |elector, now, out| elector.on_link(now, failed, out));
            return;
        }
        let target = self.server(peer);
        let accepted = LinkId(target.accepted);
        target.accepted += 2;
        let (ends, number) = ([(id, link), (peer, accepted)], self.pipes.len());
        self.pipes.push(Pipe { ends, open: [true; 2], queues: Default::default() });
        let event = LinkEvent::Accepted { link: accepted, plane: Plane::Election };
        self.drive(peer, move |elector, now, out| elector.on_link(now, event, out));
        let event = LinkEvent::Connected(link);
        self.drive(id, move |elector, now, out| elector.on_link(now, event, out));
        if let Some(Item::Message(hello, _)) = self.pipes[number].queues[1].pop_front() {
            self.drive(peer, move |elector, now, out| {
                elector.on_link(now, LinkEvent::Received(accepted, &hello), out);
            });
        }
    }

    fn deliver(&mut self, pipe: usize, end: usize) {
        let item = self.pipes[pipe].queues[end].pop_front().unwrap();
        let ((id, link), (sender, _)) =
            (self.pipes[pipe].ends[end], self.pipes[pipe].ends[1 - end]);
        let Item::Message(bytes, own) = item else {
            self.pipes[pipe].open[end] = false;
            self.pipes[pipe].queues[end].clear();
            let closed = LinkEvent::Closed(link);
            self.drive(id, move |elector, now, out| elector.on_link(now, closed, out));
            return;
        };
        let heard = Notification::decode(&bytes[4..]).unwrap();
        let before = self.servers[id].elector_key;
        let elector = self.servers[id].elector.as_ref().unwrap();
        let pair = Pair::of(elector, ServerId(sender as i64 + 1), &heard);
        let said = |elector: &Elector| match &elector.state {
            State::Looking(looking) => (elector.round, looking.proposal().copied()),
            State::Idle | State::Decided(_) => (elector.round, None),
        };
        let proposed = said(elector);
        if self.servers[id].established.is_none() {
            self.server(id).ghost.hear(sender, heard, own);
        }
        let done = self.drive(id, move |elector, now, out| {
            elector.on_link(now, LinkEvent::Received(link, &bytes), out);
        });
        let elector = self.servers[id].elector.as_ref().unwrap();
        let what = match done {
            Done { reopened: true, .. } => 'o',
            Done { decided: true, .. } => 'd',
            _ if said(elector) != proposed => 'v',
            _ if done.told.contains(&sender) => 'a',
            _ if self.servers[id].elector_key != before => 'c',
            _ => '.',
        };
        self.pair = Some((pair, what));
    }

    /// Lets a server do something, and then what follows from it.
    fn drive(
        &mut self,
        id: usize,
        step: impl Fn(&mut Elector, Instant, &mut Vec<LinkOp>) + 'static,
    ) -> Done {
        let now = Instant::from_nanos(self.now);
        let elector = self.server(id).elector.as_mut().unwrap();
        let (out, news) = elector.step(now, Rc::new(step));
        let reopened = elector.reopened();
        let told = self.execute(id, out);
        if let Some(decision) = news {
            self.server(id).decision = Some(decision);
            self.check_decision(id, &decision);
        }
        let nanos = self.now;
        self.server(id).refresh(nanos);
        if reopened {
            self.look(id);
        }
        Done { told, decided: news.is_some(), reopened }
    }

    fn execute(&mut self, id: usize, out: Vec<LinkOp>) -> Vec<usize> {
        let mut told = Vec::new();
        for op in out {
            let find = |link: LinkId| {
                let is = |(number, end): &(usize, usize)| {
                    let pipe: &Pipe = &self.pipes[*number];
                    pipe.ends[*end] == (id, link) && pipe.open[*end]
                };
                (0..self.pipes.len()).flat_map(|number| [(number, 0), (number, 1)]).find(is)
            };
            match op {
                LinkOp::Dial { link, peer, .. } => {
                    self.server(id).dials.push((link, peer.0 as usize - 1));
                }
                LinkOp::Send { link, bytes } => {
                    let Some((number, end)) = find(link) else { continue };
                    let peer = self.pipes[number].ends[1 - end].0;
                    told.push(peer);
                    self.check_sent(id, &bytes);
                    if self.pipes[number].open[1 - end] {
                        let OwnState { last, current_epoch } = self.servers[id].looked;
                        let message = Item::Message(bytes.into(), (current_epoch, last));
                        self.pipes[number].queues[1 - end].push_back(message);
                    }
                    let now = Instant::from_nanos(self.now);
                    let drained = move |elector: &mut Elector, now, out: &mut _| {
                        elector.on_link(now, LinkEvent::Drained(link), out);
                    };
                    let elector = self.server(id).elector.as_mut().unwrap();
                    let (more, _) = elector.step(now, Rc::new(drained));
                    told.extend(self.execute(id, more));
                }
                LinkOp::Close(link) => {
                    if let Some((number, end)) = find(link) {
                        self.close(number, end);
                    }
                    self.server(id).dials.retain(|(dialled, _)| *dialled != link);
                }
                _ => unreachable!("only learners and leaders want that"),
            }
        }
        told
    }
}
