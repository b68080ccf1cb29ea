//! Walking all znodes of a version, parents before their children, in pieces.

use crate::btree::View;
use crate::keyspace::{self, Key, Space};
use crate::stat::Stat;

use super::AclId;
use super::znode::{Form, Head};

/// Where a walk stands. The view must be the same from call to call.
#[derive(Debug)]
pub struct ExportCursor {
    at: At,
}

#[derive(Debug)]
enum At {
    /// The next short key is not below this.
    Short(Vec<u8>),
    /// Hashed keys are in no order, so they are sorted by depth: first the next one.
    Long(std::vec::IntoIter<(usize, Vec<u8>)>),
}

impl Default for ExportCursor {
    fn default() -> Self {
        Self::new()
    }
}

impl ExportCursor {
    /// In front of the root.
    pub fn new() -> Self {
        Self { at: At::Short(Key::new(Space::Znode).as_bytes().to_vec()) }
    }

    /// Goes on until `visit` returns false, or to the end: then it is true. The root's path is
    /// empty.
    pub fn visit(
        &mut self,
        view: &impl View,
        mut visit: impl FnMut(&str, Option<&[u8]>, AclId, &Stat) -> bool,
    ) -> bool {
        if let At::Short(from) = &mut self.at {
            let whole = walk(view, Space::Znode, from, |key, value| {
                let path = keyspace::short_path(key);
                visit_znode(view, key, path, value, &mut visit)
            });
            if !whole {
                return false;
            }
            self.at = At::Long(long_keys(view));
        }
        let At::Long(keys) = &mut self.at else { return false };
        for (_, key) in keys {
            let value = view.get(&key).expect("the view is still the same");
            let (path, _) = keyspace::stored_path(&value);
            if !visit_znode(view, &key, path, &value, &mut visit) {
                return false;
            }
        }
        true
    }
}

/// Visits the entries of a space from the key `from`, which moves behind what was visited. True
/// at the end of the space, false if `visit` was.
pub(crate) fn walk(
    view: &impl View,
    space: Space,
    from: &mut Vec<u8>,
    mut visit: impl FnMut(&[u8], &[u8]) -> bool,
) -> bool {
    let mut cursor = view.cursor(from);
    while let Some((key, value)) = cursor.next_entry() {
        if key.first() != Some(&(space as u8)) {
            break;
        }
        if !visit(key, &value) {
            from.clear();
            from.extend_from_slice(key);
            // The smallest key above it.
            from.push(0);
            return false;
        }
    }
    true
}

fn visit_znode(
    view: &impl View,
    key: &[u8],
    path: &[u8],
    value: &[u8],
    visit: &mut impl FnMut(&str, Option<&[u8]>, AclId, &Stat) -> bool,
) -> bool {
    let key = Key::from_bytes(key);
    let (head, at) = Head::of(&key, value);
    let path = text(path);
    match head.form {
        Form::Null => visit(path, None, head.acl, &head.stat),
        Form::Inline => visit(path, Some(&value[at..]), head.acl, &head.stat),
        Form::Apart { .. } => {
            let data = view.get(key.data_key().as_bytes());
            let data = data.expect("data kept apart is written with its znode");
            visit(path, Some(&data), head.acl, &head.stat)
        }
    }
}

fn text(path: &[u8]) -> &str {
    std::str::from_utf8(path).expect("paths in the map are text")
}

/// The hashed keys by depth.
fn long_keys(view: &impl View) -> std::vec::IntoIter<(usize, Vec<u8>)> {
    let mut keys = Vec::new();
    let mut from = Key::new(Space::LongZnode).as_bytes().to_vec();
    walk(view, Space::LongZnode, &mut from, |key, value| {
        let (path, _) = keyspace::stored_path(value);
        keys.push((keyspace::depth(text(path)), key.to_vec()));
        true
    });
    keys.sort_unstable();
    keys.into_iter()
}
