//! Stat: what the server keeps about a znode besides its data, children and ACL.

use crate::jute::Writer;
use crate::zxid::Zxid;

/// The stored part of a stat (`StatPersisted`). Times are milliseconds of wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Zxid that created the znode.
    pub czxid: Zxid,
    /// Zxid that last set its data.
    pub mzxid: Zxid,
    /// Zxid that last created or deleted a child.
    pub pzxid: Zxid,
    /// When it was created.
    pub ctime_ms: i64,
    /// When its data was last set.
    pub mtime_ms: i64,
    /// Counts the changes of its data.
    pub version: i32,
    /// Counts the creations of children; clients see another number, see [`WireStat`].
    pub cversion: i32,
    /// Counts the changes of its ACL.
    pub aversion: i32,
    /// Session, or an encoding of container and TTL: decoded by `tree::owner`.
    pub ephemeral_owner: i64,
}

/// The stat as clients see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireStat {
    /// The stored part, already in the form for clients: `cversion` counts creations and
    /// deletions, `ephemeral_owner` is a session or 0.
    pub stat: Stat,
    /// Bytes of data.
    pub data_length: i32,
    /// Count of children.
    pub num_children: i32,
}

/// Bytes of an encoded [`WireStat`].
pub const WIRE_STAT_BYTES: usize = 68;

impl WireStat {
    /// Appends the record `Stat`.
    pub fn encode(&self, writer: &mut Writer<'_>) {
        let stat = &self.stat;
        writer.i64(stat.czxid.to_wire());
        writer.i64(stat.mzxid.to_wire());
        writer.i64(stat.ctime_ms);
        writer.i64(stat.mtime_ms);
        writer.i32(stat.version);
        writer.i32(stat.cversion);
        writer.i32(stat.aversion);
        writer.i64(stat.ephemeral_owner);
        writer.i32(self.data_length);
        writer.i32(self.num_children);
        writer.i64(stat.pzxid.to_wire());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_68_bytes() {
        let mut out = Vec::new();
        WireStat::default().encode(&mut Writer::new(&mut out));
        assert_eq!(out.len(), WIRE_STAT_BYTES);
    }
}
