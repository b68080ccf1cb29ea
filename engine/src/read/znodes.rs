//! Reads of a znode: data, stat, ACL list, children.

use super::{ReadContext, Watches};
use crate::acl::{ADMIN, READ};
use crate::btree::View;
use crate::error_code::ErrorCode;
use crate::jute::{Reader, Writer};
use crate::permission;
use crate::records::{Modes, PathWatch};
use crate::stat::WIRE_STAT_BYTES;
use crate::tree;

/// Length prefix and header of a reply, length prefix of its data.
const DATA_REPLY_BYTES: usize = 4 + 16 + 4;

pub(super) fn get_data(
    view: &impl View,
    context: &ReadContext<'_>,
    reader: &mut Reader<'_>,
    watches: &mut impl Watches,
    out: &mut Vec<u8>,
) -> Result<(), ErrorCode> {
    let PathWatch { path, watch } = PathWatch::read(reader)?;
    let znode = context.find(view, &path)?;
    if watch {
        watches.add(Modes::DATA, &path);
    }
    out.reserve(DATA_REPLY_BYTES + znode.data_bytes() + WIRE_STAT_BYTES);
    context.reply(out, |writer| {
        let stat = znode.wire_stat();
        writer.buf_or_null(znode.into_data(view).as_deref());
        stat.encode(writer);
    });
    Ok(())
}

/// A watch on a znode that is not there waits for its creation.
pub(super) fn exists(
    view: &impl View,
    context: &ReadContext<'_>,
    reader: &mut Reader<'_>,
    watches: &mut impl Watches,
    out: &mut Vec<u8>,
) -> Result<(), ErrorCode> {
    let PathWatch { path, watch } = PathWatch::read(reader)?;
    if path.contains('\0') {
        return Err(ErrorCode::BadArguments);
    }
    let found = context.find(view, &path);
    if watch && !matches!(found, Err(ErrorCode::NoAuth)) {
        watches.add(Modes::DATA, &path);
    }
    let stat = found?.wire_stat();
    context.reply(out, |writer| stat.encode(writer));
    Ok(())
}

pub(super) fn get_children(
    view: &impl View,
    context: &ReadContext<'_>,
    reader: &mut Reader<'_>,
    watches: &mut impl Watches,
    out: &mut Vec<u8>,
) -> Result<(), ErrorCode> {
    let PathWatch { path, watch } = PathWatch::read(reader)?;
    context.find(view, &path)?;
    context.try_reply(out, |writer, end| write_children(view, &path, writer, end))?;
    if watch {
        watches.add(Modes::CHILD, &path);
    }
    Ok(())
}

pub(super) fn get_children2(
    view: &impl View,
    context: &ReadContext<'_>,
    reader: &mut Reader<'_>,
    watches: &mut impl Watches,
    out: &mut Vec<u8>,
) -> Result<(), ErrorCode> {
    let PathWatch { path, watch } = PathWatch::read(reader)?;
    let stat = context.find(view, &path)?.wire_stat();
    context.try_reply(out, |writer, end| {
        write_children(view, &path, writer, end)?;
        stat.encode(writer);
        Ok(())
    })?;
    if watch {
        watches.add(Modes::CHILD, &path);
    }
    Ok(())
}

/// Appends the names of the children, in one walk; fails soon behind `end`.
pub(super) fn write_children(
    view: &impl View,
    path: &str,
    writer: &mut Writer<'_>,
    end: usize,
) -> Result<(), ErrorCode> {
    let names = writer.begin_vector();
    let mut count = 0;
    let mut children = tree::children(view, path);
    while let Some(name) = children.next_name() {
        writer.string(name);
        count += 1;
        if writer.position() > end {
            return Err(ErrorCode::MarshallingError);
        }
    }
    writer.end_vector(names, count);
    Ok(())
}

/// Who may read the list but not change it does not see the hashes of passwords.
pub(super) fn get_acl(
    view: &impl View,
    context: &ReadContext<'_>,
    reader: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ErrorCode> {
    let path = reader.string("path")?;
    let znode = tree::znode(view, &path).ok_or(ErrorCode::NoNode)?;
    context.demand(view, &znode, READ | ADMIN)?;
    let list = tree::acl(view, znode.acl());
    let may_see_all = context.demand(view, &znode, ADMIN).is_ok();
    let list = if may_see_all { list } else { permission::masked(&list) };
    context.reply(out, |writer| {
        writer.bytes(list.as_bytes());
        znode.wire_stat().encode(writer);
    });
    Ok(())
}

/// Counts the znodes below.
///
// Compat: DataTree.getAllChildrenNumber - the root has two entries in its table, "" and "/". It
// does not count the latter below itself, but does below the former.
pub(super) fn get_all_children_number(
    view: &impl View,
    context: &ReadContext<'_>,
    reader: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ErrorCode> {
    let path = reader.string("path")?;
    context.find(view, &path)?;
    let number = match &*path {
        "/" => tree::counters(view).znode_count.saturating_sub(2),
        "" => tree::counters(view).znode_count.saturating_sub(1),
        _ => tree::descendants_count(view, &path),
    };
    context.reply(out, |writer| writer.i32(number as i32));
    Ok(())
}
