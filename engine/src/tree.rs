//! Tree: the replicated state as a function of transactions, on the versioned map.
//!
//! It does what ZooKeeper's `DataTree` does, for every transaction that decodes: also for those
//! that do not fit the state, as the replay of a fuzzy snapshot brings them. Applying never fails
//! and never panics.
//!
//! Invariants: a znode's parent exists; a znode counts exactly the children that the map has; the
//! indexes of ephemerals, containers and TTL znodes agree with the owners of the znodes; the
//! digest is the one that Java's servers compute.

mod acl_sweep;
mod acls;
mod digest;
mod digest_log;
mod effects;
mod export;
mod import;
mod meta;
mod nodes;
mod owner;
mod path;
mod quota;
mod read;
mod store;
#[cfg(test)]
mod tests;
mod znode;

pub use acl_sweep::{AclLists, acl_lists};
pub use acls::{AclId, acl};
pub use effects::{Effects, EffectsMark, EventType, Outcome, Trigger};
pub use export::ExportCursor;
pub(crate) use export::walk;
pub use import::{ImportError, LostEphemerals, TreeBuilder};
pub use meta::{Counters, counters, digest, owner_mode};
pub use owner::{CONTAINER_OWNER, Owner, OwnerMode, ttl_owner};
pub use read::{
    Children, Paths, Sessions, children, containers, descendants_count, ephemerals, session,
    sessions, ttls,
};
pub use znode::{Znode, znode};

use crate::btree::{Map, Version};
use crate::error_code::ErrorCode;
use crate::keyspace;
use crate::txn::{Txn, TxnHeader};
use crate::zxid::Zxid;

use acls::Interner;
use digest_log::DigestLog;
use meta::Meta;
use quota::Quotas;
use store::Store;

/// The state of a map is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the map holds no state that this version can read")]
pub struct OpenError;

/// The writer's head of the replicated state.
#[derive(Debug)]
pub struct Tree {
    store: Store,
    /// Ahead of the map's entry since the last freeze.
    meta: Meta,
    quotas: Quotas,
    acls: Interner,
    digests: DigestLog,
    /// For the value that is being written.
    scratch: Vec<u8>,
}

/// A state to return to, for a multi that may fail half way.
#[derive(Debug)]
#[must_use = "a savepoint is rolled back to or released"]
pub struct Savepoint {
    meta: Meta,
    quota_changes: u64,
    effects: EffectsMark,
}

impl Tree {
    /// The tree of a standalone server that has seen no transaction.
    pub fn new(mode: OwnerMode) -> Self {
        let meta = Meta { mode, ..Meta::default() };
        let mut tree = Self {
            store: Store::default(),
            meta,
            quotas: Quotas::default(),
            acls: Interner::default(),
            digests: DigestLog::default(),
            scratch: Vec::new(),
        };
        tree.plant();
        tree
    }

    /// Takes over the state that a snapshot holds.
    ///
    /// If it was written in another mode, the owners are decoded again, which visits each znode.
    pub fn open(map: Map, mode: OwnerMode) -> Result<Self, OpenError> {
        let meta = meta::read(&map).ok_or(OpenError)?;
        let quotas = Quotas::load(&map);
        let store = Store::new(map);
        let acls = Interner::of(meta.acl_newest);
        let (digests, scratch) = (DigestLog::default(), Vec::new());
        let mut tree = Self { store, meta, quotas, acls, digests, scratch };
        if tree.meta.mode != mode {
            tree.change_mode(mode);
        }
        Ok(tree)
    }

    /// The head, for reading.
    pub fn view(&self) -> &Map {
        &self.store.map
    }

    /// The map alone; its last frozen version can be opened again.
    pub fn into_map(self) -> Map {
        self.store.map
    }

    /// The last transaction that was applied.
    pub fn applied(&self) -> Zxid {
        self.meta.applied
    }

    /// The digest of the head.
    pub fn digest(&self) -> u64 {
        self.meta.digest
    }

    /// The digests after the last transactions whose zxids are multiples of 128, oldest first, as
    /// far as this process has applied them.
    // Compat: DataTree.digestLog
    pub fn digest_log(&self) -> impl Iterator<Item = (Zxid, u64)> {
        self.digests.iter()
    }

    /// The counters of the head.
    pub fn counters(&self) -> Counters {
        self.meta.counters()
    }

    /// How owners are decoded.
    pub fn mode(&self) -> OwnerMode {
        self.meta.mode
    }

    /// Freezes the head as a version that ends with the last applied transaction.
    pub fn freeze(&mut self) -> Version {
        self.freeze_at(self.meta.applied)
    }

    /// Freezes the head as a version that ends with `zxid`, which need not be a transaction's: a
    /// new leader's state begins with the first zxid of its epoch.
    pub fn freeze_at(&mut self, zxid: Zxid) -> Version {
        assert!(!self.store.is_in_savepoint(), "a version never shows half a transaction");
        assert!(zxid >= self.meta.applied, "{zxid} is before {}", self.meta.applied);
        self.meta.applied = zxid;
        self.store.put(keyspace::meta_key().as_bytes(), &self.meta.encode());
        let version = self.store.map.freeze(zxid);
        self.sweep_acls();
        version
    }

    /// Drops everything that was applied after `version` was frozen.
    pub fn return_to(&mut self, version: &Version) {
        assert!(!self.store.is_in_savepoint(), "a multi ends before its tree is dropped");
        self.store.map.rollback(version);
        self.meta = meta::read(version).expect("a frozen version has its numbers");
        self.quotas = Quotas::load(&self.store.map);
        self.digests.return_to(self.meta.applied);
        self.acls.clear();
    }

    /// Begins what may have to be undone. Savepoints do not nest.
    pub fn savepoint(&mut self, effects: &Effects) -> Savepoint {
        self.store.savepoint();
        let quota_changes = self.quotas.changes();
        Savepoint { meta: self.meta, quota_changes, effects: effects.mark() }
    }

    /// Undoes everything since the savepoint.
    pub fn rollback_to(&mut self, savepoint: Savepoint, effects: &mut Effects) {
        self.store.rollback();
        if self.meta.acl_newest != savepoint.meta.acl_newest {
            // No sweep goes on within a multi, so what it knows still holds.
            self.acls.forget(|_| true);
        }
        self.meta = savepoint.meta;
        if self.quotas.changes() != savepoint.quota_changes {
            self.quotas = Quotas::load(&self.store.map);
        }
        effects.truncate(savepoint.effects);
    }

    /// Keeps everything since the savepoint.
    pub fn release(&mut self, savepoint: Savepoint) {
        let Savepoint { .. } = savepoint;
        self.store.release();
    }

    /// Whether a change of data below or at `path` fits the hard limits of the nearest quota.
    pub fn check_quota(
        &self,
        path: &str,
        bytes_more: i64,
        count_more: i64,
    ) -> Result<(), ErrorCode> {
        match self.quotas.nearest(path) {
            Some(quota) => quota::check(&self.store.map, quota, bytes_more, count_more),
            None => Ok(()),
        }
    }

    /// Applies a transaction, or an operation of a multi while it is being prepared.
    pub fn apply(&mut self, header: &TxnHeader, txn: &Txn<'_>, effects: &mut Effects) -> Outcome {
        // Compat: DataTree.processTxn.
        let outcome = match txn {
            Txn::Multi(txns) => self.apply_multi(header, txns, effects),
            txn => self.apply_single(header, txn, effects),
        };
        self.meta.applied = self.meta.applied.max(header.zxid);
        self.digests.note(header.zxid, self.meta.digest);
        outcome
    }

    fn apply_multi(
        &mut self,
        header: &TxnHeader,
        txns: &[Txn<'_>],
        effects: &mut Effects,
    ) -> Outcome {
        if txns.iter().any(|txn| matches!(txn, Txn::Error(_))) {
            return failed_multi(txns);
        }
        let mut outcomes = Vec::with_capacity(txns.len());
        for txn in txns {
            if !may_be_in_multi(txn) {
                // Compat: DataTree.processTxn throws there, and goes on behind the multi.
                break;
            }
            outcomes.push(self.apply_single(header, txn, effects));
        }
        Outcome::Multi(outcomes)
    }

    fn apply_single(
        &mut self,
        header: &TxnHeader,
        txn: &Txn<'_>,
        effects: &mut Effects,
    ) -> Outcome {
        let result = match txn {
            Txn::Create { node, ephemeral, with_stat } => {
                let owner = if *ephemeral { header.session.0 } else { 0 };
                let result = self.create(header, node, owner, effects);
                if !with_stat && result == Err(ErrorCode::NodeExists) {
                    self.raise_parent_cversion(header, node);
                }
                result.map(Outcome::Created)
            }
            Txn::CreateContainer { node } => {
                self.create(header, node, CONTAINER_OWNER, effects).map(Outcome::Created)
            }
            Txn::CreateTtl { node, ttl_ms } => match ttl_owner(*ttl_ms) {
                Some(owner) => self.create(header, node, owner, effects).map(Outcome::Created),
                None => Err(ErrorCode::BadArguments),
            },
            Txn::Delete { path, .. } => {
                self.delete(header.zxid, path, effects).map(|()| Outcome::Deleted)
            }
            Txn::SetData { path, data, version, .. } => self
                .set_data(header, path, data.as_deref(), *version, effects)
                .map(Outcome::DataSet),
            Txn::SetAcl { path, acl, aversion } => {
                self.set_acl(path, acl, *aversion).map(Outcome::AclSet)
            }
            Txn::Check { .. } => Ok(Outcome::Checked),
            Txn::CreateSession { timeout_ms } => {
                self.create_session(header.session, *timeout_ms);
                Ok(Outcome::SessionCreated)
            }
            Txn::CloseSession { ephemerals } => {
                self.close_session(header, ephemerals.as_deref(), effects);
                Ok(Outcome::SessionClosed)
            }
            Txn::Error(error) => Ok(Outcome::Error(error.0)),
            Txn::Multi(_) => Err(ErrorCode::Unimplemented),
        };
        result.unwrap_or_else(|code| Outcome::Error(code.to_wire()))
    }
}

/// Which kinds Java's servers know in a multi.
fn may_be_in_multi(txn: &Txn<'_>) -> bool {
    match txn {
        Txn::Create { .. }
        | Txn::CreateContainer { .. }
        | Txn::CreateTtl { .. }
        | Txn::Delete { .. }
        | Txn::Check { .. }
        | Txn::Error(_) => true,
        Txn::SetData { reconfig, .. } => !reconfig,
        Txn::SetAcl { .. }
        | Txn::CreateSession { .. }
        | Txn::CloseSession { .. }
        | Txn::Multi(_) => false,
    }
}

/// One error in it, and nothing of it happens.
fn failed_multi(txns: &[Txn<'_>]) -> Outcome {
    let mut is_after = false;
    let mut outcomes = Vec::with_capacity(txns.len());
    for txn in txns {
        outcomes.push(Outcome::Error(match txn {
            Txn::Error(error) => {
                is_after = true;
                error.0
            }
            _ if !may_be_in_multi(txn) => break,
            _ if is_after => ErrorCode::RuntimeInconsistency.to_wire(),
            _ => 0,
        }));
    }
    Outcome::Multi(outcomes)
}
