//! Writes sessions, ACL lists and znodes of a version as snapshots and SNAP streams have them.

use crate::btree::View;
use crate::jute::Writer;
use crate::keyspace::{Key, Space};
use crate::stat::Stat;
use crate::tree::{self, AclId, ExportCursor};

use super::{END_PATH, OPEN_INDEX};

/// Writes the tree of one version in pieces. Znodes go by depth, so a parent is always in front
/// of its children: that is all that readers ask for.
#[derive(Debug)]
pub struct TreeWriter {
    next: Next,
}

#[derive(Debug)]
enum Next {
    Counts,
    /// Entries of a space, behind this key.
    Sessions(Vec<u8>),
    Acls(Vec<u8>),
    Znodes(ExportCursor),
    Nothing,
}

impl Default for TreeWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl TreeWriter {
    /// A writer at the beginning of a tree.
    pub fn new() -> Self {
        Self { next: Next::Counts }
    }

    /// Appends about `bytes` more of the tree, at least one record; true when it is complete.
    /// Each call must bring the same version.
    pub fn write(&mut self, view: &impl View, bytes: usize, out: &mut Vec<u8>) -> bool {
        let end = out.len().saturating_add(bytes);
        loop {
            match &mut self.next {
                Next::Counts => {
                    let count = u32::try_from(tree::counters(view).sessions_count);
                    let count = count.expect("fewer sessions than ids of one server");
                    Writer::new(out).i32(count.cast_signed());
                    self.next = Next::Sessions(Key::new(Space::Session).as_bytes().to_vec());
                }
                Next::Sessions(from) => {
                    if !write_sessions(view, from, end, out) {
                        return false;
                    }
                    Writer::new(out).i32(count_acls(view));
                    self.next = Next::Acls(Key::new(Space::Acl).as_bytes().to_vec());
                }
                Next::Acls(from) => {
                    if !write_acls(view, from, end, out) {
                        return false;
                    }
                    self.next = Next::Znodes(ExportCursor::new());
                }
                Next::Znodes(cursor) => {
                    let write = |path: &str, data: Option<&[u8]>, acl: AclId, stat: &Stat| {
                        write_znode(path, data, acl, stat, out);
                        out.len() < end
                    };
                    if !cursor.visit(view, write) {
                        return false;
                    }
                    Writer::new(out).string(END_PATH);
                    self.next = Next::Nothing;
                }
                Next::Nothing => return true,
            }
        }
    }
}

fn write_sessions(view: &impl View, from: &mut Vec<u8>, end: usize, out: &mut Vec<u8>) -> bool {
    tree::walk(view, Space::Session, from, |key, timeout| {
        // Both are big-endian here as there.
        out.extend_from_slice(&key[1..]);
        out.extend_from_slice(timeout);
        out.len() < end
    })
}

fn count_acls(view: &impl View) -> i32 {
    let mut count = 0;
    let mut from = Key::new(Space::Acl).as_bytes().to_vec();
    tree::walk(view, Space::Acl, &mut from, |_, _| {
        count += 1;
        true
    });
    count
}

fn write_acls(view: &impl View, from: &mut Vec<u8>, end: usize, out: &mut Vec<u8>) -> bool {
    tree::walk(view, Space::Acl, from, |key, list| {
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&key[1..]);
        out.extend_from_slice(list);
        out.len() < end
    })
}

/// A path and the record `DataNode`.
fn write_znode(path: &str, data: Option<&[u8]>, acl: AclId, stat: &Stat, out: &mut Vec<u8>) {
    let mut writer = Writer::new(out);
    writer.string(path);
    writer.buf_or_null(data);
    writer.i64(if acl == AclId::OPEN { OPEN_INDEX } else { i64::from(acl.0) });
    writer.i64(stat.czxid.to_wire());
    writer.i64(stat.mzxid.to_wire());
    writer.i64(stat.ctime_ms);
    writer.i64(stat.mtime_ms);
    writer.i32(stat.version);
    writer.i32(stat.cversion);
    writer.i32(stat.aversion);
    writer.i64(stat.ephemeral_owner);
    writer.i64(stat.pzxid.to_wire());
}
