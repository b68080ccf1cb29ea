//! What can happen at a simulated server.

use engine::disk::DiskDone;
use engine::ids::{ConnectionId, LinkId};
use engine::order::Submission;
use engine::zab::link::Plane;
use engine::zab::log_reading::LogDone;

/// What happens at a server.
pub enum Event {
    /// See `LinkEvent`.
    Accepted(LinkId, Plane),
    /// The pipe is what the link is called from outside.
    Connected(LinkId, usize),
    /// Whether it was refused.
    Failed(LinkId, bool),
    /// Bytes of another server.
    Received(LinkId, Vec<u8>),
    /// There is room.
    Drained(LinkId),
    /// The other end is gone.
    LinkClosed(LinkId),
    /// A write of the log ends: file, number, answer.
    Written(String, u64, DiskDone),
    /// The next of the operations that are done one after the other.
    Slow,
    /// A core's submission arrives.
    Submission(Submission),
    /// Something is in a core's inbox, or its time has come.
    Core(u16),
    /// What a core sent has left.
    Sent(ConnectionId, Vec<u8>),
    /// A client connects, sends, or is gone.
    Client(ConnectionId, ClientEvent),
    /// Something was read of the log.
    Read(LogDone),
    /// A timeout of the ordering machine.
    Tick(u64),
    /// What was published late is published.
    Late,
}

/// What happens on a client's connection.
pub enum ClientEvent {
    /// It is there.
    Accepted,
    /// Bytes.
    Received(Vec<u8>),
    /// It is gone.
    Closed,
}

impl Event {
    /// For the hash.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Accepted(..) => 1,
            Self::Connected(..) => 2,
            Self::Failed(..) => 3,
            Self::Received(..) => 4,
            Self::Drained(_) => 5,
            Self::LinkClosed(_) => 6,
            Self::Written(..) => 7,
            Self::Slow => 8,
            Self::Submission(_) => 9,
            Self::Core(_) => 10,
            Self::Sent(..) => 11,
            Self::Client(..) => 12,
            Self::Tick(_) => 13,
            Self::Read(_) => 14,
            Self::Late => 15,
        }
    }
}
