//! Digest of the tree: the sum of one checksum per znode, kept up to date by differences.
//!
//! It must be what Java's servers compute, since every transaction carries it.

use crc32fast::Hasher;

use crate::stat::Stat;

/// Starts a znode's checksum: path and data, to go on from for any stat.
///
/// `path` is canonical: the root's is empty.
pub(super) fn prefix(path: &str, data: Option<&[u8]>) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(path.as_bytes());
    if let Some(data) = data {
        hasher.update(data);
    }
    hasher.finalize()
}

/// Ends a znode's checksum.
pub(super) fn of(prefix: u32, stat: &Stat) -> u64 {
    // Compat: DigestCalculator.calculateDigest; the order is not that of StatPersisted.
    let mut bytes = [0; 60];
    bytes[..8].copy_from_slice(&stat.czxid.0.to_be_bytes());
    bytes[8..16].copy_from_slice(&stat.mzxid.0.to_be_bytes());
    bytes[16..24].copy_from_slice(&stat.pzxid.0.to_be_bytes());
    bytes[24..32].copy_from_slice(&stat.ctime_ms.to_be_bytes());
    bytes[32..40].copy_from_slice(&stat.mtime_ms.to_be_bytes());
    bytes[40..44].copy_from_slice(&stat.version.to_be_bytes());
    bytes[44..48].copy_from_slice(&stat.cversion.to_be_bytes());
    bytes[48..52].copy_from_slice(&stat.aversion.to_be_bytes());
    bytes[52..].copy_from_slice(&stat.ephemeral_owner.to_be_bytes());
    let mut hasher = Hasher::new_with_initial(prefix);
    hasher.update(&bytes);
    u64::from(hasher.finalize())
}

/// Whether the znode counts. Quota statistics are each server's own, so nothing below
/// `/zookeeper` does.
pub(super) fn counts(path: &str) -> bool {
    !path.starts_with("/zookeeper/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_goes_on_from_its_prefix() {
        let whole = crc32fast::hash(&[&b"/adata"[..], &[0; 60]].concat());
        assert_eq!(of(prefix("/a", Some(b"data")), &Stat::default()), u64::from(whole));
        assert_eq!(prefix("/a", None), prefix("/a", Some(b"")));
    }

    #[test]
    fn the_zookeeper_node_counts_and_nothing_below_it() {
        assert!(counts("") && counts("/zookeeper") && counts("/zookeeperx"));
        assert!(!counts("/zookeeper/quota"));
    }
}
