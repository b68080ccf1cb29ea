//! What a core tells about itself when somebody asks.

use core::net::SocketAddr;
use std::time::Duration;

use super::ClientCore;
use super::connection::{Connection, ConnectionStats, LatencyStats, Phase};
use crate::ids::{ConnectionId, SessionId};
use crate::metrics::{Sizes, Summary, Times};
use crate::time::Instant;

/// Counters of one core since its start or the last reset, but for `auth_failed`.
#[derive(Clone, Debug, Default)]
pub struct CoreStats {
    /// Packets received.
    pub packets_received: u64,
    /// Bytes received in packets, lengths included.
    pub bytes_received: u64,
    /// Packets sent, events included.
    pub packets_sent: u64,
    /// Bytes of replies to requests, lengths included.
    pub response_bytes: u64,
    /// Sizes of these replies.
    pub responses: Sizes,
    /// Bytes of watch events sent, lengths included.
    pub event_bytes: u64,
    /// How many connections of this core each change told, if any: by kind of event, in the order
    /// of its numbers on the wire.
    pub watchers_told: [Summary; 4],
    /// ConnectRequests.
    pub connect_requests: u64,
    /// Those of them that were about a session that there was.
    pub reconnect_requests: u64,
    /// Connections that clients ended, or that broke.
    pub connections_dropped: u64,
    /// How often a connection's input had to wait for requests under way.
    pub throttled: u64,
    /// Packets refused for their length.
    pub large_requests_rejected: u64,
    /// Connections dropped because they never asked for a session.
    pub sessionless_expired: u64,
    /// Failed authentications since the start.
    pub auth_failed: u64,
    /// The longest turn.
    pub longest_turn: Duration,
    /// Receipt to reply, all requests.
    pub latency: LatencyStats,
    /// Receipt to reply, reads.
    pub read_latency: Times,
    /// Receipt to reply, writes.
    pub write_latency: Times,
}

impl CoreStats {
    /// Counts a reply to a request.
    pub(super) fn count_response(&mut self, bytes: usize) {
        self.packets_sent += 1;
        self.response_bytes += bytes as u64;
        self.responses.record(bytes as u64);
    }
}

/// One connection, as `cons` shows it.
#[derive(Clone, Debug)]
pub struct ConnectionReport {
    /// Which it is.
    pub id: ConnectionId,
    /// The client's address.
    pub peer: SocketAddr,
    /// Its session, if it has one.
    pub session: Option<SessionId>,
    /// The session's timeout.
    pub timeout: Duration,
    /// Requests that have no reply yet.
    pub queued: usize,
    /// Counters.
    pub stats: ConnectionStats,
    /// When it is closed if nothing is heard of it.
    pub deadline: Instant,
    /// Whether its socket is read for requests.
    pub reads: bool,
    /// Whether output is on its way to it.
    pub writes: bool,
    /// Paths whose data or subtree it watches, in order.
    pub data_watches: Vec<String>,
}

/// All of a core.
#[derive(Clone, Debug, Default)]
pub struct CoreReport {
    /// Counters.
    pub stats: CoreStats,
    /// Requests that have no reply yet.
    pub outstanding: usize,
    /// Open connections.
    pub connections_count: usize,
    /// Watches of all kinds.
    pub watches_count: usize,
    /// Every connection, if asked for.
    pub connections: Vec<ConnectionReport>,
}

impl ClientCore {
    /// Counters and sums; with `connections`, each connection too.
    pub fn report(&self, connections: bool) -> CoreReport {
        CoreReport {
            stats: self.stats.clone(),
            outstanding: self.outstanding,
            connections_count: self.connections_count,
            watches_count: self.watches.count(),
            connections: if connections { self.connection_reports() } else { Vec::new() },
        }
    }

    /// Notes how long a turn of this core took.
    pub fn note_turn(&mut self, took: Duration) {
        self.stats.longest_turn = self.stats.longest_turn.max(took);
    }

    /// Forgets what was counted for the core (`srst`).
    // Compat: ServerStats.reset leaves the failed authentications.
    pub fn reset_stats(&mut self) {
        let auth_failed = self.stats.auth_failed;
        self.stats = CoreStats { auth_failed, ..CoreStats::default() };
    }

    /// Forgets what was counted for each connection (`crst`).
    pub fn reset_connection_stats(&mut self) {
        for connection in self.connections.iter_mut().flatten() {
            connection.stats = ConnectionStats::after_reset();
        }
    }

    fn deadline_of(&self, connection: &Connection) -> Instant {
        match connection.session {
            Some(_) => connection.last_heard.after(connection.timeout),
            None => connection.established.after(self.config.sessionless_timeout),
        }
    }

    fn connection_reports(&self) -> Vec<ConnectionReport> {
        let report = |connection: &Connection| ConnectionReport {
            id: connection.id,
            peer: connection.peer,
            session: connection.session,
            timeout: connection.timeout,
            queued: connection.queue.len(),
            stats: connection.stats,
            deadline: self.deadline_of(connection),
            // Compat: NIOServerCnxn.checkFourLetterWord - no selector has to do with it any more.
            reads: !connection.paused && connection.phase != Phase::Admin,
            writes: connection.sending,
            data_watches: self
                .watches
                .data_paths_of(connection.id.slot)
                .map(str::to_owned)
                .collect(),
        };
        self.connections.iter().flatten().map(|connection| report(connection)).collect()
    }
}
