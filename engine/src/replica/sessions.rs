//! Sessions as the ordering core knows them: whose connection, until when.
//!
//! A session ends in two steps. When its deadline has passed, every core is asked what it heard of
//! its sessions, including what still waits in its sockets; only then, what is still due ends.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Author, Config, Now, Output, Replica};
use crate::collections::FastMap;
use crate::error_code::ErrorCode;
use crate::ids::{ConnectionId, ServerId, SessionId};
use crate::order::{Connect, ReplyKind};
use crate::prep;
use crate::session::{Due, ExpiryQueue, SessionIds};
use crate::time::Instant;
use crate::tree::{self, Tree};

/// A session that has not ended.
#[derive(Debug)]
struct Session {
    /// The connection of this server that serves it now.
    connection: Option<ConnectionId>,
    /// Where it was attached to last.
    owner: Owner,
    /// What that connection of this server was granted; the tree knows what the first one was.
    timeout_ms: Option<i32>,
}

/// The server whose requests are taken for a session. It stays so when the connection there has
/// broken, and when that server has lost its link and comes back: what still comes from another
/// one was sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// Not known: whoever asks first.
    Nobody,
    /// This server.
    Here,
    /// A learner.
    Learner(ServerId),
}

impl Session {
    /// One that nobody serves yet.
    const IDLE: Self = Self { connection: None, owner: Owner::Nobody, timeout_ms: None };

    fn at(connection: ConnectionId, timeout_ms: i32) -> Self {
        let (connection, timeout_ms) = (Some(connection), Some(timeout_ms));
        Self { connection, owner: Owner::Here, timeout_ms }
    }
}

/// A round of asking all cores what they heard.
#[derive(Debug)]
struct Collection {
    round: u64,
    /// What is judged at its end.
    due: Due,
    /// How many cores have not answered.
    missing: u16,
}

/// Every session that has not ended, and when it would.
#[derive(Debug)]
pub(super) struct Sessions {
    open: FastMap<SessionId, Session>,
    expiry: ExpiryQueue,
    ids: SessionIds,
    cores: u16,
    /// When the time was last looked at. While there are sessions that is at least every `pulse`.
    seen: Instant,
    pulse: Duration,
    collecting: Option<Collection>,
    rounds: u64,
}

impl Sessions {
    /// The sessions of a recovered tree, each with its full timeout from `now`.
    pub(super) fn recover(config: &Config, tree: &Tree, now: Now) -> Self {
        let mut sessions = Self {
            open: FastMap::default(),
            expiry: ExpiryQueue::new(config.tick_ms),
            ids: SessionIds::new(config.server_id, now.wall.0),
            cores: config.cores,
            seen: now.instant,
            pulse: Duration::from_millis(u64::from(config.tick_ms)) / 4,
            collecting: None,
            rounds: 0,
        };
        let mut cursor = tree::sessions(tree.view());
        while let Some((session, timeout_ms)) = cursor.next_session() {
            sessions.ids.observe(session);
            sessions.expiry.track(now.instant, session, timeout_ms.unsigned_abs());
            sessions.open.insert(session, Session::IDLE);
        }
        sessions
    }

    /// Takes over the sessions of another tree. Rounds are counted on: a core may still answer an
    /// earlier one.
    pub(super) fn replace(&mut self, sessions: Self) {
        *self = Self { rounds: self.rounds, ..sessions };
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let due = self.expiry.next_timeout()?;
        let pulse = self.seen.after(self.pulse);
        Some(if self.collecting.is_some() { pulse } else { pulse.min(due) })
    }

    /// Looks at the time. If much of it has passed since the last look, this process was stopped
    /// or starved, or its clock jumped: nobody could be heard meanwhile, whatever clients did, and
    /// so it does not count.
    pub(super) fn watch_clock(&mut self, now: Instant) {
        let gap = now.since(self.seen);
        self.seen = self.seen.max(now);
        if gap > self.pulse * 2 && !self.expiry.is_empty() {
            let gap_ms = gap.as_millis();
            tracing::warn!(gap_ms, "the server stood still; sessions get that time");
            self.expiry.shift(gap);
        }
    }

    pub(super) fn deadlines(&self) -> Vec<(Instant, Vec<SessionId>)> {
        self.expiry.deadlines().map(|(at, sessions)| (at, sessions.collect())).collect()
    }

    pub(super) fn is_attached(&self, session: SessionId, connection: ConnectionId) -> bool {
        self.open.get(&session).is_some_and(|session| session.connection == Some(connection))
    }

    pub(super) fn touch(&mut self, session: SessionId, heard: Instant) {
        // A session that has ended meanwhile is none to touch.
        let _known = self.expiry.touch(heard, session);
    }

    /// A learner has heard of a session just now, whose connection there has this timeout: that of
    /// the owner's connection counts from now on.
    ///
    // Compat: SessionTrackerImpl.touchSession - takes over any timeout; but what is still heard of
    // a connection that the client has left must not shorten that of the one it has now.
    pub(super) fn touch_at(
        &mut self,
        now: Instant,
        learner: ServerId,
        session: SessionId,
        timeout_ms: i32,
    ) {
        let Some(open) = self.open.get(&session) else { return };
        let timeout_ms = timeout_ms.unsigned_abs();
        if open.owner == Owner::Learner(learner) {
            self.expiry.track(now, session, timeout_ms);
        } else {
            self.expiry.touch_for(now, session, timeout_ms);
        }
    }

    pub(super) fn disconnect(&mut self, session: SessionId, connection: ConnectionId) {
        if let Some(open) = self.open.get_mut(&session)
            && open.connection == Some(connection)
        {
            open.connection = None;
        }
    }

    /// These connections are being closed: whatever comes of them is taken no more.
    pub(super) fn disconnect_all(&mut self, connections: &BTreeSet<ConnectionId>) {
        self.open.values_mut().for_each(|open| {
            open.connection = open.connection.filter(|id| !connections.contains(id));
        });
    }

    /// Forgets a session that ends; its connection, if it has one.
    pub(super) fn remove(&mut self, session: SessionId) -> Option<ConnectionId> {
        self.expiry.remove(session);
        self.open.remove(&session).and_then(|open| open.connection)
    }

    /// Starts a collection if a session is due and none is under way.
    pub(super) fn begin_collection(&mut self, now: Instant) -> Option<u64> {
        if self.collecting.is_some() {
            return None;
        }
        let due = self.expiry.due(now)?;
        self.rounds += 1;
        self.collecting = Some(Collection { round: self.rounds, due, missing: self.cores });
        Some(self.rounds)
    }

    /// Only what is connected here counts from now on; the leader looks after expiry.
    pub(super) fn learn(&mut self) {
        self.open.retain(|_, session| session.connection.is_some());
        self.expiry.clear();
        self.collecting = None;
    }

    /// All sessions of the tree count from now on, each with its full timeout; that of its
    /// connection counts, where it has one here, and that is longer. The client of such a
    /// connection may have gone elsewhere; but what it has sent before, another server may tell
    /// the new leader again, and that must not be done behind what came from here.
    pub(super) fn lead(&mut self, tree: &Tree, now: Now) {
        self.seen = now.instant;
        self.expiry.clear();
        self.collecting = None;
        let mut cursor = tree::sessions(tree.view());
        while let Some((session, timeout_ms)) = cursor.next_session() {
            let open = self.open.entry(session).or_insert(Session::IDLE);
            if open.connection.is_none() {
                *open = Session::IDLE;
            } else {
                open.owner = Owner::Here;
            }
            let timeout_ms = open.timeout_ms.unwrap_or(0).max(timeout_ms);
            self.expiry.track(now.instant, session, timeout_ms.unsigned_abs());
        }
    }

    /// A session that the state got from a leader.
    pub(super) fn observe(&mut self, session: SessionId) {
        self.ids.observe(session);
    }

    /// A new session that is connected here.
    pub(super) fn attach(
        &mut self,
        session: SessionId,
        connection: ConnectionId,
        timeout_ms: i32,
    ) -> Option<ConnectionId> {
        let attached = Session::at(connection, timeout_ms);
        self.open.insert(session, attached).and_then(|open| open.connection)
    }

    /// What the last connection of this server that had the session was granted.
    pub(super) fn timeout_ms(&self, session: SessionId) -> Option<i32> {
        self.open.get(&session).and_then(|open| open.timeout_ms)
    }

    /// Whether there is such a session.
    pub(super) fn is_open(&self, session: SessionId) -> bool {
        self.open.contains_key(&session)
    }

    /// Whether it is known whose it is.
    pub(super) fn is_owned(&self, session: SessionId) -> bool {
        self.open.get(&session).is_some_and(|open| open.owner != Owner::Nobody)
    }

    /// Sessions that are connected here.
    pub(super) fn connected(&self) -> impl Iterator<Item = SessionId> {
        let connected = self.open.iter().filter(|(_, open)| open.connection.is_some());
        connected.map(|(session, _)| *session)
    }

    /// Begins to track a session that a learner has opened.
    pub(super) fn track(&mut self, now: Instant, session: SessionId, timeout_ms: i32) {
        self.expiry.track(now, session, timeout_ms.unsigned_abs());
    }

    /// A session goes to a learner; the connection here that served it until now.
    pub(super) fn hand_to(
        &mut self,
        session: SessionId,
        learner: ServerId,
    ) -> Option<ConnectionId> {
        let owned = Session { owner: Owner::Learner(learner), ..Session::IDLE };
        self.open.insert(session, owned).and_then(|open| open.connection)
    }

    /// Whether a learner may ask something for a session.
    ///
    // Compat: SessionTrackerImpl.checkSession - who asks first owns a session that nobody does.
    pub(super) fn check(&mut self, session: SessionId, learner: ServerId) -> Result<(), ErrorCode> {
        let open = self.open.get_mut(&session).ok_or(ErrorCode::SessionExpired)?;
        match open.owner {
            Owner::Nobody => open.owner = Owner::Learner(learner),
            Owner::Learner(owner) if owner == learner => {}
            Owner::Here | Owner::Learner(_) => return Err(ErrorCode::SessionMoved),
        }
        Ok(())
    }

    /// Whether this server gives out ids like this one.
    pub(super) fn is_own(&self, session: SessionId) -> bool {
        self.ids.is_own(session)
    }

    /// Notes the answer of one core. With the last one, the sessions that have expired.
    fn on_collected(&mut self, round: u64) -> Vec<SessionId> {
        let mut expired = Vec::new();
        let Some(mut collection) = self.collecting.take() else {
            return expired;
        };
        if collection.round != round {
            // An answer to a round that was given up when the leader changed.
            self.collecting = Some(collection);
            return expired;
        }
        collection.missing -= 1;
        if collection.missing == 0 {
            self.expiry.expire(collection.due, &mut expired);
        } else {
            self.collecting = Some(collection);
        }
        expired
    }
}

impl Replica {
    /// Opens a session, or attaches a connection to one.
    ///
    // Compat: ZooKeeperServer.createSession, reopenSession
    pub(super) fn connect(&mut self, now: Now, connect: &Connect) {
        let timeout_ms = connect.timeout_ms;
        let connection = connect.connection;
        if connect.session == SessionId::NONE {
            let session = self.allocate_session();
            self.create_session(now, session, timeout_ms);
            self.group.answer_last(connection, ReplyKind::Attached { session, timeout_ms });
            self.sessions.expiry.track(now.instant, session, timeout_ms.unsigned_abs());
            self.sessions.open.insert(session, Session::at(connection, timeout_ms));
            return;
        }
        let session = connect.session;
        let open = self.sessions.open.get_mut(&session).filter(|_| connect.genuine);
        let Some(open) = open else {
            if connect.genuine {
                self.ask_proof();
            }
            return self.answer(connection, ReplyKind::Refused);
        };
        let previous = open.connection;
        *open = Session::at(connection, timeout_ms);
        self.sessions.expiry.track(now.instant, session, timeout_ms.unsigned_abs());
        if let Some(previous) = previous {
            self.answer(previous, ReplyKind::Close);
        }
        self.answer(connection, ReplyKind::Attached { session, timeout_ms });
    }

    /// An id for a new session of this server.
    pub(super) fn allocate_session(&mut self) -> SessionId {
        let view = self.tree.view();
        self.sessions.ids.allocate(|id| tree::session(view, id).is_some())
    }

    pub(super) fn create_session(&mut self, now: Now, session: SessionId, timeout_ms: i32) {
        self.order(now, &Author::server(session), |tree, context, group| {
            prep::create_session(tree, context, timeout_ms, &mut group.txns, &mut group.effects);
        });
        self.group.end_txn(None);
    }

    /// Ends what is still due once every core has told what it heard.
    pub(super) fn on_collected(&mut self, now: Now, round: u64, out: &mut Vec<Output>) {
        for session in self.sessions.on_collected(round) {
            self.stats.sessions_expired += 1;
            tracing::info!(%session, "expiring: nothing heard within its timeout");
            self.close_session(now, session, None);
            self.seal_if_full(now, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::WallTime;
    use crate::tree::OwnerMode;

    #[test]
    fn an_answer_to_a_round_of_another_tree_counts_for_nothing() {
        let session = SessionId(7);
        let begin = Now { instant: Instant::ZERO, wall: WallTime(0) };
        let recover = || Sessions::recover(&Config::default(), &Tree::new(OwnerMode::Plain), begin);
        let collect = |sessions: &mut Sessions| {
            sessions.track(begin.instant, session, 1000);
            sessions.begin_collection(begin.instant.after(Duration::from_mins(1))).unwrap()
        };
        let mut sessions = recover();
        let earlier = collect(&mut sessions);
        sessions.replace(recover());
        let later = collect(&mut sessions);
        assert!(sessions.on_collected(earlier).is_empty());
        assert_eq!(sessions.on_collected(later), [session]);
    }
}
