//! Replays logs on a fuzzy snapshot, and says whether the result is what ZooKeeper had.

use crate::jute::DecodeError;
use crate::tree::{self, AclId, Effects, OwnerMode, Tree};
use crate::txn::codec::{self, DIGEST_VERSION};
use crate::zxid::Zxid;

use super::snapshot_reader::{Loaded, TreeDigest};

/// A transaction that cannot be decoded. Nothing may be skipped, so the replay ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the transaction after {after} has not the form of one: {error}")]
pub struct RestoreError {
    /// The last transaction before it.
    pub after: Zxid,
    /// What is wrong with it.
    pub error: DecodeError,
}

/// What a replay met. All of it is tolerated, as ZooKeeper's servers do; a careful operator wants
/// to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Transactions that were replayed.
    pub replayed: u64,
    /// Digests that were compared and equal.
    pub digests_equal: u64,
    /// Digests that were compared and not equal.
    pub digests_different: u64,
    /// The first transaction of those.
    pub first_different: Option<Zxid>,
    /// The snapshot is whole only with this transaction, and no log has it.
    pub missing_end: Option<Zxid>,
    /// Times that the counter of the zxid passed over a number: within an epoch, or at the
    /// beginning of one.
    pub gaps: u64,
    /// Times that a zxid was not above the one before.
    pub out_of_order: u64,
    /// Znodes whose ACL list the snapshot had not, nor any log: nobody may do anything with them.
    pub unknown_acls: u64,
    /// Ephemerals of sessions that were gone; they were deleted.
    pub lost_ephemerals: u64,
    /// How many of those are TTL znodes to a server with extended types.
    pub lost_ttls: u64,
}

/// A replay under way.
#[derive(Debug)]
pub struct Restore {
    tree: Tree,
    effects: Effects,
    /// Up to here the snapshot is fuzzy, and no digest can be compared.
    whole_at: Option<TreeDigest>,
    /// The zxid in the snapshot's name: the replay begins behind it.
    start: Zxid,
    newest: Zxid,
    /// Znodes whose ACL list the snapshot had not, and what they have instead.
    unknown_acls: Vec<(String, AclId)>,
    report: Report,
}

impl Restore {
    /// Starts with a snapshot.
    pub fn new(loaded: Loaded) -> Self {
        let start = loaded.tree.applied();
        // Compat: DataTree.deserializeZxidDigest. A digest from before the start is that of a
        // leader that had not proposed anything yet: the snapshot is not fuzzy then.
        let whole_at = loaded.digest.filter(|digest| {
            digest.zxid != Zxid::ZERO && digest.zxid >= start && digest.zxid.to_wire() > 0
        });
        let mut restore = Self {
            tree: loaded.tree,
            effects: Effects::new(),
            whole_at,
            start,
            newest: start,
            unknown_acls: loaded.unknown_acls,
            report: Report::default(),
        };
        restore.compare_with_snapshot(start);
        restore
    }

    /// Starts with nothing: a server that never wrote a snapshot, or all logs since its first.
    pub fn from_nothing(mode: OwnerMode) -> Self {
        let tree = Tree::new(mode);
        Self::new(Loaded { tree, digest: None, unknown_acls: Vec::new() })
    }

    /// Replays a transaction, as a log has it. Those that the snapshot has are passed over.
    pub fn apply(&mut self, txn: &[u8]) -> Result<(), RestoreError> {
        let decoded = codec::decode(txn);
        let decoded = decoded.map_err(|error| RestoreError { after: self.newest, error })?;
        let zxid = decoded.header.zxid;
        if self.report.replayed == 0 && zxid <= self.start {
            return Ok(());
        }
        self.check_order(zxid);
        self.effects.clear();
        self.tree.apply(&decoded.header, &decoded.txn, &mut self.effects);
        self.report.replayed += 1;
        // Compat: DataTree.compareDigest, compareSnapshotDigests.
        if self.whole_at.is_some() {
            self.compare_with_snapshot(zxid);
        } else if let Some((DIGEST_VERSION, digest)) = decoded.digest {
            self.compare(zxid, digest);
        }
        Ok(())
    }

    /// The tree, ready to serve, and what was met on the way.
    pub fn finish(mut self) -> (Tree, Report) {
        self.report.missing_end = self.whole_at.map(|digest| digest.zxid);
        let lost = self.tree.delete_lost_ephemerals();
        (self.report.lost_ephemerals, self.report.lost_ttls) = (lost.count, lost.ttls);
        let view = self.tree.view();
        let has_still = |(path, denied): &&(String, AclId)| {
            tree::znode(view, path).is_some_and(|znode| znode.acl() == *denied)
        };
        self.report.unknown_acls = self.unknown_acls.iter().filter(has_still).count() as u64;
        (self.tree, self.report)
    }

    fn check_order(&mut self, zxid: Zxid) {
        // ZooKeeper's leaders begin with 1, and docs/format.md lets an epoch begin with 0, too.
        let begins_epoch = zxid.epoch() > self.newest.epoch() && zxid.counter() <= 1;
        if zxid <= self.newest {
            self.report.out_of_order += 1;
        } else if !begins_epoch && self.newest.next() != Some(zxid) {
            self.report.gaps += 1;
        }
        self.newest = self.newest.max(zxid);
    }

    fn compare_with_snapshot(&mut self, zxid: Zxid) {
        let Some(digest) = self.whole_at.filter(|digest| digest.zxid == zxid) else { return };
        self.whole_at = None;
        if digest.version == DIGEST_VERSION {
            self.compare(zxid, digest.digest);
        }
    }

    fn compare(&mut self, zxid: Zxid, digest: u64) {
        if digest == self.tree.digest() {
            self.report.digests_equal += 1;
        } else {
            self.report.digests_different += 1;
            self.report.first_different.get_or_insert(zxid);
        }
    }
}
