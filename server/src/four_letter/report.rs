//! What the answers to four-letter words are made from. Plain numbers and names: each core fills
//! in what it knows, and they are put together before anything is worded.

use std::net::SocketAddr;
use std::path::PathBuf;

use engine::ids::{SessionId, Xid};
use engine::time::WallTime;
use engine::zxid::Zxid;

use super::text::Average;

/// What a server is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is alone.
    Standalone,
    /// It leads an ensemble.
    Leader,
    /// It follows a leader.
    Follower,
    /// It learns without a vote.
    Observer,
}

impl Mode {
    /// The word in `srvr` and `mntr`.
    // Compat: ZooKeeperServer.getState and its overrides
    pub fn name(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Observer => "observer",
        }
    }
}

/// Latencies of requests, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LatencyReport {
    /// The shortest.
    pub min_ms: u64,
    /// The average.
    pub average: Average,
    /// The longest.
    pub max_ms: u64,
}

/// Sizes in bytes of the last, the smallest and the largest of something; -1 before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeReport {
    /// The last.
    pub last: i64,
    /// The smallest.
    pub min: i64,
    /// The largest.
    pub max: i64,
}

impl Default for SizeReport {
    // Compat: BufferStats.INIT_VALUE
    fn default() -> Self {
        Self { last: -1, min: -1, max: -1 }
    }
}

/// The server as a whole: for `srvr`, `stat` and the gauges of `mntr`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerReport {
    /// What it is.
    pub mode: Mode,
    /// Latencies of the requests of its clients.
    pub latency: LatencyReport,
    /// Packets received from clients, four-letter words included.
    pub packets_received: u64,
    /// Packets sent to clients.
    pub packets_sent: u64,
    /// Connections, the one that asks included.
    pub connections: u64,
    /// Requests under way.
    pub outstanding: u64,
    /// The last zxid that is applied.
    pub zxid: Zxid,
    /// Znodes, counted as ZooKeeper does: the root twice.
    pub znodes: u64,
    /// Sizes of the leader's proposals, where this is a leader.
    pub proposals: Option<SizeReport>,
}

/// One connection: for `cons` and `stat`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionReport {
    /// Its peer.
    pub peer: SocketAddr,
    /// Whether it is being read from; one that asked for a word is not.
    pub reads: bool,
    /// Whether it has output that waits for the socket.
    pub writes: bool,
    /// Its requests that are not answered yet.
    pub queued: u64,
    /// Packets received.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// Its session, once it has one.
    pub session: Option<SessionReport>,
}

/// The session of a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionReport {
    /// Its id.
    pub id: SessionId,
    /// What it did last, in ZooKeeper's abbreviations; see [`super::text::operation`].
    pub last_operation: &'static str,
    /// Since when the connection exists.
    pub established: WallTime,
    /// The timeout that it was granted, milliseconds.
    pub timeout_ms: i32,
    /// Its last request number; negative ones, which mean pings and the like, are not shown.
    pub last_xid: Xid,
    /// The zxid of the last reply.
    pub last_zxid: Zxid,
    /// When the last reply went out, milliseconds of the server's monotonic clock.
    pub last_response_ms: u64,
    /// How long the last request took, milliseconds.
    pub last_latency_ms: u64,
    /// How long its requests took.
    pub latency: LatencyReport,
}

/// The configuration in effect: for `conf` and `dirs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigReport {
    /// The port for clients.
    pub client_port: u16,
    /// The port for clients with TLS; `None`: there is none.
    pub secure_client_port: Option<u16>,
    /// Where snapshots live, as an absolute path.
    pub data_dir: PathBuf,
    /// Bytes there.
    pub data_dir_bytes: u64,
    /// Where the log lives, as an absolute path.
    pub data_log_dir: PathBuf,
    /// Bytes there.
    pub data_log_bytes: u64,
    /// The tick.
    pub tick_ms: i32,
    /// Connections per address; 0 for any number.
    pub client_cnxns_max: i64,
    /// The shortest session timeout.
    pub session_timeout_min_ms: i32,
    /// The longest session timeout.
    pub session_timeout_max_ms: i32,
    /// The listen backlog that was asked for; -1 for none.
    pub listen_backlog: i32,
    /// The server's id; 0 standalone.
    pub server_id: i64,
    /// The part about the ensemble, where there is one.
    pub member: Option<MemberReport>,
}

/// The configuration of a member of an ensemble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberReport {
    /// Ticks until a learner must be synchronized.
    pub init_limit: u32,
    /// Ticks that leader and learner may be silent.
    pub sync_limit: u32,
    /// The ports where it is talked to about elections.
    pub election_ports: Vec<u16>,
    /// The ports where learners connect.
    pub quorum_ports: Vec<u16>,
    /// Whether it learns without a vote.
    pub is_observer: bool,
    /// How many servers vote.
    pub voters: usize,
    /// The ensemble, as `/zookeeper/config` has it.
    pub membership: String,
}

/// Names and values: for `envi`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvironmentReport(pub Vec<(&'static str, String)>);

/// Sessions, as a server knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionsReport {
    /// When they expire, soonest first, and which.
    Deadlines(Vec<(WallTime, Vec<SessionId>)>),
    /// All of them in order, and their timeouts in milliseconds: deadlines are the leader's.
    Timeouts(Vec<(SessionId, i32)>),
}

/// Sessions, ephemerals and connections by deadline: for `dump`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpReport {
    /// Sessions that have not ended.
    pub sessions: SessionsReport,
    /// Sessions that own ephemerals, and the paths of these.
    pub ephemerals: Vec<(SessionId, Vec<String>)>,
    /// When connections are closed unless they speak, soonest first, and which: peer and session.
    pub connections: Vec<(WallTime, Vec<(SocketAddr, SessionId)>)>,
}

/// Data watches by connection: for `wchs`, `wchc` and `wchp`. Like ZooKeeper's, these words leave
/// out the watches on children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchReport {
    /// The session of each connection that watches something, and the paths.
    pub connections: Vec<(SessionId, Vec<String>)>,
}
