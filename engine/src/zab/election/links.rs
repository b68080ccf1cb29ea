//! The connections at the election port: at most one per peer that both sides agree on.
//!
//! ```text
//!   to a smaller id:  dial --Connected--> hello, open
//!   to a larger id:   dial --Connected--> hello, it closes, and dials back
//!   accepted:         hello of a larger id --> open;  of a smaller one --> close, dial back
//! ```
//!
//! Of each pair only the connection that the larger id has dialled carries messages. One message
//! per peer waits while there is no room or no connection; a newer one takes its place.
//!
//! Invariants:
//!
//!   * a peer has at most one open link and at most one dial under way
//!   * every link that is not open has a deadline
//!   * what is held per link is bounded by one message and one receive buffer; links of strangers
//!     are bounded in number
//!
//! Compat: QuorumCnxManager. Other than there, the dialler of a larger id leaves the closing to the
//! other side, so that it sees when that one dies instead; a connection that has just come to be
//! is not given up when a hello that crossed it comes in; and an unknown server with a smaller id
//! is not dialled back, because only members are dialled.

mod incoming;
mod peer;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::{LinkId, ServerId};
use crate::time::Instant;
use crate::zab::hello::Hello;
use crate::zab::link::{LinkEvent, LinkOp};

use peer::{Dial, Peer};

/// The longest message, bytes.
///
// Compat: QuorumCnxManager.PACKETMAXSIZE
pub const MESSAGE_BYTES_MAX: usize = 512 << 10;

/// While more than this is on its way on a link, a message waits, bytes.
const UNSENT_BYTES_MAX: usize = 16 << 10;
/// Links whose other side has not said who it is, and links of those that are no members.
const GREETINGS_MAX: usize = 64;
const STRANGERS_MAX: usize = 64;
/// How long a peer that was reached waits for the dial back before it tries again, at first.
const DIAL_BACK_MIN: Duration = Duration::from_millis(10);
/// A refusal is good news for a while: whoever comes up dials us.
const REFUSED_MIN: Duration = Duration::from_millis(50);
/// A link that opened less than this ago crossed the other side's hello.
const CROSSING: Duration = Duration::from_millis(100);
/// A link that has lasted this long was none of a series that fails.
const LASTING: Duration = Duration::from_secs(1);
/// The same answer is not given to a server without vote more often.
const ANSWER_INTERVAL: Duration = Duration::from_millis(10);

/// What links bring.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// There is a connection to this member. What waits for it is not sent yet: it may be old.
    Up(ServerId),
    /// Nobody listens where this member should, and that was asked in this round.
    Refused(ServerId),
    /// The payload of a message.
    Message(ServerId, Vec<u8>),
}

#[derive(Debug)]
pub(super) struct Links {
    me: ServerId,
    hello: Vec<u8>,
    connect_timeout: Duration,
    next_link: LinkId,
    /// Counts the rounds, to tell what dials of this one have met.
    round: u64,
    peers: BTreeMap<ServerId, Peer>,
    links: BTreeMap<LinkId, Link>,
    /// The next id for an observer without one; counts down.
    next_anonymous: ServerId,
}

#[derive(Debug)]
enum Link {
    /// Accepted; the hello is not complete.
    Greeting { received: Vec<u8>, deadline: Instant },
    /// Dialled: the peer's `dial` says more.
    Dialled(ServerId),
    /// Carries messages.
    Open { peer: ServerId, received: Vec<u8>, unsent: usize, since: Instant },
}

impl Links {
    /// No links. `wanted` are the members that there should be connections to, `members` the
    /// others; those that are dialled get every fourth number from 4 on.
    pub(super) fn new(
        me: ServerId,
        my_address: &str,
        connect_timeout: Duration,
        members: impl Iterator<Item = (ServerId, bool)>,
    ) -> Self {
        let peer = |(id, is_wanted)| (id, Peer::new(true, is_wanted));
        Self {
            me,
            hello: Hello::encode(me, my_address),
            connect_timeout,
            next_link: LinkId(4),
            round: 0,
            peers: members.map(peer).collect(),
            links: BTreeMap::new(),
            next_anonymous: ServerId(-1),
        }
    }

    pub(super) fn owns(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    /// Whether a dial of this round was refused.
    pub(super) fn refused(&self, id: ServerId) -> bool {
        self.peers.get(&id).is_some_and(|peer| peer.refused)
    }

    /// A new round: refusals of earlier ones count no more.
    pub(super) fn begin_round(&mut self, now: Instant, out: &mut Vec<LinkOp>) {
        self.round += 1;
        for peer in self.peers.values_mut() {
            peer.refused = false;
        }
        self.dial_all(now, out);
    }

    /// Dials every wanted member that there is no connection to and no dial on its way.
    pub(super) fn dial_all(&mut self, now: Instant, out: &mut Vec<LinkOp>) {
        for (id, peer) in &mut self.peers {
            if !peer.is_wanted || peer.open.is_some() {
                continue;
            }
            peer.attempts = 0;
            match &mut peer.dial {
                Dial::Idle | Dial::At(_) => {
                    let link = take_link(&mut self.next_link);
                    peer.begin_dial(*id, link, self.round, now.after(self.connect_timeout), out);
                    self.links.insert(link, Link::Dialled(*id));
                }
                Dial::Reached { link: None, deadline } => {
                    *deadline = (*deadline).min(now.after(DIAL_BACK_MIN));
                }
                Dial::Reached { link: Some(_), .. } | Dial::Running { .. } => {}
            }
        }
    }

    /// Sends a message as soon as there is a connection and room, in the place of one that waits.
    pub(super) fn send(
        &mut self,
        now: Instant,
        id: ServerId,
        message: Vec<u8>,
        out: &mut Vec<LinkOp>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.pending = Some(message);
        match peer.open {
            Some(_) => self.flush(id, out),
            None if peer.dial == Dial::Idle && peer.is_member => self.dial(now, id, out),
            None => {}
        }
    }

    /// Sends to a server without vote; not the same again at once, lest two servers of different
    /// configurations keep each other busy.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        id: ServerId,
        message: Vec<u8>,
        out: &mut Vec<LinkOp>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some((at, last)) = &peer.answered
            && now.since(*at) < ANSWER_INTERVAL
            && *last == message
        {
            return;
        }
        peer.answered = Some((now, message.clone()));
        self.send(now, id, message, out);
    }

    pub(super) fn on_event(
        &mut self,
        now: Instant,
        event: LinkEvent<'_>,
        heard: &mut Vec<Heard>,
        out: &mut Vec<LinkOp>,
    ) {
        match event {
            LinkEvent::Accepted { link, .. } => self.on_accepted(now, link, out),
            LinkEvent::Connected(link) => self.on_connected(now, link, heard, out),
            LinkEvent::Failed { link, refused } => self.on_failed(now, link, refused, heard, out),
            LinkEvent::Received(link, bytes) => self.on_received(now, link, bytes, heard, out),
            LinkEvent::Drained(link) => {
                if let Some(Link::Open { peer, unsent, .. }) = self.links.get_mut(&link) {
                    *unsent = 0;
                    let peer = *peer;
                    self.flush(peer, out);
                }
            }
            LinkEvent::Closed(link) => self.on_closed(now, link, false, out),
            LinkEvent::Reset(link) => self.on_closed(now, link, true, out),
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let dials = self.peers.values().filter_map(|peer| match peer.dial {
            Dial::Idle => None,
            Dial::At(at) => Some(at),
            Dial::Running { deadline, .. } | Dial::Reached { deadline, .. } => Some(deadline),
        });
        let greetings = self.links.values().filter_map(|link| match link {
            Link::Greeting { deadline, .. } => Some(*deadline),
            Link::Dialled(_) | Link::Open { .. } => None,
        });
        dials.chain(greetings).min()
    }

    pub(super) fn on_timeout(&mut self, now: Instant, out: &mut Vec<LinkOp>) {
        let mut late = Vec::new();
        for (id, link) in &self.links {
            if matches!(link, Link::Greeting { deadline, .. } if *deadline <= now) {
                late.push(*id);
            }
        }
        for link in late {
            tracing::debug!("election: a connection that did not say whose it is");
            self.close(link, out);
        }
        let ids: Vec<ServerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.on_dial_timeout(now, id, out);
        }
    }

    fn on_dial_timeout(&mut self, now: Instant, id: ServerId, out: &mut Vec<LinkOp>) {
        let peer = self.peers.get_mut(&id).expect("only members have dials");
        match peer.dial {
            Dial::At(at) if at <= now => self.dial(now, id, out),
            Dial::Running { link, deadline, .. } if deadline <= now => {
                peer.dial = Dial::At(now.after(peer.pause()));
                self.close(link, out);
            }
            Dial::Reached { link, deadline } if deadline <= now => {
                if let Some(link) = link {
                    self.close(link, out);
                }
                self.dial(now, id, out);
            }
            Dial::Idle | Dial::At(_) | Dial::Running { .. } | Dial::Reached { .. } => {}
        }
    }

    fn on_connected(
        &mut self,
        now: Instant,
        link: LinkId,
        heard: &mut Vec<Heard>,
        out: &mut Vec<LinkOp>,
    ) {
        let Some(Link::Dialled(id)) = self.links.get(&link) else { return };
        let id = *id;
        out.push(LinkOp::Send { link, bytes: self.hello.clone() });
        let peer = self.peers.get_mut(&id).expect("only members are dialled");
        if id > self.me {
            let deadline = now.after(self.connect_timeout);
            peer.dial = Dial::Reached { link: Some(link), deadline };
        } else {
            peer.dial = Dial::Idle;
            self.open(now, link, id, heard, out);
        }
    }

    fn on_failed(
        &mut self,
        now: Instant,
        link: LinkId,
        refused: bool,
        heard: &mut Vec<Heard>,
        out: &mut Vec<LinkOp>,
    ) {
        let Some(Link::Dialled(id)) = self.links.remove(&link) else { return };
        let peer = self.peers.get_mut(&id).expect("only members are dialled");
        let Dial::Running { round, .. } = peer.dial else { return };
        peer.dial = Dial::At(now.after(peer.pause()));
        if refused && round == self.round {
            peer.refused = true;
            peer.dial = Dial::At(now.after(peer.pause().max(REFUSED_MIN)));
            heard.push(Heard::Refused(id));
        } else if refused {
            // It says nothing about this round, so it is asked again.
            self.dial(now, id, out);
        }
    }

    fn on_closed(&mut self, now: Instant, link: LinkId, is_reset: bool, out: &mut Vec<LinkOp>) {
        match self.links.remove(&link) {
            None | Some(Link::Greeting { .. }) => {}
            Some(Link::Dialled(id)) => {
                let peer = self.peers.get_mut(&id).expect("only members are dialled");
                peer.dial = match peer.dial {
                    // It has read the hello: either it dials back now, or it is dead. One that has
                    // not is dying, and will refuse the next dial.
                    Dial::Reached { .. } if !is_reset => {
                        let deadline = now.after(peer.pause().max(DIAL_BACK_MIN));
                        Dial::Reached { link: None, deadline }
                    }
                    _ => Dial::At(now.after(peer.pause())),
                };
            }
            Some(Link::Open { peer: id, since, .. }) => {
                let peer = self.peers.get_mut(&id).expect("open links have peers");
                peer.open = None;
                if now.since(since) >= LASTING {
                    peer.attempts = 0;
                }
                if !peer.is_member {
                    self.peers.remove(&id);
                } else if peer.is_wanted && peer.dial == Dial::Idle {
                    match peer.attempts {
                        0 => self.dial(now, id, out),
                        _ => peer.dial = Dial::At(now.after(peer.pause())),
                    }
                }
            }
        }
    }

    /// The link is the one to its peer from now on.
    fn open(
        &mut self,
        now: Instant,
        link: LinkId,
        id: ServerId,
        heard: &mut Vec<Heard>,
        out: &mut Vec<LinkOp>,
    ) {
        let received = match self.links.remove(&link) {
            Some(Link::Greeting { received, .. }) => received,
            Some(Link::Dialled(_)) => Vec::new(),
            Some(Link::Open { .. }) | None => unreachable!("a link opens once"),
        };
        let peer = self.peers.get_mut(&id).expect("open links have peers");
        let older = peer.open.replace(link);
        let dialled = match std::mem::replace(&mut peer.dial, Dial::Idle) {
            Dial::Idle | Dial::At(_) => None,
            Dial::Running { link, .. } => Some(link),
            Dial::Reached { link, .. } => link,
        };
        peer.refused = false;
        let is_member = peer.is_member;
        for link in older.into_iter().chain(dialled) {
            self.close(link, out);
        }
        self.links.insert(link, Link::Open { peer: id, received, unsent: 0, since: now });
        if is_member {
            heard.push(Heard::Up(id));
        } else {
            self.flush(id, out);
        }
    }

    /// Closes the link to a peer that sends what nobody can read. ZooKeeper would read on, and log
    /// each such message: those of a stranger could keep it from everything else.
    pub(super) fn hang_up(&mut self, now: Instant, id: ServerId, out: &mut Vec<LinkOp>) {
        if let Some(link) = self.peers.get(&id).and_then(|peer| peer.open) {
            self.close(link, out);
            self.on_lost(now, id);
        }
    }

    /// We have closed the open link to this peer ourselves.
    fn on_lost(&mut self, now: Instant, id: ServerId) {
        let peer = self.peers.get_mut(&id).expect("open links have peers");
        peer.open = None;
        if !peer.is_member {
            self.peers.remove(&id);
        } else if peer.is_wanted && peer.dial == Dial::Idle {
            peer.attempts += 1;
            peer.dial = Dial::At(now.after(peer.pause()));
        }
    }

    /// Sends the message that waits for this peer, if there is one, a connection and room.
    pub(super) fn flush(&mut self, id: ServerId, out: &mut Vec<LinkOp>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(link) = peer.open else { return };
        let Some(Link::Open { unsent, .. }) = self.links.get_mut(&link) else {
            unreachable!("it is open");
        };
        if *unsent < UNSENT_BYTES_MAX
            && let Some(bytes) = peer.pending.take()
        {
            *unsent += bytes.len();
            out.push(LinkOp::Send { link, bytes });
        }
    }

    fn dial(&mut self, now: Instant, id: ServerId, out: &mut Vec<LinkOp>) {
        let peer = self.peers.get_mut(&id).expect("only members are dialled");
        if peer.open.is_some() {
            peer.dial = Dial::Idle;
            return;
        }
        let link = take_link(&mut self.next_link);
        peer.begin_dial(id, link, self.round, now.after(self.connect_timeout), out);
        self.links.insert(link, Link::Dialled(id));
    }

    fn close(&mut self, link: LinkId, out: &mut Vec<LinkOp>) {
        self.links.remove(&link);
        out.push(LinkOp::Close(link));
    }
}

fn take_link(next: &mut LinkId) -> LinkId {
    let link = *next;
    next.0 += 4;
    link
}

#[cfg(test)]
mod tests;
