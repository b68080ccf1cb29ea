//! Links between servers: ordered, late, cut into pieces, broken, and for a while of no effect.

use std::collections::VecDeque;

use engine::ids::{LinkId, ServerId};
use engine::zab::link::{LinkEvent, LinkOp, Plane};
use engine::zab::packet::PacketKind;
use engine::zxid::Zxid;

use super::coverage::{Role, Seen, Tap};
use super::{Event, MS, Planted, World, host, planted};

/// The links.
#[derive(Default)]
pub(super) struct Network {
    pipes: Vec<Pipe>,
    /// What is sent from one server to another does not arrive.
    cut: Vec<Vec<bool>>,
}

/// A link: who is at either end, in which life, under which name.
struct Pipe {
    ends: [(usize, u32, LinkId); 2],
    /// When what was sent last towards an end arrives there.
    arrives: [u64; 2],
    /// What waits for the network, towards each end.
    held: [Vec<Option<Vec<u8>>>; 2],
    /// Whether an end leaves what comes in its socket, and what is there.
    paused: [bool; 2],
    untaken: [VecDeque<Option<Vec<u8>>>; 2],
    plane: Plane,
    /// The last proposal that the learner has acknowledged.
    acked: Option<Zxid>,
    /// By end: what it has sent, what it has heard.
    sent: [Tap; 2],
    heard: [Tap; 2],
}

impl Network {
    pub(super) fn new(hosts: usize) -> Self {
        Self { pipes: Vec::new(), cut: vec![vec![false; hosts]; hosts] }
    }

    /// What is sent from now on arrives.
    pub(super) fn mend(&mut self) {
        self.cut.iter_mut().for_each(|row| row.fill(false));
    }
}

impl Pipe {
    /// A leader of ZooKeeper's credits each ACK to one proposal: none may be left out.
    fn check_ack(&mut self, zxid: Zxid) {
        // Those of NEWLEADER and UPTODATE have no counter.
        if zxid.counter() != 0 {
            let follows = self.acked.is_none_or(|last| last.next() == Some(zxid));
            let begins = zxid.counter() == 1;
            assert!(follows || begins, "an ACK of {zxid} behind that of {:?}", self.acked);
            self.acked = Some(zxid);
        }
    }
}

impl World {
    pub(super) fn execute_link(&mut self, index: usize, op: LinkOp) {
        match op {
            LinkOp::Dial { link, peer: ServerId(peer), plane } => {
                let to = peer as usize - 1;
                let delay = self.hop() + self.link_lag(index, to);
                let life = self.hosts[index].life;
                assert!(!self.hosts[index].dialled(link, true), "a link has one number");
                self.at(delay, Event::Dial { from: index, life, link, to, plane });
            }
            LinkOp::Send { link, bytes } => {
                let Some((pipe, end)) = self.hosts[index].pipe(link) else { return };
                let bytes = match self.network.pipes[pipe].plane {
                    Plane::Learner if end == 0 => planted::at_learner(self.options.planted, bytes),
                    _ => bytes,
                };
                let seen = self.network.pipes[pipe].sent[end].hear(&bytes);
                self.note_seen(pipe, end, true, &seen);
                if self.options.planted == Some(Planted::CommitWithoutQuorum)
                    && end == 1
                    && let Some(acks) = planted::acks_of(&seen)
                {
                    self.send(pipe, 1, Some(acks));
                }
                let mut rest = bytes;
                while !rest.is_empty() {
                    let cut = 1 + self.random.below(rest.len().min(3000));
                    let cut = if self.random.percent(70) { rest.len() } else { cut };
                    let tail = rest.split_off(cut);
                    self.send(pipe, 1 - end, Some(rest));
                    rest = tail;
                }
                let (delay, life) = (self.hop(), self.hosts[index].life);
                let drained = host::Event::Drained(link);
                self.at(delay, Event::Host(index, life, drained));
            }
            LinkOp::Pause(link) => {
                let Some((pipe, end)) = self.hosts[index].pipe(link) else { return };
                self.network.pipes[pipe].paused[end] = true;
                self.stats.held_back += 1;
            }
            LinkOp::Resume(link) => {
                let Some((pipe, end)) = self.hosts[index].pipe(link) else { return };
                self.network.pipes[pipe].paused[end] = false;
                self.at(0, Event::Untaken { pipe, end });
            }
            LinkOp::Close(link) => {
                self.hosts[index].dialled(link, false);
                if let Some((pipe, end)) = self.hosts[index].remove_pipe(link) {
                    self.send(pipe, 1 - end, None);
                }
            }
            LinkOp::OpenLearnerPort => self.hosts[index].set_learner_port(true),
            LinkOp::CloseLearnerPort => self.hosts[index].set_learner_port(false),
        }
    }

    /// Sends bytes, or the end, towards an end of a pipe.
    fn send(&mut self, pipe: usize, end: usize, bytes: Option<Vec<u8>>) {
        let ends = self.network.pipes[pipe].ends;
        if self.network.cut[ends[1 - end].0][ends[end].0] {
            self.network.pipes[pipe].held[end].push(bytes);
            return;
        }
        let hop = self.hop() + self.link_lag(ends[0].0, ends[1].0);
        let time = (self.now + hop).max(self.network.pipes[pipe].arrives[end] + 1);
        self.network.pipes[pipe].arrives[end] = time;
        self.at(time - self.now, Event::Pipe { pipe, end, bytes });
    }

    pub(super) fn on_dial(
        &mut self,
        from: usize,
        life: u32,
        link: LinkId,
        to: usize,
        plane: Plane,
    ) {
        if self.hosts[from].life != life || self.hosts[from].process.is_none() {
            return;
        }
        if self.network.cut[from][to] || self.network.cut[to][from] {
            let delay = 500 * MS + self.random.any() % (1500 * MS);
            let failed = host::Event::Failed(link, false);
            return self.at(delay, Event::Host(from, life, failed));
        }
        let delay = self.hop() + self.link_lag(from, to);
        if !self.hosts[to].listens(plane) {
            let refused = !self.hosts[to].is_silent;
            return self.at(delay, Event::Host(from, life, host::Event::Failed(link, refused)));
        }
        let accepted = self.hosts[to].next_accepted();
        let pipe = self.network.pipes.len();
        let far = (to, self.hosts[to].life, accepted);
        self.network.pipes.push(Pipe {
            ends: [(from, life, link), far],
            arrives: [self.now + delay, self.now],
            held: [Vec::new(), Vec::new()],
            paused: [false; 2],
            untaken: [VecDeque::new(), VecDeque::new()],
            plane,
            acked: None,
            sent: [true, false].map(|dials| Tap::new(plane, dials)),
            heard: [false, true].map(|dials| Tap::new(plane, dials)),
        });
        self.hosts[to].add_pipe(accepted, pipe, 1);
        let event = host::Event::Accepted(accepted, plane);
        self.at(0, Event::Host(to, far.1, event));
        self.at(delay, Event::Host(from, life, host::Event::Connected(link, pipe)));
    }

    /// The dialler is gone, or does not want the link any more.
    pub(super) fn abandon(&mut self, pipe: usize) {
        self.send(pipe, 1, None);
    }

    /// Something arrives at an end of a pipe.
    pub(super) fn on_pipe(&mut self, pipe: usize, end: usize, bytes: Option<Vec<u8>>) {
        self.network.pipes[pipe].untaken[end].push_back(bytes);
        self.take_untaken(pipe, end);
    }

    /// What has arrived is taken, unless the end has paused.
    pub(super) fn take_untaken(&mut self, pipe: usize, end: usize) {
        while !self.network.pipes[pipe].paused[end]
            && let Some(bytes) = self.network.pipes[pipe].untaken[end].pop_front()
        {
            self.take_bytes(pipe, end, bytes);
        }
    }

    fn take_bytes(&mut self, pipe: usize, end: usize, bytes: Option<Vec<u8>>) {
        let (index, life, link) = self.network.pipes[pipe].ends[end];
        if self.hosts[index].life != life || self.hosts[index].pipe(link) != Some((pipe, end)) {
            // As TCP does it: a connection of which nobody knows is reset.
            if bytes.is_some() {
                self.send(pipe, 1 - end, None);
            }
            return;
        }
        let event = match bytes {
            Some(bytes) => {
                let seen = self.network.pipes[pipe].heard[end].hear(&bytes);
                self.note_seen(pipe, end, false, &seen);
                host::Event::Received(link, bytes)
            }
            None => host::Event::LinkClosed(link),
        };
        self.happen(Event::Host(index, life, event));
    }

    /// Messages were sent or received at an end of a link.
    fn note_seen(&mut self, pipe: usize, end: usize, sends: bool, seen: &[Seen]) {
        let Pipe { ends, plane, .. } = self.network.pipes[pipe];
        let index = ends[end].0;
        let learns = if index < self.options.voters { Role::Following } else { Role::Observing };
        let at_learner_port = if end == 1 { Role::Leading } else { learns };
        let elects = self.hosts[index].election_role();
        for &seen in seen {
            let role = match (plane, seen) {
                (Plane::Learner, _) => at_learner_port,
                // What it says of itself.
                (Plane::Election, Seen::Notification(state)) if sends => state,
                (Plane::Election, _) => elects,
            };
            let verb = if sends { "sends" } else { "receives" };
            self.tell(|| format!("server {}: {role:?} {verb} {seen:?}", index + 1));
            self.stats.coverage.count(role, sends, seen);
            if let Seen::Packet { kind, zxid } = seen
                && (kind, end, sends) == (PacketKind::Ack as i32, 0, true)
            {
                self.network.pipes[pipe].check_ack(Zxid(zxid.cast_unsigned()));
            }
        }
    }

    /// Nothing passes between two servers.
    pub(super) fn cut_off(&mut self, one: usize, other: usize) {
        if one != other {
            self.network.cut[one][other] = true;
            self.network.cut[other][one] = true;
        }
    }

    /// Nothing passes from one server to another.
    pub(super) fn mute(&mut self, from: usize, to: usize) {
        self.network.cut[from][to] = true;
    }

    /// A server loses its links to another: whatever was on its way to it is gone.
    pub(super) fn break_links(&mut self, from: usize, to: usize) {
        for pipe in 0..self.network.pipes.len() {
            let hosts = self.network.pipes[pipe].ends.map(|(host, ..)| host);
            for end in [0, 1] {
                if (hosts[1 - end], hosts[end]) == (from, to) {
                    self.at(0, Event::Pipe { pipe, end, bytes: None });
                }
            }
        }
    }

    pub(super) fn is_cut_off(&self, one: usize, other: usize) -> bool {
        self.network.cut[one][other]
    }

    /// The links of a server end: the others hear of it, sooner or later.
    pub(super) fn end_links(&mut self, links: Vec<(usize, usize)>, after: u64) {
        for (pipe, end) in links {
            let other = 1 - end;
            if after == 0 {
                self.send(pipe, other, None);
            } else {
                let delay = self.random.any() % after;
                self.at(delay, Event::Pipe { pipe, end: other, bytes: None });
            }
        }
    }

    /// A random link breaks: both ends hear of it.
    pub(super) fn break_a_link(&mut self) {
        if self.network.pipes.is_empty() {
            return;
        }
        let recent = self.network.pipes.len().min(12);
        let pipe = self.network.pipes.len() - 1 - self.random.below(recent);
        for end in [0, 1] {
            let bytes = None;
            let delay = self.hop();
            self.at(delay, Event::Pipe { pipe, end, bytes });
        }
    }

    /// Cuts servers off from others, in one direction or both.
    pub(super) fn partition(&mut self) {
        let (count, one_way) = (self.hosts.len(), self.random.percent(25));
        let side: Vec<bool> = (0..count).map(|_| self.random.percent(40)).collect();
        for from in 0..count {
            for to in 0..count {
                self.network.cut[from][to] = side[from] != side[to] && (!one_way || side[from]);
            }
        }
        self.release();
    }

    /// Everything arrives again.
    pub(super) fn reconnect(&mut self) {
        self.network.mend();
        self.release();
    }

    /// What was held goes on its way, where it can.
    pub(super) fn release(&mut self) {
        for pipe in 0..self.network.pipes.len() {
            for end in [0, 1] {
                for bytes in std::mem::take(&mut self.network.pipes[pipe].held[end]) {
                    self.send(pipe, end, bytes);
                }
            }
        }
    }
}

impl host::Event {
    /// The link event that this is, if it is one.
    pub(super) fn link_event(&self) -> Option<LinkEvent<'_>> {
        Some(match self {
            Self::Accepted(link, plane) => LinkEvent::Accepted { link: *link, plane: *plane },
            Self::Connected(link, _) => LinkEvent::Connected(*link),
            Self::Failed(link, refused) => LinkEvent::Failed { link: *link, refused: *refused },
            Self::Received(link, bytes) => LinkEvent::Received(*link, bytes),
            Self::Drained(link) => LinkEvent::Drained(*link),
            Self::LinkClosed(link) => LinkEvent::Closed(*link),
            _ => return None,
        })
    }
}
