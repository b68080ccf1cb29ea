//! Ids: numbers that must not be mixed up with each other.

use std::fmt;

/// A client session. Signed, as on the wire and in ZooKeeper's logs; printed in hex.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub i64);

/// A member of an ensemble: the N of its `server.N` line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub i64);

/// A connection to another member, in either direction. The side that opens it numbers it: the
/// machine those that it dials, with even numbers, the driver those that it accepts, with odd ones.
/// No number comes twice in the life of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// A client's request number, chosen by the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xid(pub i32);

/// One of the server's cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub u16);

/// One client connection of one core. The generation tells a connection from an earlier one in
/// the same slot, so that a late message for the earlier one is recognised and dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// The core that owns the socket.
    pub core: CoreId,
    /// Position in that core's table of connections.
    pub slot: u32,
    /// Counts the connections that this slot has held.
    pub generation: u32,
}

impl SessionId {
    /// No session: what a new client sends, and the owner of what is not ephemeral.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
