//! Interned ACL lists: a znode holds the id of its list, and equal lists have one id.
//!
//! Lists that no znode uses any more stay until a sweep drops them: `acl_sweep`.

use std::borrow::Cow;

use crate::acl::AclBytes;
use crate::btree::View;
use crate::keyspace::{self, Spot};

use super::acl_sweep::Sweep;
use super::store::Store;

/// An interned ACL list. It resolves in every version that has a znode with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AclId(pub u32);

impl AclId {
    /// No list, or `world:anyone` with all permissions, which is how no list is shown: everyone
    /// may do everything. Most znodes have it, and it resolves without a look-up.
    pub const OPEN: Self = Self(0);
}

/// A null vector: what a transaction without a list has in its place.
const NULL_LIST: &[u8] = &[0xff; 4];

/// `world:anyone`, all permissions.
const OPEN_LIST: &[u8] = b"\0\0\0\x01\0\0\0\x1f\0\0\0\x05world\0\0\0\x06anyone";

/// How many lists the interner remembers. A workload uses few, again and again.
const RECENT_MAX: usize = 8;

/// The list with this id.
pub fn acl(view: &impl View, id: AclId) -> AclBytes<'_> {
    if id == AclId::OPEN {
        return AclBytes::from_checked(Cow::Borrowed(OPEN_LIST));
    }
    let list = view.get(keyspace::acl_key(id.0).as_bytes());
    AclBytes::from_checked(list.expect("the list of a znode is in each version that has it"))
}

/// Recently interned lists, so that most creates need no look-up.
#[derive(Debug, Default)]
pub(super) struct Interner {
    recent: Vec<(Vec<u8>, AclId)>,
    next: usize,
    pub(super) sweep: Sweep,
}

impl Interner {
    /// For a tree whose newest list has this id.
    pub(super) fn of(newest: u32) -> Self {
        Self { sweep: Sweep::of(newest), ..Self::default() }
    }

    /// The id of `list`, a new one if there is none; `newest` is the newest id so far.
    pub(super) fn intern(
        &mut self,
        store: &mut Store,
        newest: &mut u32,
        list: &AclBytes<'_>,
    ) -> AclId {
        // Compat: ReferenceCountedACLCache.convertAcls: null is the open list, an empty one is
        // a list like any other. There, an open list that is not null has an index of its own,
        // which nobody can tell from none.
        let list = list.as_bytes();
        if list == NULL_LIST || list == OPEN_LIST {
            return AclId::OPEN;
        }
        if let Some((_, id)) = self.recent.iter().find(|(recent, _)| recent == list) {
            self.sweep.mark(*id);
            return *id;
        }
        let id = self.look_up(store, newest, list);
        self.sweep.mark(id);
        self.remember(list, id);
        id
    }

    /// Forgets everything: ids that a rollback took back must not be handed out again.
    pub(super) fn clear(&mut self) {
        self.forget(|_| true);
        self.sweep.interrupt();
    }

    /// Forgets recent lists that are there no more.
    pub(super) fn forget(&mut self, is_gone: impl Fn(AclId) -> bool) {
        self.recent.retain(|(_, id)| !is_gone(*id));
        self.next = 0;
    }

    fn look_up(&mut self, store: &mut Store, newest: &mut u32, list: &[u8]) -> AclId {
        let prefix = keyspace::acl_hash_prefix(list);
        let has_this_list = |id: &[u8]| {
            let id = parse_id(id);
            store.get(keyspace::acl_key(id.0).as_bytes()).is_some_and(|found| *found == *list)
        };
        match keyspace::locate_hashed(store, &prefix, has_this_list) {
            Spot::Occupied { value, .. } => parse_id(&value),
            Spot::Vacant(key) => {
                *newest = free_id(store, *newest);
                self.sweep.count_new();
                store.put(keyspace::acl_key(*newest).as_bytes(), list);
                store.put(key.as_bytes(), &newest.to_be_bytes());
                AclId(*newest)
            }
        }
    }

    fn remember(&mut self, list: &[u8], id: AclId) {
        if self.recent.len() < RECENT_MAX {
            self.recent.push((list.to_vec(), id));
            return;
        }
        let (recent, recent_id) = &mut self.recent[self.next];
        recent.clear();
        recent.extend_from_slice(list);
        *recent_id = id;
        self.next = (self.next + 1) % RECENT_MAX;
    }
}

/// The next id behind `newest` that no list has. They begin anew when all were used once.
fn free_id(store: &Store, newest: u32) -> u32 {
    let mut id = newest;
    loop {
        id = id.wrapping_add(1);
        // There is no memory for so many lists that this would go round.
        if id != AclId::OPEN.0 && store.get(keyspace::acl_key(id).as_bytes()).is_none() {
            return id;
        }
    }
}

pub(super) fn parse_id(bytes: &[u8]) -> AclId {
    AclId(u32::from_be_bytes(bytes.try_into().expect("the id of a list has 4 bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::{ALL, Acl, Id, READ};

    #[test]
    fn equal_lists_have_one_id_and_resolve() {
        let mut store = Store::default();
        let mut newest = 0;
        let mut interner = Interner::default();
        let list = |number: usize| {
            AclBytes::encode(&[Acl { perms: READ, id: Id::new("digest", format!("u{number}:x")) }])
        };
        let ids: Vec<AclId> =
            (0..20).map(|n| interner.intern(&mut store, &mut newest, &list(n))).collect();
        for (number, &id) in ids.iter().enumerate() {
            assert_eq!(interner.intern(&mut store, &mut newest, &list(number)), id);
            assert_eq!(acl(&store, id), list(number));
        }
        assert_eq!(newest, 20);
    }

    #[test]
    fn ids_begin_anew_and_pass_over_those_in_use() {
        let mut store = Store::default();
        let mut newest = 0;
        let mut interner = Interner::default();
        let mut intern = |newest: &mut u32, number: usize| {
            let list = [Acl { perms: READ, id: Id::new("digest", format!("u{number}:x")) }];
            interner.intern(&mut store, newest, &AclBytes::encode(&list))
        };
        assert_eq!((intern(&mut newest, 1), intern(&mut newest, 2)), (AclId(1), AclId(2)));
        newest = u32::MAX - 1;
        assert_eq!((intern(&mut newest, 3), intern(&mut newest, 4)), (AclId(u32::MAX), AclId(3)));
        assert_eq!((intern(&mut newest, 1), newest), (AclId(1), 3));
    }

    #[test]
    fn no_list_is_open_and_an_empty_one_is_a_list() {
        let mut store = Store::default();
        let mut newest = 0;
        let mut interner = Interner::default();
        let null = AclBytes::from_checked(Cow::Borrowed(NULL_LIST));
        assert_eq!(interner.intern(&mut store, &mut newest, &null), AclId::OPEN);
        let everyone = [Acl { perms: ALL, id: Id::new("world", "anyone") }];
        assert_eq!(acl(&store, AclId::OPEN).decode(), everyone);
        assert_eq!(
            interner.intern(&mut store, &mut newest, &AclBytes::encode(&everyone)),
            AclId::OPEN
        );
        let empty = interner.intern(&mut store, &mut newest, &AclBytes::encode(&[]));
        assert_eq!((empty, acl(&store, empty).decode()), (AclId(1), Vec::new()));
    }
}
