//! Building a tree from the records of a ZooKeeper snapshot, in the order in which they come.

use crate::acl::{Acl, AclBytes, Id};
use crate::btree::View;
use crate::ids::SessionId;
use crate::keyspace::{self, Key, Space, Spot};
use crate::stat::Stat;
use crate::zxid::Zxid;

use super::acls::Interner;
use super::digest_log::DigestLog;
use super::meta::Meta;
use super::owner::{OwnerKind, OwnerMode};
use super::quota::Quotas;
use super::store::Store;
use super::{AclId, Effects, Tree, path, read, znode};

/// Why records are not those of a tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// A znode hangs on nothing.
    #[error("the parent of znode {0:?} is not in front of it")]
    NoParent(String),
    /// A znode comes a second time.
    #[error("znode {0:?} comes twice")]
    Twice(String),
    /// There is no root.
    #[error("there is no root")]
    NoRoot,
}

/// A tree that is being built. Each znode comes after its parent.
#[derive(Debug)]
pub struct TreeBuilder {
    tree: Tree,
    /// Children of `parent` that it has not been told of.
    parent: String,
    children: u32,
}

impl TreeBuilder {
    /// A tree without any znode, not even the root.
    pub fn new(mode: OwnerMode) -> Self {
        let tree = Tree {
            store: Store::default(),
            meta: Meta { mode, ..Meta::default() },
            quotas: Quotas::default(),
            acls: Interner::default(),
            digests: DigestLog::default(),
            scratch: Vec::new(),
        };
        Self { tree, parent: String::new(), children: 0 }
    }

    /// Adds a session.
    pub fn session(&mut self, session: SessionId, timeout_ms: i32) {
        self.tree.create_session(session, timeout_ms);
    }

    /// Interns an ACL list.
    pub fn acl(&mut self, list: &AclBytes<'_>) -> AclId {
        self.tree.intern(list)
    }

    /// The list of a znode whose own is not known yet: nobody may do anything.
    pub fn unknown_acl(&mut self) -> AclId {
        self.acl(&AclBytes::encode(&[Acl { perms: 0, id: Id::new("world", "anyone") }]))
    }

    /// Adds a znode. The root's path is empty.
    pub fn znode(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: AclId,
        stat: Stat,
    ) -> Result<(), ImportError> {
        let Spot::Vacant(key) = keyspace::locate_znode(&self.tree.store, path) else {
            return Err(ImportError::Twice(path.to_owned()));
        };
        if !path.is_empty() {
            let no_parent = || ImportError::NoParent(path.to_owned());
            let (parent, _) = path::split(path).ok_or_else(no_parent)?;
            if self.children > 0 && parent == self.parent {
                self.children += 1;
            } else {
                if znode(&self.tree.store, parent).is_none() {
                    return Err(no_parent());
                }
                self.tell_parent();
                parent.clone_into(&mut self.parent);
                self.children = 1;
            }
        }
        self.tree.insert(&key, path, stat, acl, data);
        Ok(())
    }

    /// The tree, with `applied` as its last transaction. Quotas are counted.
    pub fn finish(mut self, applied: Zxid) -> Result<Tree, ImportError> {
        self.tell_parent();
        let root = znode(&self.tree.store, "").ok_or(ImportError::NoRoot)?;
        // Compat: DataTree.approximateDataSize meets the root under both its names.
        self.tree.meta.data_bytes += 1 + root.data_bytes() as i64;
        self.tree.meta.applied = applied;
        self.tree.quotas = Quotas::load(&self.tree.store.map);
        self.tree.recount_quotas();
        self.tree.acls = Interner::of(self.tree.meta.acl_newest);
        Ok(self.tree)
    }

    fn tell_parent(&mut self) {
        let children = std::mem::take(&mut self.children);
        if children > 0 {
            let told = self.tree.change(&self.parent, |head| head.num_children += children);
            assert!(told.is_some(), "a parent stays once it was found");
        }
    }
}

/// Ephemerals whose sessions are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostEphemerals {
    /// All of them.
    pub count: u64,
    /// Those that a server with extended types takes for TTL znodes.
    pub ttls: u64,
}

impl Tree {
    /// Deletes ephemerals of sessions that do not exist, and says how many there were: what a
    /// server does with what it read from ZooKeeper's files, before it serves.
    pub fn delete_lost_ephemerals(&mut self) -> LostEphemerals {
        // Compat: ZooKeeperServer.loadData, "clean up dead sessions".
        let mut lost = Vec::new();
        let prefix = Key::new(Space::Ephemeral);
        let mut cursor = self.store.cursor(prefix.as_bytes());
        while let Some((key, value)) = cursor.next_entry() {
            let Some(rest) = key.strip_prefix(prefix.as_bytes()) else { break };
            let (session, rest) = rest.split_first_chunk().expect("a session is in front");
            let session = SessionId(i64::from_be_bytes(*session));
            if read::session(&self.store, session).is_none() {
                let path = keyspace::indexed_path(rest, &value);
                lost.push(String::from_utf8_lossy(path).into_owned());
            }
        }
        let mut effects = Effects::new();
        let mut result = LostEphemerals::default();
        for path in lost {
            let owner = znode(&self.store, &path).map_or(0, |znode| znode.stat().ephemeral_owner);
            effects.clear();
            if self.delete(self.meta.applied, &path, &mut effects).is_ok() {
                result.count += 1;
                let is_ttl = OwnerKind::of(owner, OwnerMode::Extended) == OwnerKind::Ttl;
                result.ttls += u64::from(is_ttl);
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(cversion: i32, owner: i64) -> Stat {
        Stat { cversion, ephemeral_owner: owner, ..Stat::default() }
    }

    #[test]
    fn parents_before_children_in_any_order_make_the_same_tree() {
        let build = |paths: &[&str]| {
            let mut builder = TreeBuilder::new(OwnerMode::Plain);
            for path in paths {
                builder.znode(path, Some(b"x"), AclId::OPEN, stat(1, 0)).unwrap();
            }
            builder.finish(Zxid(7)).unwrap()
        };
        let first = build(&["", "/a", "/a/b", "/a/b/c", "/a/d", "/e"]);
        let second = build(&["", "/e", "/a", "/a/d", "/a/b", "/a/b/c"]);
        assert_eq!(first.digest(), second.digest());
        assert_eq!(first.counters(), second.counters());
        for tree in [first, second] {
            assert_eq!(znode(tree.view(), "/").unwrap().children_count(), 2);
            assert_eq!(znode(tree.view(), "/a").unwrap().children_count(), 2);
            assert_eq!(znode(tree.view(), "/a/b").unwrap().children_count(), 1);
        }
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        let mut builder = TreeBuilder::new(OwnerMode::Plain);
        let mut add = |path: &str| builder.znode(path, None, AclId::OPEN, stat(0, 0));
        assert_eq!(add("/a"), Err(ImportError::NoParent("/a".into())));
        assert_eq!(add(""), Ok(()));
        assert_eq!(add(""), Err(ImportError::Twice(String::new())));
        assert_eq!(add("a"), Err(ImportError::NoParent("a".into())));
        assert_eq!(add("//a"), Err(ImportError::NoParent("//a".into())));
        assert_eq!(add("/a/b"), Err(ImportError::NoParent("/a/b".into())));
        let empty = TreeBuilder::new(OwnerMode::Plain);
        assert_eq!(empty.finish(Zxid(1)).map(|_| ()), Err(ImportError::NoRoot));
    }

    #[test]
    fn ephemerals_without_a_session_go() {
        let mut builder = TreeBuilder::new(OwnerMode::Plain);
        builder.session(SessionId(1), 5);
        builder.znode("", None, AclId::OPEN, stat(0, 0)).unwrap();
        let ttl = crate::tree::ttl_owner(5000).unwrap();
        for (path, owner) in [("/kept", 1), ("/lost", 2), ("/stays", 0), ("/ttl", ttl)] {
            builder.znode(path, None, AclId::OPEN, stat(0, owner)).unwrap();
        }
        let mut tree = builder.finish(Zxid(9)).unwrap();
        assert_eq!(tree.delete_lost_ephemerals(), LostEphemerals { count: 2, ttls: 1 });
        assert_eq!(tree.delete_lost_ephemerals(), LostEphemerals::default());
        assert!(znode(tree.view(), "/lost").is_none() && znode(tree.view(), "/kept").is_some());
        assert_eq!(tree.counters().ephemerals_count, 1);
    }
}
