//! Keys of the replicated state in the versioned map.
//!
//! The first byte says which space a key is in. Znodes are ordered by (depth, path), so that the
//! children of one are a contiguous range. The map takes keys of at most [`KEY_BYTES_MAX`]; a
//! path that does not fit is hashed, and its entry holds the path in front of its value.
//!
//! Invariant: correctness never rests on a hash. Entries of equal hash get different ordinals,
//! and a look-up compares the stored path.

use std::borrow::Cow;
use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};
use smallvec::SmallVec;

use crate::btree::View;
use crate::ids::SessionId;
use crate::path;

pub use crate::btree::KEY_BYTES_MAX;

/// Which kind of entry a key is of. The numbers are part of the snapshot format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Space {
    /// Counters, digest, applied zxid: one entry.
    Meta = 0x01,
    /// Znodes by (depth, path).
    Znode = 0x10,
    /// Their data, where it is kept apart.
    ZnodeData = 0x11,
    /// Znodes by (hash of the parent's path, hash of the name).
    LongZnode = 0x12,
    /// Their data, where it is kept apart.
    LongZnodeData = 0x13,
    /// Paths of ephemerals by (session, path).
    Ephemeral = 0x20,
    /// Sessions by id.
    Session = 0x21,
    /// Paths of containers.
    Container = 0x22,
    /// Paths of TTL znodes.
    Ttl = 0x23,
    /// ACL lists by id.
    Acl = 0x30,
    /// Ids of ACL lists by hash of the list.
    AclHash = 0x31,
}

/// Marks a hashed path in an index of paths; no path begins with it.
const HASHED: u8 = 0xff;

/// Depths below this take one byte; those above, which only short names reach, take two.
const DEPTH_ONE_BYTE: usize = 240;

/// Keys up to this length are on the stack. They are moved about: more would cost more.
const KEY_BYTES_INLINE: usize = 64;

/// A key.
#[derive(Clone)]
pub struct Key {
    bytes: SmallVec<[u8; KEY_BYTES_INLINE]>,
}

impl Key {
    /// A key of one space, with nothing else in it.
    pub fn new(space: Space) -> Self {
        Self::from_bytes(&[space as u8])
    }

    /// A key of the map again.
    ///
    /// # Panics
    /// If it is longer than [`KEY_BYTES_MAX`], which none is.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self::of([bytes])
    }

    /// Parts, one behind the other. Every look-up of a znode makes a key: in one go.
    fn of<const PARTS: usize>(parts: [&[u8]; PARTS]) -> Self {
        let len = parts.iter().map(|part| part.len()).sum();
        assert!(len <= KEY_BYTES_MAX, "the caller sees to the length");
        if len > KEY_BYTES_INLINE {
            return Self { bytes: SmallVec::from_vec(parts.concat()) };
        }
        let mut bytes = [0; KEY_BYTES_INLINE];
        let mut at = 0;
        for part in parts {
            bytes[at..][..part.len()].copy_from_slice(part);
            at += part.len();
        }
        Self { bytes: SmallVec::from_buf_and_len(bytes, len) }
    }

    /// Appends `bytes`.
    ///
    /// # Panics
    /// If the key would grow over [`KEY_BYTES_MAX`].
    pub fn push(&mut self, bytes: &[u8]) {
        assert!(self.bytes.len() + bytes.len() <= KEY_BYTES_MAX, "the caller sees to the length");
        self.bytes.extend_from_slice(bytes);
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether the entry's value begins with its path.
    pub fn is_long_znode(&self) -> bool {
        self.bytes[0] == Space::LongZnode as u8
    }

    /// Where the data of this znode is, if it is kept apart.
    #[must_use]
    pub fn data_key(&self) -> Self {
        let space = if self.is_long_znode() { Space::LongZnodeData } else { Space::ZnodeData };
        let mut key = self.clone();
        key.bytes[0] = space as u8;
        key
    }
}

/// The only key of the space of counters.
pub fn meta_key() -> Key {
    Key::new(Space::Meta)
}

/// The key of a session.
pub fn session_key(session: SessionId) -> Key {
    let mut key = Key::new(Space::Session);
    key.push(&session.0.to_be_bytes());
    key
}

/// The key of an ACL list.
pub fn acl_key(id: u32) -> Key {
    let mut key = Key::new(Space::Acl);
    key.push(&id.to_be_bytes());
    key
}

/// What the keys of all ACL lists with the hash of `list` begin with.
pub fn acl_hash_prefix(list: &[u8]) -> Key {
    let mut key = Key::new(Space::AclHash);
    key.push(&hash(list));
    key
}

/// What the keys of all ephemerals of a session begin with.
pub fn ephemerals_prefix(session: SessionId) -> Key {
    let mut key = Key::new(Space::Ephemeral);
    key.push(&session.0.to_be_bytes());
    key
}

/// The entry `ordinal` among those that begin with `prefix`.
pub fn with_ordinal(prefix: &Key, ordinal: u32) -> Key {
    let mut key = prefix.clone();
    key.push(&ordinal.to_be_bytes());
    key
}

/// What the short keys of all children of `parent` begin with, if there can be short ones.
///
/// `parent` is a canonical path: the root's is empty.
pub fn children_prefix(parent: &str) -> Option<Key> {
    level_prefix(depth(parent) + 1, parent)
}

/// What the keys of all children of `parent` begin with whose short keys do not fit.
pub fn long_children_prefix(parent: &str) -> Key {
    let mut key = Key::new(Space::LongZnode);
    key.push(&hash(parent.as_bytes()));
    key
}

/// What the short keys of all znodes of one depth below `path` begin with, if there can be any.
pub fn level_prefix(depth: usize, path: &str) -> Option<Key> {
    let (head, head_bytes) = znode_head(depth);
    if head_bytes + path.len().max(depth) + 1 > KEY_BYTES_MAX {
        return None;
    }
    Some(Key::of([&head[..head_bytes], path.as_bytes(), b"/"]))
}

/// The path in the short key of a znode.
pub fn short_path(key: &[u8]) -> &[u8] {
    let two_bytes = usize::from(key[1]) > DEPTH_ONE_BYTE;
    &key[if two_bytes { 3 } else { 2 }..]
}

/// Count of components of a canonical path.
pub fn depth(path: &str) -> usize {
    path.bytes().filter(|&byte| byte == b'/').count()
}

/// Where a path's entry is, or would be.
pub enum Spot<'a> {
    /// There is an entry.
    Occupied {
        /// Its key.
        key: Key,
        /// Its value, beginning with the path if the key is hashed.
        value: Cow<'a, [u8]>,
    },
    /// There is none; a new one gets this key.
    Vacant(Key),
}

/// The key of a znode that has a short one. `path` is canonical: the root's is empty.
pub fn short_znode_key(path: &str) -> Option<Key> {
    let (head, head_bytes) = znode_head(depth(path));
    let fits = head_bytes + path.len() <= KEY_BYTES_MAX;
    fits.then(|| Key::of([&head[..head_bytes], path.as_bytes()]))
}

/// Looks a znode up. `path` is canonical: the root's is empty.
pub fn locate_znode<'a>(view: &'a (impl View + ?Sized), path: &str) -> Spot<'a> {
    let Some(key) = short_znode_key(path) else {
        let split = path::last_slash(path).unwrap_or(0);
        let mut prefix = long_children_prefix(&path[..split]);
        prefix.push(&hash(&path.as_bytes()[split..]));
        return locate_hashed(view, &prefix, |value| stored_path(value).0 == path.as_bytes());
    };
    match view.get(key.as_bytes()) {
        Some(value) => Spot::Occupied { key, value },
        None => Spot::Vacant(key),
    }
}

/// Looks a path up in an index of paths, whose keys begin with `prefix`.
pub fn locate_indexed<'a>(view: &'a (impl View + ?Sized), mut prefix: Key, path: &str) -> Spot<'a> {
    if prefix.as_bytes().len() + path.len() > KEY_BYTES_MAX {
        prefix.push(&[HASHED]);
        prefix.push(&hash(path.as_bytes()));
        return locate_hashed(view, &prefix, |value| value == path.as_bytes());
    }
    prefix.push(path.as_bytes());
    match view.get(prefix.as_bytes()) {
        Some(value) => Spot::Occupied { key: prefix, value },
        None => Spot::Vacant(prefix),
    }
}

/// The path of an entry of an index, from what follows the prefix in its key, and its value.
pub fn indexed_path<'a>(rest_of_key: &'a [u8], value: &'a [u8]) -> &'a [u8] {
    if rest_of_key.first() == Some(&HASHED) { value } else { rest_of_key }
}

/// Whether a key that [`locate_indexed`] found stands for a path that is not in it.
pub fn is_hashed(key: &Key) -> bool {
    let prefix_bytes = if key.bytes[0] == Space::Ephemeral as u8 { 9 } else { 1 };
    key.as_bytes().get(prefix_bytes) == Some(&HASHED)
}

/// Looks among entries of equal hash for the one that `is_it` accepts.
pub fn locate_hashed<'a>(
    view: &'a (impl View + ?Sized),
    prefix: &Key,
    is_it: impl Fn(&[u8]) -> bool,
) -> Spot<'a> {
    let first = with_ordinal(prefix, 0);
    match view.get(first.as_bytes()) {
        Some(value) if is_it(&value) => return Spot::Occupied { key: first, value },
        _ => {}
    }
    // The first may have been deleted, or this is a collision.
    let mut vacant = 0;
    let mut found = None;
    let mut cursor = view.cursor(prefix.as_bytes());
    while let Some((key, value)) = cursor.next_entry() {
        let Some(ordinal) = key.strip_prefix(prefix.as_bytes()) else { break };
        let ordinal = u32::from_be_bytes(ordinal.try_into().expect("an ordinal has 4 bytes"));
        if is_it(&value) {
            found = Some(ordinal);
            break;
        }
        if ordinal == vacant {
            vacant += 1;
        }
    }
    let Some(ordinal) = found else { return Spot::Vacant(with_ordinal(prefix, vacant)) };
    let key = with_ordinal(prefix, ordinal);
    let value = view.get(key.as_bytes()).expect("the cursor was there");
    Spot::Occupied { key, value }
}

/// Splits the value of a long znode into its path and the rest.
pub fn stored_path(value: &[u8]) -> (&[u8], &[u8]) {
    let (len, rest) = value.split_first_chunk::<4>().expect("a long znode begins with a length");
    rest.split_at(u32::from_be_bytes(*len) as usize)
}

/// Begins the value of a long znode.
pub fn push_stored_path(path: &str, value: &mut Vec<u8>) {
    let len = u32::try_from(path.len()).expect("a path fits its packet");
    value.extend_from_slice(&len.to_be_bytes());
    value.extend_from_slice(path.as_bytes());
}

/// What short keys of znodes of one depth begin with, and how many bytes of it count: the order of
/// bytes is the order of depths.
fn znode_head(depth: usize) -> ([u8; 3], usize) {
    let space = Space::Znode as u8;
    if depth <= DEPTH_ONE_BYTE {
        return ([space, depth as u8, 0], 2);
    }
    let above = depth - DEPTH_ONE_BYTE - 1;
    ([space, (DEPTH_ONE_BYTE + 1 + above / 256) as u8, (above % 256) as u8], 3)
}

fn hash(bytes: &[u8]) -> [u8; 16] {
    let mut hasher = SipHasher24::new_with_keys(0x7269_6e67_6b65_6570, 0x6572_2070_6174_6873);
    hasher.write(bytes);
    hasher.finish128().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btree::Map;

    #[test]
    fn depths_are_ordered_and_children_are_a_range() {
        let key = |depth: usize| level_prefix(depth, "/a").unwrap();
        for depth in 2..500 {
            assert!(key(depth).as_bytes() < key(depth + 1).as_bytes(), "{depth}");
        }
        let Spot::Vacant(child) = locate_znode(&Map::new(), "/a/b") else { panic!("empty") };
        assert!(child.as_bytes().starts_with(children_prefix("/a").unwrap().as_bytes()));
    }

    #[test]
    fn the_longest_short_key_has_the_most_bytes() {
        let map = Map::new();
        let name = |bytes: usize| format!("/{}", "n".repeat(bytes - 1));
        let Spot::Vacant(key) = locate_znode(&map, &name(510)) else { panic!("empty") };
        assert_eq!((key.as_bytes().len(), key.is_long_znode()), (KEY_BYTES_MAX, false));
        let Spot::Vacant(key) = locate_znode(&map, &name(511)) else { panic!("empty") };
        assert_eq!((key.as_bytes().len(), key.is_long_znode()), (1 + 16 + 16 + 4, true));
        assert!(children_prefix(&name(509)).is_some() && children_prefix(&name(510)).is_none());
    }

    #[test]
    fn entries_of_equal_hash_are_told_apart() {
        let mut map = Map::new();
        let prefix = acl_hash_prefix(b"all the same");
        let behind = prefix.as_bytes().len();
        let find = |map: &Map, value: &[u8]| match locate_hashed(map, &prefix, |v| v == value) {
            Spot::Occupied { key, .. } => (true, key.as_bytes()[behind..].to_vec()),
            Spot::Vacant(key) => (false, key.as_bytes()[behind..].to_vec()),
        };
        for (ordinal, value) in [(0, b"a"), (1, b"b"), (2, b"c")] {
            assert_eq!(find(&map, value), (false, vec![0, 0, 0, ordinal]));
            map.put(with_ordinal(&prefix, u32::from(ordinal)).as_bytes(), value);
            assert_eq!(find(&map, value), (true, vec![0, 0, 0, ordinal]));
        }
        map.delete(with_ordinal(&prefix, 0).as_bytes());
        assert_eq!(find(&map, b"c"), (true, vec![0, 0, 0, 2]));
        assert_eq!(find(&map, b"a"), (false, vec![0, 0, 0, 0]));
        map.put(with_ordinal(&prefix, 0).as_bytes(), b"d");
        map.delete(with_ordinal(&prefix, 1).as_bytes());
        assert_eq!(find(&map, b"a"), (false, vec![0, 0, 0, 1]));
    }
}
