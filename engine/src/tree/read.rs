//! Reading ranges of the state, of the head or of a version, on any thread.

use crate::btree::{Cursor, View};
use crate::ids::SessionId;
use crate::keyspace::{self, Key, Space, Spot};

use super::path;
use super::znode::znode;

/// Walks the names of a znode's children, in no promised order.
pub struct Children<'a, V: ?Sized> {
    view: &'a V,
    parent: &'a str,
    /// How many are still to come.
    remaining: u32,
    range: Option<Range<'a>>,
    name: String,
}

/// Part of the children: those with short keys come first, then those with hashed ones.
struct Range<'a> {
    cursor: Cursor<'a>,
    prefix: Key,
    is_long: bool,
}

/// The children of a znode; none if it does not exist.
pub fn children<'a, V: View + ?Sized>(view: &'a V, path: &'a str) -> Children<'a, V> {
    let count = znode(view, path).map_or(0, |znode| znode.children_count());
    children_of(view, path::canonical(path), count)
}

/// The children of a canonical path that has `count` of them.
pub(super) fn children_of<'a, V: View + ?Sized>(
    view: &'a V,
    parent: &'a str,
    count: u32,
) -> Children<'a, V> {
    let short = keyspace::children_prefix(parent).filter(|_| count > 0);
    let range = short.map(|prefix| Range::new(view, prefix, false));
    Children { view, parent, remaining: count, range, name: String::new() }
}

impl<'a> Range<'a> {
    fn new(view: &'a (impl View + ?Sized), prefix: Key, is_long: bool) -> Self {
        Self { cursor: view.cursor(prefix.as_bytes()), prefix, is_long }
    }

    /// Puts the next child's name into `name`, if there is one.
    fn next(&mut self, parent: &str, name: &mut String) -> bool {
        name.clear();
        while let Some((key, value)) = self.cursor.next_entry() {
            let Some(rest) = key.strip_prefix(self.prefix.as_bytes()) else { return false };
            if !self.is_long {
                push_text(rest, name);
                return true;
            }
            // The parent's hash may be another's too.
            let (path, _) = keyspace::stored_path(&value);
            if let Some([b'/', rest @ ..]) = path.strip_prefix(parent.as_bytes())
                && !rest.contains(&b'/')
            {
                push_text(rest, name);
                return true;
            }
        }
        false
    }
}

impl<V: View + ?Sized> Children<'_, V> {
    /// The next name.
    pub fn next_name(&mut self) -> Option<&str> {
        while self.remaining > 0 {
            if let Some(range) = &mut self.range {
                if range.next(self.parent, &mut self.name) {
                    self.remaining -= 1;
                    return Some(&self.name);
                }
                assert!(!range.is_long, "a znode has as many children as it counts");
            }
            let prefix = keyspace::long_children_prefix(self.parent);
            self.range = Some(Range::new(self.view, prefix, true));
        }
        None
    }
}

/// Walks paths of an index: ephemerals of a session, containers, TTL znodes.
pub struct Paths<'a> {
    cursor: Cursor<'a>,
    prefix: Key,
    path: String,
}

/// The paths of a session's ephemerals.
pub fn ephemerals(view: &(impl View + ?Sized), session: SessionId) -> Paths<'_> {
    paths(view, keyspace::ephemerals_prefix(session))
}

/// The paths of all containers.
pub fn containers(view: &(impl View + ?Sized)) -> Paths<'_> {
    paths(view, Key::new(Space::Container))
}

/// The paths of all TTL znodes.
pub fn ttls(view: &(impl View + ?Sized)) -> Paths<'_> {
    paths(view, Key::new(Space::Ttl))
}

fn paths(view: &(impl View + ?Sized), prefix: Key) -> Paths<'_> {
    Paths { cursor: view.cursor(prefix.as_bytes()), prefix, path: String::new() }
}

impl<'a> Paths<'a> {
    /// Goes on behind `path`, which need not be there.
    pub fn go_behind(&mut self, view: &'a (impl View + ?Sized), path: &str) {
        let (key, is_there) = match keyspace::locate_indexed(view, self.prefix.clone(), path) {
            Spot::Occupied { key, .. } => (key, true),
            Spot::Vacant(key) => (key, false),
        };
        self.cursor = view.cursor(key.as_bytes());
        if is_there {
            self.cursor.next_entry();
        }
    }

    /// The next path.
    pub fn next_path(&mut self) -> Option<&str> {
        let (key, value) = self.cursor.next_entry()?;
        let rest = key.strip_prefix(self.prefix.as_bytes())?;
        self.path.clear();
        push_text(keyspace::indexed_path(rest, &value), &mut self.path);
        Some(&self.path)
    }
}

/// A session's timeout, if it exists.
pub fn session(view: &(impl View + ?Sized), session: SessionId) -> Option<i32> {
    let value = view.get(keyspace::session_key(session).as_bytes())?;
    Some(parse_timeout(&value))
}

/// Walks the sessions, in ascending order of the unsigned id.
pub struct Sessions<'a> {
    cursor: Cursor<'a>,
}

/// All sessions.
pub fn sessions(view: &(impl View + ?Sized)) -> Sessions<'_> {
    Sessions { cursor: view.cursor(Key::new(Space::Session).as_bytes()) }
}

impl Sessions<'_> {
    /// The next session, and its timeout in milliseconds.
    pub fn next_session(&mut self) -> Option<(SessionId, i32)> {
        let (key, value) = self.cursor.next_entry()?;
        let id = key.strip_prefix(&[Space::Session as u8])?;
        let id = i64::from_be_bytes(id.try_into().expect("an id has 8 bytes"));
        Some((SessionId(id), parse_timeout(&value)))
    }
}

/// Count of the znodes below `path`, at any depth; 0 if it does not exist.
pub fn descendants_count(view: &(impl View + ?Sized), path: &str) -> u64 {
    let mut count = 0;
    visit_descendants(view, path::canonical(path), |_| count += 1);
    count
}

/// Visits the values of all znodes below a canonical path, behind the path that one with a hashed
/// key begins with.
pub(super) fn visit_descendants(
    view: &(impl View + ?Sized),
    path: &str,
    mut visit: impl FnMut(&[u8]),
) {
    // One range per level, until one is empty: nothing can be below it.
    for depth in keyspace::depth(path) + 1.. {
        let Some(prefix) = keyspace::level_prefix(depth, path) else { break };
        let mut cursor = view.cursor(prefix.as_bytes());
        let mut is_empty = true;
        while let Some((_, value)) =
            cursor.next_entry().filter(|(key, _)| key.starts_with(prefix.as_bytes()))
        {
            is_empty = false;
            visit(&value);
        }
        if is_empty {
            break;
        }
    }
    // Those with hashed keys are in no order that would help; there are hardly ever any.
    let prefix = Key::new(Space::LongZnode);
    let mut cursor = view.cursor(prefix.as_bytes());
    while let Some((_, value)) =
        cursor.next_entry().filter(|(key, _)| key.starts_with(prefix.as_bytes()))
    {
        let (stored, rest) = keyspace::stored_path(&value);
        if stored.strip_prefix(path.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'/')) {
            visit(rest);
        }
    }
}

pub(super) fn parse_timeout(value: &[u8]) -> i32 {
    i32::from_be_bytes(value.try_into().expect("a timeout has 4 bytes"))
}

fn push_text(bytes: &[u8], text: &mut String) {
    text.push_str(std::str::from_utf8(bytes).expect("paths in the map are text"));
}
