//! Interned ACL lists: a znode holds the id of its list, and equal lists have one id.
//!
//! Lists that no znode uses any more stay; the walk of a snapshot drops them.

use std::borrow::Cow;

use crate::acl::AclBytes;
use crate::btree::View;
use crate::keyspace::{self, Spot};

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
}

impl Interner {
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
            return *id;
        }
        let id = Self::look_up(store, newest, list);
        self.remember(list, id);
        id
    }

    /// Forgets everything: ids that a rollback took back must not be handed out again.
    pub(super) fn clear(&mut self) {
        self.recent.clear();
        self.next = 0;
    }

    fn look_up(store: &mut Store, newest: &mut u32, list: &[u8]) -> AclId {
        let prefix = keyspace::acl_hash_prefix(list);
        let has_this_list = |id: &[u8]| {
            let id = parse_id(id);
            store.get(keyspace::acl_key(id.0).as_bytes()).is_some_and(|found| *found == *list)
        };
        match keyspace::locate_hashed(store, &prefix, has_this_list) {
            Spot::Occupied { value, .. } => parse_id(&value),
            Spot::Vacant(key) => {
                *newest = newest.checked_add(1).expect("less than 2^32 lists are ever interned");
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

fn parse_id(bytes: &[u8]) -> AclId {
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
