//! Links between servers, packet by packet: any of them can be held, and with it what follows.

use std::collections::VecDeque;
use std::time::Duration;

use engine::ids::{LinkId, ServerId};
use engine::jute::DecodeError;
use engine::tree::OwnerMode;
use engine::zab::link::{LinkEvent, LinkOp, Plane};
use engine::zab::packet::{PacketKind, PacketReader, SNAP_SIGNATURE};
use engine::zookeeper_files::TreeReader;
use engine::zxid::Zxid;

use super::server::Event as ServerEvent;
use super::{Ensemble, Event, HOP};

/// How long it takes to see that a server cannot be reached.
const UNREACHABLE: Duration = Duration::from_millis(100);

/// A kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whatever there is.
    Everything,
    /// What passes between election ports.
    Votes,
    /// A tree.
    Tree,
    /// What stands behind it.
    Signature,
    /// A packet of the learner port.
    Packet(PacketKind),
    /// The end of the link.
    Closed,
}

impl From<PacketKind> for Kind {
    fn from(kind: PacketKind) -> Self {
        Self::Packet(kind)
    }
}

/// A message that was sent, or delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    from: usize,
    to: usize,
    kind: Kind,
    zxid: Zxid,
}

/// Messages of this kind stop here, and whatever comes behind them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate {
    from: usize,
    to: usize,
    kind: Kind,
}

/// A server, in which of its lives, and what it calls the link.
type End = (usize, u32, LinkId);

/// A link: who is at either end, and what is on its way.
pub(super) struct Pipe {
    plane: Plane,
    ends: [End; 2],
    /// On their way to each end.
    messages: [VecDeque<Message>; 2],
    /// Takes apart what is sent to each end.
    splitters: [Splitter; 2],
    /// Whether the next arrival at each end is due at some time.
    scheduled: [bool; 2],
}

struct Message {
    kind: Kind,
    zxid: Zxid,
    bytes: Vec<u8>,
}

/// Cuts a learner's stream into packets.
#[derive(Default)]
struct Splitter {
    reader: PacketReader,
    raw: Vec<u8>,
    inside: Inside,
}

#[derive(Default)]
enum Inside {
    #[default]
    Packets,
    Tree(Box<TreeReader>),
    Signature,
}

impl Splitter {
    fn push(&mut self, bytes: &[u8]) -> Vec<Message> {
        self.reader.stream.push(bytes);
        self.raw.extend_from_slice(bytes);
        let mut messages = Vec::new();
        loop {
            let before = self.reader.stream.taken();
            let (kind, zxid, more) = self.take();
            let taken = (self.reader.stream.taken() - before) as usize;
            if taken > 0 {
                let bytes = self.raw.drain(..taken).collect();
                messages.push(Message { kind, zxid, bytes });
            }
            if !more {
                return messages;
            }
        }
    }

    /// Takes the next part: what it is, and whether all of it was there.
    fn take(&mut self) -> (Kind, Zxid, bool) {
        match &mut self.inside {
            Inside::Packets => {
                let Some(packet) = self.reader.take().unwrap() else {
                    return (Kind::Everything, Zxid::ZERO, false);
                };
                if packet.kind == PacketKind::Snap {
                    self.inside = Inside::Tree(Box::new(TreeReader::new(OwnerMode::Plain)));
                }
                let zxid = Zxid::from_wire(packet.zxid).unwrap_or(Zxid::ZERO);
                (Kind::Packet(packet.kind), zxid, true)
            }
            Inside::Tree(reader) => {
                let complete = reader.read(&mut self.reader.stream).unwrap();
                if complete {
                    self.inside = Inside::Signature;
                }
                (Kind::Tree, Zxid::ZERO, complete)
            }
            Inside::Signature => {
                let stream = &mut self.reader.stream;
                let signature =
                    stream.take::<_, DecodeError>(|reader| Ok(reader.string("")?.into_owned()));
                let Some(signature) = signature.unwrap() else {
                    return (Kind::Signature, Zxid::ZERO, false);
                };
                assert_eq!(signature, SNAP_SIGNATURE);
                self.inside = Inside::Packets;
                (Kind::Signature, Zxid::ZERO, true)
            }
        }
    }
}

impl Ensemble {
    /// From now on messages of this kind do not arrive, nor does what is sent behind them.
    pub fn hold(&mut self, from: usize, to: usize, kind: impl Into<Kind>) {
        self.gates.push(Gate { from, to, kind: kind.into() });
    }

    /// What is held arrives.
    pub fn release(&mut self, from: usize, to: usize) {
        self.gates.retain(|gate| (gate.from, gate.to) != (from, to));
        for pipe in 0..self.pipes.len() {
            self.schedule_arrivals(pipe);
        }
    }

    /// Of what is held, the first message of each link arrives.
    pub fn let_one_through(&mut self, from: usize, to: usize) {
        for pipe in 0..self.pipes.len() {
            for end in [0, 1] {
                let Pipe { ends, messages, .. } = &self.pipes[pipe];
                let is_between = (ends[1 - end].0, ends[end].0) == (from, to);
                let first = messages[end].front().map(|message| message.kind);
                if is_between && first.is_some_and(|kind| self.is_held(pipe, end, kind)) {
                    self.deliver(pipe, end);
                }
            }
        }
    }

    /// All links between two servers break. What is held is lost.
    pub fn break_links(&mut self, a: usize, b: usize) {
        for pipe in 0..self.pipes.len() {
            let ends = self.pipes[pipe].ends.map(|(index, _, _)| index);
            if ends == [a, b] || ends == [b, a] {
                self.end_pipe(pipe, 0);
                self.end_pipe(pipe, 1);
            }
        }
    }

    /// Two servers cannot reach each other any more, and both notice.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.cuts.extend([(a, b), (b, a)]);
        self.break_links(a, b);
    }

    /// They can again.
    pub fn heal(&mut self, a: usize, b: usize) {
        self.cuts.remove(&(a, b));
        self.cuts.remove(&(b, a));
    }

    /// The zxids of the messages of a kind that a server has sent another.
    pub fn sent(&self, from: usize, to: usize, kind: impl Into<Kind>) -> Vec<Zxid> {
        zxids(&self.sent, from, to, kind.into())
    }

    /// The same, of those that have arrived.
    pub fn delivered(&self, from: usize, to: usize, kind: impl Into<Kind>) -> Vec<Zxid> {
        zxids(&self.delivered, from, to, kind.into())
    }

    /// The kinds of a leader's messages that have arrived, in order, without pings.
    pub fn course(&self, from: usize, to: usize) -> Vec<Kind> {
        let of_learners = |passed: &&Passed| {
            let aside = [Kind::Votes, Kind::Closed, Kind::Packet(PacketKind::Ping)];
            (passed.from, passed.to) == (from, to) && !aside.contains(&passed.kind)
        };
        self.delivered.iter().filter(of_learners).map(|passed| passed.kind).collect()
    }

    /// The kinds of packets that a server has sent another, in order.
    pub fn said(&self, from: usize, to: usize) -> Vec<PacketKind> {
        let between = |passed: &&Passed| (passed.from, passed.to) == (from, to);
        let kind = |passed: &Passed| match passed.kind {
            Kind::Packet(kind) => Some(kind),
            _ => None,
        };
        self.sent.iter().filter(between).filter_map(kind).collect()
    }

    /// Forgets what was sent and delivered until now.
    pub fn forget_packets(&mut self) {
        self.sent.clear();
        self.delivered.clear();
    }

    pub(super) fn execute_link(&mut self, index: usize, op: LinkOp) {
        match op {
            LinkOp::Dial { link, peer, plane } => self.dial(index, link, peer, plane),
            LinkOp::Send { link, bytes } => {
                let Some((pipe, end)) = self.servers[index].pipe(link) else { return };
                self.send(pipe, 1 - end, &bytes);
            }
            LinkOp::Pause(link) => {
                self.paused.extend(self.servers[index].pipe(link));
            }
            LinkOp::Resume(link) => {
                let Some((pipe, end)) = self.servers[index].pipe(link) else { return };
                self.paused.remove(&(pipe, end));
                self.schedule_arrivals(pipe);
            }
            LinkOp::Close(link) => {
                if let Some((pipe, end)) = self.servers[index].remove_pipe(link) {
                    self.paused.remove(&(pipe, end));
                    self.push(pipe, 1 - end, Kind::Closed, Zxid::ZERO, Vec::new());
                }
            }
            LinkOp::OpenLearnerPort => self.servers[index].set_learner_port(true),
            LinkOp::CloseLearnerPort => self.servers[index].set_learner_port(false),
        }
    }

    fn dial(&mut self, index: usize, link: LinkId, peer: ServerId, plane: Plane) {
        let other = peer.0 as usize - 1;
        if self.cuts.contains(&(index, other)) {
            return self.at_server(index, UNREACHABLE, ServerEvent::Failed(link, false));
        }
        if !self.servers[other].listens(plane) {
            return self.at_server(index, HOP, ServerEvent::Failed(link, true));
        }
        let accepted = self.servers[other].next_accepted();
        let near = (index, self.servers[index].life, link);
        let far = (other, self.servers[other].life, accepted);
        let pipe = self.open_pipe(plane, near, far);
        self.servers[index].add_pipe(link, pipe, 0);
        self.servers[other].add_pipe(accepted, pipe, 1);
        self.at_server(other, HOP, ServerEvent::Accepted(accepted, plane));
        self.at_server(index, HOP * 2, ServerEvent::Connected(link));
    }

    fn open_pipe(&mut self, plane: Plane, near: End, far: End) -> usize {
        self.pipes.push(Pipe {
            plane,
            ends: [near, far],
            messages: Default::default(),
            splitters: Default::default(),
            scheduled: [false; 2],
        });
        self.pipes.len() - 1
    }

    /// A puppet connects to a port of a server.
    pub(super) fn puppet_dials(&mut self, puppet: usize, to: usize, plane: Plane) -> usize {
        assert!(self.servers[to].listens(plane), "nobody listens");
        let accepted = self.servers[to].next_accepted();
        let near = (puppet, self.servers[puppet].life, LinkId(0));
        let pipe = self.open_pipe(plane, near, (to, self.servers[to].life, accepted));
        self.servers[to].add_pipe(accepted, pipe, 1);
        self.at_server(to, HOP, ServerEvent::Accepted(accepted, plane));
        pipe
    }

    /// A puppet sends something towards an end of its link.
    pub(super) fn puppet_sends(&mut self, pipe: usize, end: usize, bytes: &[u8]) {
        self.run_ms(1);
        self.send(pipe, end, bytes);
    }

    /// The last link that was dialled to a leader.
    pub(super) fn last_link_to(&self, leader: usize) -> Option<usize> {
        let fits = |pipe: &Pipe| pipe.plane == Plane::Learner && pipe.ends[1].0 == leader;
        self.pipes.iter().rposition(fits)
    }

    pub(super) fn send(&mut self, pipe: usize, end: usize, bytes: &[u8]) {
        if self.pipes[pipe].plane == Plane::Election {
            return self.push(pipe, end, Kind::Votes, Zxid::ZERO, bytes.to_vec());
        }
        for Message { kind, zxid, bytes } in self.pipes[pipe].splitters[end].push(bytes) {
            self.push(pipe, end, kind, zxid, bytes);
        }
    }

    pub(super) fn push(&mut self, pipe: usize, end: usize, kind: Kind, zxid: Zxid, bytes: Vec<u8>) {
        let ends = self.pipes[pipe].ends;
        let (from, to) = (ends[1 - end].0, ends[end].0);
        self.sent.push(Passed { from, to, kind, zxid });
        self.pipes[pipe].messages[end].push_back(Message { kind, zxid, bytes });
        self.schedule_arrivals(pipe);
    }

    pub(super) fn schedule_arrivals(&mut self, pipe: usize) {
        for end in [0, 1] {
            let Pipe { messages, scheduled, .. } = &mut self.pipes[pipe];
            if !messages[end].is_empty() && !std::mem::replace(&mut scheduled[end], true) {
                self.at(HOP, Event::Arrival(pipe, end));
            }
        }
    }

    /// Whether a message may not arrive.
    fn is_held(&self, pipe: usize, end: usize, kind: Kind) -> bool {
        let ends = self.pipes[pipe].ends;
        let (from, to) = (ends[1 - end].0, ends[end].0);
        let is_gated = self.gates.iter().any(|gate| {
            (gate.from, gate.to) == (from, to)
                && (gate.kind == Kind::Everything || gate.kind == kind)
        });
        is_gated || self.paused.contains(&(pipe, end))
    }

    pub(super) fn arrive(&mut self, pipe: usize, end: usize) {
        self.pipes[pipe].scheduled[end] = false;
        let Some(kind) = self.pipes[pipe].messages[end].front().map(|message| message.kind) else {
            return;
        };
        if !self.is_held(pipe, end, kind) {
            self.deliver(pipe, end);
        }
    }

    fn deliver(&mut self, pipe: usize, end: usize) {
        let Some(message) = self.pipes[pipe].messages[end].pop_front() else { return };
        self.schedule_arrivals(pipe);
        let ends = self.pipes[pipe].ends;
        let (sender, sends_in, near) = ends[1 - end];
        if self.pipes[pipe].messages[end].is_empty() && self.servers[sender].runs_in(sends_in) {
            self.at_server(sender, HOP, ServerEvent::Drained(near));
        }
        let (index, life, link) = ends[end];
        let server = &self.servers[index];
        if !server.runs_in(life) || server.pipe(link) != Some((pipe, end)) {
            return;
        }
        let (from, kind, zxid) = (ends[1 - end].0, message.kind, message.zxid);
        self.delivered.push(Passed { from, to: index, kind, zxid });
        if kind == Kind::Closed {
            self.servers[index].remove_pipe(link);
            self.step_link(index, LinkEvent::Closed(link));
        } else {
            self.step_link(index, LinkEvent::Received(link, &message.bytes));
        }
    }

    /// Towards an end, nothing comes any more: what is held is lost.
    pub(super) fn end_pipe(&mut self, pipe: usize, end: usize) {
        let kinds: Vec<_> = self.pipes[pipe].messages[end].iter().map(|found| found.kind).collect();
        if kinds.contains(&Kind::Closed) {
            return;
        }
        let held = kinds.iter().position(|kind| self.is_held(pipe, end, *kind));
        self.pipes[pipe].messages[end].truncate(held.unwrap_or(kinds.len()));
        self.push(pipe, end, Kind::Closed, Zxid::ZERO, Vec::new());
    }
}

fn zxids(passed: &[Passed], from: usize, to: usize, kind: Kind) -> Vec<Zxid> {
    let fits = |passed: &&Passed| (passed.from, passed.to, passed.kind) == (from, to, kind);
    passed.iter().filter(fits).map(|passed| passed.zxid).collect()
}
