//! What a transaction does besides changing the state: watch triggers, and an outcome to reply.

use std::ops::Range;

use crate::path;
use crate::stat::WireStat;

use super::AclId;

/// What happened to a znode, by ZooKeeper's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum EventType {
    /// It was created. Goes to data watches.
    NodeCreated = 1,
    /// It was deleted. Goes to data watches, then to child watches not already told.
    NodeDeleted = 2,
    /// Its data was set. Goes to data watches.
    NodeDataChanged = 3,
    /// A child came or went. Goes to child watches.
    NodeChildrenChanged = 4,
}

impl EventType {
    /// The number on the wire.
    pub const fn to_wire(self) -> i32 {
        self as i32
    }

    /// Counts the kinds from 0.
    pub const fn index(self) -> usize {
        self as usize - 1
    }
}

/// One event, before it is known who watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// What happened.
    pub event: EventType,
    /// To which znode: a range of [`Effects::paths`].
    pub path: Range<usize>,
    /// The znode's ACL list as of the transaction: who may be told.
    pub acl: AclId,
}

/// The triggers of a group of transactions. Cleared and reused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// In the order in which they fire.
    pub triggers: Vec<Trigger>,
    /// Their paths, one after the other.
    pub paths: String,
}

/// A length of [`Effects`] to return to.
#[derive(Clone, Copy, Debug)]
pub struct EffectsMark {
    triggers: usize,
    paths: usize,
}

impl Effects {
    /// No effects yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The path of `trigger`, which is one of these.
    pub fn path(&self, trigger: &Trigger) -> &str {
        &self.paths[trigger.path.clone()]
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.triggers.clear();
        self.paths.clear();
    }

    /// How much there is now.
    pub fn mark(&self) -> EffectsMark {
        EffectsMark { triggers: self.triggers.len(), paths: self.paths.len() }
    }

    /// Forgets what came after `mark`.
    pub fn truncate(&mut self, mark: EffectsMark) {
        self.triggers.truncate(mark.triggers);
        self.paths.truncate(mark.paths);
    }

    /// `path` was created or deleted.
    pub(super) fn push_child(
        &mut self,
        event: EventType,
        path: &str,
        acl: AclId,
        parent_acl: AclId,
    ) {
        let range = self.push_path(path);
        let slash = path::last_slash(path).expect("a child has a parent");
        let parent = range.start..range.start + slash.max(1);
        self.triggers.push(Trigger { event, path: range, acl });
        let event = EventType::NodeChildrenChanged;
        self.triggers.push(Trigger { event, path: parent, acl: parent_acl });
    }

    /// The data of `path` was set.
    pub(super) fn push_data(&mut self, path: &str, acl: AclId) {
        let path = self.push_path(if path.is_empty() { "/" } else { path });
        self.triggers.push(Trigger { event: EventType::NodeDataChanged, path, acl });
    }

    fn push_path(&mut self, path: &str) -> Range<usize> {
        let start = self.paths.len();
        self.paths.push_str(path);
        start..self.paths.len()
    }
}

/// What became of a transaction: what its reply is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A znode was created; its stat.
    Created(WireStat),
    /// A znode was deleted.
    Deleted,
    /// Data was set; the stat from now on.
    DataSet(WireStat),
    /// An ACL list was set; the stat from now on.
    AclSet(WireStat),
    /// A version was checked, long ago, by the leader.
    Checked,
    /// A session was opened.
    SessionCreated,
    /// A session was closed, its ephemerals are gone.
    SessionClosed,
    /// The transaction is an error record, or did not fit the state; 0 for an operation of a
    /// failed multi that came before the failing one.
    Error(i32),
    /// One for each operation of a multi.
    Multi(Vec<Outcome>),
}
