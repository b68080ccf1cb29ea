//! Fast leader election: the machine behind the election port.
//!
//! ```text
//!             look                     decided                     established
//!   idle ─────────────> looking ───────────────────> decided ───────────────────> decided
//!                          ^                            │  a better vote, or the winner's
//!                          └──── reopened, look ────────┘  supporters leave: not too late
//! ```
//!
//! While it looks for a leader, a server proposes the best vote that it knows: at first itself. It
//! tells everybody whenever that changes, and is done when a quorum proposes the same in the same
//! round and nobody is left who could know better. A server that has decided answers those that
//! look; from a quorum of such answers, the leader's among them, one that comes late learns whom
//! to follow.
//!
//! A decision says only whom to try: it is discovery that makes a leader safe. So a decision may be
//! quick. It is final at once if every voter outside the quorum has cast the same vote in this
//! round, or has refused a connection that was begun in this round; otherwise it waits as long as
//! ZooKeeper does. Until discovery has its quorum, a better vote reopens it, in the same round.
//!
//! A member without data does not vote: its zxid is -1, and votes of -1 are ignored by all. A new
//! ensemble begins when every voter has said that it has none.
//!
//! Invariants:
//!
//!   * a vote that is counted was cast in this round, or by a server that has decided
//!   * in one round the votes that a server sends only get better, unless it has left a decision:
//!     whoever hears a worse one takes it for one that looks anew
//!   * a server without data neither decides for itself nor is counted, unless all are without
//!
//! Compat: FastLeaderElection, QuorumCnxManager. Reopening and quick decisions are our own; peers
//! see nothing that ZooKeeper could not have sent.

mod decided;
pub mod links;
mod looking;

use std::sync::Arc;
use std::time::Duration;

use crate::ids::{LinkId, ServerId};
use crate::time::Instant;
use crate::zab::link::{LinkEvent, LinkOp};
use crate::zab::members::Members;
use crate::zab::notification::{Notification, PeerState};
use crate::zab::vote::{ElectionRound, Vote};
use crate::zxid::{Epoch, Zxid};

use decided::Decided;
use links::{Heard, Links};
use looking::Looking;

/// What does not change while the server runs.
#[derive(Clone, Debug)]
pub struct ElectorConfig {
    /// This server.
    pub me: ServerId,
    /// Whether it only learns. So does a server that is no voter, whatever this says.
    pub is_observer: bool,
    /// The ensemble.
    pub members: Arc<Members>,
    /// What this server tells others of its election port: `host:port`, or several joined by `|`.
    pub my_election_address: String,
    /// How long a better vote is waited for; ZooKeeper's is 200 ms.
    pub finalize_wait: Duration,
    /// Votes are sent again after this long, at first; ZooKeeper's is 200 ms.
    pub notification_interval_min: Duration,
    /// The pause doubles up to this; ZooKeeper's is 60 s.
    pub notification_interval_max: Duration,
    /// A connection must be there, and say whose it is, within this.
    pub connect_timeout: Duration,
    /// After two quick decisions within this that came to nothing, the next waits.
    pub tick: Duration,
    /// Whether decisions may be quick, and be reopened. Otherwise all is as ZooKeeper does it.
    pub fast: bool,
}

/// How recent this server's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnState {
    /// The last record that is durable in the log, committed or not. None: there is no data yet,
    /// and nobody has said that this is as it should be.
    pub last: Option<Zxid>,
    /// The epoch of the last leader whose history this server has made its own.
    pub current_epoch: Epoch,
}

/// What a server does once there is a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Leading,
    /// It follows.
    Following,
    /// It observes.
    Observing,
}

/// The outcome of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The vote that won.
    pub vote: Vote,
    /// What this server is to do now.
    pub role: Role,
    /// Nobody in the ensemble has any data, so that this server, which has none either, takes part.
    pub begins: bool,
}

/// The election port of one server.
#[derive(Debug)]
pub struct Elector {
    config: ElectorConfig,
    links: Links,
    round: ElectionRound,
    state: State,
    /// Not yet taken.
    news: Option<Decision>,
    /// When the last two quick decisions came to nothing.
    fast_failures: [Option<Instant>; 2],
    heard: Vec<Heard>,
}

#[derive(Debug)]
enum State {
    /// Not begun.
    Idle,
    Looking(Looking),
    Decided(Decided),
}

impl Elector {
    /// Does nothing before the first [`Elector::look`]. It dials the multiples of 4 from
    /// [`LinkId`] 4 on, so other machines of the server may take the even numbers between.
    pub fn new(mut config: ElectorConfig) -> Self {
        config.is_observer |= !config.members.is_voter(config.me);
        let members = config.members.others(config.me);
        let members = members.map(|id| (id, config.members.is_voter(id)));
        let address = &config.my_election_address;
        let links = Links::new(config.me, address, config.connect_timeout, members);
        Self {
            config,
            links,
            round: ElectionRound(0),
            state: State::Idle,
            news: None,
            fast_failures: [None; 2],
            heard: Vec::new(),
        }
    }

    /// Begins to look for a leader: at the start, when the leader is lost, when discovery or
    /// synchronization has failed, and when the decision is [`Elector::reopened`]. Only then is it
    /// still the same round.
    pub fn look(&mut self, now: Instant, own: OwnState, out: &mut Vec<LinkOp>) {
        self.news = None;
        let decided = match std::mem::replace(&mut self.state, State::Idle) {
            State::Decided(decided) => Some(decided),
            State::Idle | State::Looking(_) => None,
        };
        if decided.as_ref().is_some_and(Decided::has_failed_fast) {
            self.fast_failures = [self.fast_failures[1], Some(now)];
        }
        let reopened = decided.filter(Decided::is_reopened);
        if reopened.is_none() {
            self.round = ElectionRound(self.round.0.saturating_add(1));
            self.links.begin_round(now, out);
        } else {
            self.links.dial_all(now, out);
        }
        self.begin_looking(now, own, reopened, out);
    }

    /// The outcome, once.
    pub fn decided(&mut self) -> Option<Decision> {
        self.news.take()
    }

    /// Whether the decision no longer holds, though it has not been tried to the end: drop the
    /// role, and [`Elector::look`] again.
    pub fn reopened(&self) -> bool {
        matches!(&self.state, State::Decided(decided) if decided.is_reopened())
    }

    /// Discovery is over: a quorum has accepted `epoch` of the leader that was decided for. This
    /// is what those that look for a leader are told from now on.
    ///
    // Compat: QuorumPeer.updateElectionVote
    pub fn established(&mut self, epoch: Epoch) {
        if let State::Decided(decided) = &mut self.state {
            decided.establish(epoch);
        }
    }

    /// Something has happened to a link of the election port.
    pub fn on_link(&mut self, now: Instant, event: LinkEvent<'_>, out: &mut Vec<LinkOp>) {
        let mut heard = std::mem::take(&mut self.heard);
        self.links.on_event(now, event, &mut heard, out);
        for item in heard.drain(..) {
            match item {
                Heard::Up(id) => self.on_up(now, id, out),
                Heard::Refused(_) => {}
                Heard::Message(sender, payload) => match Notification::decode(&payload) {
                    Ok(notification) => self.on_message(now, sender, &notification, out),
                    Err(error) => {
                        let bytes = payload.len();
                        tracing::warn!(
                            server = %sender, bytes,
                            "election: closing, a message makes no sense: {error}"
                        );
                        self.links.hang_up(now, sender, out);
                        // All that was heard at once came on that link.
                        break;
                    }
                },
            }
        }
        self.heard = heard;
        self.conclude(now);
    }

    /// Time has passed.
    pub fn on_timeout(&mut self, now: Instant, out: &mut Vec<LinkOp>) {
        self.links.on_timeout(now, out);
        self.conclude(now);
        self.resend_if_due(now, out);
    }

    /// When to call [`Elector::on_timeout`] at the latest.
    pub fn next_timeout(&self) -> Option<Instant> {
        let own = match &self.state {
            State::Looking(looking) => Some(looking.next_timeout()),
            State::Idle | State::Decided(_) => None,
        };
        own.into_iter().chain(self.links.next_timeout()).min()
    }

    /// Whether the link is one of this machine's.
    pub fn owns(&self, link: LinkId) -> bool {
        self.links.owns(link)
    }

    /// The round that is being voted in, or was voted in last.
    pub fn round(&self) -> ElectionRound {
        self.round
    }

    /// The voters that a new ensemble still waits for; empty unless this server has no data.
    pub fn missing(&self) -> Vec<ServerId> {
        match &self.state {
            State::Looking(looking) => looking.missing(&self.config),
            State::Idle | State::Decided(_) => Vec::new(),
        }
    }

    /// There is a connection to a member: it is told at once what it should know.
    ///
    // Compat: QuorumCnxManager.SendWorker.run sends the last message again; this is the newest.
    fn on_up(&mut self, now: Instant, id: ServerId, out: &mut Vec<LinkOp>) {
        let has_news = match self.state {
            State::Idle => false,
            State::Looking(_) => true,
            State::Decided(_) => !self.config.is_observer,
        };
        if has_news && self.config.members.is_voter(id) {
            self.tell(now, id, out);
        } else {
            self.links.flush(id, out);
        }
    }

    fn on_message(
        &mut self,
        now: Instant,
        sender: ServerId,
        notification: &Notification,
        out: &mut Vec<LinkOp>,
    ) {
        tracing::debug!(server = %sender, ?notification, "election: notification");
        if !self.config.members.is_voter(sender) {
            self.on_stranger(now, sender, notification, out);
            return;
        }
        match &mut self.state {
            State::Idle => {}
            State::Looking(_) => self.on_peer_while_looking(now, sender, notification, out),
            State::Decided(decided) => {
                if decided.is_kept(&self.config, sender, notification) {
                    return;
                }
                if notification.state == PeerState::Looking {
                    self.tell(now, sender, out);
                }
            }
        }
    }

    /// A server without vote asks who leads.
    ///
    // Compat: WorkerReceiver.run answers such a server whatever it is doing; only one that looks
    // wants to know.
    fn on_stranger(
        &mut self,
        now: Instant,
        sender: ServerId,
        notification: &Notification,
        out: &mut Vec<LinkOp>,
    ) {
        if notification.state == PeerState::Looking && !matches!(self.state, State::Idle) {
            let message = self.message();
            self.links.answer(now, sender, message, out);
        }
    }

    /// Tells a server our vote.
    fn tell(&mut self, now: Instant, id: ServerId, out: &mut Vec<LinkOp>) {
        let message = self.message();
        self.links.send(now, id, message, out);
    }

    /// Tells all voters our vote.
    fn tell_all(&mut self, now: Instant, out: &mut Vec<LinkOp>) {
        let (me, members) = (self.config.me, Arc::clone(&self.config.members));
        for id in members.voters().iter().filter(|id| **id != me) {
            self.tell(now, *id, out);
        }
    }

    fn message(&self) -> Vec<u8> {
        let (state, vote) = match &self.state {
            State::Idle => unreachable!("nothing is said before the first election"),
            State::Looking(looking) => (PeerState::Looking, looking.proposal()),
            State::Decided(decided) => (decided.state(), Some(decided.vote())),
        };
        let round = vote.map_or(self.round, |vote| vote.round);
        Notification::message(state, vote, round, self.config.members.text())
    }
}

#[cfg(test)]
mod network;
#[cfg(test)]
mod space;
#[cfg(test)]
mod tests;
