//! Dropping ACL lists that no znode has any more.
//!
//! Lists are not counted: that would cost each create and each delete another write. Instead, a
//! *sweep* looks for those that nobody uses, a piece behind each freeze. New lists pay for it, so
//! that a workload with few lists never sweeps, and one with many spends a part of its own work.
//!
//! ```text
//!   idle ── as many new lists as were kept, and more ──> mark ──────────> drop ────> idle
//!                                                        walks the znodes  walks the lists
//! ```
//!
//! While a sweep is under way, a list that is given to a znode is marked too. Znodes keep their
//! keys. So whatever znode of the head the walk has not met with the list that it has now, has got
//! that list since: what is not marked at the end is on no znode.
//!
//! Invariants:
//!
//!   * a list is dropped right behind a freeze only: what came before resolves in the version that
//!     was frozen, and triggers that follow name lists of znodes that are in the head then
//!   * versions do not notice: they have the pages that they had
//!   * a rollback ends the sweep, since it brings back znodes that were passed by
//!
//! Servers with the same znodes may number their lists differently; nothing on the wire, in the
//! digest or in the log depends on the numbers.

use crate::acl::AclBytes;
use crate::btree::View;
use crate::collections::FastSet;
use crate::keyspace::{self, Key, Space, Spot};

use super::acls::parse_id;
use super::znode::Head;
use super::{AclId, Tree, export};

/// Fewer new lists than this are not worth a sweep.
const NEW_LISTS_MIN: u64 = 1024;
/// In a tree of many znodes, one new list for so many of them is not either.
const ZNODES_PER_NEW_LIST: u64 = 16;
/// How many entries a new list pays for. With the numbers above, a sweep ends before the lists
/// have doubled once more.
const ENTRIES_PER_NEW_LIST: u64 = 128;
/// The most entries that are looked at behind one freeze: a few milliseconds.
const ENTRIES_PER_FREEZE_MAX: u64 = 1 << 16;
/// Of which dropping a list takes so many: it is looked up, hashed, and two entries are deleted.
const ENTRIES_PER_DROP: u64 = 32;

/// Where the sweep stands.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    phase: Phase,
    /// Lists interned since the last sweep began.
    new_lists: u64,
    /// Lists that the last sweep has left.
    kept: u64,
    /// Entries that new lists have paid for.
    credit: u64,
    /// Lists that are on a znode, as far as is known.
    marked: FastSet<u32>,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Idle,
    /// Walks a space of znodes, from this key on.
    Mark(Space, Vec<u8>),
    /// Walks the lists, from this key on.
    Drop(Vec<u8>),
}

impl Sweep {
    /// For a tree that may have this many lists, nobody knows how many of them in vain.
    pub(super) fn of(lists: u32) -> Self {
        Self { new_lists: u64::from(lists), ..Self::default() }
    }

    /// A list was interned that was not there.
    pub(super) fn count_new(&mut self) {
        self.new_lists += 1;
        self.credit += ENTRIES_PER_NEW_LIST;
    }

    /// A znode gets this list.
    pub(super) fn mark(&mut self, id: AclId) {
        if !matches!(self.phase, Phase::Idle) {
            self.marked.insert(id.0);
        }
    }

    /// Forgets what was found out: the head is another one.
    pub(super) fn interrupt(&mut self) {
        if !matches!(self.phase, Phase::Idle) {
            // What was looked at is to be looked at again.
            self.new_lists += self.kept.max(NEW_LISTS_MIN);
        }
        self.phase = Phase::Idle;
        self.marked = FastSet::default();
    }

    fn is_due(&self, znodes: u64) -> bool {
        let due = NEW_LISTS_MIN.max(self.kept).max(znodes / ZNODES_PER_NEW_LIST);
        self.credit > 0 && self.new_lists >= due
    }

    fn begin(&mut self) {
        self.phase = Phase::Mark(Space::Znode, space(Space::Znode));
        self.new_lists = 0;
        self.kept = 0;
    }

    fn end(&mut self) {
        self.phase = Phase::Idle;
        self.credit = 0;
        self.marked = FastSet::default();
    }
}

impl Tree {
    /// Goes on with the sweep, or begins one if it is due. Right behind a freeze only.
    pub(super) fn sweep_acls(&mut self) {
        let sweep = &mut self.acls.sweep;
        if matches!(sweep.phase, Phase::Idle) {
            if !sweep.is_due(self.meta.znodes) {
                // Nothing is saved up for the next one but what its own lists pay.
                sweep.credit = sweep.credit.min(ENTRIES_PER_FREEZE_MAX);
                return;
            }
            sweep.begin();
        }
        let mut budget = sweep.credit.min(ENTRIES_PER_FREEZE_MAX);
        sweep.credit -= budget;
        while budget > 0 {
            match std::mem::take(&mut self.acls.sweep.phase) {
                Phase::Idle => break,
                Phase::Mark(space, from) => self.mark_some(space, from, &mut budget),
                Phase::Drop(from) => self.drop_some(from, &mut budget),
            }
        }
    }

    fn mark_some(&mut self, in_space: Space, mut from: Vec<u8>, budget: &mut u64) {
        let sweep = &mut self.acls.sweep;
        let mut last = AclId::OPEN;
        let is_done = export::walk(&self.store, in_space, &mut from, |key, value| {
            let (head, _) = Head::of(&Key::from_bytes(key), value);
            if head.acl != last && head.acl != AclId::OPEN {
                sweep.marked.insert(head.acl.0);
                last = head.acl;
            }
            *budget = budget.saturating_sub(1);
            *budget > 0
        });
        sweep.phase = match in_space {
            _ if !is_done => Phase::Mark(in_space, from),
            Space::Znode => Phase::Mark(Space::LongZnode, space(Space::LongZnode)),
            _ => Phase::Drop(space(Space::Acl)),
        };
    }

    fn drop_some(&mut self, mut from: Vec<u8>, budget: &mut u64) {
        let sweep = &mut self.acls.sweep;
        let mut dropped = Vec::new();
        let is_done = export::walk(&self.store, Space::Acl, &mut from, |key, _| {
            let id = parse_id(&key[1..]);
            if sweep.marked.contains(&id.0) {
                sweep.kept += 1;
                *budget = budget.saturating_sub(1);
            } else {
                dropped.push(id);
                *budget = budget.saturating_sub(ENTRIES_PER_DROP);
            }
            *budget > 0
        });
        if is_done {
            sweep.end();
        } else {
            sweep.phase = Phase::Drop(from);
        }
        for id in &dropped {
            self.drop_list(*id);
        }
        self.acls.forget(|id| dropped.binary_search(&id).is_ok());
    }

    fn drop_list(&mut self, id: AclId) {
        let list = super::acl(&self.store, id);
        let prefix = keyspace::acl_hash_prefix(list.as_bytes());
        drop(list);
        let is_it = |found: &[u8]| parse_id(found) == id;
        let spot = keyspace::locate_hashed(&self.store, &prefix, is_it);
        let Spot::Occupied { key, value } = spot else { unreachable!("each list has its hash") };
        drop(value);
        self.store.delete(key.as_bytes());
        self.store.delete(keyspace::acl_key(id.0).as_bytes());
    }
}

/// The first key of a space.
fn space(space: Space) -> Vec<u8> {
    Key::new(space).as_bytes().to_vec()
}

/// Walks the ACL lists that a version has.
pub struct AclLists<'a> {
    cursor: crate::btree::Cursor<'a>,
}

/// All lists with an id of their own, those included that no znode has any more.
pub fn acl_lists(view: &(impl View + ?Sized)) -> AclLists<'_> {
    AclLists { cursor: view.cursor(Key::new(Space::Acl).as_bytes()) }
}

impl AclLists<'_> {
    /// The next list.
    pub fn next_list(&mut self) -> Option<(AclId, AclBytes<'static>)> {
        let (key, list) = self.cursor.next_entry()?;
        let id = key.strip_prefix(&[Space::Acl as u8])?;
        Some((parse_id(id), AclBytes::from_checked(list.into_owned().into())))
    }
}
