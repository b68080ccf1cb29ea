//! The watches of one core: who waits for which change of which path.
//!
//! A watch belongs to a connection, not to a session. A connection has at most one entry per path,
//! a set of modes; what a trigger finds is that entry, so a connection gets one event per trigger
//! however many of its modes match.
//!
//! Invariants:
//!
//!   * `by_path[p]` holds slot s if `by_slot[s]` holds p, and its modes are not empty; else only as
//!     long as `leaving` has p of s
//!   * `count` is the sum of what ZooKeeper counts of all entries, those that are leaving too;
//!     `recursive` is the number of entries with a recursive watch

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::collections::KeyedMap;
use crate::path;
use crate::records::Modes;
use crate::tree::EventType;

/// The watches of all connections of one core, by their slots.
///
/// Paths are shared between the two indices; nothing here leaves the core, so a plain count does.
#[derive(Debug, Default)]
pub struct WatchTable {
    by_path: KeyedMap<Rc<str>, BTreeSet<u32>>,
    by_slot: BTreeMap<u32, BTreeMap<Rc<str>, Modes>>,
    /// What connections had that are gone: one may have millions.
    leaving: Vec<(u32, BTreeMap<Rc<str>, Modes>)>,
    count: usize,
    recursive: usize,
    /// Scratch for [`WatchTable::fire`].
    told: Vec<u32>,
}

impl WatchTable {
    /// No watches.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many watches there are, as ZooKeeper counts them: a persistent one is two.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The paths on which the connection in `slot` has more than a watch of the list of children,
    /// in order.
    pub fn data_paths_of(&self, slot: u32) -> impl Iterator<Item = &str> {
        let paths = self.by_slot.get(&slot).into_iter().flatten();
        paths
            .filter(|(_, modes)| modes.without(Modes::CHILD) != Modes::NONE)
            .map(|(path, _)| &**path)
    }

    /// Which of `modes` the connection in `slot` has on `path`.
    pub fn modes(&self, slot: u32, path: &str) -> Modes {
        self.by_slot.get(&slot).and_then(|paths| paths.get(path)).copied().unwrap_or_default()
    }

    /// Adds `modes` to what the connection in `slot` has on `path`.
    pub fn add(&mut self, slot: u32, path: &str, modes: Modes) {
        assert!(modes != Modes::NONE);
        let old = self.modes(slot, path);
        if old == Modes::NONE {
            let path: Rc<str> = match self.by_path.get_key_value(path) {
                Some((path, _)) => Rc::clone(path),
                None => path.into(),
            };
            self.by_path.entry(Rc::clone(&path)).or_default().insert(slot);
            self.by_slot.entry(slot).or_default().insert(path, modes);
        } else {
            let paths = self.by_slot.get_mut(&slot).expect("it has modes on this path");
            *paths.get_mut(path).expect("it has modes on this path") = old.with(modes);
        }
        self.recount(old, old.with(modes));
    }

    /// Takes `modes` from what the connection in `slot` has on `path`; whether it had any.
    pub fn remove(&mut self, slot: u32, path: &str, modes: Modes) -> bool {
        let old = self.modes(slot, path);
        if !old.has_any(modes) {
            return false;
        }
        let new = old.without(modes);
        let paths = self.by_slot.get_mut(&slot).expect("it has modes on this path");
        if new == Modes::NONE {
            paths.remove(path);
            if paths.is_empty() {
                self.by_slot.remove(&slot);
            }
            self.forget(slot, path);
        } else {
            *paths.get_mut(path).expect("it has modes on this path") = new;
        }
        self.recount(old, new);
        true
    }

    /// The connection in `slot` is gone: it has no watches any more. They are forgotten by and by.
    pub fn remove_slot(&mut self, slot: u32) {
        self.leaving.extend(self.by_slot.remove(&slot).map(|paths| (slot, paths)));
    }

    /// Whether watches of connections that are gone are still to be forgotten.
    pub fn has_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Forgets watches of connections that are gone, `most` of them at most.
    pub fn forget_leaving(&mut self, most: usize) {
        for _ in 0..most {
            let Some((slot, paths)) = self.leaving.last_mut() else { return };
            let slot = *slot;
            let Some((path, modes)) = paths.pop_first() else {
                self.leaving.pop();
                continue;
            };
            // The slot may have another connection, which has a watch there as well.
            if self.modes(slot, &path) == Modes::NONE {
                self.forget(slot, &path);
            }
            self.recount(modes, Modes::NONE);
        }
    }

    /// Finds whom `event` on `path` concerns, calls `tell` once for each in order of slots, and
    /// removes the one-shot watches that it used up.
    ///
    // Compat: DataTree.deleteNode, WatchManager.triggerWatch - a deletion goes to data watchers
    // first and to child watchers that were not told by then; recursive watches hear nothing of
    // NodeChildrenChanged.
    pub fn fire(&mut self, event: EventType, path: &str, mut tell: impl FnMut(u32)) {
        let (listening, used_up) = match event {
            EventType::NodeCreated | EventType::NodeDataChanged => {
                (Modes::DATA.with(Modes::PERSISTENT).with(Modes::RECURSIVE), Modes::DATA)
            }
            EventType::NodeDeleted => (Modes::ANY, Modes::DATA.with(Modes::CHILD)),
            EventType::NodeChildrenChanged => (Modes::CHILD.with(Modes::PERSISTENT), Modes::CHILD),
        };
        let mut told = std::mem::take(&mut self.told);
        self.listeners(path, listening, &mut told);
        let exact = told.len();
        if self.recursive > 0 && event != EventType::NodeChildrenChanged {
            for ancestor in ancestors(path) {
                self.listeners(ancestor, Modes::RECURSIVE, &mut told);
            }
        }
        for &slot in &told[..exact] {
            self.remove(slot, path, used_up);
        }
        told.sort_unstable();
        told.dedup();
        for slot in told.drain(..) {
            tell(slot);
        }
        self.told = told;
    }

    fn listeners(&self, path: &str, listening: Modes, told: &mut Vec<u32>) {
        let Some(slots) = self.by_path.get(path) else {
            return;
        };
        told.extend(slots.iter().filter(|&&slot| self.modes(slot, path).has_any(listening)));
    }

    fn forget(&mut self, slot: u32, path: &str) {
        // A later connection of the slot may have forgotten the same.
        let Some(slots) = self.by_path.get_mut(path) else { return };
        slots.remove(&slot);
        if slots.is_empty() {
            self.by_path.remove(path);
        }
    }

    fn recount(&mut self, old: Modes, new: Modes) {
        let recursive = |modes: Modes| usize::from(modes.has_any(Modes::RECURSIVE));
        self.count = self.count + new.count() - old.count();
        self.recursive = self.recursive + recursive(new) - recursive(old);
    }
}

/// The paths above `path`, nearest first, the root last.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| match path::parent(path) {
        _ if path.len() <= 1 => None,
        Some("") => Some(path::ROOT),
        parent => parent,
    })
    .skip(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds watches, fires an event, and returns who was told and how many watches are left.
    fn check(
        watches: &[(u32, &str, Modes)],
        event: EventType,
        path: &str,
        told: &[u32],
        left: usize,
    ) {
        let mut table = WatchTable::new();
        for &(slot, path, modes) in watches {
            table.add(slot, path, modes);
        }
        let mut slots = Vec::new();
        table.fire(event, path, |slot| slots.push(slot));
        assert_eq!((slots.as_slice(), table.count()), (told, left));
    }

    #[test]
    fn a_one_shot_watch_fires_once() {
        check(&[(1, "/a", Modes::DATA)], EventType::NodeDataChanged, "/a", &[1], 0);
        check(&[(1, "/a", Modes::DATA)], EventType::NodeChildrenChanged, "/a", &[], 1);
        check(&[(1, "/a", Modes::CHILD)], EventType::NodeChildrenChanged, "/a", &[1], 0);
        check(&[(1, "/a", Modes::DATA)], EventType::NodeDataChanged, "/a/b", &[], 1);
    }

    #[test]
    fn a_deletion_uses_up_both_kinds_and_tells_once() {
        let both = Modes::DATA.with(Modes::CHILD);
        check(
            &[(1, "/a", both), (2, "/a", Modes::CHILD)],
            EventType::NodeDeleted,
            "/a",
            &[1, 2],
            0,
        );
    }

    #[test]
    fn persistent_watches_stay() {
        check(&[(1, "/a", Modes::PERSISTENT)], EventType::NodeDeleted, "/a", &[1], 2);
        check(&[(1, "/a", Modes::PERSISTENT)], EventType::NodeChildrenChanged, "/a", &[1], 2);
    }

    #[test]
    fn recursive_watches_hear_of_the_subtree_but_not_of_child_lists() {
        let watches = [(1, "/", Modes::RECURSIVE), (2, "/a", Modes::RECURSIVE)];
        check(&watches, EventType::NodeCreated, "/a/b/c", &[1, 2], 2);
        check(&watches, EventType::NodeChildrenChanged, "/a", &[], 2);
        check(&watches, EventType::NodeDataChanged, "/ab", &[1], 2);
    }

    #[test]
    fn a_connection_with_several_matching_watches_is_told_once() {
        let watches = [(1, "/a", Modes::DATA.with(Modes::RECURSIVE)), (1, "/", Modes::RECURSIVE)];
        check(&watches, EventType::NodeDataChanged, "/a", &[1], 2);
    }

    #[test]
    fn watches_are_counted_per_table_as_zookeeper_has_them() {
        let mut table = WatchTable::new();
        let mut counts = Vec::new();
        for modes in [Modes::RECURSIVE, Modes::DATA, Modes::CHILD, Modes::PERSISTENT] {
            table.add(1, "/a", modes);
            counts.push(table.count());
        }
        table.add(1, "/b", Modes::PERSISTENT);
        counts.push(table.count());
        assert_eq!(counts, [1, 1, 2, 2, 4]);
    }

    #[test]
    fn removing_one_mode_keeps_the_others() {
        let mut table = WatchTable::new();
        table.add(1, "/a", Modes::DATA.with(Modes::PERSISTENT));
        assert!(table.remove(1, "/a", Modes::DATA));
        assert!(!table.remove(1, "/a", Modes::DATA));
        assert_eq!(table.modes(1, "/a"), Modes::PERSISTENT);
        table.add(2, "/a", Modes::CHILD);
        table.remove_slot(1);
        table.forget_leaving(10);
        assert_eq!((table.count(), table.by_path.len(), table.by_slot.len()), (1, 1, 1));
        table.remove_slot(2);
        table.forget_leaving(10);
        assert_eq!((table.count(), table.by_path.len(), table.by_slot.len()), (0, 0, 0));
    }

    #[test]
    fn who_is_gone_is_told_nothing_and_the_next_one_is_told_its_own() {
        let mut table = WatchTable::new();
        for path in ["/a", "/b", "/c"] {
            table.add(1, path, Modes::DATA);
        }
        table.remove_slot(1);
        table.add(1, "/b", Modes::PERSISTENT);
        table.add(1, "/c", Modes::DATA);
        let told = |table: &mut WatchTable, path| {
            let mut told = Vec::new();
            table.fire(EventType::NodeDataChanged, path, |slot| told.push(slot));
            told
        };
        assert!(told(&mut table, "/a").is_empty());
        assert_eq!(told(&mut table, "/b"), [1]);
        assert_eq!(told(&mut table, "/c"), [1]);
        table.forget_leaving(2);
        assert!(table.has_leaving());
        table.forget_leaving(10);
        assert!(!table.has_leaving());
        assert_eq!(told(&mut table, "/b"), [1]);
        assert_eq!((table.count(), table.by_path.len(), table.by_slot.len()), (2, 1, 1));
    }
}
