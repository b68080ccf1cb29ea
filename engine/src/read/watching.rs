//! Reads that only concern watches.

use super::{ReadContext, Watches};
use crate::btree::View;
use crate::error_code::ErrorCode;
use crate::jute::Reader;
use crate::records::{Modes, SetWatches, WatchEvent, WatchKind};
use crate::tree::{self, EventType};

/// Registers the watches of an earlier connection again. What happened in between is told at
/// once, in place of the watch.
///
// Compat: DataTree.setWatches - these events have no zxid, and no ACL list is asked.
pub(super) fn set_watches(
    view: &impl View,
    context: &ReadContext<'_>,
    reader: &mut Reader<'_>,
    with_persistent: bool,
    watches: &mut impl Watches,
    out: &mut Vec<u8>,
) -> Result<(), ErrorCode> {
    let request = SetWatches::read(reader, with_persistent)?;
    let relative_zxid = request.relative_zxid;
    let mut watch_or_tell = |missed: Option<EventType>, modes, path: &str| match missed {
        None => watches.add(modes, path),
        Some(event) => {
            let event = WatchEvent { kind: event.to_wire(), path: path.into() };
            event.write_notification(-1, out);
        }
    };
    for path in request.data.iter() {
        let missed = match tree::znode(view, &path) {
            None => Some(EventType::NodeDeleted),
            Some(znode) if znode.stat().mzxid.to_wire() > relative_zxid => {
                Some(EventType::NodeDataChanged)
            }
            Some(_) => None,
        };
        watch_or_tell(missed, Modes::DATA, &path);
    }
    for path in request.exist.iter() {
        let missed = tree::znode(view, &path).map(|_| EventType::NodeCreated);
        watch_or_tell(missed, Modes::DATA, &path);
    }
    for path in request.child.iter() {
        let missed = match tree::znode(view, &path) {
            None => Some(EventType::NodeDeleted),
            Some(znode) if znode.stat().pzxid.to_wire() > relative_zxid => {
                Some(EventType::NodeChildrenChanged)
            }
            Some(_) => None,
        };
        watch_or_tell(missed, Modes::CHILD, &path);
    }
    for path in request.persistent.iter() {
        watch_or_tell(None, Modes::PERSISTENT, &path);
    }
    for path in request.persistent_recursive.iter() {
        watch_or_tell(None, Modes::RECURSIVE, &path);
    }
    context.reply_bare(out, 0);
    Ok(())
}

/// Adds a persistent watch; the znode need not exist.
pub(super) fn add_watch(
    context: &ReadContext<'_>,
    reader: &mut Reader<'_>,
    watches: &mut impl Watches,
    out: &mut Vec<u8>,
) -> Result<(), ErrorCode> {
    let WatchKind { path, kind } = WatchKind::read(reader)?;
    let modes = Modes::from_add_mode(kind).ok_or(ErrorCode::MarshallingError)?;
    watches.add(modes, &path);
    // Compat: the body is an ErrorResponse, also where there is no error.
    context.reply(out, |writer| writer.i32(0));
    Ok(())
}

pub(super) fn check_watches(
    context: &ReadContext<'_>,
    reader: &mut Reader<'_>,
    watches: &impl Watches,
    out: &mut Vec<u8>,
) -> Result<(), ErrorCode> {
    let (path, modes) = read_kind(reader)?;
    if !watches.contains(modes, &path) {
        return Err(ErrorCode::NoWatcher);
    }
    context.reply_bare(out, 0);
    Ok(())
}

pub(super) fn remove_watches(
    context: &ReadContext<'_>,
    reader: &mut Reader<'_>,
    watches: &mut impl Watches,
    out: &mut Vec<u8>,
) -> Result<(), ErrorCode> {
    let (path, modes) = read_kind(reader)?;
    if !watches.remove(modes, &path) {
        return Err(ErrorCode::NoWatcher);
    }
    context.reply_bare(out, 0);
    Ok(())
}

fn read_kind<'a>(reader: &mut Reader<'a>) -> Result<(std::borrow::Cow<'a, str>, Modes), ErrorCode> {
    let WatchKind { path, kind } = WatchKind::read(reader)?;
    let modes = Modes::from_watcher_type(kind).ok_or(ErrorCode::MarshallingError)?;
    Ok((path, modes))
}
