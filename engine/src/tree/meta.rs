//! Meta: the entry of the map that holds what is one number for the whole state.

use crate::btree::View;
use crate::keyspace;
use crate::zxid::Zxid;

use super::owner::OwnerMode;

const META_BYTES: usize = 1 + 1 + 7 * 8;
/// First byte of the entry: which layout follows.
const META_LAYOUT: u8 = 1;

/// The numbers. The tree keeps them beside the map and writes them when it freezes a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) applied: Zxid,
    pub(super) digest: u64,
    /// Znodes, the root once.
    pub(super) znodes: u64,
    /// Characters of paths and bytes of data, the root's data twice.
    pub(super) data_bytes: i64,
    pub(super) ephemerals: u64,
    pub(super) sessions: u64,
    /// The newest interned ACL list.
    pub(super) acl_newest: u32,
    pub(super) mode: OwnerMode,
}

/// What `srvr`, `mntr` and the metrics say about a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Znodes as ZooKeeper counts them: the root twice.
    pub znode_count: u64,
    /// Characters of paths and bytes of data.
    pub data_bytes: u64,
    /// Ephemerals of all sessions.
    pub ephemerals_count: u64,
    /// Global sessions.
    pub sessions_count: u64,
}

/// The counters of a version.
pub fn counters(view: &impl View) -> Counters {
    read(view).map(|meta| meta.counters()).unwrap_or_default()
}

/// The digest of a version.
pub fn digest(view: &impl View) -> u64 {
    read(view).map_or(0, |meta| meta.digest)
}

/// How a version has read the owners of its znodes; none if it has no state.
pub fn owner_mode(view: &impl View) -> Option<OwnerMode> {
    read(view).map(|meta| meta.mode)
}

pub(super) fn read(view: &impl View) -> Option<Meta> {
    Meta::decode(&view.get(keyspace::meta_key().as_bytes())?)
}

impl Meta {
    pub(super) fn counters(&self) -> Counters {
        // Compat: DataTree.getNodeCount; "" and "/" are two entries for the root.
        Counters {
            znode_count: self.znodes + 1,
            data_bytes: u64::try_from(self.data_bytes).unwrap_or(0),
            ephemerals_count: self.ephemerals,
            sessions_count: self.sessions,
        }
    }

    pub(super) fn encode(&self) -> [u8; META_BYTES] {
        let mut bytes = [0; META_BYTES];
        bytes[0] = META_LAYOUT;
        bytes[1] = self.mode as u8;
        let words = [
            self.applied.0,
            self.digest,
            self.znodes,
            self.data_bytes.cast_unsigned(),
            self.ephemerals,
            self.sessions,
            u64::from(self.acl_newest),
        ];
        for (at, word) in bytes[2..].chunks_exact_mut(8).zip(words) {
            at.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; META_BYTES] = bytes.try_into().ok()?;
        let mode = match bytes[1] {
            0 => OwnerMode::Plain,
            1 => OwnerMode::Extended,
            2 => OwnerMode::Emulate353,
            _ => return None,
        };
        let (words, _) = bytes[2..].as_chunks::<8>();
        let word = |index: usize| u64::from_be_bytes(words[index]);
        (bytes[0] == META_LAYOUT).then_some(Self {
            applied: Zxid(word(0)),
            digest: word(1),
            znodes: word(2),
            data_bytes: word(3).cast_signed(),
            ephemerals: word(4),
            sessions: word(5),
            acl_newest: u32::try_from(word(6)).ok()?,
            mode,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_its_encoding() {
        let meta = Meta {
            applied: Zxid(1),
            digest: 2,
            znodes: 3,
            data_bytes: -4,
            ephemerals: 5,
            sessions: 6,
            acl_newest: 7,
            mode: OwnerMode::Emulate353,
        };
        assert_eq!(Meta::decode(&meta.encode()), Some(meta));
        assert_eq!(Meta::decode(&meta.encode()[1..]), None);
    }
}
